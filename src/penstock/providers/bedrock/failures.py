"""Maps what Bedrock says of a failure to our errors: the type first, then what a validation message is about."""

import re
from collections.abc import Callable, Mapping

import msgspec

from penstock.domain.errors import UpstreamError
from penstock.providers import faults

# By the type without "Exception", in lower case; the types of the service model and those of the signature's check
# (2026-11). Others go by their HTTP status.
_STATUS = {
    "throttling": 429,
    "servicequotaexceeded": 429,
    "toomanyrequests": 429,
    "modelnotready": 503,
    "serviceunavailable": 503,
    "internalserver": 500,
    "internalfailure": 500,
    "modelstreamerror": 502,
    "modelerror": 502,
    "modeltimeout": 504,
    "validation": 400,
    "resourcenotfound": 404,
    "unknownoperation": 404,
    "accessdenied": 403,
    "optinrequired": 403,
    **dict.fromkeys(("expiredtoken", "unrecognizedclient", "invalidclienttokenid", "invalidsignature"), 401),
    **dict.fromkeys(("signaturedoesnotmatch", "incompletesignature", "missingauthenticationtoken"), 401),
    **dict.fromkeys(("notauthorized", "requestexpired"), 401),
}
_TOO_LONG = re.compile(
    r"(?i)(input|prompt) is too long|context (window|length|limit)|input tokens exceeded|too many input tokens"
)
_NO_SUCH_MODEL = re.compile(r"(?i)on-demand throughput|model identifier is invalid|model version .*end of its life")
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}")


class _Body(msgspec.Struct):
    type: str = msgspec.field(default="", name="__type")
    code: str = ""
    message: str | None = None
    upper: str | None = msgspec.field(default=None, name="Message")


_body = msgspec.json.Decoder(_Body)


class Failures:
    """``secrets`` gives what must stand in no message; ``expired`` is told when the keys are no longer taken."""

    def __init__(self, secrets: Callable[[], tuple[str, ...]], expired: Callable[[], None]) -> None:
        self._secrets = secrets
        self._expired = expired

    def of(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """The public error for an answer that is none."""
        try:
            said = _body.decode(body)
        except (ValueError, RecursionError):
            said = _Body()
        kind = headers.get("x-amzn-errortype") or said.type or said.code
        return self._error(kind, said.message or said.upper, status, headers)

    def in_stream(self, headers: Mapping[str, object], payload: bytes) -> UpstreamError:
        """The public error for an exception or error message of the event stream."""
        kind = str(headers.get(":exception-type") or headers.get(":error-code") or "")
        known = {"x-amzn-errortype": kind}
        if ":error-message" in headers:
            payload = msgspec.json.encode({"message": str(headers[":error-message"])})
        return self.of(500, known, payload)

    def _error(self, kind: str, text: str | None, status: int, headers: Mapping[str, str]) -> UpstreamError:
        # "ThrottlingException:http://..." in the header, "com.amazon.coral.service#ThrottlingException" in the body.
        name = kind.partition(":")[0].rpartition("#")[2].lower().removesuffix("exception")
        status = _STATUS.get(name, status)
        if name == "expiredtoken":
            self._expired()
        code = None
        if text is not None and status == 400:
            code = "context_length_exceeded" if _TOO_LONG.search(text) else None
            status = 404 if _NO_SUCH_MODEL.search(text) else 400
        for secret in self._secrets() if text else ():
            text = (text or "").replace(secret, "[masked]")
        shown = faults.masked(None if text is None else _KEY_ID.sub("[masked]", text), None)
        return faults.from_status(status, headers, faults.Fault(message=shown, code=code))
