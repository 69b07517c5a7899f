"""Joins what one worker's journal says of each request into one entry of the ledger."""

import math
from collections.abc import Iterable, Iterator
from operator import le

import msgspec

from penstock.domain.ledger import INTERRUPTED, LedgerEntry
from penstock.domain.money import MAX_PRICE_NANOS
from penstock.domain.usage import MAX_TOKENS, Usage
from penstock.ledger.journal import MAX_RECORD
from penstock.ledger.records import Admitted, Progress, Record, Settled

_MOST_MS = 1e12
_MOST_US = 2**62
# By the columns of the store: an entry that it could not keep would hold up all others.
_TEXTS = {
    "request_id": 64, "key_id": 36, "key_prefix": 16, "app_id": 36, "app_name": 30, "addon_id": 36, "attachment_id": 36,
    "asked": 256, "model": 256, "target": 512, "stand_in": 256, "outcome": 64, "raw_usage": MAX_RECORD, "currency": 3,
    "price_version": 16, "cost_currency": 3,
}  # fmt: skip
_encode = msgspec.json.Encoder().encode
_LONGEST = tuple(_TEXTS.values())


class Made(msgspec.Struct, frozen=True, gc=False):
    """An entry, and the counters on which its worker held money for it."""

    entry: LedgerEntry
    money: tuple[str, ...] = ()


class _Open(msgspec.Struct):
    """A request without its settlement; where its records stand, by number of the file."""

    admitted: Admitted
    admitted_in: int
    progress: Progress | None = None
    progress_in: int = 0


