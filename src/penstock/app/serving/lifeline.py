"""A child's end of the pipe from its supervisor: lines, until the pipe is cut."""

import os
from collections.abc import Iterator

_BLOCK = 64 * 1024


class Lifeline:
    """Reads lines from a descriptor. ``cut`` once the other end is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self.cut = False

    def wait(self) -> bytes | None:
        """The next line, waited for; None when the pipe is cut before it."""
        while b"\n" not in self._buffer and not self.cut:
            self._read()
        return next(self._whole(), None)

    def lines(self) -> Iterator[bytes]:
        """The lines that what can be read now completes."""
        self._read()
        yield from self._whole()

    def _read(self) -> None:
        try:
            block = os.read(self._descriptor, _BLOCK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            # The other end was closed before it had read all that this one said.
            block = b""
        self.cut = not block
        self._buffer += block

    def _whole(self) -> Iterator[bytes]:
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            yield line
