"""Joins what one worker's journal says of each request into one entry of the ledger."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from penstock.domain.chain import Said, Values
from penstock.domain.ledger import INTERRUPTED
from penstock.domain.money import MAX_PRICE_NANOS
from penstock.domain.usage import MAX_TOKENS
from penstock.ledger.journal import MAX_RECORD
from penstock.ledger.records import Admitted, Progress, Record, Settled

_MOST_MS = 1e12
# 9999-01-01: a budget's period that began later would end behind the last date there is.
_MOST_US = 253_370_764_800_000_000
_MOST_S = _MOST_US / 1e6
# By the columns of the store: an entry that it could not keep would hold up all others.
_TEXTS = {
    "key_id": 36, "key_prefix": 16, "app_id": 36, "app_name": 30, "addon_id": 36, "attachment_id": 36, "asked": 256,
    "model": 256, "target": 512, "stand_in": 256, "outcome": 64, "currency": 3, "price_version": 16, "cost_currency": 3,
    "request_id": 64, "raw_usage": MAX_RECORD,
}  # fmt: skip
# What has no bit above these is not too much: several counts are looked at together.
_FEW = 1 << (MAX_TOKENS.bit_length() - 1)
# How many sets of texts, which many requests have in common, are known to fit.
_KNOWN = 2000
_encode = msgspec.json.Encoder().encode

# What an entry says, and the counters on which its worker held money for it.
Made = tuple[Values, tuple[str, ...]]


class _Open(msgspec.Struct):
    """A request without its settlement; where its records stand, by number of the file."""

    admitted: Admitted
    admitted_in: int
    progress: Progress | None = None
    progress_in: int = 0


class Join:
    """The open requests of one worker. Its memory is theirs, and some texts: what is settled is handed out at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, ...], tuple[Any, ...]] = {}
        self._open: dict[str, _Open] = {}
        # Without an admission so far: its file may come later (names from before 0.3 order them by the clock), or its
        # entry may be in the ledger since before a restart, or the record is lost.
        self._early: dict[str, tuple[Settled, int]] = {}

    def take(self, records: Iterable[Record], file: int) -> list[Made]:
        """Take records of the file with that number; the entries that they complete."""
        made = []
        opened = self._open
        for record in records:
            if type(record) is Settled and (held := opened.pop(record.request_id, None)) is not None:
                made.append(self._made(held.admitted, record))
            elif type(record) is Admitted and not self._early:
                opened.setdefault(record.request_id, _Open(record, file))
            elif (late := self._add(record, file)) is not None:
                made.append(late)
        return made

    def _made(self, admitted: Admitted, settled: Settled, *, outcome: str = "") -> Made:
        """Their entry. Each one passes here: what is odd is left to functions, what is not is looked at in place."""
        texts = (
            admitted.key_id, admitted.key_prefix, admitted.app_id, admitted.app_name, admitted.addon_id,
            admitted.attachment_id, admitted.asked, admitted.model, settled.provider, settled.target_model,
            settled.stand_in, outcome or settled.outcome, settled.currency, settled.price_version,
            settled.cost_currency,
        )  # fmt: skip
        (
            key_id, key_prefix, app_id, app_name, addon_id, attachment_id, asked, model, target, stand_in, ended,
            currency, price_version, cost_currency,
        ) = self._known.get(texts) or self._know(texts)  # fmt: skip
        request_id, raw_usage, attempts = admitted.request_id, settled.raw_usage, settled.attempts
        read, cached, written = settled.input_tokens, settled.cached_input_tokens, settled.cache_write_tokens
        generated, thought = settled.output_tokens, settled.reasoning_tokens
        amount, cost, total = settled.amount_nanos, settled.cost_nanos, settled.total_ms
        queued, first, id_ = settled.queued_ms, settled.first_event_ms, admitted.idempotency_id
        at, end = admitted.admitted_at, settled.settled_at
        values = (
            request_id,
            int(at * 1_000_000 + 0.5) if 0.0 <= at < _MOST_S else _odd_us(at),
            int(end * 1_000_000 + 0.5) if 0.0 <= end < _MOST_S else _odd_us(end),
            key_id, key_prefix, app_id, app_name, addon_id, attachment_id, asked, model, target, stand_in,
            admitted.stream, ended, settled.cached_answer, settled.estimated, read, cached, written, generated, thought,
            raw_usage, currency, price_version, amount, cost, cost_currency,
            # In whole microseconds: what both databases keep to the last digit, whoever prints it.
            int(queued * 1000 + 0.5) / 1000 if queued is not None and 0.0 <= queued <= _MOST_MS else _odd_ms(queued),
            int(first * 1000 + 0.5) / 1000 if first is not None and 0.0 <= first <= _MOST_MS else _odd_ms(first),
            int(total * 1000 + 0.5) / 1000 if 0.0 <= total <= _MOST_MS else _odd_ms(total) or 0.0,
            _encode(attempts).decode() if attempts else "[]",
            id_ and id_[:32],
        )  # fmt: skip
        fits = (
            0 <= read | cached | written | generated | thought < _FEW
            and -MAX_PRICE_NANOS <= amount <= MAX_PRICE_NANOS
            and (cost is None or -MAX_PRICE_NANOS <= cost <= MAX_PRICE_NANOS)
            and len(request_id) <= _TEXTS["request_id"]
            and "\0" not in request_id
            # No record is longer than this may be.
            and (raw_usage is None or "\0" not in raw_usage)
        )
        return values if fits else _cut(values), admitted.money

    def _know(self, texts: tuple[str | None, ...]) -> tuple[str | None, ...]:
        """What an entry says of them, cut to what the store keeps."""
        *admitted, asked, model, provider, target_model, stand_in, outcome, currency, version, cost_currency = texts
        target = None if provider is None else f"{provider}/{target_model or ''}"
        said = (*admitted, asked or model, model, target, stand_in, outcome, currency, version, cost_currency)
        cut = tuple(text and _text(text, longest) for text, longest in zip(said, _TEXTS.values(), strict=False))
        if cut == said:
            # No longer than a row, then.
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[texts] = cut
        return cut

    def _add(self, record: Record, file: int) -> Made | None:
        """Keep what completes no entry; but an admission may come behind its settlement."""
        if isinstance(record, Admitted):
            early, early_in = self._early.pop(record.request_id, (None, file))
            if early is not None and not isinstance(early, Progress):
                return self._made(record, early)
            self._open.setdefault(record.request_id, _Open(record, file, early, early_in))
        elif isinstance(record, Progress) and (held := self._open.get(record.request_id)) is not None:
            held.progress, held.progress_in = record, file
        else:
            self._early[record.request_id] = record, file
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
            values, money = self._made(admitted, held.progress or _nothing(admitted), outcome=INTERRUPTED)
            if admitted.idempotency_id is not None:
                values = Said._make(values)._replace(amount_nanos=0)
            yield values, money

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
                made.append(self._made(admitted, settled))
        return made

    def forget(self, made: Iterable[Made]) -> None:
        """These, which were unclaimed, are in the ledger."""
        for values, _ in made:
            self._early.pop(values[0], None)


