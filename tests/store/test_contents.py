"""Kept prompts and answers: added without the master key, opened only with it, gone when their time is over."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from penstock.domain.content import Content
from penstock.domain.ids import secret_hash
from penstock.domain.limits import Policy
from penstock.store.boxes import close_box, new_pair, open_box
from penstock.store.database import Database
from penstock.store.errors import StoreError
from penstock.store.governance import contents
from penstock.store.keeping.contents import ContentFilter, ContentStore
from penstock.store.nouns.stores import Stores
from penstock.store.paging import Page
from penstock.store.sealing import MasterKeys
from penstock.store.upkeep.rotate import rotate
from tests.store.nouns import add_all, add_app

DAY_US = 86_400 * 1_000_000


def content(app_id: str, request_id: str = "req_1", *, age_s: float = 0, text: str = "the prompt") -> Content:
    """One request's, admitted so long ago."""
    return Content(
        request_id=request_id, app_id=app_id, at_us=int((time.time() - age_s) * 1_000_000), key_prefix="inf-1",
        model="m", outcome="completed", request=text, answer="the answer",
    )  # fmt: skip


def keeping(stores: Stores, name: str = "shop", *, days: int = 7) -> str:
    """An app that has its contents kept; its id."""
    app = add_app(stores, name)
    stores.contents.make_key()
    stores.policies.put(app.id, Policy(content_days=days))
    return app.id


@given(plain=st.binary(max_size=3000), bound_to=st.text(max_size=20), at=st.integers(0, 5000))
@settings(max_examples=50, deadline=None)
def test_a_box_opens_with_its_private_key_whole_and_in_its_place_only(plain: bytes, bound_to: str, at: int) -> None:
    private, public = new_pair()
    box = close_box(public, plain, bound_to=bound_to)
    assert open_box(private, box, bound_to=bound_to) == plain
    assert close_box(public, plain, bound_to=bound_to) != box
    changed = bytearray(box)
    changed[at % len(box)] ^= 1
    for wrong, key, place in (
        (box, new_pair()[0], bound_to),
        (box, private, f"{bound_to}x"),
        (bytes(changed), private, bound_to),
        (box[: at % len(box)], private, bound_to),
    ):
        with pytest.raises(StoreError):
            open_box(key, wrong, bound_to=place)


def test_what_is_kept_is_read_again_and_stands_nowhere_in_clear(stores: Stores) -> None:
    app_id = keeping(stores)
    one, two = content(app_id), content(app_id, "req_2", age_s=3600)
    assert stores.contents.add([one, two]) == 2
    assert stores.contents.list(app_id) == (one, two)
    with stores.db.read() as connection:
        for row in connection.execute(select(contents)):
            assert b"prompt" not in row.body
            assert row.expires_us == row.created_us + 7 * DAY_US
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert stores.contents.list(app_id, ContentFilter(since=since)) == (one,)
    assert stores.contents.list(app_id, ContentFilter(request_id="req_2")) == (two,)
    assert stores.contents.list(app_id, page=Page(by="request_id", first="req_1", after=True)) == (two,)
    assert stores.contents.list(add_app(stores, "other").id) == ()


def test_a_worker_adds_without_the_master_key_and_reads_nothing(kind: str, address: str, stores: Stores) -> None:
    del kind
    app_id = keeping(stores)
    worker = Database(stores.db._backend, label="worker", master_keys=None)
    assert ContentStore(worker).add([content(app_id)]) == 1
    with pytest.raises(StoreError, match="master key"):
        ContentStore(worker).list(app_id)
    assert len(stores.contents.list(app_id)) == 1


def test_what_was_told_twice_is_kept_once(stores: Stores) -> None:
    app_id = keeping(stores)
    one = content(app_id)
    assert [stores.contents.add([one]), stores.contents.add([one, content(app_id, "req_2")])] == [1, 1]
    assert stores.contents.count(app_id) == 2


def test_the_policy_of_the_moment_decides_what_is_kept(stores: Stores) -> None:
    app_id, other = keeping(stores), add_app(stores, "other").id
    assert stores.contents.add([content(app_id), content(other, "req_2"), content("gone", "req_3")]) == 1
    stores.policies.put(app_id, Policy())
    assert stores.contents.add([content(app_id, "req_4")]) == 0


def test_without_a_key_pair_nothing_is_kept(stores: Stores) -> None:
    app = add_app(stores)
    stores.policies.put(app.id, Policy(content_days=1))
    assert stores.contents.add([content(app.id)]) == 0
    stores.contents.make_key()
    stores.contents.make_key()
    assert stores.contents.add([content(app.id)]) == 1


def test_what_has_expired_is_not_shown(stores: Stores) -> None:
    app_id = keeping(stores, days=1)
    old = [content(app_id, f"req_{number}", age_s=2 * 86_400) for number in range(3)]
    assert stores.contents.add([*old, content(app_id, "req_9")]) == 4
    assert [one.request_id for one in stores.contents.list(app_id)] == ["req_9"]


def test_fewer_days_shorten_what_is_kept_and_more_do_not_prolong_it(stores: Stores) -> None:
    app_id = keeping(stores, days=7)
    stores.contents.add([content(app_id, "req_1", age_s=3 * 86_400), content(app_id, "req_2")])
    assert stores.contents.shorten(app_id, 30) == 0
    assert stores.contents.shorten(app_id, 2) == 2
    assert [one.request_id for one in stores.contents.list(app_id)] == ["req_2"]
    assert stores.contents.shorten(app_id, None) == 2
    assert stores.contents.count(app_id) == 0


def test_a_rotation_of_the_master_key_leaves_everything_readable(stores: Stores) -> None:
    app_id = keeping(stores)
    stores.contents.add([content(app_id)])
    assert rotate(stores.db, progress=lambda _: None).resealed == 1
    stores.contents.add([content(app_id, "req_2")])
    assert len(stores.contents.list(app_id)) == 2
    assert isinstance(stores.db.master_keys, MasterKeys)


def test_a_policy_reaches_the_apps_keys_and_a_reserve_all_workers(stores: Stores) -> None:
    attachment = add_all(stores)
    app_id = attachment.app_id
    digest = secret_hash(stores.keys.add(attachment.id).secret)
    assert stores.policies.find(app_id) == Policy()
    keys, shared = stores.keys.revision(), stores.governance.revision()
    policy = Policy(weight=5, cache_ttl_s=60)
    stores.policies.put(app_id, policy)
    assert stores.keys.changes_since(keys) == (keys + 1, [digest])
    assert stores.governance.revision() == shared
    principal = stores.keys.find_principal(digest)
    assert principal is not None
    assert principal.policy == policy == stores.policies.find(app_id)
    stores.policies.put(app_id, Policy(weight=5, reserve_percent=25))
    assert stores.governance.revision() == shared + 1
    assert stores.governance.shared().reserves == {app_id: 25}
    stores.policies.remove(app_id)
    assert stores.governance.revision() == shared + 2
    assert stores.governance.shared().reserves == {}
    stores.policies.remove(app_id)
    assert stores.governance.revision() == shared + 2
