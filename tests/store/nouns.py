"""Small objects to store."""

from datetime import UTC, datetime

from penstock.domain.ids import new_id, secret_hash
from penstock.domain.platform import AddOn, App, Attachment, AuditEvent, Operator
from penstock.store.nouns.stores import Stores

NOW = datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=UTC)


def add_app(stores: Stores, name: str = "shop", *, owner: Operator | None = None) -> App:
    """A stored app; without an owner, its owner is no longer an operator."""
    app = App(
        id=new_id(),
        name=name,
        owner_email=owner.email if owner else "o@example.com",
        owner_id=owner.id if owner else None,
        created_at=NOW,
        updated_at=NOW,
    )
    stores.apps.add(app)
    return app


def add_addon(stores: Stores, app: App, name: str = "inference-calm-00001", plan: str = "standard") -> AddOn:
    """A stored add-on of an app."""
    addon = AddOn(
        id=new_id(),
        name=name,
        app_id=app.id,
        app_name=app.name,
        plan=plan,
        state="provisioned",
        config={"region": "us"},
        created_at=NOW,
        updated_at=NOW,
    )
    stores.addons.add(addon)
    return addon


def add_attachment(stores: Stores, app: App, addon: AddOn, name: str = "INFERENCE") -> Attachment:
    """A stored attachment, without a key."""
    attachment = Attachment(
        id=new_id(),
        name=name,
        addon_id=addon.id,
        addon_name=addon.name,
        app_id=app.id,
        app_name=app.name,
        owner_app_id=addon.app_id,
        owner_app_name=addon.app_name,
        plan=addon.plan,
        created_at=NOW,
        updated_at=NOW,
    )
    stores.attachments.add(attachment)
    return attachment


def add_all(stores: Stores, name: str = "shop", plan: str = "standard") -> Attachment:
    """An app with an add-on that is attached to it."""
    app = add_app(stores, name)
    return add_attachment(stores, app, add_addon(stores, app, f"inference-{name}", plan))


def found_by(stores: Stores, secret: str) -> Operator | None:
    """The operator that a token's secret stands for."""
    found = stores.operators.find_by_token(secret_hash(secret))
    return None if found is None else found[0]


def audit_event(action: str, app: App | None = None) -> AuditEvent:
    """An event to store, about the app where one is given."""
    return AuditEvent(
        at=NOW,
        actor_id=None,
        actor_email="o@example.com",
        source="127.0.0.1",
        request_id="r",
        action=action,
        object_type="app",
        app_id=app.id if app else None,
        app_name=app.name if app else None,
        after={"name": "x"},
    )
