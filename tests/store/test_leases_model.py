"""The exchange of leases against a model: whatever workers ask, lose, use and give back, whenever they die and limits
change, no more is ever out than a limit allows, and in the end all of it can be had again.

PENSTOCK_SOAK=1 tries many more ways than CI does.
"""

import itertools
import os
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from penstock.store.database import Database
from tests.store.lease_world import LEASE_S, WINDOW_S, Fate, Wish, World

SOAK = bool(os.environ.get("PENSTOCK_SOAK"))
pytestmark = pytest.mark.timeout(7200 if SOAK else 120)

NAMES = ("rate", "other rate", "permit", "money")
FATES: tuple[Fate, ...] = ("answered", "answered", "answered", "answer lost", "ask lost")
_names = st.sampled_from(NAMES)
_who = st.integers(0, 2)


@st.composite
def _wish(draw: st.DrawFn) -> Wish:
    wants = draw(st.integers(0, 12))
    needs = draw(st.integers(0, wants))
    return Wish(wants, needs, draw(st.integers(0, needs)), draw(st.sampled_from((0, 0, 0, 1, 100))))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One for all examples, each of which has counters of its own."""
    db = Database.open(tmp_path_factory.mktemp("leases") / "penstock.db")
    yield db
    db.close()


class Exchanges(RuleBasedStateMachine):
    """Three workers at a time, four counters, and a clock."""

    database: ClassVar[Database]
    numbers = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        number = next(self.numbers)
        self.world = World(self.database, at=1_800_000_000.0 + number * 10_000, mark=str(number))
        for _ in range(3):
            self.world.hire()

    @rule(who=_who, wishes=st.dictionaries(_names, _wish(), min_size=1), fate=st.sampled_from(FATES))
    def exchange(self, who: int, wishes: dict[str, Wish], fate: Fate) -> None:
        """A worker asks for some of the counters, in any order."""
        self.world.exchange(self.world.workers[who], wishes, fate)

    @rule(who=_who, name=_names, units=st.integers(1, 10), uses=st.booleans())
    def obtain(self, who: int, name: str, units: int, uses: bool) -> None:
        """A request needs all of so many, and takes them if it gets them."""
        worker = self.world.workers[who]
        self.world.exchange(worker, {name: Wish(units, units, units)})
        if uses:
            self.world.use(worker, name, units)

    @rule(who=_who, name=_names, units=st.integers(1, 4))
    def use(self, who: int, name: str, units: int) -> None:
        """A request takes out of memory."""
        self.world.use(self.world.workers[who], name, units)

    @rule(who=_who, name=_names)
    def give_up(self, who: int, name: str) -> None:
        """A request has not used what it took."""
        self.world.give_up(self.world.workers[who], name)

    @rule(who=_who, units=st.integers(0, 10))
    def spend(self, who: int, units: int) -> None:
        """A request ends, and costs so much."""
        self.world.spend(self.world.workers[who], units)

    @rule(who=st.integers(0, 5))
    def ship(self, who: int) -> None:
        """The ledger gets an entry, of a dead worker too."""
        everyone = (*self.world.workers, *self.world.dead)
        self.world.ship(everyone[who % len(everyone)])

    @rule(seconds=st.sampled_from((0.3, 1.0, LEASE_S, 5.0, 29.0, WINDOW_S - LEASE_S, WINDOW_S, WINDOW_S + 1)))
    def pass_time(self, seconds: float) -> None:
        """Time moves on."""
        self.world.pass_time(seconds)

    @rule(name=_names, limit=st.sampled_from((0, 3, 8, 10, 14)))
    def set_limit(self, name: str, limit: int) -> None:
        """An operator changes a limit."""
        self.world.set_limit(name, limit)

    @rule(who=_who, name=_names)
    def hear(self, who: int, name: str) -> None:
        """A worker hears of a limit as it is now."""
        self.world.workers[who].shares[name].hear(self.world.counters[name])

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
        """What is used, and what may still be used."""
        self.world.check()

    def teardown(self) -> None:
        """Once all leases have ended, and the last use has left the window, everything is there again."""
        world = self.world
        while world.workers:
            world.die(world.workers[0])
        world.now += LEASE_S + 2 * WINDOW_S
        heir = world.hire()
        for name, counter in world.counters.items():
            rest = max(0, counter.limit - world.spent.get(counter.id, 0))
            grants = world.exchange(heir, {name: Wish(100, rest, rest)})
            assert grants[name].granted == rest, name


def test_no_way_to_exchange_leases_exceeds_a_limit_or_loses_a_unit(database: Database) -> None:
    Exchanges.database = database
    run_state_machine_as_test(
        Exchanges,
        settings=settings(
            max_examples=3000 if SOAK else 25,
            stateful_step_count=60 if SOAK else 30,
            phases=tuple(Phase) if SOAK else (Phase.generate,),
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
