"""Schema 0002: roles, app owners, collaborators, key expiry and restriction, the audit log, idempotent creates."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_APPEND_ONLY = "the audit log is append-only"


def _at(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def upgrade() -> None:
    """Adds to what 0001 built; who was an operator before is an owner, with whose email an app was made owns it."""
    _people()
    _apps()
    _lists()
    _keys()
    _audit()
    _idempotency()


# Columns are added in place, with defaults that stay: SQLite could only drop a default by copying the table, and that
# drops the old one, which the foreign keys of a running transaction refuse.
def _people() -> None:
    op.add_column("operators", sa.Column("role", sa.String(16), nullable=False, server_default="owner"))
    op.add_column("operator_tokens", sa.Column("prefix", sa.String(16), nullable=False, server_default="pst-"))
    description = sa.Column("description", sa.String(256), nullable=False, server_default="operator token")
    op.add_column("operator_tokens", description)
    op.add_column("operator_tokens", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.add_column("operator_tokens", sa.Column("last_used_at", sa.DateTime(timezone=True)))
    op.create_table(
        "collaborators",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("operator_id", sa.String(36), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        _at("created_at"),
        _at("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_collaborators"),
        sa.UniqueConstraint("app_id", "operator_id", name="uq_collaborators_app_id_operator_id"),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_collaborators_app_id_apps"),
        sa.ForeignKeyConstraint(["operator_id"], ["operators.id"], name="fk_collaborators_operator_id_operators"),
    )
    op.create_index("ix_collaborators_operator_id", "collaborators", ["operator_id", "app_id"])


def _apps() -> None:
    # Both databases take a named reference with the column; only this form suits SQLite.
    op.execute(
        "ALTER TABLE apps ADD COLUMN owner_id VARCHAR(36) CONSTRAINT fk_apps_owner_id_operators "
        "REFERENCES operators (id)"
    )
    op.create_index("ix_apps_owner_id", "apps", ["owner_id"])
    op.execute("UPDATE apps SET owner_id = (SELECT id FROM operators WHERE operators.email = apps.owner_email)")


def _lists() -> None:
    op.create_index("ix_addons_plan", "addons", ["plan", "name"])
    op.drop_index("ix_attachments_name", "attachments")
    op.create_index("ix_attachments_name", "attachments", ["name", "id"])


def _keys() -> None:
    op.add_column("api_keys", sa.Column("extra", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("api_keys", sa.Column("models", sa.JSON))
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True)))
    op.create_index("ix_api_keys_expires_at", "api_keys", ["expires_at"])


def _audit() -> None:
    op.create_table(
        "audit_events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True),
        _at("at"),
        sa.Column("actor_id", sa.String(36)),
        sa.Column("actor_email", sa.String(320), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("object_type", sa.String(32), nullable=False),
        sa.Column("object_id", sa.String(64)),
        sa.Column("object_name", sa.String(320)),
        sa.Column("app_id", sa.String(36)),
        sa.Column("app_name", sa.String(30)),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at"])
    op.create_index("ix_audit_events_app_id", "audit_events", ["app_id", "seq"])
    op.create_index("ix_audit_events_app_name", "audit_events", ["app_name", "seq"])
    if op.get_context().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_events_no_{verb.lower()} BEFORE {verb} ON audit_events "
                f"BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_events_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_APPEND_ONLY}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_events_append_only()"
    )


def _idempotency() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("operator_id", sa.String(36), nullable=False),
        sa.Column("key", sa.String(256), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        _at("created_at"),
        sa.PrimaryKeyConstraint("operator_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
