"""The loopback CONNECT proxy: it plays the inference hosts over TLS, pipes to the gateway, and refuses all else."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from urllib.parse import urlsplit

from penstock.cli.interop.authority import Authority
from penstock.cli.output import CliError

_HEAD_TIMEOUT_S = 10.0
_BLOCK = 65536


class Proxy:
    """Answers CONNECT for ``names`` (port 443) with TLS and carries the bytes to the gateway at ``target``, a URL.

    ``refused`` holds the other destinations that were asked for; ``on_refusal`` is called once with each.
    """

    def __init__(self, target: str, names: frozenset[str], authority: Authority) -> None:
        split = urlsplit(target)
        self._secure = split.scheme == "https"
        self._address = (split.hostname or "127.0.0.1", split.port or (443 if self._secure else 80))
        self._names = names
        self.refused: set[str] = set()
        self.on_refusal: Callable[[str], object] | None = None
        self._authority = authority

    async def listen(self, port: int) -> str:
        """Start on 127.0.0.1; returns the proxy's URL. Raises CliError."""
        try:
            server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise CliError(f"Port {port} on 127.0.0.1 cannot be used: {reason}. Choose another with --port.") from error
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A peer that hangs up, stalls or speaks no TLS concerns nobody but itself.
        with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            await self._tunnel(reader, writer)
        writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.decode("latin-1").partition(" ")
        name, _, port = rest.partition(" ")[0].rpartition(":")
        if method != "CONNECT" or port != "443" or name not in self._names:
            self._note(rest.partition(" ")[0])
            return await _refuse(writer, "403 Forbidden", "this proxy leads to this Penstock installation only")
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._address, ssl=self._secure or None)
        except OSError:
            return await _refuse(writer, "502 Bad Gateway", "the gateway does not answer")
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.start_tls(self._authority.context(name))
            async with asyncio.TaskGroup() as both:
                both.create_task(_pipe(reader, up_writer))
                both.create_task(_pipe(up_reader, writer))
        finally:
            up_writer.close()

    def _note(self, destination: str) -> None:
        new = destination not in self.refused
        self.refused.add(destination)
        if new and self.on_refusal is not None:
            self.on_refusal(destination)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
    # Over TLS there is no half-closed connection: the end of one direction is the end of both.
    writer.close()


async def _refuse(writer: asyncio.StreamWriter, status: str, why: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(why)}\r\nConnection: close\r\n\r\n{why}".encode())
    await writer.drain()


@contextlib.contextmanager
def running(proxy: Proxy, port: int = 0) -> Iterator[str]:
    """The proxy in a thread of its own while the block runs; yields its URL. Raises CliError."""
    started: Future[tuple[str, Callable[[], object]]] = Future()

    async def serve() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            url = await proxy.listen(port)
        except CliError as error:
            started.set_exception(error)
        else:
            started.set_result((url, lambda: loop.call_soon_threadsafe(ended.set)))
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    url, end = started.result()
    try:
        yield url
    finally:
        end()
        thread.join()
