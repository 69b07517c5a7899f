"""Fetches the images of a request for upstreams that take no addresses, and is no way into the operator's network.

A name is resolved once; every address behind it must be public or in ``upstream.image_networks``, and the connection
goes to such an address itself, so that the name cannot mean another one a moment later.
"""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from penstock.domain.errors import PenstockError
from penstock.providers.connection import Connection, Response, TransportError
from penstock.providers.outbound.addresses import allowed_by, is_public, networks
from penstock.providers.outbound.failures import AnswerTooLarge
from penstock.providers.spec import Image, Images
from penstock.providers.transport import trusted
from penstock.settings.tree import UpstreamSettings

Resolve = Callable[[str, int], Awaitable[list[str]]]

# On the internet images come from web servers; any other port is somebody's mail or database, and not ours to poke at.
_PORTS = (80, 443, 8080, 8443)
_DEFAULTS = UpstreamSettings()
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_MAX_URL = 8192
_MAX_HOST = 253
_MAX_HEAD = 64 * 1024
_MAX_REDIRECTS = 3
_MAX_ADDRESSES = 4
_AT_ONCE = 32
_MAX_IMAGES = 20
_MAX_TOTAL = 32 * 1024 * 1024
_MAX_SECONDS = 20.0
_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp")
_MAGIC = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
# One word for every address that is refused or does not answer: what is where is not for the client to find out.
_UNREACHABLE = "cannot be fetched from this address"


class _Failure(Exception):
    """Why there is no image, as the end of a sentence."""


class _Place(NamedTuple):
    secure: bool
    host: str
    port: int
    head: bytes


