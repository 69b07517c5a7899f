"""The error tree of both planes: one class, one table of stable public codes.

Every refusal carries a code from ``CODES``; the code fixes the HTTP status and the type. docs/errors.md documents
each one, and a house test keeps the two in step.
"""

from typing import Any, NamedTuple


class ErrorCode(NamedTuple):
    """What a public code means on the wire: HTTP status, Heroku's error type, and the remedy for the documentation."""

    status: int
    type: str
    remedy: str


_REQUEST = "invalid_request_error"
_SERVER = "server_error"

CODES: dict[str, ErrorCode] = {
    "invalid_json": ErrorCode(400, _REQUEST, "Send one JSON object in UTF-8; the message names the byte."),
    "invalid_type": ErrorCode(400, _REQUEST, "Send the named field with the named type."),
    "invalid_value": ErrorCode(400, _REQUEST, "Send the named field within the named range."),
    "missing_parameter": ErrorCode(400, _REQUEST, "Add the named field."),
    "unknown_parameter": ErrorCode(400, _REQUEST, "Remove the field, or send allow_ignored_params: true."),
    "unsupported_parameter": ErrorCode(400, _REQUEST, "The model's target cannot honour the field; leave it out."),
    "unsupported_schema": ErrorCode(400, _REQUEST, "Use the JSON Schema subset of docs/structured-output.md."),
    "context_length_exceeded": ErrorCode(400, _REQUEST, "Shorten the messages; the message gives count and limit."),
    "max_tokens_exceeded": ErrorCode(400, _REQUEST, "Ask for fewer max_tokens: the message names the limit."),
    "idempotency_key_invalid": ErrorCode(400, _REQUEST, "Send 1 to 255 printable ASCII characters as Idempotency-Key."),
    "resume_not_possible": ErrorCode(
        400, _REQUEST, "Send Last-Event-ID with the Idempotency-Key of a streamed request, and one of its event ids."
    ),
    "invalid_request": ErrorCode(400, _REQUEST, "The message says what is wrong with the HTTP request."),
    "upstream_refused": ErrorCode(400, _REQUEST, "The upstream refused the request; its own message follows."),
    "image_unavailable": ErrorCode(400, _REQUEST, "Send the image as a data URL, or at a public address."),
    "missing_api_key": ErrorCode(401, "authentication_error", "Send Authorization: Bearer KEY, or x-api-key."),
    "invalid_api_key": ErrorCode(401, "authentication_error", "Read the key again: penstock config:get INFERENCE_KEY."),
    "expired_api_key": ErrorCode(
        401, "authentication_error", "Use the key's successor: penstock keys -a APP lists them."
    ),
    "key_revoked": ErrorCode(
        401, "authentication_error", "The key went while the request was open; use its successor."
    ),
    "model_not_allowed": ErrorCode(403, "authorization_error", "Use a model of GET /v1/models: the key has no other."),
    "model_not_found": ErrorCode(404, _REQUEST, "GET /v1/models lists the ids."),
    "addon_not_found": ErrorCode(404, _REQUEST, "Send a key of an attachment of that add-on."),
    "route_not_found": ErrorCode(404, _REQUEST, "docs/api.md lists the routes."),
    "method_not_allowed": ErrorCode(405, _REQUEST, "Use a method named in the Allow header."),
    "request_timeout": ErrorCode(408, _REQUEST, "Send the request faster; the bound is a setting."),
    "body_too_large": ErrorCode(413, _REQUEST, "Send less, or raise gateway.max_body_bytes."),
    "idempotency_conflict": ErrorCode(
        422, _REQUEST, "This Idempotency-Key was used with another body; take a new one."
    ),
    "header_too_large": ErrorCode(431, _REQUEST, "Send smaller headers."),
    "rate_limit_exceeded": ErrorCode(
        429,
        "rate_limit_error",
        "Wait as Retry-After says, or have the operator raise the limit that the message names.",
    ),
    "concurrency_limit_exceeded": ErrorCode(
        429, "rate_limit_error", "Have fewer requests open at once, or have the operator raise the limit."
    ),
    "budget_exceeded": ErrorCode(
        429, "rate_limit_error", "Wait for the budget's next period, or have the operator raise it: penstock budgets."
    ),
    "upstream_rate_limited": ErrorCode(429, "rate_limit_error", "Wait as Retry-After says."),
    "upstream_busy": ErrorCode(429, "rate_limit_error", "Every target is at its limit; wait as Retry-After says."),
    "internal_error": ErrorCode(500, _SERVER, "A bug: report it with the request id."),
    "upstream_error": ErrorCode(502, _SERVER, "The upstream failed; try again."),
    "upstream_closed": ErrorCode(502, _SERVER, "The upstream ended early; what arrived is incomplete. Try again."),
    "upstream_misconfigured": ErrorCode(
        502, _SERVER, "The upstream refuses the operator's credential or knows no such model; tell the operator."
    ),
    "upstream_timeout": ErrorCode(504, _SERVER, "The upstream was too slow; try again."),
    "upstream_overloaded": ErrorCode(503, _SERVER, "The upstream is overloaded; wait as Retry-After says."),
    "upstream_unavailable": ErrorCode(503, _SERVER, "Every target failed lately and rests; wait as Retry-After says."),
    "engine_not_ready": ErrorCode(503, _SERVER, "The embedded engine is starting; wait as Retry-After says."),
    "model_unavailable": ErrorCode(503, _SERVER, "Set the credential that the message names."),
    "limits_unavailable": ErrorCode(
        503, _SERVER, "A limit cannot be checked, because the database does not answer; wait as Retry-After says."
    ),
    "store_unavailable": ErrorCode(503, _SERVER, "The database does not answer; wait as Retry-After says."),
    "journal_unavailable": ErrorCode(
        503, _SERVER, "The journal cannot be written, so nothing is admitted: free the disk."
    ),
    "shutting_down": ErrorCode(503, _SERVER, "The server is stopping; try again."),
}


class PenstockError(Exception):
    """A refusal or failure that a client may read.

    ``code`` is a key of ``CODES``; ``message`` names the field and the remedy and holds no secret; ``param`` is the
    request field at fault; ``retry_after_s`` becomes the Retry-After header, ``should_retry`` the x-should-retry that
    stock clients obey (None: left to them).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return CODES[self.code].status

    def body(self) -> dict[str, Any]:
        """The data plane's error body: OpenAI's envelope plus the top-level message that the Heroku CLI prints."""
        error = {"message": self.message, "type": CODES[self.code].type, "code": self.code, "param": self.param}
        return {"error": error, "message": self.message}


class UpstreamError(PenstockError):
    """A failure of the upstream, before or after its first event; ``upstream_status`` is the HTTP status that it
    answered with, where that is why."""

    upstream_status: int | None = None
