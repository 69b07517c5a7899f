"""Server-sent events, as far as chat completions use them (WHATWG HTML, section 9.2)."""

_BOM = b"\xef\xbb\xbf"  # it may stand before the first line of a stream
_MARKED = _BOM + b"data:"


class SseParser:
    """Splits a byte stream into the data payloads of complete events, however the bytes are cut.

    CR, LF and CRLF end lines; comments and fields other than data are dropped; data lines of one event are joined
    with LF. An event that the stream's end cuts off is never returned.
    """

    __slots__ = ("_buffer", "_data", "_max_bytes")

    def __init__(self, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._buffer = b""
        self._data: list[bytes] = []
        self._max_bytes = max_bytes

    @property
    def pending(self) -> bool:
        """Whether an event has begun and not ended."""
        return bool(self._data or self._buffer.strip())

    def feed(self, block: bytes) -> list[bytes]:
        """Payloads of the events that this block completes. Raises ValueError when one event exceeds the bound."""
        buffer = self._buffer + block
        if b"\r" in buffer:
            # A CR at the very end may be half of a CRLF: it waits for the next block.
            held = b"\r" if buffer.endswith(b"\r") else b""
            buffer = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held = b""
        lines = buffer.split(b"\n")
        self._buffer = lines.pop() + held
        if len(self._buffer) > self._max_bytes:
            raise ValueError("an event of the upstream's stream is too large")
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
            elif line.startswith((b"data:", _MARKED)):
                self._data.append(line.removeprefix(_BOM)[5:].removeprefix(b" "))
        return events
