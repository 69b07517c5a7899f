"""Listening sockets, bound by the supervisor so that a taken port is one clear line before anything starts."""

import errno
import os
import socket


class PortError(Exception):
    """An address cannot be bound; the message is one line with the remedy."""


def bind(host: str, port: int, *, what: str) -> socket.socket:
    """A socket bound to the address; it listens once a server accepts on it. Port 0 picks a free one.

    ``what`` is the setting's section, for the message. Raises PortError.
    """
    remedy = f"choose another with {what}.port" + (" (--port)" if what == "gateway" else " (--control-port)")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except OSError as error:
        raise PortError(f"{what}.host {host!r} is not an address ({error.strerror})") from error
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortError(f"port {port} on {host} is already in use; {remedy}") from error
        raise PortError(f"{host}:{port} cannot be bound ({os.strerror(error.errno or 0)}); {remedy}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The http address at which a client on this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
