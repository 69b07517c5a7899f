"""Maps every failure of an upstream to one of our public codes: by status first, then by the body's own code.

The upstream's message is passed on after anything that looks like a credential is masked; callers raise from the cause.
"""

import re

import msgspec

from penstock.domain.errors import UpstreamError
from penstock.providers.connection import ConnectFailed, FirstByteTimeout, IdleTimeout, TransportError

# After a blank only what has a digit: "key provided" is no secret.
_SECRET = re.compile(r"(?i)\b(?:sk|pk|inf|pst|key|bearer|token)(?:[-_]|[ ](?=[A-Za-z_\-.]*[0-9]))[A-Za-z0-9_\-.]{8,}")
_MASK = "[masked]"
_MAX_MESSAGE = 500


class _Fault(msgspec.Struct):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class _FaultBody(msgspec.Struct):
    error: _Fault | str | None = None
    message: str | None = None
    detail: str | None = None


def from_transport(error: TransportError) -> UpstreamError:
    """The public error for a call that did not complete."""
    if isinstance(error, (FirstByteTimeout, IdleTimeout)):
        return UpstreamError("upstream_timeout", f"{_sentence(str(error))} Try again.")
    if isinstance(error, ConnectFailed):
        return UpstreamError("upstream_error", f"{_sentence(str(error))} Try again.", retry_after_s=2)
    return UpstreamError("upstream_closed", f"{_sentence(str(error))} Try again.")


def from_status(status: int, headers: dict[str, str], body: bytes, *, credential: str | None = None) -> UpstreamError:
    """The public error for an upstream's answer that is not a success; ``credential`` never stands in its message."""
    fault = read_fault(body, credential=credential)
    said = f": {fault.message}" if fault.message else f" (status {status})."
    if fault.code == "context_length_exceeded":
        return UpstreamError("context_length_exceeded", fault.message or "The prompt is too long.", param="messages")
    if status == 429:
        wait = headers.get("retry-after", "")
        return UpstreamError(
            "upstream_rate_limited",
            f"The upstream's rate limit is reached{said}",
            retry_after_s=int(wait) if wait.isdigit() else 1,
        )
    if status in (400, 409, 413, 415, 422):
        return UpstreamError("upstream_refused", f"The upstream refused the request{said}")
    if status in (401, 403):
        return UpstreamError("upstream_error", "The upstream refused the operator's credential for this model.")
    if status in (408, 504):
        return UpstreamError("upstream_timeout", f"The upstream timed out{said}")
    return UpstreamError("upstream_error", f"The upstream failed{said}")


def read_fault(body: bytes, *, credential: str | None = None) -> _Fault:
    """The code of an upstream's error body and its message without secrets: ours, should it quote it, and what looks
    like one, cut to 500 characters. Empty when the body is not JSON of a known shape."""
    try:
        parsed = msgspec.json.decode(body, type=_FaultBody)
    except (ValueError, RecursionError):
        return _Fault()
    if isinstance(parsed.error, str):
        fault = _Fault(message=parsed.error)
    else:
        fault = parsed.error or _Fault(message=parsed.message or parsed.detail)
    if fault.message is not None:
        said = fault.message.replace(credential, _MASK) if credential else fault.message
        fault.message = _SECRET.sub(_MASK, said)[:_MAX_MESSAGE]
    return fault


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
