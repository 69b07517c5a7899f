"""A double of the Anthropic Messages API: its bodies, its events with their names, its errors."""

import json
from typing import Any

from tests.providers.vendors import Answer

MODEL = "claude-sonnet-4-5-20250929"
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl"
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_ERRORS = {
    "invalid": (400, "invalid_request_error", "messages: at least one message is required"),
    "unauthorized": (401, "authentication_error", "invalid x-api-key"),
    "forbidden": (403, "permission_error", "Your API key does not have permission to use the specified resource"),
    "not_found": (404, "not_found_error", "model: claude-nope"),
    "rate_limited": (429, "rate_limit_error", "This request would exceed your organization's rate limit"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "internal": (500, "api_error", "Internal server error"),
    "too_long": (400, "invalid_request_error", "prompt is too long: 210040 tokens > 200000 maximum"),
}


class Double:
    """Speaks as api.anthropic.com does (2026-11)."""

    kind = "anthropic"
    stream_type = "text/event-stream"
    thinks = True
    environ = {"DOUBLE_ANTHROPIC_KEY": "sk-ant-api03-double-of-a-key"}

    def row(self, base: str) -> str:
        """The provider row; the path of the API is the adapter's."""
        return (
            f'[[provider]]\nname = "double"\nkind = "anthropic"\nbase_url = "{base}"\n'
            'api_key_env = "DOUBLE_ANTHROPIC_KEY"\n'
        )

    def plain(self, answer: Answer) -> bytes:
        """A message object."""
        content: list[dict[str, Any]] = []
        if answer.thinking:
            content.append({"type": "thinking", "thinking": answer.thinking, "signature": SIGNATURE})
        if answer.text:
            content.append({"type": "text", "text": answer.text, "citations": None})
        for identity, name, arguments in answer.calls:
            content.append(_tool_use(identity, name) | {"input": json.loads(arguments)})
        stop = {"stop_reason": _STOPS[answer.finish], "stop_sequence": None, "stop_details": None}
        message = _message() | {"content": content, "usage": _usage(answer)} | stop
        return json.dumps(message, ensure_ascii=False).encode()

    def events(self, answer: Answer) -> list[bytes]:
        """message_start to message_stop."""
        start = _message() | {"content": [], "stop_reason": None, "usage": _usage(answer) | {"output_tokens": 1}}
        blocks: list[list[bytes]] = []
        if answer.thinking:
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _cut(answer.thinking, answer.pieces)]
            deltas.append({"type": "signature_delta", "signature": SIGNATURE})
            blocks.append(_block(len(blocks), {"type": "thinking", "thinking": "", "signature": ""}, deltas))
        if answer.text:
            deltas = [{"type": "text_delta", "text": piece} for piece in _cut(answer.text, answer.pieces)]
            blocks.append(_block(len(blocks), {"type": "text", "text": ""}, deltas))
        for identity, name, arguments in answer.calls:
            # The first fragment is always empty, and the only one of a call without arguments.
            pieces = ["", *(_cut(arguments, answer.pieces) if json.loads(arguments) else [])]
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
            blocks.append(_block(len(blocks), _tool_use(identity, name), deltas))
        delta = {"stop_reason": _STOPS[answer.finish], "stop_sequence": None}
        return [
            event("message_start", message=start),
            *(one for block in blocks for one in block),
            event("message_delta", delta=delta, usage={"output_tokens": answer.usage[1]}),
            event("message_stop"),
        ]

    def usage_early(self, answer: Answer) -> list[bytes] | None:
        """The vendor has one order: the input's counts at the start, the output's with the reason."""
        return None

    def noise(self) -> list[bytes]:
        """Pings, and an event of a kind that is not there yet."""
        return [event("ping"), b": a comment\n\n", event("kind_of_tomorrow", index=0, secret="none")]

    def error(self, kind: str) -> tuple[int, dict[str, str], bytes]:
        """An error object with its status."""
        status, name, message = _ERRORS[kind]
        return (
            status,
            {"retry-after": "7"} if kind == "rate_limited" else {},
            json.dumps(_error(name, message)).encode(),
        )

    def error_event(self) -> bytes:
        """Overloaded, in the middle of a stream."""
        return event("error", **_error("overloaded_error", "Overloaded"))

    def request(self, body: bytes) -> dict[str, Any]:
        """What a request says."""
        said = json.loads(body)
        return {
            "system": "\n".join(block["text"] for block in said.get("system", [])),
            "texts": [text for message in said["messages"] for text in _texts(message["content"])],
            "tools": [tool["name"] for tool in said.get("tools", [])],
            "max_tokens": said.get("max_tokens"),
        }


def event(name: str, **fields: Any) -> bytes:
    """One event as it stands on the wire."""
    data = json.dumps(fields | {"type": name}, ensure_ascii=False)
    return f"event: {name}\ndata: {data}\n\n".encode()


def _block(index: int, block: dict[str, Any], deltas: list[dict[str, Any]]) -> list[bytes]:
    return [
        event("content_block_start", index=index, content_block=block),
        *(event("content_block_delta", index=index, delta=delta) for delta in deltas),
        event("content_block_stop", index=index),
    ]


def _message() -> dict[str, Any]:
    return {"id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant", "model": MODEL}


def _tool_use(identity: str, name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": identity, "name": name, "input": {}}


def _usage(answer: Answer) -> dict[str, Any]:
    """The vendor counts what the cache gave and took apart from the rest of the input."""
    entire, output, read, written = answer.usage
    return {
        "input_tokens": entire - read - written,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": output,
        "service_tier": "standard",
    }


def _error(name: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": name, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def _cut(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // pieces))
    return [text[at : at + size] for at in range(0, len(text), size)]


def _texts(content: str | list[dict[str, Any]]) -> list[str]:
    if isinstance(content, str):
        return [content]
    found: list[str] = []
    for block in content:
        if block["type"] == "text":
            found.append(block["text"])
        elif block["type"] == "tool_result":
            found += _texts(block.get("content", []))
    return found
