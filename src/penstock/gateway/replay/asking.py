"""What a request says of being given again: its Idempotency-Key, where it resumes, and which answers are its own."""

import hashlib
import re
import struct
from collections.abc import Mapping

import msgspec

from penstock.domain.errors import PenstockError
from penstock.domain.platform import Principal
from penstock.gateway.replay.sealing import Cipher
from penstock.gateway.wire import Parsed

IDEMPOTENCY_KEY = b"idempotency-key"
LAST_EVENT_ID = b"last-event-id"
CACHE = b"penstock-cache"

_PATH = b"/v1/chat/completions\0"
_VALID = re.compile(rb"[\x20-\x7e]{1,255}")
_EVENT_ID = re.compile(r"(?:([1-9]\d{0,8})-)?(0|[1-9]\d{0,11})")
_encode = msgspec.json.Encoder(order="sorted").encode


class Asking(msgspec.Struct, frozen=True):
    """A request with an Idempotency-Key. ``id`` names its answer, ``fingerprint`` tells its body from others; ``after``
    is the event that it resumes behind, as attempt and number, None when it wants the whole answer."""

    id: bytes
    fingerprint: bytes
    cipher: Cipher
    streamed: bool
    after: tuple[int, int] | None = None


def read_asking(headers: Mapping[bytes, bytes], principal: Principal, secret: str, parsed: Parsed) -> Asking | None:
    """What the headers ask for; None without an Idempotency-Key. Raises PenstockError idempotency_key_invalid,
    resume_not_possible."""
    value = headers.get(IDEMPOTENCY_KEY)
    last = headers.get(LAST_EVENT_ID, b"").decode("latin-1").strip()
    if value is None:
        if last:
            raise cannot_resume("Last-Event-ID needs the Idempotency-Key of the request that it resumes.")
        return None
    if not _VALID.fullmatch(value):
        raise PenstockError("idempotency_key_invalid", "Idempotency-Key must be 1 to 255 printable ASCII characters.")
    if last and not parsed.chat.stream:
        raise cannot_resume("Last-Event-ID resumes a stream: send stream: true, as in the first request.")
    id_ = hashlib.sha256(principal.key_id.encode() + b"\0" + value).digest()
    cipher = Cipher(secret.encode("utf-8", "surrogatepass"), info=b"penstock idempotency\0" + id_)
    after = parse_event_id(last) if last else None
    return Asking(id_, fingerprint(parsed), cipher, bool(parsed.chat.stream), after)


def fingerprint(parsed: Parsed) -> bytes:
    """SHA-256 of path and body as they are understood: neither the order of fields nor space makes a difference."""
    return hashlib.sha256(_PATH + _encode(parsed.chat)).digest()


def parse_event_id(text: str) -> tuple[int, int]:
    """Attempt and number of an event's id, ``number`` or ``attempt-number``. Raises PenstockError
    resume_not_possible."""
    found = _EVENT_ID.fullmatch(text)
    if found is None:
        raise cannot_resume("Last-Event-ID is not the id of an event of this answer.")
    return int(found[1] or 1), int(found[2])


def event_id(attempt: int, number: int) -> bytes:
    """The id of an event. A later attempt's answer is another text, so its events must not pass for the first's."""
    return b"%d" % number if attempt == 1 else b"%d-%d" % (attempt, number)


def charge_id(id_: bytes, created_s: float) -> bytes:
    """What the ledger charges once: an answer's id and the time of its claim, for the key may be used again when the
    window is over."""
    return hashlib.sha256(id_ + struct.pack(">d", created_s)).digest()


def cannot_resume(message: str) -> PenstockError:
    """The refusal of a Last-Event-ID."""
    return PenstockError("resume_not_possible", f"{message} Repeat the request without it for the whole answer.")


def conflict() -> PenstockError:
    """The refusal of a key that another request has."""
    message = "This Idempotency-Key was used with another body. A new request needs a new key."
    return PenstockError("idempotency_conflict", message)
