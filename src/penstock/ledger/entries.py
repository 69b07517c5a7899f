"""Joins what one worker's journal says of each request into one entry of the ledger."""

import math
from collections.abc import Iterable, Iterator

import msgspec

from penstock.domain.ledger import INTERRUPTED, LedgerEntry
from penstock.domain.money import MAX_PRICE_NANOS
from penstock.domain.usage import MAX_TOKENS, Usage
from penstock.ledger.journal import Admitted, Progress, Record, Settled

_MOST_MS = 10**12
_MOST_US = 2**62
# By the columns of the store: an entry that it could not keep would hold up all others.
_ID, _NAME, _MODEL, _TARGET, _OUTCOME = 36, 30, 256, 512, 64


class Made(msgspec.Struct, frozen=True):
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
    target = None if settled.provider is None else f"{settled.provider}/{settled.target_model or ''}"
    entry = LedgerEntry(
        request_id=_text(admitted.request_id, 64),
        admitted_us=_us(admitted.admitted_at),
        settled_us=_us(settled.settled_at),
        key_id=_text(admitted.key_id, _ID),
        key_prefix=_text(admitted.key_prefix, 16),
        app_id=_text(admitted.app_id, _ID),
        app_name=_text(admitted.app_name, _NAME),
        addon_id=_text(admitted.addon_id, _ID),
        attachment_id=_text(admitted.attachment_id, _ID),
        asked=_text(admitted.asked or admitted.model, _MODEL),
        model=_text(admitted.model, _MODEL),
        target=None if target is None else _text(target, _TARGET),
        stand_in=None if settled.stand_in is None else _text(settled.stand_in, _MODEL),
        stream=admitted.stream,
        outcome=_text(outcome or settled.outcome, _OUTCOME),
        usage=_usage(settled),
        cached_answer=settled.cached_answer,
        raw_usage=None if settled.raw_usage is None else _text(settled.raw_usage, len(settled.raw_usage)),
        currency=_text(settled.currency, 3),
        price_version=None if settled.price_version is None else _text(settled.price_version, 16),
        amount_nanos=_nanos(settled.amount_nanos),
        cost_nanos=None if settled.cost_nanos is None else _nanos(settled.cost_nanos),
        cost_currency=None if settled.cost_currency is None else _text(settled.cost_currency, 3),
        queued_ms=_ms(settled.queued_ms),
        first_event_ms=_ms(settled.first_event_ms),
        total_ms=_ms(settled.total_ms) or 0.0,
        attempts=msgspec.json.encode(settled.attempts).decode(),
        idempotency_id=None if admitted.idempotency_id is None else admitted.idempotency_id[:32],
    )
    return Made(entry, admitted.money)


def _usage(settled: Settled) -> Usage:
    return Usage(
        input_tokens=_tokens(settled.input_tokens),
        output_tokens=_tokens(settled.output_tokens),
        cached_input_tokens=_tokens(settled.cached_input_tokens),
        cache_write_tokens=_tokens(settled.cache_write_tokens),
        reasoning_tokens=_tokens(settled.reasoning_tokens),
        estimated=settled.estimated,
    )


def _text(text: str, longest: int) -> str:
    return text[:longest].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _tokens(count: int) -> int:
    return min(max(count, 0), MAX_TOKENS)


def _nanos(amount: int) -> int:
    return min(max(amount, -MAX_PRICE_NANOS), MAX_PRICE_NANOS)


def _us(seconds: float) -> int:
    return min(max(round(seconds * 1_000_000), 0), _MOST_US) if math.isfinite(seconds) else 0


def _ms(milliseconds: float | None) -> float | None:
    if milliseconds is None or not math.isfinite(milliseconds):
        return None
    # Microseconds: what both databases keep to the last digit, whoever prints it.
    return round(min(max(milliseconds, 0.0), _MOST_MS), 3) + 0.0
