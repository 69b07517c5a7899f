"""What a caller has lost since the guard looked does not count: rights are asked again inside the transaction."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from penstock.control.changes import AddOnOrder, Changes, KeyLimits
from penstock.control.key_changes import KeyChanges
from penstock.control.people.changes import OperatorChanges
from penstock.control.plans import Plan
from penstock.domain.access import Role
from penstock.domain.ids import secret_hash
from penstock.domain.platform import Actor, AddOn, App, Attachment
from penstock.store.errors import NotFoundError
from penstock.store.nouns.stores import Stores
from penstock.web.api import ApiError
from tests.control.plane import Plane


@pytest.fixture
def plane(each_plane: Plane) -> Plane:
    """All of it on each database."""
    return each_plane


@dataclass(frozen=True)
class Scene:
    """An app of the owner with an add-on, and Bob, its collaborator."""

    stores: Stores
    app: App
    addon: AddOn
    attachment: Attachment
    bob: Actor

    @property
    def changes(self) -> Changes:
        return Changes(self.stores)


CHANGES: dict[str, Callable[[Scene], object]] = {
    "rename": lambda on: on.changes.rename_app(on.app, "other-name", by=on.bob),
    "provision": lambda on: on.changes.provision(on.app, AddOnOrder(plan=Plan(slug="standard")), by=on.bob),
    "attach": lambda on: on.changes.attach(on.addon, on.app, plan=Plan(slug="standard"), alias=None, by=on.bob),
    "detach": lambda on: on.changes.detach(on.attachment, by=on.bob),
    "deprovision": lambda on: on.changes.deprovision(on.addon, confirmed=True, by=on.bob),
    "config": lambda on: on.changes.patch_vars(on.app, {"A": "1"}, by=on.bob),
    "key": lambda on: KeyChanges(on.stores, on.changes).create(on.app, on.attachment, KeyLimits(), by=on.bob),
    "revoke": lambda on: KeyChanges(on.stores, on.changes).revoke(on.app, "INFERENCE", by=on.bob),
    "share": lambda on: OperatorChanges(on.stores).share(
        on.app, on.stores.operators.get("guest@example.com").id, role=Role.VIEWER, by=on.bob, new=True
    ),
}


def scene(plane: Plane) -> Scene:
    stores = plane.stores
    plane.addon(plane.app("shop"))
    plane.operator("guest@example.com", Role.MEMBER)
    found = stores.operators.find_by_token(secret_hash(plane.operator("bob@example.com", Role.MEMBER)))
    assert found is not None
    bob, token = found
    app = stores.apps.get("shop")
    stores.collaborators.put(app.id, bob.id, role=Role.ADMIN)
    by = Actor(id=bob.id, email=bob.email, source="127.0.0.1", request_id="r", token_id=token.id)
    return Scene(stores, app, stores.addons.list(app_id=app.id)[0], stores.attachments.list(app_id=app.id)[0], by)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_one_who_is_no_longer_a_collaborator_is_refused(plane: Plane, change: str) -> None:
    on = scene(plane)
    on.stores.collaborators.remove(on.app.id, str(on.bob.id))
    before = plane.events()
    with pytest.raises(NotFoundError):
        CHANGES[change](on)
    assert plane.events() == before


def test_a_change_of_one_whose_role_is_less_now_is_refused(plane: Plane) -> None:
    on = scene(plane)
    on.stores.collaborators.put(on.app.id, str(on.bob.id), role=Role.VIEWER)
    for change in CHANGES.values():
        with pytest.raises(ApiError, match="any more"):
            change(on)


def test_a_change_of_a_removed_operator_or_with_a_revoked_token_is_refused(plane: Plane) -> None:
    on = scene(plane)
    on.stores.operators.remove_token(str(on.bob.token_id))
    with pytest.raises(ApiError, match="revoked"):
        CHANGES["config"](on)
    with pytest.raises(ApiError, match="revoked"):
        on.changes.create_app("new-app", by=on.bob)


def test_every_change_works_while_nothing_is_lost(plane: Plane) -> None:
    on = scene(plane)
    for name in ("provision", "attach", "config", "key", "revoke", "share", "detach", "deprovision", "rename"):
        CHANGES[name](on)
