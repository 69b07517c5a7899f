"""The library's exceptions as our public errors: by the status that it kept, then by their type."""

from typing import Any

import httpx

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


def read_exception(error: Exception, credential: str | None) -> PenstockError:
    """The public error for whatever the library raised."""
    kind, said = type(error).__name__, faults.masked(_said(error), credential)
    if kind == "UnsupportedParameterError":
        param = str(error).partition("'")[2].partition("'")[0]
        message = f"The target of this model cannot honour '{param}'. Leave it out."
        return PenstockError("unsupported_parameter", message, param=param)
    status = getattr(error, "status_code", None)
    for name in (getattr(error, "error_type", None), getattr(error, "code", None), kind):
        status = status or _STATUS.get(str(name))
    if status is None and (lost := _lost(error)) is not None:
        return lost
    retry_after = getattr(error, "retry_after", None)
    fault = Fault(said, "context_length_exceeded" if kind == "ContextLengthExceededError" else None)
    return faults.from_status(status or 502, {"retry-after": retry_after} if retry_after else {}, fault)


def _lost(error: BaseException | None) -> UpstreamError | None:
    """What became of the connection, where that is what failed."""
    while error is not None:
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return UpstreamError("upstream_error", "The upstream does not accept connections.", retry_after_s=2)
        if isinstance(error, httpx.TransportError):
            return UpstreamError("upstream_closed", "The upstream closed the connection. Try again.")
        error = error.__cause__ or getattr(error, "original_exception", None)
    return None


def _said(error: Exception) -> str:
    """The provider's own message where the library kept the body, else the library's."""
    body: Any = getattr(getattr(error, "original_exception", None), "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return message if isinstance(message, str) else str(getattr(error, "message", None) or error)