def _nothing(admitted: Admitted) -> Settled:
    return Settled(
        request_id=admitted.request_id, settled_at=admitted.admitted_at, outcome=INTERRUPTED, provider=None,
        target_model=None, stand_in=None, input_tokens=0, output_tokens=0, cached_input_tokens=0, estimated=True,
        first_event_ms=None, total_ms=0.0,
    )  # fmt: skip


def _cut(values: Values) -> Values:
    """The same with everything cut to what the store keeps."""
    said = Said._make(values)
    return said._replace(
        request_id=_text(said.request_id, _TEXTS["request_id"]),
        raw_usage=None if said.raw_usage is None else _text(said.raw_usage, _TEXTS["raw_usage"]),
        amount_nanos=_nanos(said.amount_nanos),
        cost_nanos=None if said.cost_nanos is None else _nanos(said.cost_nanos),
        input_tokens=_tokens(said.input_tokens),
        cached_input_tokens=_tokens(said.cached_input_tokens),
        cache_write_tokens=_tokens(said.cache_write_tokens),
        output_tokens=_tokens(said.output_tokens),
        reasoning_tokens=_tokens(said.reasoning_tokens),
    )


def _text(text: str, longest: int) -> str:
    return text[:longest].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _tokens(count: int) -> int:
    return min(max(count, 0), MAX_TOKENS)


def _nanos(amount: int) -> int:
    return min(max(amount, -MAX_PRICE_NANOS), MAX_PRICE_NANOS)


def _odd_us(seconds: float) -> int:
    return _MOST_US if math.isfinite(seconds) and seconds > 0 else 0


def _odd_ms(milliseconds: float | None) -> float | None:
    if milliseconds is None or not math.isfinite(milliseconds):
        return None
    return min(max(milliseconds, 0.0), _MOST_MS)
