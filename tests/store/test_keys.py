"""Keys: found by hash, revoked at once, followed by revision."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from penstock.domain.ids import secret_hash
from penstock.store.errors import NotFoundError
from penstock.store.metering.revisions import KEPT_CHANGES
from penstock.store.nouns.stores import Stores
from penstock.store.schema import api_keys
from tests.store.nouns import NOW, add_addon, add_all, add_app, add_attachment

LATER = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_new_key_is_found_by_its_hash_and_shown_again(stores: Stores) -> None:
    attachment = add_all(stores, plan="chat-small")
    made = stores.keys.add(attachment.id)
    principal = stores.keys.find_principal(secret_hash(made.secret))
    assert principal is not None
    assert (principal.key_id, principal.key_prefix) == (made.key.id, made.secret[:12])
    assert (principal.app_id, principal.app_name) == (attachment.app_id, "shop")
    assert (principal.addon_id, principal.attachment_id) == (attachment.addon_id, attachment.id)
    assert (principal.attachment_name, principal.model_id) == ("INFERENCE", "chat-small")
    assert stores.keys.list(attachment_id=attachment.id) == stores.keys.list(app_id=attachment.app_id) == (made,)


def test_an_unknown_hash_is_nobody(stores: Stores) -> None:
    assert stores.keys.find_principal(secret_hash("inf-nobody")) is None


def test_every_change_is_numbered_and_names_its_key(stores: Stores) -> None:
    attachment = add_all(stores)
    assert stores.keys.revision() == 0
    assert stores.keys.changes_since(0) == (0, [])
    hashes = [secret_hash(stores.keys.add(attachment.id).secret) for _ in range(2)]
    assert stores.keys.changes_since(0) == (2, hashes)
    assert stores.keys.changes_since(1) == (2, hashes[1:])
    assert stores.keys.remove(attachment.id) == 2
    now, changed = stores.keys.changes_since(2)
    assert now == stores.keys.revision() == 4
    assert changed is not None
    assert sorted(changed) == sorted(hashes)
    assert [stores.keys.find_principal(digest) for digest in hashes] == [None, None]


def test_removing_no_key_changes_nothing(stores: Stores) -> None:
    assert stores.keys.remove(add_all(stores).id) == 0
    assert stores.keys.revision() == 0


def test_a_rolled_back_key_leaves_no_trace(stores: Stores) -> None:
    attachment = add_all(stores)
    try:
        with stores.db.write():
            stores.keys.add(attachment.id)
            raise KeyError
    except KeyError:
        pass
    assert stores.keys.revision() == 0
    assert stores.keys.list() == ()


def test_touching_an_app_names_the_keys_on_it_only(stores: Stores) -> None:
    shop, cart = add_all(stores, "shop"), add_all(stores, "cart")
    mine = secret_hash(stores.keys.add(shop.id).secret)
    stores.keys.add(cart.id)
    stores.keys.touch(shop.app_id)
    assert stores.keys.changes_since(2) == (3, [mine])


def test_who_is_too_far_behind_is_told_to_forget_everything(stores: Stores) -> None:
    app = add_app(stores)
    addon = add_addon(stores, app)
    with stores.db.write():
        for number in range(101):
            stores.keys.add(add_attachment(stores, app, addon, f"A{number}").id)
    while stores.keys.revision() <= KEPT_CHANGES + 101:
        stores.keys.touch(app.id)
    now = stores.keys.revision()
    assert stores.keys.changes_since(0) == (now, None)
    assert stores.keys.changes_since(now - KEPT_CHANGES - 1) == (now, None)
    newest, hashes = stores.keys.changes_since(now - KEPT_CHANGES)
    assert newest == now
    assert hashes is not None
    assert len(hashes) == KEPT_CHANGES


def test_who_is_ahead_of_the_database_is_told_to_forget_everything(stores: Stores) -> None:
    stores.keys.add(add_all(stores).id)
    assert stores.keys.changes_since(7) == (1, None)


def test_a_key_carries_its_limits_to_whoever_looks_it_up(stores: Stores) -> None:
    attachment = add_all(stores)
    made = stores.keys.add(attachment.id, extra=True, models=("a", "b"), expires_at=LATER)
    digest = secret_hash(made.secret)
    principal = stores.keys.find_principal(digest)
    assert principal is not None
    assert (principal.key_hash, principal.models, principal.expires_at) == (digest, ("a", "b"), LATER.timestamp())
    assert stores.keys.list(app_id=attachment.app_id) == (made,)
    assert stores.keys.list_public(attachment_id=attachment.id) == (made.key,)


def test_many_keys_are_looked_up_at_once_and_the_unknown_are_left_out(stores: Stores) -> None:
    attachment = add_all(stores)
    hashes = [secret_hash(stores.keys.add(attachment.id).secret) for _ in range(3)]
    found = stores.keys.find_principals([*hashes, b"\0" * 32])
    assert {digest: principal.key_hash for digest, principal in found.items()} == {digest: digest for digest in hashes}


def test_a_rotated_key_goes_on_for_the_grace_and_its_successor_is_the_newest(stores: Stores) -> None:
    attachment = add_all(stores)
    old = stores.keys.add(attachment.id, models=("a",))
    before = datetime.now(UTC)
    new = stores.keys.rotate(old.key, grace=timedelta(minutes=10))
    assert (new.key.models, new.key.expires_at, new.key.extra) == (("a",), None, False)
    [was, now] = stores.keys.list_public(attachment_id=attachment.id)
    assert (was.id, now.id) == (old.key.id, new.key.id)
    assert was.expires_at is not None
    assert timedelta(minutes=10) <= was.expires_at - before < timedelta(minutes=11)
    assert stores.keys.changes_since(1) == (3, [secret_hash(new.secret), secret_hash(old.secret)])


def test_without_grace_all_predecessors_die_at_once_and_extra_keys_live(stores: Stores) -> None:
    attachment = add_all(stores)
    first, beside = stores.keys.add(attachment.id), stores.keys.add(attachment.id, extra=True)
    second = stores.keys.rotate(first.key, grace=timedelta(hours=1))
    third = stores.keys.rotate(second.key, grace=timedelta(0))
    assert stores.keys.list_public(attachment_id=attachment.id) == (beside.key, third.key)


def test_rotating_an_extra_key_leaves_the_others_alone(stores: Stores) -> None:
    attachment = add_all(stores)
    shown, beside = stores.keys.add(attachment.id), stores.keys.add(attachment.id, extra=True)
    new = stores.keys.rotate(beside.key, grace=timedelta(0))
    assert new.key.extra
    assert stores.keys.list_public(attachment_id=attachment.id) == (shown.key, new.key)


def test_a_grace_never_prolongs_a_key_and_a_successor_lives_as_long_as_the_key_did(stores: Stores) -> None:
    attachment = add_all(stores)
    old = stores.keys.add(attachment.id, expires_at=datetime.now(UTC) + timedelta(seconds=60))
    new = stores.keys.rotate(old.key, grace=timedelta(days=1))
    assert stores.keys.list_public(attachment_id=attachment.id)[0].expires_at == old.key.expires_at
    assert new.key.expires_at is not None
    assert timedelta(seconds=59) < new.key.expires_at - new.key.created_at <= timedelta(seconds=60)


def test_the_successor_is_the_newest_also_when_the_clock_was_set_back(stores: Stores) -> None:
    attachment = add_all(stores)
    old = stores.keys.add(attachment.id)
    with stores.db.write() as connection:
        connection.execute(update(api_keys).values(created_at=LATER))
    new = stores.keys.rotate(old.key, grace=timedelta(minutes=1))
    assert stores.keys.list_public(attachment_id=attachment.id)[-1].id == new.key.id


def test_a_key_that_is_gone_is_neither_rotated_nor_removed(stores: Stores) -> None:
    old = stores.keys.add(add_all(stores).id)
    stores.keys.remove_key(old.key.id)
    assert stores.keys.find_principal(secret_hash(old.secret)) is None
    assert stores.keys.changes_since(1) == (2, [secret_hash(old.secret)])
    with pytest.raises(NotFoundError):
        stores.keys.rotate(old.key, grace=timedelta(0))
    with pytest.raises(NotFoundError):
        stores.keys.remove_key(old.key.id)


def test_a_purge_removes_what_expired_before_then_and_tells_the_followers(stores: Stores) -> None:
    attachment = add_all(stores)
    dead = stores.keys.add(attachment.id, expires_at=NOW - timedelta(days=2))
    fresh = stores.keys.add(attachment.id, expires_at=NOW - timedelta(hours=2))
    endless = stores.keys.add(attachment.id)
    other = add_app(stores, "other")
    assert stores.keys.purge(other.id, NOW - timedelta(days=1)) == 0
    assert stores.keys.purge(attachment.app_id, NOW - timedelta(days=1)) == 1
    assert stores.keys.list_public(attachment_id=attachment.id) == (fresh.key, endless.key)
    assert stores.keys.changes_since(3) == (4, [secret_hash(dead.secret)])


def test_a_last_use_never_moves_back_and_changes_no_revision(stores: Stores) -> None:
    attachment = add_all(stores)
    used, unused = stores.keys.add(attachment.id).key, stores.keys.add(attachment.id).key
    revision = stores.keys.revision()
    for moment in (NOW, NOW - timedelta(seconds=5), NOW + timedelta(seconds=5), NOW):
        stores.keys.note_uses({used.id: moment.timestamp(), "gone": moment.timestamp()})
    stores.keys.note_uses({})
    seen = {key.id: key.last_used_at for key in stores.keys.list_public(attachment_id=attachment.id)}
    assert seen == {used.id: NOW + timedelta(seconds=5), unused.id: None}
    assert stores.keys.revision() == revision
