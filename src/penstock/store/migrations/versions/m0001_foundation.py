"""Schema 0001: apps, add-ons, attachments, keys, config vars, releases, operators."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _id() -> "sa.Column[str]":
    return sa.Column("id", sa.String(36), nullable=False)


def _at(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _fk(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=f"fk_{table}_{column}_{target}")


def _pk(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{table}")


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=f"uq_{table}_{'_'.join(columns)}")


def upgrade() -> None:
    """Builds everything and the one row that counts key changes."""
    _platform()
    _keys()
    _people()


def _platform() -> None:
    op.create_table(
        "apps",
        _id(),
        sa.Column("name", sa.String(30), nullable=False),
        sa.Column("owner_email", sa.String(320), nullable=False),
        sa.Column("region", sa.String(64), nullable=False),
        sa.Column("stack", sa.String(64), nullable=False),
        sa.Column("last_version", sa.Integer, nullable=False),
        _at("created_at"),
        _at("updated_at"),
        _pk("apps", "id"),
        _unique("apps", "name"),
    )
    op.create_table(
        "addons",
        _id(),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("plan", sa.String(256), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        _at("created_at"),
        _at("updated_at"),
        _pk("addons", "id"),
        _unique("addons", "name"),
        _fk("addons", "app_id", "apps"),
    )
    op.create_index("ix_addons_app_id", "addons", ["app_id"])
    op.create_table(
        "attachments",
        _id(),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("addon_id", sa.String(36), nullable=False),
        _at("created_at"),
        _at("updated_at"),
        _pk("attachments", "id"),
        _unique("attachments", "app_id", "name"),
        _fk("attachments", "app_id", "apps"),
        _fk("attachments", "addon_id", "addons"),
    )
    op.create_index("ix_attachments_name", "attachments", ["name"])
    op.create_index("ix_attachments_addon_id", "attachments", ["addon_id"])
    op.create_table(
        "config_vars",
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        _pk("config_vars", "app_id", "name"),
        _fk("config_vars", "app_id", "apps"),
    )
    op.create_table(
        "releases",
        _id(),
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("description", sa.String(1024), nullable=False),
        sa.Column("user_email", sa.String(320), nullable=False),
        _at("created_at"),
        _pk("releases", "id"),
        _unique("releases", "app_id", "version"),
        _fk("releases", "app_id", "apps"),
    )


def _keys() -> None:
    op.create_table(
        "api_keys",
        _id(),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("attachment_id", sa.String(36), nullable=False),
        _at("created_at"),
        _pk("api_keys", "id"),
        _unique("api_keys", "hash"),
        _fk("api_keys", "attachment_id", "attachments"),
    )
    op.create_index("ix_api_keys_attachment_id", "api_keys", ["attachment_id"])
    counter = op.create_table(
        "key_revision",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("pruned_to", sa.BigInteger, nullable=False),
        _pk("key_revision", "id"),
    )
    op.bulk_insert(counter, [{"id": 1, "revision": 0, "pruned_to": 0}])
    op.create_table(
        "key_changes",
        sa.Column("revision", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("key_hash", sa.LargeBinary(32), nullable=False),
        _pk("key_changes", "revision"),
    )


def _people() -> None:
    op.create_table(
        "operators",
        _id(),
        sa.Column("email", sa.String(320), nullable=False),
        _at("created_at"),
        _pk("operators", "id"),
        _unique("operators", "email"),
    )
    op.create_table(
        "operator_tokens",
        _id(),
        sa.Column("operator_id", sa.String(36), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        _at("created_at"),
        _pk("operator_tokens", "id"),
        _unique("operator_tokens", "hash"),
        _fk("operator_tokens", "operator_id", "operators"),
    )
    op.create_index("ix_operator_tokens_operator_id", "operator_tokens", ["operator_id"])
