"""Secrets at rest and the master key."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.nouns.stores import Stores
from penstock.store.sealing import Sealer, create_master_key, read_master_keys
from tests.store.nouns import add_all, add_app

SEALER = Sealer(lambda: (b"k" * 32,))


@given(st.text())
def test_what_is_sealed_opens_again(secret: str) -> None:
    sealed = SEALER.seal(secret, bound_to="here")
    assert SEALER.unseal(sealed, bound_to="here") == secret
    assert sealed != SEALER.seal(secret, bound_to="here")


def test_many_are_sealed_with_one_look_at_the_key() -> None:
    looks: list[bytes] = []

    def read() -> tuple[bytes, ...]:
        looks.append(b"k" * 32)
        return (looks[-1],)

    sealer = Sealer(read)
    texts = {f"here/{number}": f"secret {number}" for number in range(50)}
    sealed = sealer.seal_all(texts)
    assert len(looks) == 2
    assert {at: SEALER.unseal(value, bound_to=at) for at, value in sealed.items()} == texts
    assert len({value[:21] for value in sealed.values()}) == 50


@given(st.binary(max_size=80))
def test_noise_does_not_open(sealed: bytes) -> None:
    with pytest.raises(StoreError):
        SEALER.unseal(sealed, bound_to="here")


def test_a_changed_moved_or_foreign_secret_does_not_open() -> None:
    sealed = SEALER.seal("secret", bound_to="here")
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(StoreError):
            SEALER.unseal(changed, bound_to="here")
    with pytest.raises(StoreError):
        SEALER.unseal(sealed, bound_to="there")
    with pytest.raises(StoreError):
        Sealer(lambda: (b"x" * 32,)).unseal(sealed, bound_to="here")


def test_the_master_key_is_created_once_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "master.key"

    def first_start(_: int) -> tuple[bytes, ...]:
        create_master_key(path)
        return read_master_keys(path)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(first_start, range(16)))) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["master.key"]


@pytest.mark.parametrize("content", ["", "ab", "z" * 64, "ab" * 33])
def test_a_spoilt_master_key_is_one_clear_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "master.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(StoreError, match=r"master\.key: not a master key"):
        read_master_keys(path)


def test_a_master_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    create_master_key(path)
    path.chmod(0o644)
    with pytest.raises(StoreError, match="chmod 600"):
        read_master_keys(path)


def test_a_lost_master_key_is_not_replaced_while_secrets_need_it(tmp_path: Path) -> None:
    stores = Stores(Database.open(tmp_path / "penstock.db"))
    stores.keys.add(add_all(stores).id)
    (tmp_path / "master.key").unlink()
    again = Database.open(tmp_path / "penstock.db")
    with pytest.raises(StoreError, match="missing"):
        _ = again.sealer
    assert not (tmp_path / "master.key").exists()


def test_another_master_key_is_noticed_at_the_start(tmp_path: Path) -> None:
    stores = Stores(Database.open(tmp_path / "penstock.db"))
    stores.config_vars.update(add_app(stores).id, "A", value="1")
    (tmp_path / "master.key").write_text("ab" * 32)
    with pytest.raises(StoreError, match=r"master\.key"):
        _ = Database.open(tmp_path / "penstock.db").sealer


def test_the_data_plane_finds_keys_without_the_master_key(tmp_path: Path) -> None:
    stores = Stores(Database.open(tmp_path / "penstock.db"))
    made = stores.keys.add(add_all(stores).id)
    (tmp_path / "master.key").unlink()
    from penstock.domain.ids import secret_hash

    again = Stores(Database.open(tmp_path / "penstock.db"))
    assert again.keys.find_principal(secret_hash(made.secret)) is not None
