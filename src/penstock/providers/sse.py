"""Server-sent events, as far as chat completions use them (WHATWG HTML, section 9.2)."""

_BOM = b"\xef\xbb\xbf"  # it may stand before the first line of a stream
_MARKED = _BOM + b"data:"


class SseParser:
    """Splits a byte stream into the data payloads of complete events, however the bytes are cut.

    CR, LF and CRLF end lines; comments and fields other than data are dropped; data lines of one event are joined
    with LF. An event that the stream's end cuts off is never returned.
    """

    __slots__ = ("_buffer", "_data", "_max_bytes", "_size")

    def __init__(self, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._buffer = bytearray()  # a line that has begun
        self._data: list[bytes] = []
        self._size = 0  # of the blocks that _data came in
        self._max_bytes = max_bytes

    @property
    def pending(self) -> bool:
        """Whether an event has begun and not ended."""
        return bool(self._data or self._buffer.strip())

    def feed(self, block: bytes) -> list[bytes]:
        """Payloads of the events that this block completes. Raises ValueError when one event exceeds the bound."""
        if self._buffer and b"\n" not in block and b"\r" not in block and not self._buffer.endswith(b"\r"):
            self._buffer += block  # not looked at again with each piece
            self._bound(len(self._buffer))
            return []
        buffer = bytes(self._buffer) + block if self._buffer else block
        if b"\r" in buffer:
            # A CR at the very end may be half of a CRLF: it waits for the next block.
            held = b"\r" if buffer.endswith(b"\r") else b""
            buffer = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held = b""
        lines = buffer.split(b"\n")
        self._buffer = bytearray(lines.pop() + held)
        self._bound(len(self._buffer))
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
            elif line.startswith((b"data:", _MARKED)):
                self._data.append(line.removeprefix(_BOM)[5:].removeprefix(b" "))
        self._size = self._size + len(block) if self._data else 0
        self._bound(self._size)
        return events

    def _bound(self, size: int) -> None:
        if size > self._max_bytes:
            raise ValueError("an event of the upstream's stream is too large")
