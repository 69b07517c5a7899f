"""What a run compares: a started server that answers the two chat requests, plain and streamed."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

MODEL = "bench"
PROMPT = "Write one sentence about rivers, and nothing else."
# As prompts are: lines, quotes and a letter beyond ASCII among them, which a gateway has to decode.
_PASSAGE = 'The ferry at Köln was late again.\n"It will come," said the man with the lamp, "when the water is calm."\n'


class Running(NamedTuple):
    """A started contestant: where and how to ask it, and whose CPU time it costs; ``keys`` are more
    than the one in the headers, for scenarios that ask as many apps."""

    port: int
    path: str
    headers: Mapping[str, str]
    version: str
    pid: int | None = None
    keys: tuple[str, ...] = ()


class Contestant(NamedTuple):
    """A name and how to start it: ``start(upstream_port, work_folder)`` gives a context that stops it on exit.

    Raises StartFailed with the reason when it cannot be installed or started.
    """

    name: str
    start: Callable[[int, Path], AbstractContextManager[Running]]


def request_text(running: Running, *, streamed: bool, prompt: str = PROMPT, model: str = MODEL) -> str:
    """The whole HTTP request, ready for the socket."""
    return head_text(running, body := body_text(streamed=streamed, prompt=prompt, model=model)) + body


def body_text(*, streamed: bool, prompt: str = PROMPT, model: str = MODEL) -> str:
    """The chat request: about 120 bytes with the prompt that is a short question."""
    chat = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 64}
    return json.dumps({**chat, "stream": True} if streamed else chat, separators=(",", ":"))


def long_prompt(size: int) -> str:
    """A prompt that takes about ``size`` bytes in the request."""
    return _PASSAGE * (size // len(json.dumps(_PASSAGE))) + PROMPT


def head_text(running: Running, body: str) -> str:
    """The head of a request with that body."""
    headers = {
        "host": f"127.0.0.1:{running.port}",
        "content-type": "application/json",
        "accept": "*/*",
        "user-agent": "penstock-bench",
        **running.headers,
        "content-length": str(len(body.encode())),
    }
    return f"POST {running.path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