class Join:
    """The open requests of one worker. Its memory is theirs: what is settled is handed out at once."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        # Without an admission so far: its file may come later (names from before 0.3 order them by the clock), or its
        # entry may be in the ledger since before a restart, or the record is lost.
        self._early: dict[str, tuple[Settled, int]] = {}

    def add(self, record: Record, file: int) -> Made | None:
        """Take one record of the file with that number; the entry that it completes."""
        if isinstance(record, Admitted):
            early, early_in = self._early.pop(record.request_id, (None, file))
            if early is not None and not isinstance(early, Progress):
                return _settled(record, early)
            self._open.setdefault(record.request_id, _Open(record, file, early, early_in))
            return None
        held = self._open.get(record.request_id)
        if held is None:
            self._early[record.request_id] = record, file
        elif isinstance(record, Progress):
            held.progress, held.progress_in = record, file
        else:
            del self._open[record.request_id]
            return _settled(held.admitted, record)
        return None

    def needed(self) -> set[int]:
        """The files that hold something of requests that are not handed out."""
        files = {file for settled, file in self._early.values() if not isinstance(settled, Progress)}
        for held in self._open.values():
            files.add(held.admitted_in)
            if held.progress is not None:
                files.add(held.progress_in)
        return files

    def waiting(self) -> tuple[str, ...]:
        """The open requests."""
        return tuple(self._open)

    def drop(self, requests: Iterable[str]) -> None:
        """These are in the ledger."""
        for request_id in requests:
            self._open.pop(request_id, None)

    def interrupted(self) -> Iterator[Made]:
        """The worker has died and all that it wrote was read: what was open, as far as it is known to have come. One
        with an Idempotency-Key is not charged, for its client asks again."""
        for held in self._open.values():
            admitted = held.admitted
            made = _settled(admitted, held.progress or _nothing(admitted), outcome=INTERRUPTED)
            if admitted.idempotency_id is not None:
                made = Made(msgspec.structs.replace(made.entry, amount_nanos=0), made.money)
            yield made

    def unclaimed(self, *, progress: bool = False) -> list[Made]:
        """The settlements that came without an admission, and what is noted without one where ``progress`` asks for it.
        Most have their entries; one that has none lost its admission to damage, and nobody knows whose it was."""
        made = []
        for settled, _ in self._early.values():
            if progress or not isinstance(settled, Progress):
                admitted = Admitted(
                    request_id=settled.request_id, admitted_at=settled.settled_at, key_id="", key_prefix="", app_id="",
                    addon_id="", attachment_id="", model="", stream=False,
                )  # fmt: skip
                made.append(_settled(admitted, settled))
        return made

    def forget(self, made: Iterable[Made]) -> None:
        """These, which were unclaimed, are in the ledger."""
        for one in made:
            self._early.pop(one.entry.request_id, None)


def _nothing(admitted: Admitted) -> Settled:
    return Settled(
        request_id=admitted.request_id, settled_at=admitted.admitted_at, outcome=INTERRUPTED, provider=None,
        target_model=None, stand_in=None, input_tokens=0, output_tokens=0, cached_input_tokens=0, estimated=True,
        first_event_ms=None, total_ms=0.0,
    )  # fmt: skip


def _settled(admitted: Admitted, settled: Settled, *, outcome: str | None = None) -> Made:
    entry = LedgerEntry(
        request_id=admitted.request_id,
        admitted_us=_us(admitted.admitted_at),
        settled_us=_us(settled.settled_at),
        key_id=admitted.key_id,
        key_prefix=admitted.key_prefix,
        app_id=admitted.app_id,
        app_name=admitted.app_name,
        addon_id=admitted.addon_id,
        attachment_id=admitted.attachment_id,
        asked=admitted.asked or admitted.model,
        model=admitted.model,
        target=None if settled.provider is None else f"{settled.provider}/{settled.target_model or ''}",
        stand_in=settled.stand_in,
        stream=admitted.stream,
        outcome=outcome or settled.outcome,
        usage=Usage(
            input_tokens=settled.input_tokens,
            output_tokens=settled.output_tokens,
            cached_input_tokens=settled.cached_input_tokens,
            cache_write_tokens=settled.cache_write_tokens,
            reasoning_tokens=settled.reasoning_tokens,
            estimated=settled.estimated,
        ),
        cached_answer=settled.cached_answer,
        raw_usage=settled.raw_usage,
        currency=settled.currency,
        price_version=settled.price_version,
        amount_nanos=settled.amount_nanos,
        cost_nanos=settled.cost_nanos,
        cost_currency=settled.cost_currency,
        queued_ms=_ms(settled.queued_ms),
        first_event_ms=_ms(settled.first_event_ms),
        total_ms=_ms(settled.total_ms) or 0.0,
        attempts=_encode(settled.attempts).decode(),
        idempotency_id=None if admitted.idempotency_id is None else admitted.idempotency_id[:32],
    )
    return Made(entry if _fits(entry) else _cut(entry), admitted.money)


def _fits(entry: LedgerEntry) -> bool:
    """Whether the store can keep all of it; that it can is the rule, and this is quick."""
    # In the order of _TEXTS.
    texts = (
        entry.request_id, entry.key_id, entry.key_prefix, entry.app_id, entry.app_name, entry.addon_id,
        entry.attachment_id, entry.asked, entry.model, entry.target or "", entry.stand_in or "", entry.outcome,
        entry.raw_usage or "", entry.currency, entry.price_version or "", entry.cost_currency or "",
    )  # fmt: skip
    if "\0" in "".join(texts) or not all(map(le, map(len, texts), _LONGEST)):
        return False
    usage = entry.usage
    counts = (
        usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens,
        usage.reasoning_tokens,
    )  # fmt: skip
    if min(counts) < 0 or max(counts) > MAX_TOKENS:
        return False
    return abs(entry.amount_nanos) <= MAX_PRICE_NANOS and abs(entry.cost_nanos or 0) <= MAX_PRICE_NANOS


def _cut(entry: LedgerEntry) -> LedgerEntry:
    """The entry with everything cut to what the store keeps."""
    usage = entry.usage
    counts = {name: _tokens(getattr(usage, name)) for name in usage.__struct_fields__ if name != "estimated"}
    said = {name: text for name in _TEXTS if (text := getattr(entry, name)) is not None}
    return msgspec.structs.replace(
        entry,
        usage=Usage(**counts, estimated=usage.estimated),
        amount_nanos=_nanos(entry.amount_nanos),
        cost_nanos=None if entry.cost_nanos is None else _nanos(entry.cost_nanos),
        **{name: _text(text, _TEXTS[name]) for name, text in said.items()},
    )


def _text(text: str, longest: int) -> str:
    return text[:longest].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _tokens(count: int) -> int:
    return min(max(count, 0), MAX_TOKENS)


def _nanos(amount: int) -> int:
    return min(max(amount, -MAX_PRICE_NANOS), MAX_PRICE_NANOS)


def _us(seconds: float) -> int:
    if 0.0 <= seconds < _MOST_US / 1e6:
        return int(seconds * 1_000_000 + 0.5)
    return _MOST_US if math.isfinite(seconds) and seconds > 0 else 0


def _ms(milliseconds: float | None) -> float | None:
    """In whole microseconds: what both databases keep to the last digit, whoever prints it."""
    if milliseconds is None:
        return None
    if 0.0 <= milliseconds <= _MOST_MS:
        return int(milliseconds * 1000 + 0.5) / 1000
    return min(max(milliseconds, 0.0), _MOST_MS) if math.isfinite(milliseconds) else None
