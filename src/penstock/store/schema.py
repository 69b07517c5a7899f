"""The tables, in portable types. The migrations build them; a test keeps both in step."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from penstock.store.columns import UtcDateTime, at, id_column, reference
from penstock.store.columns import metadata as metadata  # noqa: PLC0414 - the tables make it whole
from penstock.store.governance import TABLES as GOVERNANCE  # noqa: F401 - registers them

# Each released schema in order; the last is what this code needs.
REVISIONS = ("0001", "0002", "0003", "0004")

apps = Table(
    "apps",
    metadata,
    id_column(),
    Column("name", String(30), nullable=False, unique=True),
    Column("owner_email", String(320), nullable=False),
    Column("owner_id", String(36), ForeignKey("operators.id"), index=True),
    Column("region", String(64), nullable=False),
    Column("stack", String(64), nullable=False),
    Column("last_version", Integer, nullable=False),
    at("created_at"),
    at("updated_at"),
)

addons = Table(
    "addons",
    metadata,
    id_column(),
    Column("name", String(256), nullable=False, unique=True),
    reference("app_id", "apps.id"),
    Column("plan", String(256), nullable=False),
    Column("state", String(32), nullable=False),
    Column("config", JSON, nullable=False),
    at("created_at"),
    at("updated_at"),
    Index("ix_addons_plan", "plan", "name"),
)

attachments = Table(
    "attachments",
    metadata,
    id_column(),
    Column("name", String(64), nullable=False),
    reference("app_id", "apps.id", index=False),
    reference("addon_id", "addons.id"),
    at("created_at"),
    at("updated_at"),
    UniqueConstraint("app_id", "name"),
    # The pages of a name that many apps have are read in the order of their ids.
    Index("ix_attachments_name", "name", "id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    id_column(),
    Column("prefix", String(16), nullable=False),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("sealed", LargeBinary, nullable=False),
    reference("attachment_id", "attachments.id"),
    # A key beside the one that the config vars show.
    Column("extra", Boolean, nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("expires_at", UtcDateTime, index=True),
    Column("last_used_at", UtcDateTime),
    at("created_at"),
)

# One row. Changes up to and including ``pruned_to`` are no longer in key_changes.
key_revision = Table(
    "key_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("pruned_to", BigInteger, nullable=False),
)

key_changes = Table(
    "key_changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("key_hash", LargeBinary(32), nullable=False),
)

config_vars = Table(
    "config_vars",
    metadata,
    Column("app_id", String(36), ForeignKey("apps.id"), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

# Of upstreams: what a provider's row with api_key_stored is called with.
credentials = Table(
    "credentials",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("updated_by", String(320), nullable=False),
    at("created_at"),
    at("updated_at"),
)

releases = Table(
    "releases",
    metadata,
    id_column(),
    reference("app_id", "apps.id", index=False),
    Column("version", Integer, nullable=False),
    Column("description", String(1024), nullable=False),
    Column("user_email", String(320), nullable=False),
    at("created_at"),
    UniqueConstraint("app_id", "version"),
)

operators = Table(
    "operators",
    metadata,
    id_column(),
    Column("email", String(320), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    at("created_at"),
)

operator_tokens = Table(
    "operator_tokens",
    metadata,
    id_column(),
    reference("operator_id", "operators.id"),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("description", String(256), nullable=False),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    at("created_at"),
)

collaborators = Table(
    "collaborators",
    metadata,
    id_column(),
    reference("app_id", "apps.id", index=False),
    reference("operator_id", "operators.id", index=False),
    Column("role", String(16), nullable=False),
    at("created_at"),
    at("updated_at"),
    UniqueConstraint("app_id", "operator_id"),
    Index("ix_collaborators_operator_id", "operator_id", "app_id"),
)

# Append-only: triggers refuse to change or delete a row. No foreign keys: an event outlives what it is about.
audit_events = Table(
    "audit_events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("actor_id", String(36)),
    Column("actor_email", String(320), nullable=False),
    Column("source", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("object_type", String(32), nullable=False),
    Column("object_id", String(64)),
    Column("object_name", String(320)),
    Column("app_id", String(36)),
    Column("app_name", String(30)),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Index("ix_audit_events_app_id", "app_id", "seq"),
    Index("ix_audit_events_app_name", "app_name", "seq"),
)

# What a create with an Idempotency-Key answered, sealed, because an answer can hold a new secret.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("operator_id", String(36), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("status", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)
