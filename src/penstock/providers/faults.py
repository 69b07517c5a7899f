"""Maps every failure of an upstream to one of our public codes: by status first, then by the body's own code.

The upstream's message is passed on after anything that looks like a credential is masked; callers raise from the cause.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.domain.errors import UpstreamError
from penstock.providers.outbound.failures import (
    ConnectFailed,
    FirstByteTimeout,
    FirstTokenTimeout,
    IdleTimeout,
    ProxyRefused,
    TotalTimeout,
    TransportError,
)

# After a blank or a plain word only what has a digit: "key provided" and "token_limit_exceeded" are no secrets.
_SECRET = re.compile(
    r"(?i)\b(?:(?:sk|pk|inf|pst)[-_]|(?:sk|pk|inf|pst|key|bearer|token)[-_ ](?=[A-Za-z_\-.]*[0-9]))[A-Za-z0-9_\-.]{8,}"
)
_MASK = "[masked]"
_MAX_MESSAGE = 500

_REFUSED = ("upstream_refused", "The upstream refused the request")
_MISCONFIGURED = ("upstream_misconfigured", "The upstream refused the operator's credential or model")
_TIMED_OUT = ("upstream_timeout", "The upstream timed out")
_OVERLOADED = ("upstream_overloaded", "The upstream is overloaded")
_BY_STATUS = {
    **dict.fromkeys((401, 402, 403, 404), _MISCONFIGURED),
    **dict.fromkeys((408, 504), _TIMED_OUT),
    429: ("upstream_rate_limited", "The upstream's rate limit is reached"),
    **dict.fromkeys((503, 529), _OVERLOADED),
}
_WAIT = ("upstream_rate_limited", "upstream_overloaded")


class Fault(msgspec.Struct):
    """What an upstream said of its failure, in its own words; ``message`` holds no secret."""

    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class _FaultBody(msgspec.Struct):
    error: Fault | str | None = None
    message: str | None = None
    detail: str | None = None


_one_or_more = msgspec.json.Decoder(_FaultBody | list[_FaultBody])


def from_transport(error: TransportError) -> UpstreamError:
    """The public error for a call that did not complete."""
    if isinstance(error, (FirstByteTimeout, FirstTokenTimeout, IdleTimeout, TotalTimeout)):
        return UpstreamError("upstream_timeout", f"{_sentence(str(error))} Try again.")
    if isinstance(error, ProxyRefused):
        return UpstreamError("upstream_misconfigured", f"{_sentence(str(error))}")
    if isinstance(error, ConnectFailed):
        return UpstreamError("upstream_error", f"{_sentence(str(error))} Try again.", retry_after_s=2)
    return UpstreamError("upstream_closed", f"{_sentence(str(error))} Try again.")


def from_status(status: int, headers: Mapping[str, str], fault: Fault) -> UpstreamError:
    """The public error for an upstream's answer that is not a success: by its status first, then by ``fault.code``,
    which a dialect gives as one of ours where the vendor's own code says more than the status."""
    said = f": {fault.message}" if fault.message else f" (status {status})."
    if fault.code == "context_length_exceeded":
        return UpstreamError("context_length_exceeded", fault.message or "The prompt is too long.", param="messages")
    if 300 <= status < 400:  # never followed: where it leads is not where the operator said that the credential may go
        return UpstreamError("upstream_error", "The provider's base URL redirects; set base_url to where it leads.")
    other = _REFUSED if 400 <= status < 500 else ("upstream_error", "The upstream failed")
    code, what = _BY_STATUS.get(status, other)
    if code == "upstream_misconfigured" and status in (401, 403):
        said = f" (status {status})."  # what it says of the operator's credential is not for the client
    error = UpstreamError(code, what + said, retry_after_s=_retry_after(headers) if code in _WAIT else None)
    error.upstream_status = status
    return error


def _retry_after(headers: Mapping[str, str]) -> int:
    """Whole seconds of Retry-After, at most an hour; 1 where it is absent or a date. OpenAI and Azure may send
    retry-after-ms in its place (2026-11)."""
    ms = whole_number(headers.get("retry-after-ms", "").partition(".")[0])
    if ms is not None:
        return min(max(-(-ms // 1000), 1), 3600)
    return min(max(whole_number(headers.get("retry-after", "").partition(".")[0]) or 1, 1), 3600)


def whole_number(text: str) -> int | None:
    """The number that an upstream wrote in figures, None where it wrote something else; of one with more than ten only
    that it is large. ``int`` alone raises for thousands of figures, and ``isdigit`` takes some that it does not."""
    return int(text.lstrip("0")[:10] or "0") if text.isascii() and text.isdigit() else None


def read_fault(body: bytes, *, credential: str | None = None) -> Fault:
    """The code of an upstream's error body and its message without secrets: ours, should it quote it, and what looks
    like one, cut to 500 characters. Empty when the body is not JSON of a known shape."""
    try:
        parsed = _read(body)
    except (ValueError, RecursionError):
        return Fault()
    if isinstance(parsed.error, str):
        fault = Fault(message=parsed.error)
    else:
        fault = parsed.error or Fault(message=parsed.message or parsed.detail)
    fault.message = masked(fault.message, credential)
    return fault


def _read(body: bytes) -> _FaultBody:
    """An error body; Gemini's OpenAI endpoint sends a list of one, and pydantic's validation words of any depth."""
    try:
        found: _FaultBody | list[_FaultBody] = _one_or_more.decode(body)
        return found[0] if isinstance(found, list) else found
    except (msgspec.ValidationError, IndexError):
        return _FaultBody(error=_words(msgspec.json.decode(body)))


def _words(said: Any) -> str | None:
    """The first words of an error of no known shape."""
    if isinstance(said, str):
        return said
    if isinstance(said, dict):
        said = [said.get(name) for name in ("error", "message", "detail", "msg")]
    return next(filter(None, map(_words, said)), None) if isinstance(said, list) else None


def masked(text: str | None, credential: str | None) -> str | None:
    """An upstream's words without the credential, should it quote it, and without what looks like one; 500 characters
    at most."""
    if text is None:
        return None
    return _SECRET.sub(_MASK, text.replace(credential, _MASK) if credential else text)[:_MAX_MESSAGE]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
