"""Calls through an HTTP proxy: its URL, and the tunnel to an https upstream. The environment's proxies are not used."""

import asyncio
import base64
import ssl
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from penstock.providers.outbound.failures import ConnectFailed, ProtocolViolation, ProxyRefused, TransportError

_MAX_HEAD = 16 * 1024


class Proxy(NamedTuple):
    """A proxy; ``headers`` are what each request to it carries, among them its credential."""

    host: str
    port: int
    headers: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


def parse_proxy(url: str) -> Proxy:
    """The proxy at ``http://[user:password@]host:port``. Raises ValueError, which quotes nothing of it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.scheme != "http" or parts.path not in ("", "/") or parts.query:
        raise ValueError("proxy must be http://host:port or http://user:password@host:port")
    if parts.username is None:
        return Proxy(host, port, ())
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return Proxy(host, port, (f"proxy-authorization: Basic {base64.b64encode(login).decode()}",))


async def connect_through(
    proxy: Proxy, protocol: asyncio.Protocol, tls: ssl.SSLContext, *, host: str, port: int
) -> None:
    """Connect ``protocol`` by TLS with the host behind the proxy. Raises TransportError, OSError."""
    loop = asyncio.get_running_loop()
    raw, tunnel = await loop.create_connection(_Tunnel, proxy.host, proxy.port)
    try:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = (f"CONNECT {authority} HTTP/1.1", f"host: {authority}", *proxy.headers, "", "")
        raw.write("\r\n".join(lines).encode("latin-1"))
        await tunnel.open
        secured: Any = await loop.start_tls(raw, protocol, tls, server_hostname=host)
        if secured is None:
            raise ConnectFailed("the upstream closed the connection while TLS began")
        protocol.connection_made(secured)
    except BaseException:
        raw.abort()
        raise


def refused(status: int) -> TransportError:
    """Why a proxy that answers with this status lets no call through."""
    if status >= 500:
        return ConnectFailed(f"the proxy does not reach the upstream (status {status})")
    return ProxyRefused(f"the proxy to the upstream refuses the call (status {status})")


class _Tunnel(asyncio.Protocol):
    """Reads the answer to CONNECT; ``open`` ends with it."""

    def __init__(self) -> None:
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self.open.done():
            return
        error: TransportError | None = None
        if b"\r\n\r\n" in self._head:
            error = _verdict(self._head)
        elif len(self._head) > _MAX_HEAD:
            error = ProtocolViolation("the proxy did not answer in HTTP/1.1")
        else:
            return
        if error is None:
            self.open.set_result(None)
        else:
            self.open.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.open.done():
            self.open.set_exception(ConnectFailed("the proxy closed the connection"))


def _verdict(head: bytes) -> TransportError | None:
    version, _, status = head.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not status[:3].isdigit():
        return ProtocolViolation("the proxy did not answer in HTTP/1.1")
    if not status.startswith(b"2"):
        return refused(int(status[:3]))
    early = head.partition(b"\r\n\r\n")[2]  # nobody may speak before our first TLS record
    return ProtocolViolation("the proxy spoke out of turn") if early else None
