"""The library's exceptions as our public errors: by the status that it kept, then by their type."""

from json import JSONDecodeError
from typing import Any

import httpx
import msgspec

from penstock.domain.errors import PenstockError, UpstreamError
from penstock.providers import faults
from penstock.providers.faults import Fault

# any_llm.exceptions (1.40) by name, so that they need not be imported here; and what a stream's error calls itself.
_STATUS = {
    **dict.fromkeys(("AuthenticationError", "MissingApiKeyError"), 401),
    **dict.fromkeys(("InvalidRequestError", "ContentFilterError", "ContextLengthExceededError"), 400),
    "ModelNotFoundError": 404,
    "RateLimitError": 429,
    **dict.fromkeys(("overloaded", "overloaded_error", "service_unavailable"), 503),
}


class _Asked(msgspec.Struct):
    stream: bool | None = None


_asked = msgspec.json.Decoder(_Asked)


class Watch:
    """Looks at an answer before the library does, which takes an error in a 200 for an empty answer."""

    def __init__(self, credential: str | None) -> None:
        self._credential = credential

    async def __call__(self, response: httpx.Response) -> None:
        """A hook of httpx. Raises UpstreamError."""
        if response.status_code != 200 or "text/event-stream" in response.headers.get("content-type", ""):
            return
        fault = faults.read_fault(await response.aread(), credential=self._credential)
        if fault.message is not None:
            raise faults.from_status(_STATUS.get(str(fault.type), 502), response.headers, fault)
        if _asked.decode(response.request.content).stream:
            raise UpstreamError("upstream_error", "The upstream answered a streamed request without a stream.")


def read_exception(error: Exception, credential: str | None) -> PenstockError:
    """The public error for whatever the library raised."""
    kind, said = type(error).__name__, faults.masked(_said(error), credential)
    if kind == "UnsupportedParameterError":
        param = str(error).partition("'")[2].partition("'")[0]
        message = f"The target of this model cannot honour '{param}'. Leave it out."
        return PenstockError("unsupported_parameter", message, param=param)
    if (known := _known(error)) is not None:
        return known
    status = getattr(error, "status_code", None)
    for name in (getattr(error, "error_type", None), getattr(error, "code", None), kind):
        status = status or _STATUS.get(str(name))
    retry_after = getattr(error, "retry_after", None)
    fault = Fault(said, "context_length_exceeded" if kind == "ContextLengthExceededError" else None)
    return faults.from_status(status or 502, {"retry-after": retry_after} if retry_after else {}, fault)


def _known(error: BaseException | None) -> UpstreamError | None:
    """What is behind the library's exception, where that says more: our own, or what became of the connection."""
    while error is not None:
        if isinstance(error, UpstreamError):
            return error
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return UpstreamError("upstream_error", "The upstream does not accept connections.", retry_after_s=2)
        if isinstance(error, httpx.TransportError):
            return UpstreamError("upstream_closed", "The upstream closed the connection. Try again.")
        if isinstance(error, (JSONDecodeError, UnicodeDecodeError)):
            return UpstreamError("upstream_error", "The upstream's answer cannot be read.")
        error = error.__cause__ or getattr(error, "original_exception", None)
    return None


def _said(error: Exception) -> str:
    """The provider's own message where the library kept the body, else the library's."""
    body: Any = getattr(getattr(error, "original_exception", None), "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return message if isinstance(message, str) else str(getattr(error, "message", None) or error)
