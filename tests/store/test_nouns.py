"""Apps, add-ons, attachments, config vars, releases and operators, one by one."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import IntegrityError, StatementError

from penstock.domain.ids import new_id, secret_hash
from penstock.domain.platform import App
from penstock.store.errors import NameTakenError, NotFoundError
from penstock.store.stores import Stores
from tests.store.nouns import NOW, add_addon, add_all, add_app, add_attachment


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
    with pytest.raises(IntegrityError):
        stores.apps.remove(attachment.app_id)
    with pytest.raises(IntegrityError):
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
        stores.attachments.list(name="INFERENCE"),
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


def test_releases_are_numbered_per_app(stores: Stores) -> None:
    app, other = add_app(stores), add_app(stores, "other")
    made = [stores.releases.add(app.id, description=f"d{n}" * 900, user_email="o@example.com") for n in range(3)]
    assert stores.releases.add(other.id, description="x", user_email="o@example.com").version == 1
    assert [release.version for release in made] == [1, 2, 3]
    assert stores.releases.list(app.id) == tuple(made)
    assert stores.releases.list(app.id, newest_first=True, limit=1) == (made[2],)
    assert len(made[0].description) == 1024
    stores.releases.remove(app.id)
    assert stores.releases.list(app.id) == ()


def test_an_operator_is_found_by_any_of_their_tokens(stores: Stores) -> None:
    first = stores.operators.add("o@example.com", token_hash=secret_hash("one"))
    assert stores.operators.add("o@example.com", token_hash=secret_hash("two")) == first
    assert stores.operators.find(token_hash=secret_hash("one")) == first
    assert stores.operators.find(token_hash=secret_hash("two")) == first
    assert stores.operators.find(token_hash=secret_hash("three")) is None
    stores.operators.update(first.id, email="new@example.com")
    assert [operator.email for operator in stores.operators.list()] == ["new@example.com"]


def test_names_that_look_like_sql_are_only_names(stores: Stores) -> None:
    odd = "x' OR '1'='1"
    add_app(stores)
    assert stores.apps.find(odd) is None
    stores.apps.add(App(id=new_id(), name=odd, owner_email=odd, created_at=NOW, updated_at=NOW))
    assert stores.apps.get(odd).owner_email == odd
