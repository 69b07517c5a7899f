"""Answers in the store: one owner at a time, a clean take-over, and nothing of an earlier attempt."""

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from sqlalchemy import update

from penstock.store.database import Database
from penstock.store.governance import answers
from penstock.store.keeping.answers import SILENT_S, AnswerStore, Ask, Attempt, Beat
from penstock.store.nouns.stores import Stores
from tests.store.nouns import add_app

ID = b"i" * 32
ASK = Ask(id=ID, fingerprint=b"f" * 32, app_id="app", owner="one", request_id="req_1", window_s=60.0)
OTHER = msgspec.structs.replace(ASK, owner="other", request_id="req_2")


@pytest.fixture
def store(db: Database) -> AnswerStore:
    return AnswerStore(db)


def test_the_first_to_ask_runs_and_the_second_follows(store: AnswerStore) -> None:
    mine = store.claim(ASK)
    assert (mine.state, mine.attempt) == ("mine", 1)
    other = store.claim(OTHER)
    assert (other.state, other.attempt, other.created_s) == ("running", 1, mine.created_s)


def test_of_many_at_once_one_runs(store: AnswerStore) -> None:
    gate = threading.Barrier(8)

    def claim(number: int) -> str:
        gate.wait()
        return store.claim(msgspec.structs.replace(ASK, owner=f"o{number}")).state

    with ThreadPoolExecutor(8) as pool:
        states = sorted(pool.map(claim, range(8)))
    assert states == ["mine"] + ["running"] * 7


def test_with_an_app_go_its_answers_and_no_other_apps(store: AnswerStore, stores: Stores) -> None:
    gone, stays = add_app(stores, "gone"), add_app(stores, "stays")
    for number, app in enumerate((gone, gone, stays)):
        ask = msgspec.structs.replace(ASK, id=bytes([number]) * 32, app_id=app.id)
        store.claim(ask)
        store.beat([Beat(Attempt(ask.id, 1, "one"), 0, b"zero")])
        store.keep(bytes([10 + number]) * 32, app_id=app.id, body=b"body", ttl_s=60.0)
    stores.apps.remove(gone.id)
    assert [store.look(bytes([number]) * 32) is None for number in range(3)] == [True, True, False]
    assert [store.kept(bytes([10 + number]) * 32) is None for number in range(3)] == [True, True, False]


def test_a_finished_answer_is_given_to_the_same_request_alone(store: AnswerStore) -> None:
    store.claim(ASK)
    assert store.finish(Attempt(ID, 1, "one"), b"body")
    found = store.claim(OTHER)
    assert (found.state, found.body) == ("finished", b"body")
    conflict = store.claim(msgspec.structs.replace(OTHER, fingerprint=b"g" * 32))
    assert (conflict.state, conflict.body) == ("conflict", None)


def test_a_running_answer_is_a_conflict_for_another_request(store: AnswerStore) -> None:
    store.claim(ASK)
    assert store.claim(msgspec.structs.replace(OTHER, fingerprint=b"g" * 32)).state == "conflict"


def test_chunks_are_read_once_each_and_go_when_the_answer_is_whole(store: AnswerStore) -> None:
    store.claim(ASK)
    attempt = Attempt(ID, 1, "one")
    store.beat([Beat(attempt, 0, b"zero")])
    store.beat([Beat(attempt, 0, b"told twice"), Beat(attempt, 1, b"one")])
    look = store.look(ID)
    assert look is not None
    assert (look.chunks, look.state, look.body) == ((b"zero", b"one"), "running", None)
    assert look.silent_s < SILENT_S
    later = store.look(ID, after=1)
    assert later is not None
    assert later.chunks == (b"one",)
    store.finish(attempt, b"body")
    whole = store.look(ID)
    assert whole is not None
    assert (whole.chunks, whole.body) == ((), b"body")


def test_a_silent_owner_loses_the_answer_and_everything_it_writes(store: AnswerStore, db: Database) -> None:
    first = store.claim(ASK)
    old = Attempt(ID, 1, "one")
    store.beat([Beat(old, 0, b"old")])
    silence(db)
    taken = store.claim(OTHER)
    assert (taken.state, taken.attempt, taken.created_s) == ("mine", 2, first.created_s)
    assert store.beat([Beat(old, 1, b"late")]) == {}
    assert not store.finish(old, b"late")
    store.end(old, "failed", [Beat(old, 1, b"late")])
    store.forget(old)
    look = store.look(ID)
    assert look is not None
    assert (look.chunks, look.attempt, look.state) == ((), 2, "running")
    assert store.finish(Attempt(ID, 2, "other"), b"new")


