"""Apps, add-ons, attachments, config vars, releases and operators, one by one."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, StatementError

from penstock.domain.access import Role
from penstock.domain.ids import new_id, secret_hash
from penstock.domain.platform import App
from penstock.store.errors import NameTakenError, NotFoundError, RetryableError
from penstock.store.nouns.audit import AuditFilter
from penstock.store.nouns.idempotency import Remembered
from penstock.store.nouns.stores import Stores
from penstock.store.paging import Page
from penstock.store.upkeep.rotate import rotate
from tests.store.nouns import NOW, add_addon, add_all, add_app, add_attachment, audit_event, found_by


def test_an_app_comes_back_as_it_was_stored(stores: Stores) -> None:
    app = add_app(stores)
    assert stores.apps.get("shop") == stores.apps.get(app.id) == app
    assert stores.apps.list() == (app,)
    assert stores.apps.find("other") is None


def test_times_of_any_zone_come_back_in_utc(stores: Stores) -> None:
    app = add_app(stores)
    local = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=9)))
    stores.apps.update(app.id, updated_at=local)
    found = stores.apps.get(app.id)
    assert (found.updated_at, found.updated_at.tzinfo, found.created_at) == (local, UTC, NOW)


def test_a_time_without_a_zone_is_refused(stores: Stores) -> None:
    with pytest.raises(StatementError, match="naive"):
        stores.apps.update(add_app(stores).id, updated_at=datetime(2026, 1, 2))  # noqa: DTZ001 - the mistake itself


def test_a_taken_name_is_refused_for_every_noun(stores: Stores) -> None:
    app, other = add_app(stores), add_app(stores, "other")
    addon = add_addon(stores, app)
    add_attachment(stores, app, addon)
    with pytest.raises(NameTakenError):
        add_app(stores)
    with pytest.raises(NameTakenError):
        stores.apps.update(other.id, updated_at=NOW, name="shop")
    with pytest.raises(NameTakenError):
        add_addon(stores, other, addon.name)
    with pytest.raises(NameTakenError):
        add_attachment(stores, app, addon)
    assert add_attachment(stores, other, addon).name == "INFERENCE"


def test_what_is_not_there_is_not_found(stores: Stores) -> None:
    missing = new_id()
    for act in (
        stores.apps.get,
        stores.apps.remove,
        stores.addons.get,
        stores.addons.remove,
        stores.attachments.get,
        stores.attachments.remove,
    ):
        with pytest.raises(NotFoundError):
            act(missing)
    with pytest.raises(NotFoundError):
        stores.apps.update(missing, updated_at=NOW)
    with pytest.raises(NotFoundError):
        stores.releases.add(missing, description="x", user_email="x")


def test_an_app_cannot_be_removed_under_its_add_on(stores: Stores) -> None:
    attachment = add_all(stores)
    with pytest.raises(RetryableError):
        stores.apps.remove(attachment.app_id)
    with pytest.raises(RetryableError):
        stores.addons.remove(attachment.addon_id)


def test_an_add_on_comes_back_as_it_was_stored(stores: Stores) -> None:
    app, other = add_app(stores), add_app(stores, "other")
    addon = add_addon(stores, app, plan="chat-small")
    assert stores.addons.get(addon.name) == stores.addons.get(addon.id) == addon
    assert addon.plan_name == "heroku-inference:chat-small"
    assert stores.addons.list() == stores.addons.list(app_id=app.id) == (addon,)
    assert stores.addons.list(app_id=other.id) == stores.addons.list(attached_to=other.id) == ()
    add_attachment(stores, other, addon)
    assert stores.addons.list(attached_to=other.id) == (addon,)


def test_an_attachment_comes_back_as_it_was_stored(stores: Stores) -> None:
    app, other = add_app(stores), add_app(stores, "other")
    addon = add_addon(stores, app)
    attachment = add_attachment(stores, other, addon)
    assert attachment.owner_app_name == "shop"
    assert stores.attachments.get(attachment.id) == attachment
    assert stores.attachments.get("INFERENCE", app_id=other.id) == attachment
    assert stores.attachments.find("INFERENCE", app_id=app.id) is None
    assert stores.attachments.find("INFERENCE") is None
    for found in (
        stores.attachments.list(),
        stores.attachments.list(app_id=other.id),
        stores.attachments.list(addon_id=addon.id),
        stores.attachments.list(ref="inference"),
        stores.attachments.list(ref=attachment.id),
    ):
        assert found == (attachment,)
    assert stores.attachments.list(app_id=app.id) == ()


def test_config_vars_are_kept_per_app(stores: Stores) -> None:
    app, other = add_app(stores), add_app(stores, "other")
    stores.config_vars.update(app.id, "B", value="1")
    stores.config_vars.update(app.id, "A", value="")
    stores.config_vars.update(app.id, "B", value="2")
    stores.config_vars.update(other.id, "B", value="3")
    assert stores.config_vars.list(app.id) == {"A": "", "B": "2"}
    stores.config_vars.remove(app.id, "A")
    stores.config_vars.remove(app.id, "NOT_THERE")
    assert stores.config_vars.list(app.id) == {"B": "2"}
    stores.config_vars.remove(app.id)
    assert (stores.config_vars.list(app.id), stores.config_vars.list(other.id)) == ({}, {"B": "3"})


def test_many_config_vars_are_stored_in_as_few_statements_as_two(stores: Stores) -> None:
    app, counts = add_app(stores), []
    stores.config_vars.update(app.id, "V0", value="the first secret makes the key")
    for number in (2, 900):
        statements: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any, to: list[str] = statements) -> None:
            to.append(statement)

        values = {f"V{at}": f"value {at}" for at in range(number)}
        with stores.db.write() as connection:
            event.listen(connection, "before_cursor_execute", note)
            stores.config_vars.put(app.id, values)
            event.remove(connection, "before_cursor_execute", note)
        counts.append(len(statements))
        assert stores.config_vars.list(app.id) == dict(sorted(values.items()))
    assert counts[0] == counts[1]


def test_releases_are_numbered_per_app(stores: Stores) -> None:
    app, other = add_app(stores), add_app(stores, "other")
    made = [stores.releases.add(app.id, description=f"d{n}" * 900, user_email="o@example.com") for n in range(3)]
    assert stores.releases.add(other.id, description="x", user_email="o@example.com").version == 1
    assert [release.version for release in made] == [1, 2, 3]
    assert stores.releases.list(app.id) == tuple(made)
    assert stores.releases.list(app.id, page=Page(by="version", descending=True, size=1)) == (made[2], made[1])
    assert len(made[0].description) == 1024
    stores.releases.remove(app.id)
    assert stores.releases.list(app.id) == ()


def test_an_operator_is_found_by_any_of_their_tokens(stores: Stores) -> None:
    operator = stores.operators.add("o@example.com", role=Role.ADMIN)
    for word in ("one", "two"):
        stores.operators.add_token(operator.id, secret_hash(word), prefix=word, description=word)
    assert [found_by(stores, word) for word in ("one", "two", "three")] == [operator, operator, None]
    stores.operators.update(operator.id, email="new@example.com", role=Role.VIEWER)
    assert [(each.email, each.role) for each in stores.operators.list()] == [("new@example.com", Role.VIEWER)]


def test_an_expired_or_revoked_token_finds_nobody(stores: Stores) -> None:
    operator = stores.operators.add("o@example.com", role=Role.MEMBER)
    past = datetime.now(UTC) - timedelta(seconds=1)
    stores.operators.add_token(operator.id, secret_hash("old"), prefix="old", description="", expires_at=past)
    token = stores.operators.add_token(operator.id, secret_hash("new"), prefix="new", description="")
    assert found_by(stores, "old") is None
    stores.operators.remove_token(token.id)
    assert found_by(stores, "new") is None
    with pytest.raises(NotFoundError):
        stores.operators.remove_token(token.id)


def test_the_apps_of_a_removed_operator_pass_to_the_heir(stores: Stores) -> None:
    gone = stores.operators.add("gone@example.com", role=Role.MEMBER)
    heir = stores.operators.add("heir@example.com", role=Role.OWNER)
    stores.operators.add_token(gone.id, secret_hash("t"), prefix="t", description="")
    app = add_app(stores, owner=gone)
    stores.collaborators.put(add_app(stores, "other").id, gone.id, role=Role.VIEWER)
    stores.operators.remove(gone.id, heir=heir)
    assert (stores.apps.get(app.id).owner_id, stores.apps.get(app.id).owner_email) == (heir.id, heir.email)
    assert found_by(stores, "t") is None
    assert stores.collaborators.list(operator_id=gone.id) == ()


def test_the_audit_log_takes_events_and_refuses_to_change_or_lose_one(stores: Stores) -> None:
    app = add_app(stores)
    for number in range(3):
        stores.audit.add(audit_event(f"app.{number}", app if number else None))
    assert [event.action for event in stores.audit.list()] == ["app.0", "app.1", "app.2"]
    of_app, first = AuditFilter(app_id=app.id), Page(by="seq", size=1, last=2)
    assert [event.action for event in stores.audit.list(of_app)] == ["app.1", "app.2"]
    assert [event.action for event in stores.audit.list(of_app, page=first)] == ["app.1"]
    for statement in ("UPDATE audit_events SET action = 'x'", "DELETE FROM audit_events"):
        with pytest.raises(DBAPIError, match="append-only"), stores.db.write() as connection:
            connection.exec_driver_sql(statement)
    assert len(stores.audit.list()) == 3


def test_an_idempotency_key_is_claimed_once_and_then_answers(stores: Stores) -> None:
    assert stores.idempotency.claim("operator", "key", b"f" * 32) is None
    stores.idempotency.update("operator", "key", status=201, body='{"name":"a"}')
    again = stores.idempotency.claim("operator", "key", b"g" * 32)
    assert again == Remembered(b"f" * 32, 201, '{"name":"a"}')
    assert stores.idempotency.claim("another", "key", b"f" * 32) is None


def test_names_that_look_like_sql_are_only_names(stores: Stores) -> None:
    odd = "x' OR '1'='1"
    add_app(stores)
    assert stores.apps.find(odd) is None
    stores.apps.add(App(id=new_id(), name=odd, owner_email=odd, created_at=NOW, updated_at=NOW))
    assert stores.apps.get(odd).owner_email == odd


def test_credentials_are_kept_by_name_and_listed_without_their_secrets(stores: Stores) -> None:
    kept = stores.credentials
    kept.put("b", "sk-canary", by="o@example.com")
    kept.put("a", "sk-2", by="o@example.com")
    first = kept.list()
    assert [(one.name, one.fingerprint, one.updated_by) for one in first] == [
        ("a", hashlib.sha256(b"sk-2").hexdigest()[:8], "o@example.com"),
        ("b", hashlib.sha256(b"sk-canary").hexdigest()[:8], "o@example.com"),
    ]
    assert "canary" not in repr(first)
    kept.put("b", "sk-3", by="p@example.com")
    assert kept.values() == {"a": "sk-2", "b": "sk-3"}
    second = kept.find("b")
    assert second is not None
    assert (second.updated_by, second.created_at) == ("p@example.com", first[1].created_at)
    assert second.updated_at > first[1].updated_at
    assert kept.find("c") is None
    kept.remove("b")
    with pytest.raises(NotFoundError):
        kept.remove("b")
    assert kept.values() == {"a": "sk-2"}
    kept.remove("a")
    assert kept.revision() == ""


def test_every_change_of_a_credential_is_a_new_revision_and_a_rotation_is_none(stores: Stores) -> None:
    kept = stores.credentials
    seen = {kept.revision()}
    changes: list[Callable[[], None]] = [
        lambda: kept.put("a", "1", by="o"),
        lambda: kept.put("b", "1", by="o"),
        lambda: kept.put("a", "1", by="o"),
        lambda: kept.remove("a"),
    ]
    for change in changes:
        change()
        seen.add(kept.revision())
    assert len(seen) == 5
    rotate(stores.db, progress=lambda _step: None)
    assert kept.revision() in seen
    assert kept.values() == {"b": "1"}
