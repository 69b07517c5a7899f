"""The vendor's failures as ours: by status, and by type where a failure comes without one."""

import re
from collections.abc import Mapping

from penstock.domain.errors import UpstreamError
from penstock.providers import faults

# platform.claude.com, "Claude API errors", 2026-11.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_TOO_LONG = re.compile(r"prompt is too long|exceeds? (?:the )?(?:model's )?(?:maximum )?context (?:limit|window)")
# Both come as 400 invalid_request_error, and neither is the client's fault.
_UNPAID = re.compile(r"credit balance is too low|reached your specified (?:workspace )?API usage limits", re.IGNORECASE)


def fault_of(status: int, headers: Mapping[str, str], fault: faults.Fault) -> UpstreamError:
    """The public error; ``status`` is 200 where the failure came without one."""
    if status == 200:
        status = _STATUS.get(fault.type or "", 500)
    said = fault.message or ""
    if status == 400 and _UNPAID.search(said):
        status = 402
    elif status == 400 and _TOO_LONG.search(said):
        fault.code = "context_length_exceeded"
    return faults.from_status(status, headers, fault)
