"""The adapter over any-llm-sdk; the library is loaded when a provider of this kind is made."""

import asyncio
import ssl
from collections.abc import Awaitable
from importlib import import_module
from typing import Any, TypeVar

import httpx

from penstock.domain.answer import EventStream, Whole
from penstock.domain.chat import BoundRequest
from penstock.domain.errors import PenstockError, UpstreamError
from penstock.providers.images import ImagesOfOne
from penstock.providers.longtail.errors import Watch, read_exception
from penstock.providers.longtail.events import Choices
from penstock.providers.longtail.request import FIELDS, arguments
from penstock.providers.spec import Bound
from penstock.providers.translation.dialect import Translated
from penstock.providers.translation.fields import Fields
from penstock.providers.translation.parts import folded
from penstock.providers.transport import TransportLimits

# The library looks into the environment where it is given no key, and would send another provider's.
_NO_KEY = "no-key-required"
T = TypeVar("T")


class LibraryError(Exception):
    """The library cannot serve this provider; one line that names the remedy."""


def make(bound: Bound) -> "LongtailAdapter":
    """The adapter of one provider of this kind. Raises LibraryError."""
    return LongtailAdapter(_library(bound), bound)


def _library(bound: Bound) -> Any:
    spec = bound.spec
    name = spec.library_provider or spec.name
    where = f"[[provider]] '{spec.name}' (kind any-llm)"
    try:
        module: Any = import_module("any_llm")
    except ImportError:
        raise LibraryError(f"{where} needs a library, in the clone: pip install -e '.[providers]'") from None
    if not spec.base_url:
        raise LibraryError(f"{where} needs base_url: the library's own choice of address is not used")
    key = bound.credential.secret if bound.credential else _NO_KEY
    try:
        options = _options(module.AnyLLM.get_provider_class(name), bound, where)
        return module.AnyLLM.create(name, api_key=key, api_base=spec.base_url, unified_exceptions=True, **options)
    except (ImportError, TypeError, ValueError, module.AnyLLMError) as error:
        said = " ".join(str(error).replace(key, "[masked]").split())
        raise LibraryError(f"{where}: any-llm cannot make its provider {name!r}: {said}"[:400]) from None


def _options(provider: Any, bound: Bound, where: str) -> dict[str, Any]:
    """No retries, which are the gateway's; and where the provider's client is OpenAI's, our own rules for its
    connections: no redirects, nothing from the environment, no error in a 200."""
    spec = bound.spec
    options: dict[str, Any] = {} if provider.MAX_RETRIES_SUPPORT == "unsupported" else {"max_retries": 0}
    base: Any = import_module("any_llm.providers.openai.base").BaseOpenAIProvider
    if getattr(provider, "_init_client", None) is not base._init_client:
        if spec.headers or spec.proxy or spec.ca_file:
            raise LibraryError(f"{where}: headers, proxy and ca_file cannot be given to this provider of any-llm")
        return options
    options["http_client"] = httpx.AsyncClient(
        verify=ssl.create_default_context(cafile=spec.ca_file),
        proxy=spec.proxy,
        headers=dict(spec.headers),
        limits=httpx.Limits(max_connections=spec.limits.max_connections),
        timeout=httpx.Timeout(None, connect=spec.limits.connect_timeout_s),
        follow_redirects=False,
        trust_env=False,
        event_hooks={"response": [Watch(bound.credential.secret if bound.credential else None)]},
    )
    return options


class LongtailAdapter:
    """One provider of the library."""

    def __init__(self, library: Any, bound: Bound) -> None:
        self._library = library
        self._images = bound.images
        self._limits = bound.spec.limits
        self._credential = bound.credential.secret if bound.credential else None
        self._fields = Fields("any-llm", FIELDS)

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        """Parameters that are set and have no effect here."""
        return self._fields.ignored(request.chat)

    async def open(self, request: BoundRequest) -> EventStream:
        """Wait for the first event. Raises PenstockError for what cannot be said, UpstreamError."""
        self._fields.check(request.chat)
        given = await arguments(request, ImagesOfOne(self._images))
        bounds = Bounds(request, self._limits, self._credential)
        answer = await bounds.head(self._library.acompletion(**given))
        choices = Choices(request)
        if not request.chat.stream:
            return Whole(folded(request, choices.whole(answer)))
        chunks = Chunks(answer, bounds)
        stream = Translated(chunks, choices, request)
        try:
            await stream.prime(request.produced)
        except BaseException:
            chunks.close()
            raise
        return stream


class Chunks:
    """The library's stream as a Source, with its chunks for blocks."""

    def __init__(self, answer: Any, bounds: "Bounds") -> None:
        self._answer = answer
        self._closing: asyncio.Future[None] | None = None
        self._next = bounds.next
        self.begun = bounds.begun

    async def block(self) -> Any:
        """The next chunk; None at the end."""
        try:
            return await self._next(anext(self._answer))
        except StopAsyncIteration:
            return None

    def arrived(self) -> Any:
        """What has come and was not asked for stays in the library."""
        return None

    def let_go(self) -> None:
        """The library closes what has ended."""

    def close(self) -> None:
        """Hang up on the upstream."""
        self._closing = self._closing or asyncio.ensure_future(self._answer.aclose())


class Bounds:
    """Waits for the library within the request's bounds, and puts its failures into our words."""

    def __init__(self, request: BoundRequest, limits: TransportLimits, credential: str | None) -> None:
        now = asyncio.get_running_loop().time()
        first_s = (request.timeouts.first_token_s or limits.first_token_timeout_s) if request.chat.stream else None
        total_s = request.timeouts.total_s or limits.total_timeout_s
        self._head_by = now + limits.first_byte_timeout_s
        self._first_by = now + first_s if first_s else None
        self._total_by = now + total_s if total_s else None
        self._idle_s = request.timeouts.idle_s or limits.idle_timeout_s
        self._credential = credential

    async def head(self, waiting: Awaitable[T]) -> T:
        """The answer, or the beginning of a streamed one."""
        return await self._within(waiting, self._head_by)

    async def next(self, waiting: Awaitable[T]) -> T:
        """The next chunk."""
        return await self._within(waiting, asyncio.get_running_loop().time() + self._idle_s)

    def begun(self) -> None:
        """The first event is there."""
        self._first_by = None

    async def _within(self, waiting: Awaitable[T], by: float) -> T:
        bounds = [bound for bound in (by, self._first_by, self._total_by) if bound is not None]
        try:
            async with asyncio.timeout_at(min(bounds)):
                return await waiting
        except TimeoutError:
            raise UpstreamError("upstream_timeout", "The upstream was too slow. Try again.") from None
        except (StopAsyncIteration, PenstockError):
            raise
        except Exception as error:
            raise read_exception(error, self._credential) from error
