"""Keys: found by hash, revoked at once, followed by revision."""

from penstock.domain.ids import secret_hash
from penstock.store.nouns.keys import KEPT_CHANGES
from penstock.store.nouns.stores import Stores
from tests.store.nouns import add_addon, add_all, add_app, add_attachment


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
