"""Finds out by small requests, through the real adapters, whether a target answers and what it can do."""

import asyncio
import base64
import struct
import time
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from penstock.domain.answer import EventStream
from penstock.domain.chat import BoundRequest
from penstock.domain.errors import PenstockError
from penstock.gateway.dispatch import Adapter
from penstock.gateway.wire import parse_chat
from penstock.providers.catalogue import Provider
from penstock.providers.images import ImageFetcher
from penstock.providers.registry import make_adapter, make_transport
from penstock.providers.spec import Bound

CAPABILITIES = ("streaming", "tools", "json_schema", "vision", "logprobs")
YES, NO, UNKNOWN = "yes", "no", "?"
_AT_ONCE = 8
_WITHIN_S = 60.0
# What says nothing about the capability that was asked for: the target had another trouble.
_TROUBLE = (408, 429)
_TOKENS = 16
# An answer that is cut off in the middle of a call or an object says nothing.
_MORE_TOKENS = 256


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one target: whether it answers, by capability yes, no or ?, and why not."""

    target: str
    reachable: bool
    capabilities: dict[str, str] = {}
    reasons: tuple[str, ...] = ()


class Wanted(NamedTuple):
    """A target to look at."""

    provider: Provider
    model: str

    @property
    def name(self) -> str:
        """As everything else names it."""
        return f"{self.provider.spec.name}/{self.model}"


async def probe(targets: Iterable[Wanted]) -> list[Probe]:
    """Look at every target, several at once."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(wanted: Wanted) -> Probe:
        async with turns:
            return await _probe(wanted)

    return await asyncio.gather(*(one(wanted) for wanted in targets))


async def _probe(wanted: Wanted) -> Probe:
    provider = wanted.provider
    if provider.missing is not None:
        return Probe(target=wanted.name, reachable=False, reasons=(f"not set: {provider.missing}",))
    transport = make_transport(provider.spec)
    try:
        try:
            adapter = make_adapter(Bound(provider.spec, provider.credential, transport, ImageFetcher()))
            await _ask(adapter, wanted.model, {})
        except Exception as error:  # noqa: BLE001 - whatever a kind's own library raises is the answer here
            return Probe(target=wanted.name, reachable=False, reasons=(_said(error),))
        found: dict[str, str] = {}
        reasons = []
        for name, fields in _questions().items():
            found[name], reason = await _can(adapter, wanted.model, name, fields)
            reasons += [f"{name}: {reason}"] if reason else []
        return Probe(target=wanted.name, reachable=True, capabilities=found, reasons=tuple(reasons))
    finally:
        await transport.aclose()


def _questions() -> dict[str, dict[str, Any]]:
    """By capability, the fields that a request asks for it with."""
    tool = {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_square()}"}}
    look = {"role": "user", "content": [{"type": "text", "text": "Which colour is this?"}, image]}
    ask = {"role": "user", "content": "What time is it in Bern? Use the tool."}
    answer = {"role": "user", "content": 'Answer with the JSON object {"ok": true}.'}
    named = {"name": "answer", "schema": schema, "strict": True}
    return {
        "streaming": {"stream": True},
        "tools": {
            "messages": [ask],
            "tools": [{"type": "function", "function": tool}],
            "tool_choice": "required",
            "max_tokens": _MORE_TOKENS,
        },
        "json_schema": {
            "messages": [answer],
            "response_format": {"type": "json_schema", "json_schema": named},
            "max_tokens": _MORE_TOKENS,
        },
        "vision": {"messages": [look]},
        "logprobs": {"logprobs": True, "top_logprobs": 1},
    }


async def _can(adapter: Adapter, model: str, name: str, fields: dict[str, Any]) -> tuple[str, str | None]:
    """Yes, no or ?, with the reason where it is not yes."""
    try:
        answer = await _ask(adapter, model, fields, ignored=name)
    except PenstockError as error:
        refused = error.status < 500 and error.status not in _TROUBLE
        return (NO if refused else UNKNOWN), error.message
    except TimeoutError as error:
        return UNKNOWN, _said(error)
    if answer is None:
        return NO, "ignored"
    if name in ("streaming", "vision"):
        return YES, None
    choice: Mapping[str, Any] = (answer.get("choices") or [{}])[0]
    if _shows(name, choice):
        return YES, None
    if choice.get("finish_reason") == "length":
        return UNKNOWN, f"cut off after {_MORE_TOKENS} tokens"
    return NO, "answered without it"


def _shows(name: str, choice: Mapping[str, Any]) -> bool:
    message = choice.get("message") or {}
    if name == "tools":
        return bool(message.get("tool_calls"))
    if name == "logprobs":
        return bool((choice.get("logprobs") or {}).get("content"))
    try:
        return isinstance(msgspec.json.decode(message.get("content") or ""), dict)
    except msgspec.DecodeError:
        return False


async def _ask(adapter: Adapter, model: str, fields: dict[str, Any], *, ignored: str = "") -> dict[str, Any] | None:
    """The whole answer ({} of a stream); None when the field of that name has no effect on the target. Raises
    PenstockError, TimeoutError."""
    hello = {"model": model, "messages": [{"role": "user", "content": "Say ok."}], "max_tokens": _TOKENS}
    parsed = parse_chat(msgspec.json.encode(hello | fields))
    request = BoundRequest(parsed.chat, parsed.raw, model, "chatcmpl-probe", int(time.time()), "penstock-check")
    if ignored in adapter.ignored(request):
        return None
    async with asyncio.timeout(_WITHIN_S):
        return await _read(await adapter.open(request), streamed=bool(parsed.chat.stream))


async def _read(events: EventStream, *, streamed: bool) -> dict[str, Any]:
    frames, done = [], False
    try:
        async for event in events:
            frames.append(event.frame)
            done = event.done
    finally:
        await events.aclose()
    if not done:
        raise PenstockError("upstream_closed", "The upstream ended early.")
    answer: dict[str, Any] = {} if streamed else msgspec.json.decode(b"".join(frames))
    return answer


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_WITHIN_S:.0f} s"
    return error.message if isinstance(error, PenstockError) else str(error)


def _square() -> str:
    """A red square of 32 by 32 pixels as PNG, in base64: some vendors refuse smaller images."""
    rows = (b"\0" + b"\xff\0\0" * 32) * 32
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()
