"""Limits for tests: leases whose store is a dictionary, principals with rows, and a worker that falls under both."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from penstock.domain.catalogue import Catalogue
from penstock.domain.errors import PenstockError
from penstock.domain.ids import secret_hash
from penstock.domain.limits import Budget, Counter, LimitRow, Limits, Period, Scope, Shared
from penstock.domain.money import nanos
from penstock.domain.platform import Principal
from penstock.gateway.limits.defaults import defaults
from penstock.gateway.limits.governor import Governor
from penstock.gateway.limits.shared import SharedRules
from penstock.ledger.bundle import Bundle, Counters
from penstock.ledger.slices import Slice
from penstock.settings.tree import BudgetDefault, LimitDefault, LimitsSettings


class MemoryLeases:
    """Every counter's units in one place. What was never asked for is not in memory: the first take of a counter fails,
    and ``obtain`` brings all there is. ``away`` is the database's absence, who asks for a counter that
    begins with ``stuck`` waits for ever."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}
        self.spent: dict[str, int] = {}
        self.known: dict[str, int] = {}
        self.away = False
        self.admits = False
        self.stuck: str | None = None
        self.waiting = 0
        self.asked = 0
        self.seconds: float | None = 12.0
        self.epoch = 0

    def take(self, counter: Counter, units: int) -> bool:
        if self.known.get(counter.id) != counter.limit or self._left(counter) < units:
            return False
        self.used[counter.id] = self.used.get(counter.id, 0) + units
        return True

    def bundle(self, counters: Counters) -> "MemoryBundle":
        return MemoryBundle(self, counters)

    def slice_of(self, counter: Counter) -> None:
        return None

    def linger(self, held: Slice) -> None:
        pass

    def expect(self, counter: Counter, units: int) -> None:
        pass

    async def obtain(self, counter: Counter, units: int, *, least: int | None = None) -> int:
        self.asked += 1
        if self.stuck is not None and counter.id.startswith(self.stuck):
            self.waiting += 1
            await asyncio.Event().wait()
        if self.away:
            if not self.admits:
                raise PenstockError("limits_unavailable", "The limits cannot be checked.", retry_after_s=2)
        else:
            self.known[counter.id] = counter.limit
            left = max(0, self._left(counter))
            if left < units:
                units = left if least is not None and left >= least else 0
        self.used[counter.id] = self.used.get(counter.id, 0) + units
        return units

    def put_back(self, counter: Counter, units: int, *, age_s: float = 0.0) -> None:
        assert 0 < units <= self.used[counter.id]
        self.used[counter.id] -= units

    def correct(self, counter: Counter, units: int, *, age_s: float = 0.0) -> None:
        self.used[counter.id] += units

    def spend(self, counter: Counter, held: int, spent: int) -> None:
        assert held <= self.used[counter.id]
        self.used[counter.id] -= held
        self.spent[counter.id] = self.spent.get(counter.id, 0) + spent

    def left(self, counter: Counter) -> tuple[int, float]:
        return self._left(counter), 50.2

    def frees_in_s(self, counter: Counter) -> float | None:
        return self.seconds

    def on_hold(self, counter: Counter) -> tuple[int, int]:
        return self.used.get(counter.id, 0), 0

    async def follow(self) -> None:
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        pass

    def _left(self, counter: Counter) -> int:
        return counter.limit - self.used.get(counter.id, 0) - self.spent.get(counter.id, 0)


class MemoryBundle(Bundle):
    """Takes of counters one after the other; what ends a request goes the bundle's own slow way, without slices."""

    def __init__(self, leases: MemoryLeases, counters: Counters) -> None:
        super().__init__(leases, counters, lambda: 0.0)
        self._memory = leases

    def take(self, tokens: int, money: int) -> bool:
        taken: list[tuple[Counter, int]] = []
        for kind, units in zip(self._counters, (1, 1, tokens, money), strict=True):
            for counter in kind if units else ():
                if not self._memory.take(counter, units):
                    for earlier, back in taken:
                        self._memory.put_back(earlier, back)
                    return False
                taken.append((counter, units))
        return True


