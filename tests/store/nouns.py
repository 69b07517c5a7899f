"""Small objects to store."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import String, insert

from penstock.domain.ids import new_id, secret_hash
from penstock.domain.limits import Budget, LimitRow, Limits, Scope
from penstock.domain.platform import AddOn, App, Attachment, AuditEvent, Operator
from penstock.store import governance
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


def limit_of(scope: Scope, subject_id: str, *, model: str = "", **values: int) -> LimitRow:
    """Limits to put."""
    limits = Limits(**values) if values else Limits(requests_per_minute=60)
    return LimitRow(scope=scope, subject_id=subject_id, model=model, limits=limits, updated_by="o@example.com")


def budget_of(scope: Scope, subject_id: str, nanos: int = 10**9, **fields: Any) -> Budget:
    """A budget to put: a month's, unless something else is said."""
    given = {"id": "", "period": "month", "updated_by": "o@example.com", **fields}
    return Budget(scope=scope, subject_id=subject_id, amount_nanos=nanos, **given)


def add_governance(stores: Stores, attachment: Attachment) -> None:
    """At least one row in every table of limits, budgets, the ledger and kept answers."""
    stores.limits.put(limit_of(Scope.MODEL, "chat-large"))
    stores.limits.put(limit_of(Scope.APP, attachment.app_id, model="chat-large", max_tokens=-1))
    stores.budgets.put(budget_of(Scope.ADDON, attachment.addon_id, 12_500_000_000, alerts=(50, 90)))
    day = {name: 0 for name, column in governance.ledger_days.c.items() if not isinstance(column.type, String)}
    entry = {name: 1 for name, column in governance.ledger_entries.c.items() if not column.nullable}
    ids = {"key_id": "k", "app_id": attachment.app_id, "addon_id": "d", "attachment_id": "c", "key_prefix": "inf-"}
    named = {**ids, "app_name": "shop", "model": "m", "target": "p/m", "currency": "USD"}
    asked = {"request_id": "r", "asked": "m", "outcome": "completed", "attempts": "[]", "hash": b"h" * 32}
    flags = {"stream": True, "cached_answer": False, "estimated": False, "raw_usage": '{"n": 1}', "queued_ms": 0.25}
    answer = {"id": b"i" * 32, "kind": "idempotency", "app_id": attachment.app_id, "fingerprint": b"f" * 32}
    state = {"state": "done", "owner": "w", "attempt": 1, "request_id": "r", "followed_s": 1.0}
    rows = {
        governance.app_policies: {"app_id": attachment.app_id, "weight": 2, "reserve_percent": 10, "updated_at": NOW},
        governance.leases: {
            "counter": "r:app:a:", "holder": "w", "granted": 5, "seq": 1, "last_grant": 5, "expires_s": 1.5,
        },
        governance.lease_usage: {"counter": "r:app:a:", "second": 1, "used": 1},
        governance.price_versions: {"version": "f" * 16, "rate": {"input": "1"}, "first_seen_at": NOW},
        governance.ledger_entries: {**entry, **named, **asked, **flags},
        governance.ledger_days: {**day, **named},
        governance.ledger_seals: {
            "number": 1, "day": 1, "entry_hash": b"e" * 32, "digest": b"d" * 32, "hash": b"s" * 32,
        },
        governance.answers: {**answer, **state, "alive_s": 1.5, "created_s": 1.0, "expires_s": 2.0},
        governance.answer_chunks: {"answer_id": answer["id"], "attempt": 1, "number": 0, "body": b"b"},
        governance.contents: {
            "request_id": "r", "app_id": attachment.app_id, "body": b"b", "created_us": 1, "expires_us": 2,
        },
    }  # fmt: skip
    with stores.db.write() as connection:
        for table, row in rows.items():
            connection.execute(insert(table).values(row))
        sealed = stores.db.seal(connection, "private", bound_to="content-1")
        key = {"id": "content-1", "public": b"p" * 32, "sealed": sealed, "created_at": NOW}
        connection.execute(insert(governance.content_keys).values(key))
