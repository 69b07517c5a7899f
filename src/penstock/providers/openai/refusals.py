"""The failures of servers of the OpenAI dialect: by status, and by their own words where there is no status."""

import re
from collections.abc import Mapping

from penstock.domain.errors import UpstreamError
from penstock.providers import faults

# What code or type of an error that came with a 200 may say (OpenAI, Azure, OpenRouter, Groq, vLLM; 2026-11).
_STATUS = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "overloaded": 503,
    "overloaded_error": 503,
    "server_overloaded": 503,
    "service_unavailable": 503,
    "timeout": 504,
    "invalid_request_error": 400,
    "content_filter": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "model_not_found": 404,
}
# An account without money, whatever the status: no wait helps, though OpenAI says 429 (2026-11-23, its error codes).
_UNPAID = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
# OpenAI and vLLM; llama.cpp; Groq, Mistral; xAI; SGLang and vLLM 1; LM Studio; TGI and Together (2026-11).
_TOO_LONG = re.compile(
    r"(?i)maximum context length|exceeds the available context|too large for model|maximum prompt length"
    r"|longer than the (?:model's context length|maximum model length)|context length of only"
    r"|`inputs` (?:must have less than|tokens \+ `max_new_tokens` must be)"
)
# OpenAI's 429 for a request that is by itself above the tokens of a minute.
_TOO_LARGE = re.compile(r"Request too large for .{1,200}tokens must be reduced", re.DOTALL)


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, credential: str | None) -> UpstreamError:
    """The public error for an answer that is none, and for an error that came with a 200 or within a stream."""
    fault = faults.read_fault(body, credential=credential)
    if status == 200:
        status = _status(fault)
    said = fault.message or ""
    if fault.code in _UNPAID or fault.type in _UNPAID:
        status = 402
    elif (status in (400, 413, 422) and _TOO_LONG.search(said)) or (status == 429 and _TOO_LARGE.search(said)):
        fault.code = "context_length_exceeded"
    return faults.from_status(status, headers, fault)


def _status(fault: faults.Fault) -> int:
    """The status that the error itself names, in figures or in words; 500 when it names none."""
    for said in (fault.code, fault.type):
        known = _STATUS.get(str(said)) or faults.whole_number(str(said)) or 0
        if 400 <= known < 600:
            return known
    return 500
