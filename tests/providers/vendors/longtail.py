"""The bytes of a hosted provider that any-llm reaches: OpenAI's dialect, with thoughts as such providers write them."""

import json
from typing import Any

from tests.providers.vendors import Answer

Json = dict[str, Any]
KEY = "sk-longtail-0123456789"
ERRORS: dict[str, tuple[int, str, str, str]] = {
    "invalid": (400, "invalid_request_error", "invalid_value", "Bad value."),
    "unauthorized": (401, "authentication_error", "invalid_api_key", "Wrong key."),
    "forbidden": (403, "permission_error", "forbidden", "No access to this model."),
    "not_found": (404, "not_found_error", "model_not_found", "No such model."),
    "rate_limited": (429, "rate_limit_error", "rate_limited", "Slow down."),
    "overloaded": (503, "overloaded_error", "overloaded", "Busy."),
    "internal": (500, "server_error", "internal", "It broke."),
    "too_long": (400, "invalid_request_error", "context_length_exceeded", "The maximum context length is 100 tokens."),
}


def event(value: Json) -> bytes:
    """One event of the stream."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: Json, finish: str | None = None, *, index: int = 0, **extra: Any) -> bytes:
    """One chunk of the stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    head = {"id": "u", "object": "chat.completion.chunk", "created": 1, "model": "x"}
    return event(head | {"choices": [choice]} | extra)


def refusal(kind: str) -> Json:
    """The error body."""
    _, name, code, message = ERRORS[kind]
    return {"error": {"message": message, "type": name, "code": code, "param": None}}


def usage(answer: Answer) -> Json:
    """The whole answer's counts."""
    entered, generated, cached, _ = answer.usage
    total = {"prompt_tokens": entered, "completion_tokens": generated, "total_tokens": entered + generated}
    return total | {"prompt_tokens_details": {"cached_tokens": cached}}


class Double:
    """Says answers and failures as such a provider does. The stream's last event is two: the library does not tell
    whether [DONE] came, so the finish is what ends an answer."""

    kind = "any-llm"
    stream_type = "text/event-stream"
    thinks = True
    environ = {"DOUBLE_LONGTAIL_KEY": KEY}

    def row(self, base: str) -> str:
        return (
            f'[[provider]]\nname = "double"\nkind = "any-llm"\nlibrary_provider = "deepinfra"\nbase_url = "{base}"\n'
            'api_key_env = "DOUBLE_LONGTAIL_KEY"\n'
        )

    def plain(self, answer: Answer) -> bytes:
        message: Json = {"role": "assistant", "content": answer.text or None}
        if answer.thinking:
            message["reasoning_content"] = answer.thinking
        if answer.calls:
            message["tool_calls"] = [_call(call, call[2]) for call in answer.calls]
        choice = {"index": 0, "message": message, "finish_reason": answer.finish}
        made = {"id": "u", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice]}
        return json.dumps(made | {"usage": usage(answer)}).encode()

    def events(self, answer: Answer) -> list[bytes]:
        end = chunk({}, answer.finish, usage=usage(answer)) + b"data: [DONE]\n\n"
        return [*(chunk(delta) for delta in _deltas(answer)), end]

    def usage_early(self, answer: Answer) -> list[bytes] | None:
        end = chunk({}, answer.finish) + b"data: [DONE]\n\n"
        return [*(chunk(delta, usage=usage(answer)) for delta in _deltas(answer)), end]

    def noise(self) -> list[bytes]:
        return [b": keep-alive\n\n", chunk({})]

    def error(self, kind: str) -> tuple[int, dict[str, str], bytes]:
        headers = {"content-type": "application/json"} | ({"retry-after": "7"} if kind == "rate_limited" else {})
        return ERRORS[kind][0], headers, json.dumps(refusal(kind)).encode()

    def error_event(self) -> bytes:
        return event(refusal("overloaded"))

    def request(self, body: bytes) -> dict[str, Any]:
        sent = json.loads(body)
        texts = [(message["role"], text) for message in sent["messages"] for text in _texts(message.get("content"))]
        return {
            "system": "\n".join(text for role, text in texts if role in ("system", "developer")),
            "texts": [text for role, text in texts if role not in ("system", "developer")],
            "tools": [tool["function"]["name"] for tool in sent.get("tools", ())],
            "max_tokens": sent.get("max_tokens", sent.get("max_completion_tokens")),
        }


def _deltas(answer: Answer) -> list[Json]:
    made: list[Json] = [{"role": "assistant", "content": ""}]
    made += [{"reasoning_content": cut} for cut in _cut(answer.thinking, answer.pieces)]
    made += [{"content": cut} for cut in _cut(answer.text, answer.pieces)]
    for at, call in enumerate(answer.calls):
        made.append({"tool_calls": [{"index": at} | _call(call, "")]})
        for cut in _cut(call[2], answer.pieces):
            made.append({"tool_calls": [{"index": at, "function": {"arguments": cut}}]})
    return made


def _call(call: tuple[str, str, str], arguments: str) -> Json:
    return {"id": call[0], "type": "function", "function": {"name": call[1], "arguments": arguments}}


def _cut(text: str, pieces: int) -> list[str]:
    size = -(-len(text) // pieces) or 1
    return [text[at : at + size] for at in range(0, len(text), size)]


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [part["text"] for part in content or () if part.get("type") == "text"]
