"""All that one worker knows of its targets, and its share of their slots. It outlives a reload of the catalogue."""

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from penstock.gateway.routing.breaker import BreakerRules
from penstock.gateway.routing.health import Health
from penstock.gateway.routing.hedge import HedgeBudget
from penstock.gateway.routing.notices import Notice, Notices, merged
from penstock.gateway.routing.slots import Limit, Slots
from penstock.providers.spec import ProviderSpec

_log = logging.getLogger("penstock.gateway")


class Board:
    """The health of every target by its name (``provider/model``) and the slots of every provider that has a limit.
    ``run`` is the folder that all workers of one home share; ``clock`` is monotonic seconds."""

    def __init__(
        self,
        run: Path,
        *,
        rules: BreakerRules | None = None,
        clock: Callable[[], float] = time.monotonic,
        dice: random.Random | None = None,
    ) -> None:
        self.clock = clock
        self.dice = dice or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._run = run
        self._rules = rules or BreakerRules()
        self._healths: dict[str, Health] = {}
        self._kept: frozenset[str] | None = None
        self._slots: dict[str, Slots] = {}
        self._reserves: dict[str, int] = {}
        self._notices = Notices(run)
        self._budgets: dict[str, HedgeBudget] = {}

    def health(self, name: str) -> Health:
        """The health of that target; of one that a reload has taken away, a new one that nobody keeps."""
        health = self._healths.get(name)
        if health is None:
            health = Health(name, self._rules, self.clock, self._changed)
            if self._kept is None or name in self._kept:
                self._healths[name] = health
        return health

    def slots(self, provider: str) -> Slots | None:
        """The provider's slots; None when it has no limit."""
        slots = self._slots.get(provider)
        return slots if slots is not None and slots.limit is not None else None

    def set_rules(self, rules: BreakerRules) -> None:
        """These are the rules of all breakers from now on."""
        self._rules = rules
        for health in self._healths.values():
            health.breaker.rules = rules

    def keep(self, targets: Collection[str]) -> None:
        """These are the targets from now on; what was known of others is forgotten."""
        self._kept = frozenset(targets)
        for name in self._healths.keys() - self._kept:
            del self._healths[name]
        for name in targets:
            self.health(name)

    def set_limits(self, specs: Iterable[ProviderSpec]) -> None:
        """These are the providers from now on. Calls under way keep their slots; a limit that shrank holds in full once
        those above it are over. Raises OSError."""
        limits = {
            spec.name: Limit(
                max_concurrent=spec.max_concurrent, max_queue=spec.max_queue, queue_timeout_s=spec.queue_timeout_s
            )
            for spec in specs
            if spec.max_concurrent is not None
        }
        for name, limit in limits.items():
            if name not in self._slots:
                self._slots[name] = Slots(self._run, name, limit, clock=self.clock)
                self._slots[name].reserves = self._reserves
        for name, slots in self._slots.items():
            slots.limit = limits.get(name)  # never closed: another descriptor of its file must not be opened

    def set_reserves(self, reserves: Mapping[str, int]) -> None:
        """These shares of each provider's slots (percent by app id) are for one app alone from now on. Calls under way
        keep the slots that they have: a new reserve holds in full once those in it are over."""
        if reserves != self._reserves:
            self._reserves = dict(reserves)
            for slots in self._slots.values():
                slots.reserves = self._reserves

    def budget(self, model_id: str) -> HedgeBudget:
        """How many of the model's requests were hedged at this worker."""
        budget = self._budgets.get(model_id)
        if budget is None:
            budget = self._budgets[model_id] = HedgeBudget()
        return budget

    def states(self) -> list[dict[str, object]]:
        """What all live workers say of the targets, for the health page."""
        return merged(self._healths, self._notices.read())

    def close(self) -> None:
        """Give back slots, and take this worker's word off the health page."""
        for slots in self._slots.values():
            slots.close()
        self._notices.close()

    def _changed(self) -> None:
        try:
            self._notices.write(self._notes())
        except OSError as error:
            _log.warning("the state of targets cannot be written: %s", error.strerror)

    def _notes(self) -> Iterable[Notice]:
        ahead = time.time() - self.clock()
        for health in self._healths.values():
            state, until = health.state()
            if state != "closed":
                yield Notice(health.name, state, until + ahead, health.error)
