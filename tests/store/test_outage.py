"""The PostgreSQL server goes away, hangs and comes back; and values that it does not take."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from penstock.domain.errors import PenstockError
from penstock.store.database import Database
from penstock.store.errors import InvalidValueError, StoreError
from penstock.store.nouns.stores import Stores
from tests.postgres import Postgres
from tests.store.nouns import add_app


@pytest.fixture
def kept(own_postgres: Postgres, tmp_path: Path) -> Stores:
    """A database on a server that the test may stop and freeze."""
    return Stores(Database.open(own_postgres.new_database(), home=tmp_path))


def refused(stores: Stores) -> str:
    """The code of the error that a read and a write get."""
    codes = set()
    for act in (stores.apps.list, lambda: add_app(stores, "new")):
        with pytest.raises(PenstockError) as caught:
            act()
        assert caught.value.retry_after_s == 1
        codes.add(caught.value.code)
    return "".join(codes)


def test_a_server_that_stops_is_unavailable_and_used_again_when_it_is_back(
    kept: Stores, own_postgres: Postgres
) -> None:
    app = add_app(kept)
    own_postgres.stop()
    assert refused(kept) == refused(kept) == "store_unavailable"
    own_postgres.start()
    assert kept.apps.list() == (app,)
    assert add_app(kept, "new").name == "new"


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The level and the text of each line that the store has logged since it was last asked."""
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if "penstock" in record.name]
    caplog.clear()
    return lines


def test_an_outage_is_logged_once_per_reason_and_so_is_its_end(
    kept: Stores, own_postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "penstock")
    for _ in range(2):
        own_postgres.stop()
        for _ in range(3):
            refused(kept)
        reasons = told(caplog)
        assert reasons
        assert len(set(reasons)) == len(reasons)
        assert all(level == "WARNING" and "database unavailable: " in line for level, line in reasons)
        own_postgres.start()
        for _ in range(3):
            kept.apps.list()
        assert told(caplog) == [("INFO", "database available again")]


def test_an_outage_whose_reason_changes_says_so(
    kept: Stores, own_postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    own_postgres.stop()
    refused(kept)
    gone = told(caplog)
    own_postgres.start()
    own_postgres.freeze()
    refused(kept)
    hangs = told(caplog)
    own_postgres.thaw()
    assert gone
    assert hangs
    assert not set(gone) & set(hangs)


def test_many_callers_in_an_outage_leave_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "penstock")
    stores = Stores(Database.open(tmp_path / "penstock.db"))
    (tmp_path / "penstock.db").rename(tmp_path / "away.db")
    (tmp_path / "penstock.db").mkdir()
    stores.db.close()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: refused(stores), range(40))) == {"store_unavailable"}
    [(level, line)] = told(caplog)
    assert (level, line) == ("WARNING", "database unavailable: unable to open database file")
    (tmp_path / "penstock.db").rmdir()
    (tmp_path / "away.db").rename(tmp_path / "penstock.db")
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: stores.apps.list(), range(40))) == {()}
    assert told(caplog) == [("INFO", "database available again")]


def test_a_server_that_hangs_is_unavailable_and_used_again_when_it_goes_on(
    kept: Stores, own_postgres: Postgres
) -> None:
    app = add_app(kept)
    own_postgres.freeze()
    # A client without a bound would wait here until the test runs out of time.
    assert refused(kept) == "store_unavailable"
    own_postgres.thaw()
    assert kept.apps.list() == (app,)


def test_a_server_that_hangs_inside_a_transaction_ends_it(kept: Stores, own_postgres: Postgres) -> None:
    with pytest.raises(PenstockError) as caught, kept.db.write():  # noqa: PT012 - the block is the transaction
        add_app(kept)
        own_postgres.freeze()
        add_app(kept, "second")
    assert caught.value.code == "store_unavailable"
    own_postgres.thaw()
    assert kept.apps.list() == ()


def test_while_one_caller_waits_for_a_hanging_server_the_others_do_not(
    kept: Stores, own_postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    own_postgres.freeze()
    assert refused(kept) == "store_unavailable"
    caplog.clear()
    caplog.set_level("DEBUG", "psycopg")
    barrier = Barrier(16)

    def call(_: int) -> str:
        barrier.wait(30)
        with pytest.raises(PenstockError) as caught:
            kept.apps.list()
        return caught.value.code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(call, range(16))) == {"store_unavailable"}
    own_postgres.thaw()
    # One at a time; a thread that came late may have been the next one.
    assert 1 <= sum("connection attempt" in line for line in caplog.messages) <= 4
    assert kept.apps.list() == ()


def test_a_server_that_hangs_at_the_start_is_one_clear_line(own_postgres: Postgres, tmp_path: Path) -> None:
    url = own_postgres.new_database()
    own_postgres.freeze()
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        Database.open(url, home=tmp_path)
    own_postgres.thaw()
    assert "\n" not in str(caught.value)
    assert "not-asked" not in str(caught.value)


def test_a_row_that_another_holds_for_too_long_is_unavailable(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    stores, others = (Stores(Database.open(url, home=tmp_path)) for _ in range(2))
    app = add_app(stores)
    with stores.db.write(), pytest.raises(PenstockError) as caught:  # noqa: PT012 - the block is the transaction
        stores.apps.update(app.id, updated_at=app.updated_at)
        _held_up(others, app.id)
    assert caught.value.code == "store_unavailable"


def _held_up(stores: Stores, app_id: str) -> None:
    stores.releases.add(app_id, description="x", user_email="x")


@pytest.mark.parametrize("name", ["n" * 31, "a\0b", "half \ud83d"])
def test_a_value_that_cannot_be_stored_is_a_clear_refusal_on_both(stores: Stores, name: str) -> None:
    with pytest.raises(InvalidValueError, match=r"name|value") as caught:
        add_app(stores, name)
    assert name not in str(caught.value)
    app = add_app(stores)
    with pytest.raises(InvalidValueError):
        stores.apps.update(app.id, updated_at=app.updated_at, name=name)
    assert stores.apps.list() == (app,)


def test_looking_for_what_cannot_be_stored_finds_nothing_or_says_so(stores: Stores) -> None:
    assert stores.apps.find("n" * 1000) is None
    for odd in ("a\0b", "half \ud83d"):
        try:
            assert stores.apps.find(odd) is None
        except InvalidValueError:
            continue