class Rows:
    """The store's shared rules; a test replaces ``value``, and takes the store ``away``."""

    def __init__(self, value: Shared | None = None) -> None:
        self.value = value or Shared(revision=1)
        self.away = False
        self.reads = 0

    def shared(self) -> Shared:
        """All of it."""
        self.reads += 1
        return self.value

    def revision(self) -> int:
        """The newest revision."""
        if self.away:
            raise OSError("away")
        return self.value.revision


class Governed:
    """The limits of one worker: give it to ``lab`` as ``governor``. Rows of ``penstock.toml`` are dictionaries."""

    def __init__(
        self,
        *,
        limit: Sequence[dict[str, Any]] = (),
        budget: Sequence[dict[str, Any]] = (),
        shared: Shared | None = None,
        settings: LimitsSettings | None = None,
    ) -> None:
        self.leases = MemoryLeases()
        self.rows = Rows(shared)
        self.settings = settings or LimitsSettings()
        self.limit = msgspec.convert(limit, tuple[LimitDefault, ...])
        self.budget = msgspec.convert(budget, tuple[BudgetDefault, ...])
        self.shared = SharedRules(self.rows, poll_s=0.01)
        self.now = 1_795_435_200.0  # 2026-11-23 12:00 UTC, a Monday

    def __call__(self, catalogue: Catalogue) -> Governor:
        """The governor of a configuration."""
        made = defaults(self.settings, self.limit, self.budget, catalogue=catalogue)
        return Governor(self.leases, self.shared, made, clock=lambda: self.now)  # type: ignore[arg-type]

    def open_units(self) -> dict[str, int]:
        """What is held of permits and money."""
        return {name: units for name, units in self.leases.used.items() if name[0] in "cb" and units}


def ungoverned(catalogue: Catalogue) -> Governor:
    """No limit at all."""
    return Governed(settings=LimitsSettings(heroku_defaults=False))(catalogue)


def principal(
    *, limits: Sequence[LimitRow] = (), budgets: Sequence[Budget] = (), key: str = "inf-lab", **fields: Any
) -> Principal:
    """Whom the lab's key stands for: of each object an id and a name of its own."""
    return Principal(
        **{
            "key_id": "k1",
            "key_hash": secret_hash(key),
            "key_prefix": "inf-ab12",
            "app_id": "a1",
            "app_name": "shop",
            "addon_id": "d1",
            "addon_name": "inference-cubed-1",
            "attachment_id": "t1",
            "attachment_name": "INFERENCE",
            "model_id": None,
            "limits": tuple(limits),
            "budgets": tuple(budgets),
        }
        | fields
    )


IDS = {Scope.KEY: "k1", Scope.ATTACHMENT: "t1", Scope.ADDON: "d1", Scope.APP: "a1", Scope.MODEL: "m"}
WHO = {
    Scope.KEY: "The key inf-ab12",
    Scope.ATTACHMENT: "The attachment INFERENCE",
    Scope.ADDON: "The add-on inference-cubed-1",
    Scope.APP: "The app shop",
    Scope.MODEL: "The model m",
}


def row(scope: Scope, model: str = "", **limits: int) -> LimitRow:
    """Limits that an operator set on one of the principal's objects."""
    return LimitRow(scope=scope, subject_id=IDS[scope], model=model, limits=Limits(**limits))


def budget(amount: str, *, scope: Scope = Scope.APP, period: Period = "month", **fields: Any) -> Budget:
    """A budget that an operator set on one of the principal's objects."""
    made = Budget(
        id=f"{scope}-{period}",
        scope=scope,
        subject_id=IDS[scope],
        period=period,
        amount_nanos=nanos(Decimal(amount)),
    )
    return msgspec.structs.replace(made, **fields)