def test_of_many_that_take_over_one_runs(store: AnswerStore, db: Database) -> None:
    store.claim(ASK)
    silence(db)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: store.claim(msgspec.structs.replace(ASK, owner=f"o{n}")), range(4)))
    assert sorted(one.state for one in found) == ["mine", "running", "running", "running"]
    assert {one.attempt for one in found} == {2}


def test_after_a_failure_a_repeat_runs_again_for_the_same_charge(store: AnswerStore) -> None:
    first = store.claim(ASK)
    store.end(Attempt(ID, 1, "one"), "failed", [Beat(Attempt(ID, 1, "one"), 0, b"the end")])
    look = store.look(ID)
    assert look is not None
    assert (look.state, look.chunks) == ("failed", (b"the end",))
    again = store.claim(OTHER)
    assert (again.state, again.attempt, again.created_s) == ("mine", 2, first.created_s)
    assert store.look(ID, after=0).chunks == ()  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["over", "another body"])
def test_what_is_not_the_same_request_any_more_is_another_charge(store: AnswerStore, how: str) -> None:
    first = store.claim(ASK)
    store.end(Attempt(ID, 1, "one"), "over" if how == "over" else "failed")
    other = OTHER if how == "over" else msgspec.structs.replace(OTHER, fingerprint=b"g" * 32)
    again = store.claim(other)
    assert (again.state, again.attempt) == ("mine", 2)
    assert again.created_s > first.created_s


def test_after_the_window_the_key_is_free_unless_its_run_goes_on(store: AnswerStore) -> None:
    brief = msgspec.structs.replace(ASK, window_s=0.0)
    first = store.claim(brief)
    assert store.claim(OTHER).state == "running"
    store.finish(Attempt(ID, 1, "one"), b"body")
    again = store.claim(msgspec.structs.replace(OTHER, fingerprint=b"g" * 32))
    assert (again.state, again.attempt) == ("mine", 2)
    assert again.created_s > first.created_s


def test_what_was_refused_is_as_if_never_asked_for(store: AnswerStore) -> None:
    store.claim(ASK)
    store.forget(Attempt(ID, 1, "one"))
    assert store.look(ID) is None


def test_an_owner_hears_how_long_nobody_has_followed_elsewhere(store: AnswerStore, db: Database) -> None:
    store.claim(ASK)
    with db.write() as connection:
        connection.execute(update(answers).values(followed_s=answers.c.followed_s - 100))
    assert store.beat([Beat(Attempt(ID, 1, "one"))])[ID] >= 100
    store.follow(ID, 1)
    assert store.beat([Beat(Attempt(ID, 1, "one"))])[ID] < 50


def test_old_answers_are_deleted_with_their_chunks(store: AnswerStore) -> None:
    store.claim(msgspec.structs.replace(ASK, window_s=-1.0))
    store.beat([Beat(Attempt(ID, 1, "one"), 0, b"zero")])
    store.claim(msgspec.structs.replace(ASK, id=b"j" * 32))
    assert (store.prune(), store.prune()) == (1, 0)
    assert store.look(ID) is None


def test_a_cached_answer_is_there_until_its_time_is_over(store: AnswerStore) -> None:
    assert store.kept(ID) is None
    store.keep(ID, app_id="app", body=b"old", ttl_s=60)
    store.keep(ID, app_id="app", body=b"new", ttl_s=120)
    kept = store.kept(ID)
    assert kept is not None
    assert kept.body == b"new"
    assert 0 <= kept.age_s < 60
    assert 60 < kept.left_s <= 120
    store.keep(ID, app_id="app", body=b"gone", ttl_s=0)
    assert store.kept(ID) is None


def silence(db: Database) -> None:
    """The owner's last sign of life is long ago."""
    with db.write() as connection:
        connection.execute(update(answers).values(alive_s=answers.c.alive_s - SILENT_S - 1))
