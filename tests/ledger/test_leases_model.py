"""Workers with leases against a model: over a store that is real and a line to it that loses asks and answers, requests
never use more than a limit allows, whoever dies and whatever changes, and in the end all of it can be had again.

PENSTOCK_SOAK=1 tries many more ways than CI does.
"""

import itertools
import os
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from penstock.store.database import Database
from tests.ledger.lease_workers import LEASE_S, WINDOW_S, Fate, World

SOAK = bool(os.environ.get("PENSTOCK_SOAK"))
pytestmark = pytest.mark.timeout(7200 if SOAK else 120)

NAMES = ("rate", "permit", "money")
LOSSES: tuple[Fate, ...] = ("answer lost", "ask lost")
_names = st.sampled_from(NAMES)
_who = st.integers(0, 2)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One for all examples, each of which has counters of its own."""
    db = Database.open(tmp_path_factory.mktemp("leases") / "penstock.db")
    yield db
    db.close()


class Requests(RuleBasedStateMachine):
    """Three workers at a time, three counters, and a clock."""

    database: ClassVar[Database]
    numbers = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        number = next(self.numbers)
        self.world = World(self.database, at=1_800_000_000.0 + number * 10_000, mark=str(number))
        for _ in range(3):
            self.world.hire()

    def busy(self) -> bool:
        """Whether a worker that cannot renew would lose what is in use."""
        world = self.world
        return any(one.counter.kind != "rate" for one in world.requests) or any(
            worker.unshipped for worker in world.workers
        )

    @rule(who=_who, name=_names, units=st.integers(1, 6), fewer=st.integers(0, 5))
    def obtain(self, who: int, name: str, units: int, fewer: int) -> None:
        """A request begins."""
        self.world.obtain(self.world.workers[who], name, units, max(1, units - fewer))

    @rule(who=_who, name=_names, count=st.integers(1, 8))
    def flood(self, who: int, name: str, count: int) -> None:
        """Many small ones begin."""
        for _ in range(count):
            self.world.obtain(self.world.workers[who], name, 1)

    @precondition(lambda self: self.world.requests)
    @rule(which=st.integers(0, 30), used=st.integers(0, 7))
    def end(self, which: int, used: int) -> None:
        """A request ends, with less than it took, or more."""
        requests = [one for one in self.world.requests if not one.ended and one.worker in self.world.workers]
        if requests:
            self.world.end(requests[which % len(requests)], used=used)

    @rule(who=st.integers(0, 5))
    def ship(self, who: int) -> None:
        """The ledger gets an entry, of a dead worker too."""
        everyone = (*self.world.workers, *self.world.dead)
        self.world.ship(everyone[who % len(everyone)])

    @rule(who=_who, fates=st.lists(st.sampled_from(LOSSES), min_size=1, max_size=2))
    def trouble(self, who: int, fates: list[Fate]) -> None:
        """The next exchanges of a worker are lost."""
        line = self.world.workers[who].line
        line.fates.clear()
        line.fates.extend(fates)

    @rule(seconds=st.sampled_from((0.1, 0.3, 1.0, LEASE_S, 6.0)))
    def pass_time(self, seconds: float) -> None:
        """Time moves on."""
        self.world.pass_time(seconds)

    @precondition(lambda self: not self.busy())
    @rule(
        seconds=st.sampled_from((1.5, LEASE_S, 30.0, 50.0, WINDOW_S - LEASE_S, WINDOW_S, WINDOW_S + 1)),
        away=st.lists(_who, max_size=3),
    )
    def go_without(self, seconds: float, away: list[int]) -> None:
        """Time moves on, and some workers cannot reach the store meanwhile."""
        for who in away:
            self.world.workers[who].line.away = True
        self.world.pass_time(seconds, step_s=10.0)
        for who in away:
            self.world.workers[who].line.away = False

    @rule(name=_names, limit=st.sampled_from((0, 3, 8, 10, 14)))
    def set_limit(self, name: str, limit: int) -> None:
        """An operator changes a limit."""
        self.world.set_limit(name, limit)

    @rule(who=_who)
    def die(self, who: int) -> None:
        """A worker is killed, and another one comes."""
        self.world.die(self.world.workers[who])
        self.world.hire()

    @rule(who=_who)
    def leave(self, who: int) -> None:
        """A worker ends in order, and another one comes."""
        self.world.leave(self.world.workers[who])
        self.world.hire()

    @invariant()
    def nothing_exceeds_its_limit(self) -> None:
        """What is used in a window, in use at once, and spent or held."""
        self.world.check()

    def teardown(self) -> None:
        """Once all leases have ended, and the last use has left the window, everything is there again."""
        world = self.world
        while world.workers:
            world.die(world.workers[0])
        world.now += LEASE_S + 2 * WINDOW_S
        heir = world.hire()
        for name, counter in world.counters.items():
            rest = counter.limit - (world.spent if name == "money" else 0)
            if rest > 0:
                assert world.obtain(heir, name, rest) is not None, name
            assert world.obtain(heir, name, 1) is None, name
        world.close()


def test_requests_never_use_more_than_a_limit_allows(database: Database) -> None:
    Requests.database = database
    run_state_machine_as_test(
        Requests,
        settings=settings(
            max_examples=3000 if SOAK else 25,
            stateful_step_count=60 if SOAK else 30,
            phases=tuple(Phase) if SOAK else (Phase.generate,),
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
