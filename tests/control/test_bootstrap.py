"""The first start and the starts after it."""

import stat
from pathlib import Path

import pytest

from penstock.control.bootstrap import ensure_hello, ensure_operator
from penstock.domain.ids import secret_hash
from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.nouns.stores import Stores
from tests.control.plane import somebody

EMAIL = "operator@penstock.local"


@pytest.fixture
def db(tmp_path: Path) -> Database:
    """A new database."""
    return Database.open(tmp_path / "penstock.db")


def test_the_operator_token_is_written_once_for_the_owner_only(db: Database, tmp_path: Path) -> None:
    token = ensure_operator(db, tmp_path, EMAIL)
    file = tmp_path / "tokens" / "operator"
    assert token.startswith("pst-")
    assert file.read_text() == token + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ensure_operator(db, tmp_path, EMAIL) == token
    found = Stores(db).operators.find_by_token(secret_hash(token))
    assert found is not None
    assert (found[0].email, found[0].role) == (EMAIL, "owner")


def test_what_a_start_makes_stands_in_the_audit_log(db: Database, tmp_path: Path) -> None:
    token = ensure_operator(db, tmp_path, EMAIL)
    ensure_operator(db, tmp_path, EMAIL)
    ensure_operator(db, tmp_path, "new@penstock.local")
    events = Stores(db).audit.list()
    assert [event.action for event in events] == ["operator.create", "token.create", "operator.update"]
    assert {event.source for event in events} == {"local"}
    assert token not in repr(events)


def test_a_token_outlives_its_database(db: Database, tmp_path: Path) -> None:
    token = ensure_operator(db, tmp_path, EMAIL)
    other = Database.open(tmp_path / "other" / "penstock.db")
    assert ensure_operator(other, tmp_path, EMAIL) == token
    assert Stores(other).operators.find_by_token(secret_hash(token)) is not None


def test_a_deleted_token_file_gives_a_second_token(db: Database, tmp_path: Path) -> None:
    first = ensure_operator(db, tmp_path, EMAIL)
    (tmp_path / "tokens" / "operator").unlink()
    second = ensure_operator(db, tmp_path, EMAIL)
    assert first != second
    assert len(Stores(db).operators.list()) == 1


def test_a_changed_email_renames_the_operator(db: Database, tmp_path: Path) -> None:
    ensure_operator(db, tmp_path, EMAIL)
    ensure_operator(db, tmp_path, "new@penstock.local")
    assert [operator.email for operator in Stores(db).operators.list()] == ["new@penstock.local"]


@pytest.mark.parametrize("content", ["", "\xff"])
def test_a_spoilt_token_file_is_one_clear_line(db: Database, tmp_path: Path, content: str) -> None:
    file = tmp_path / "tokens" / "operator"
    file.parent.mkdir()
    file.write_text(content, encoding="latin-1")
    with pytest.raises(StoreError, match="tokens/operator"):
        ensure_operator(db, tmp_path, EMAIL)


def test_hello_exists_after_the_very_first_start_only(db: Database) -> None:
    stores = Stores(db)
    made = ensure_hello(db, EMAIL)
    assert made is not None
    assert made.secret not in repr(made)
    principal = stores.keys.find_principal(secret_hash(made.secret))
    assert principal is not None
    assert (principal.app_name, principal.attachment_name, principal.model_id) == ("hello", "INFERENCE", None)
    assert ensure_hello(db, EMAIL) is None


def test_hello_does_not_come_back_once_destroyed(db: Database) -> None:
    from penstock.control.changes import Changes

    stores = Stores(db)
    ensure_hello(db, EMAIL)
    Changes(stores).destroy_app(stores.apps.get("hello"), by=somebody())
    assert ensure_hello(db, EMAIL) is None
    assert stores.apps.list() == ()
