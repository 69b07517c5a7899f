"""The bytes that the upstream double answers with, and the marks by which the load generator knows them again."""

import json

DELTAS = 64
# Every delta carries this text once and nothing else does, so a relayed stream can be checked whatever its spacing.
DELTA_MARK = b" drop"
PLAIN_MARK = b"still water runs deep"
# A stream that is asked for with this word in its prompt comes at a pace, not as fast as it can.
PACED = "(paced)"
PACE_S = 0.02
# A paced delta says when it was sent, in nanoseconds of the machine's monotonic clock.
STAMP = DELTA_MARK + b"@"
STAMP_DIGITS = 19
BLANK_STAMP = STAMP + b"0" * STAMP_DIGITS

_CREATED = 1_760_000_000
_ID = "chatcmpl-0123456789abcdef0123456789abcdef"


def plain_body() -> bytes:
    """The plain answer: about 300 bytes, with usage."""
    message = {"role": "assistant", "content": PLAIN_MARK.decode()}
    answer = {
        "id": _ID,
        "object": "chat.completion",
        "created": _CREATED,
        "model": "bench",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
    }
    return _json(answer)


def plain_answer() -> bytes:
    """The plain answer with its head, ready for a socket."""
    body = plain_body()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def stream_head() -> bytes:
    """The head of a streamed answer; its body is chunked."""
    lines = ("HTTP/1.1 200 OK", "content-type: text/event-stream", "cache-control: no-cache")
    return "\r\n".join((*lines, "transfer-encoding: chunked", "", "")).encode()


def stream_frames(*, stamped: bool = False) -> list[bytes]:
    """The streamed answer after its head, one frame per write: role, 64 deltas, then finish, usage and [DONE].

    Stamped, each delta has room for the time at which it is sent.
    """
    frames = [_event({"role": "assistant", "content": ""})]
    frames += [_event({"content": (BLANK_STAMP if stamped else DELTA_MARK).decode()}) for _ in range(DELTAS)]
    usage = {"prompt_tokens": 12, "completion_tokens": DELTAS, "total_tokens": 12 + DELTAS}
    last = _event({}, finish="stop") + _framed({**_chunk([]), "usage": usage}) + _http_chunk(b"data: [DONE]\n\n")
    return [*frames, last + b"0\r\n\r\n"]


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    return _framed(_chunk([{"index": 0, "delta": delta, "finish_reason": finish}]))


def _chunk(choices: list[dict[str, object]]) -> dict[str, object]:
    return {"id": _ID, "object": "chat.completion.chunk", "created": _CREATED, "model": "bench", "choices": choices}


def _framed(chunk: dict[str, object]) -> bytes:
    return _http_chunk(b"data: " + _json(chunk) + b"\n\n")


def _http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