class ImageFetcher:
    """Fetches from public web servers and from ``bounds.image_networks``. Belongs to one event loop."""

    def __init__(
        self,
        bounds: UpstreamSettings = _DEFAULTS,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._bounds = bounds
        self._own = networks(bounds.image_networks)
        self._resolve = resolve or _Resolver()
        self._tls = tls
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def fetch(self, url: str, param: str) -> Image:
        """The image at an address. Raises PenstockError image_unavailable."""
        try:
            async with asyncio.timeout(self._bounds.image_timeout_s), self._turns:
                return await self._follow(url)
        except _Failure as failure:
            reason, cause = str(failure), failure.__cause__
        except AnswerTooLarge as error:
            reason, cause = f"has more than {self._bounds.max_image_bytes} bytes", error
        except (TransportError, TimeoutError, OSError) as error:
            reason, cause = _UNREACHABLE, error
        message = f"'{param}': the image {reason}. Send it as a data URL."
        raise PenstockError("image_unavailable", message, param=param) from cause

    async def _follow(self, url: str) -> Image:
        for _ in range(_MAX_REDIRECTS + 1):
            place = _place(url)
            connection = await self._connect(place)
            try:
                response = await connection.send(place.head, b"")
                if response.status not in (301, 302, 303, 307, 308):
                    return await self._image(response)
                to = response.headers.get("location", "")
                url = urljoin(url, to) if len(to) <= _MAX_URL else to
            except ValueError as error:
                raise _Failure("has an address that leads nowhere") from error
            finally:
                connection.abort()
        raise _Failure("is behind too many redirects")

    async def _connect(self, place: _Place) -> Connection:
        addresses = await self._resolve(place.host, place.port)
        if not addresses or not all(self._vetted(address, place.port) for address in addresses):
            raise _Failure(_UNREACHABLE)
        tls = (self._tls or trusted(None)) if place.secure else None
        addresses = addresses[:_MAX_ADDRESSES]
        last: OSError | None = None
        for address in addresses:
            try:
                async with asyncio.timeout(self._bounds.image_timeout_s / len(addresses)):
                    return await self._dial(address, place, tls)
            except OSError as error:  # TimeoutError among them: the next address may answer
                last = error
        raise _Failure(_UNREACHABLE) from last

    def _vetted(self, address: str, port: int) -> bool:
        return allowed_by(address, self._own) or (port in _PORTS and is_public(address))

    async def _dial(self, address: str, place: _Place, tls: ssl.SSLContext | None) -> Connection:
        limits = (_MAX_HEAD, self._bounds.max_image_bytes)
        made: tuple[Any, Connection] = await asyncio.get_running_loop().create_connection(
            lambda: Connection(_nothing, _nothing, limits),
            address,
            place.port,
            ssl=tls,
            server_hostname=place.host if tls else None,
        )
        return made[1]

    async def _image(self, response: Response) -> Image:
        if response.status != 200:
            raise _Failure(f"is not there (status {response.status})")
        said = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if said not in _TYPES:
            raise _Failure("is not sent as a PNG, JPEG, GIF or WebP image")
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._bounds.max_image_bytes:
            raise AnswerTooLarge
        data = await response.read()
        kind = next((kind for magic, kind in _MAGIC if magic.match(data)), None)
        if kind is None:
            raise _Failure("is no PNG, JPEG, GIF or WebP")
        return Image(kind, data)


class ImagesOfOne:
    """What one request may have fetched: so many images, and so many bytes of them together. A request of a few bytes
    must not make us hold gigabytes, nor a place at its upstream for minutes: after ``seconds`` no other is begun."""

    def __init__(self, images: Images, *, seconds: float = _MAX_SECONDS) -> None:
        self._images = images
        self._until = time.monotonic() + seconds
        self._count = 0
        self._total = 0

    async def fetch(self, url: str, param: str, /) -> Image:
        """The image at an address. Raises PenstockError image_unavailable."""
        self._count += 1
        if self._count > _MAX_IMAGES:
            raise _too_much(param, f"{_MAX_IMAGES} images")
        if self._count > 1 and time.monotonic() >= self._until:
            raise _too_much(param, "can be fetched in time")
        image = await self._images.fetch(url, param)
        self._total += len(image.data)
        if self._total > _MAX_TOTAL and self._count > 1:  # one alone is bounded by max_image_bytes
            raise _too_much(param, f"{_MAX_TOTAL} bytes of images")
        return image


def _too_much(param: str, bound: str) -> PenstockError:
    message = f"'{param}': the request links to more than {bound}, and this target takes no links."
    return PenstockError("image_unavailable", f"{message} Send fewer.", param=param)


def _place(url: str) -> _Place:
    """Where the URL leads and what is asked there. Raises _Failure."""
    if len(url) > _MAX_URL:
        raise _Failure(f"has an address of more than {_MAX_URL} characters")
    try:
        parts = urlsplit(url)
        port, name = parts.port, parts.hostname or ""
        # The work of IDNA grows with the square of the name's length.
        host = name.encode("idna").decode("ascii") if len(name) <= _MAX_HOST else ""
    except ValueError:
        host, port = "", None
    if not _HOST.fullmatch(host) or parts.scheme not in ("http", "https"):
        raise _Failure("has no http:// or https:// address")
    if "@" in parts.netloc:
        raise _Failure("has an address with a user name, which is not sent")
    secure = parts.scheme == "https"
    shown = f"[{host}]" if ":" in host else host
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    lines = (
        f"GET {target} HTTP/1.1",
        f"host: {shown}{'' if port is None else f':{port}'}",
        "user-agent: penstock",
        f"accept: {', '.join(_TYPES)}",
        "accept-encoding: identity",
        "connection: close",
        "\r\n",
    )
    return _Place(secure, host, port if port is not None else 443 if secure else 80, "\r\n".join(lines).encode())


class _Resolver:
    """The system's resolver in threads of its own: slow names must not keep the upstreams' from being resolved."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="image-names")

    async def __call__(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _addresses, host, port)
        return list(dict.fromkeys(found))


def _addresses(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _nothing(_: Connection) -> None:
    """A connection of one call: nobody waits for its end."""
