"""Gemini's errors (google.rpc.Status in JSON) as our public ones."""

import math
import re
from collections.abc import Mapping

import msgspec

from penstock.domain.errors import UpstreamError
from penstock.providers import faults
from penstock.providers.faults import Fault

# 2026-11-23, the API's own words.
_TOO_LONG = re.compile(r"input token count.{0,40}exceeds the maximum", re.IGNORECASE | re.DOTALL)
_UNPAID = re.compile(r"credits are depleted", re.IGNORECASE)  # a 429 that no wait ends
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


class _Detail(msgspec.Struct):
    kind: str = msgspec.field(default="", name="@type")
    reason: str | None = None
    retry_delay: str | None = msgspec.field(default=None, name="retryDelay")


class _Error(msgspec.Struct):
    code: int | None = None
    message: str | None = None
    status: str | None = None
    details: list[_Detail] | None = None


class _Envelope(msgspec.Struct):
    error: _Error


_envelope = msgspec.json.Decoder(_Envelope | list[_Envelope])


def read_error(status: int, headers: Mapping[str, str], body: bytes, credential: str | None) -> UpstreamError:
    """The public error. ``status`` is 200 for an error in place of an answer, or in the middle of one."""
    error = _read(body)
    said = Fault(faults.masked(error.message, credential))
    if status == 200:
        status = error.code or 502
    details = error.details or []
    if status == 400:
        if _TOO_LONG.search(error.message or ""):
            said.code = "context_length_exceeded"
        elif any((detail.reason or "").startswith("API_KEY_") for detail in details):
            status = 401  # a wrong key comes as 400 INVALID_ARGUMENT with reason API_KEY_INVALID
        elif error.status == "FAILED_PRECONDITION":
            status = 403  # billing or the country of the operator's project
    elif status == 429 and _UNPAID.search(error.message or ""):
        status = 402
    found = next((detail.retry_delay for detail in details if detail.retry_delay), None)
    if found and "retry-after" not in headers and (delay := _SECONDS.fullmatch(found)):
        headers = {**headers, "retry-after": str(math.ceil(float(delay[1])))}
    return faults.from_status(status, headers, said)


def _read(body: bytes) -> _Error:
    """The error; empty when the body is no such thing. Without alt=sse the API sends an array."""
    try:
        found = _envelope.decode(body)
    except (ValueError, RecursionError):
        return _Error()
    errors: list[_Envelope] = found if isinstance(found, list) else [found]
    return errors[0].error if errors else _Error()
