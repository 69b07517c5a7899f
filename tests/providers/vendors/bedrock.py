"""A double of Amazon Bedrock's runtime: Converse and ConverseStream in its own bytes."""

import json
import struct
from typing import Any
from zlib import crc32

from tests.providers.vendors import Answer

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "content_filtered"}
_ERRORS = {
    "invalid": (400, "ValidationException", "1 validation error detected: maxTokens must be at least 1"),
    "unauthorized": (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    "forbidden": (403, "AccessDeniedException", "You don't have access to the model with the specified model ID."),
    "not_found": (404, "ResourceNotFoundException", "Model not found."),
    "rate_limited": (429, "ThrottlingException", "Too many requests, please wait before trying again."),
    "overloaded": (503, "ServiceUnavailableException", "Bedrock is unable to process your request."),
    "internal": (500, "InternalServerException", "The system encountered an unexpected error."),
    "too_long": (400, "ValidationException", "Input is too long for requested model."),
}


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of the event stream, with string headers."""
    raw = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(raw) + len(payload), len(raw))
    body = prelude + struct.pack("!I", crc32(prelude)) + raw + payload
    return body + struct.pack("!I", crc32(body))


def frame(event: str, payload: dict[str, Any]) -> bytes:
    """One event."""
    headers = {":event-type": event, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())


def exception(kind: str, text: str) -> bytes:
    """An exception in the stream: ``throttlingException`` and the like."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, json.dumps({"message": text}).encode())


def _cut(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // pieces))
    return [text[at : at + size] for at in range(0, len(text), size)]


def _usage(answer: Answer) -> dict[str, int]:
    total, output, read, write = answer.usage
    usage = {"inputTokens": total - read - write, "outputTokens": output, "totalTokens": total + output}
    return usage | {"cacheReadInputTokens": read, "cacheWriteInputTokens": write}


class Double:
    """Amazon Bedrock with a bearer key."""

    kind = "bedrock"
    stream_type = "application/vnd.amazon.eventstream"
    thinks = True
    environ = {"DOUBLE_BEDROCK_KEY": "ABSKQmVkcm9jay1kb3VibGUtc2VjcmV0"}

    def row(self, base: str) -> str:
        """The provider row."""
        return (
            f'[[provider]]\nname = "double"\nkind = "bedrock"\nbase_url = "{base}"\nregion = "us-east-1"\n'
            'api_key_env = "DOUBLE_BEDROCK_KEY"\n'
        )

    def plain(self, answer: Answer) -> bytes:
        """The answer of Converse."""
        content: list[dict[str, Any]] = []
        if answer.thinking:
            thought = {"text": answer.thinking, "signature": "c2lnbmVk"}
            content.append({"reasoningContent": {"reasoningText": thought}})
        if answer.text:
            content.append({"text": answer.text})
        for identity, name, arguments in answer.calls:
            content.append({"toolUse": {"toolUseId": identity, "name": name, "input": json.loads(arguments)}})
        body = {
            "metrics": {"latencyMs": 551},
            "output": {"message": {"content": content, "role": "assistant"}},
            "stopReason": _STOPS[answer.finish],
            "usage": _usage(answer),
        }
        return json.dumps(body, ensure_ascii=False).encode()

    def events(self, answer: Answer) -> list[bytes]:
        """The events of ConverseStream; only tool use has a start of its block."""
        events = [frame("messageStart", {"p": "abcdefghijklmno", "role": "assistant"})]
        at = 0
        if answer.thinking:
            deltas: list[dict[str, Any]] = [{"text": piece} for piece in _cut(answer.thinking, answer.pieces)]
            deltas.append({"signature": "c2lnbmVk"})
            events += self._block(at, [{"reasoningContent": delta} for delta in deltas])
            at += 1
        if answer.text:
            events += self._block(at, [{"text": piece} for piece in _cut(answer.text, answer.pieces)])
            at += 1
        for identity, name, arguments in answer.calls:
            start = {"contentBlockIndex": at, "p": "abc", "start": {"toolUse": {"name": name, "toolUseId": identity}}}
            events.append(frame("contentBlockStart", start))
            events += self._block(at, [{"toolUse": {"input": piece}} for piece in _cut(arguments, answer.pieces)])
            at += 1
        events.append(frame("messageStop", {"p": "abcdefghijk", "stopReason": _STOPS[answer.finish]}))
        metadata = {"metrics": {"latencyMs": 551}, "p": "abcdef", "usage": _usage(answer)}
        return [*events, frame("metadata", metadata)]

    def _block(self, at: int, deltas: list[dict[str, Any]]) -> list[bytes]:
        events = [frame("contentBlockDelta", {"contentBlockIndex": at, "delta": delta, "p": "a"}) for delta in deltas]
        return [*events, frame("contentBlockStop", {"contentBlockIndex": at, "p": "abcd"})]

    def usage_early(self, _: Answer) -> list[bytes] | None:
        """Metadata always comes last."""
        return None

    def noise(self) -> list[bytes]:
        """Empty deltas, and an event of a kind that is yet to be invented."""
        return [
            frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": ""}, "p": "a"}),
            frame("somethingNew", {"p": "abc"}),
        ]

    def error(self, kind: str) -> tuple[int, dict[str, str], bytes]:
        """The type stands in a header, the message in the body."""
        status, name, text = _ERRORS[kind]
        headers = {"content-type": "application/json", "x-amzn-errortype": f"{name}:http://internal.amazon.com/"}
        return status, headers, json.dumps({"message": text}).encode()

    def error_event(self) -> bytes:
        """Overloaded in the middle of the stream."""
        return exception("serviceUnavailableException", "Bedrock is unable to process your request.")

    def request(self, body: bytes) -> dict[str, Any]:
        """What the request says."""
        said = json.loads(body)
        tools = [tool["toolSpec"]["name"] for tool in said.get("toolConfig", {}).get("tools", []) if "toolSpec" in tool]
        return {
            "system": "\n\n".join(block["text"] for block in said.get("system", []) if "text" in block),
            "texts": [text for turn in said["messages"] for block in turn["content"] for text in _texts(block)],
            "tools": tools,
            "max_tokens": said.get("inferenceConfig", {}).get("maxTokens"),
        }


def _texts(block: dict[str, Any]) -> list[str]:
    if "text" in block:
        return [block["text"]]
    return [text for inner in block.get("toolResult", {}).get("content", []) for text in _texts(inner)]
