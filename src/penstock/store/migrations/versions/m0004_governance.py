"""Schema 0004: limits, budgets, leases, the ledger, and answers that are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_APPEND_ONLY = "the ledger is append-only"


def upgrade() -> None:
    """Adds tables and touches nothing else."""
    _answers()
    _budgets()
    _content_keys()
    _contents()
    _governance_revision()
    _lease_usage()
    _leases()
    _ledger_days()
    _ledger_entries()
    _ledger_head()
    _ledger_seals()
    _limits()
    _price_versions()
    _answer_chunks()
    _budget_periods()
    _app_policies()
    _heads()
    _append_only()


def _answers() -> None:
    op.create_table(
        "answers",
        sa.Column("id", sa.LargeBinary(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(80), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("alive_s", sa.Float, nullable=False),
        sa.Column("followed_s", sa.Float, nullable=False),
        sa.Column("created_s", sa.Float, nullable=False),
        sa.Column("expires_s", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
    )
    op.create_index("ix_answers_app_id", "answers", ["app_id"])
    op.create_index("ix_answers_expires_s", "answers", ["expires_s"])


def _budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("subject_id", sa.String(256), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("period", sa.String(8), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("amount_nanos", sa.BigInteger, nullable=False),
        sa.Column("alerts", sa.JSON, nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("updated_by", sa.String(320), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budgets"),
        sa.UniqueConstraint(
            "scope",
            "subject_id",
            "model",
            "period",
            "currency",
            name="uq_budgets_scope_subject_id_model_period_currency",
        ),
    )


def _content_keys() -> None:
    op.create_table(
        "content_keys",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("public", sa.LargeBinary(32), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_content_keys"),
    )


def _contents() -> None:
    op.create_table(
        "contents",
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_contents"),
    )
    op.create_index("ix_contents_app_id", "contents", ["app_id", "created_us"])
    op.create_index("ix_contents_expires_us", "contents", ["expires_us"])


def _governance_revision() -> None:
    op.create_table(
        "governance_revision",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_governance_revision"),
    )


def _lease_usage() -> None:
    op.create_table(
        "lease_usage",
        sa.Column("counter", sa.String(400), nullable=False),
        sa.Column("second", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("counter", "second", name="pk_lease_usage"),
    )
    op.create_index("ix_lease_usage_second", "lease_usage", ["second"])


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("counter", sa.String(400), nullable=False),
        sa.Column("holder", sa.String(80), nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("last_grant", sa.BigInteger, nullable=False),
        sa.Column("expires_s", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("counter", "holder", name="pk_leases"),
    )
    op.create_index("ix_leases_expires_s", "leases", ["expires_s"])
    op.create_index("ix_leases_holder", "leases", ["holder"])


def _ledger_days() -> None:
    op.create_table(
        "ledger_days",
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("target", sa.String(512), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("key_prefix", sa.String(16), nullable=False),
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("app_name", sa.String(30), nullable=False),
        sa.Column("addon_id", sa.String(36), nullable=False),
        sa.Column("attachment_id", sa.String(36), nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("amount_nanos", sa.BigInteger, nullable=False),
        sa.Column("cost_nanos", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("day", "key_id", "model", "target", "currency", name="pk_ledger_days"),
    )
    op.create_index("ix_ledger_days_app_id", "ledger_days", ["app_id", "day"])


def _ledger_entries() -> None:
    op.create_table(
        "ledger_entries",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=False, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("admitted_us", sa.BigInteger, nullable=False),
        sa.Column("settled_us", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("key_prefix", sa.String(16), nullable=False),
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("app_name", sa.String(30), nullable=False),
        sa.Column("addon_id", sa.String(36), nullable=False),
        sa.Column("attachment_id", sa.String(36), nullable=False),
        sa.Column("asked", sa.String(256), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("target", sa.String(512)),
        sa.Column("stand_in", sa.String(256)),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.String(64), nullable=False),
        sa.Column("cached_answer", sa.Boolean, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("raw_usage", sa.String),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("price_version", sa.String(16)),
        sa.Column("amount_nanos", sa.BigInteger, nullable=False),
        sa.Column("cost_nanos", sa.BigInteger),
        sa.Column("cost_currency", sa.String(3)),
        sa.Column("queued_ms", sa.Float),
        sa.Column("first_event_ms", sa.Float),
        sa.Column("total_ms", sa.Float, nullable=False),
        sa.Column("attempts", sa.String, nullable=False),
        sa.Column("idempotency_id", sa.LargeBinary(32)),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_ledger_entries"),
        sa.UniqueConstraint("request_id", name="uq_ledger_entries_request_id"),
    )
    op.create_index("ix_ledger_entries_admitted_us", "ledger_entries", ["admitted_us"])
    op.create_index("ix_ledger_entries_app_id", "ledger_entries", ["app_id", "admitted_us"])
    op.create_index(
        "ix_ledger_entries_idempotency_id",
        "ledger_entries",
        ["idempotency_id"],
        sqlite_where=sa.text("idempotency_id IS NOT NULL"),
        postgresql_where=sa.text("idempotency_id IS NOT NULL"),
    )


def _ledger_head() -> None:
    op.create_table(
        "ledger_head",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("pruned_seq", sa.BigInteger, nullable=False),
        sa.Column("pruned_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("pruned_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_head"),
    )


def _ledger_seals() -> None:
    op.create_table(
        "ledger_seals",
        sa.Column("number", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("entry_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("sums", sa.LargeBinary),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_ledger_seals"),
    )
    op.create_index("ix_ledger_seals_day", "ledger_seals", ["day"])


def _limits() -> None:
    op.create_table(
        "limits",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("subject_id", sa.String(256), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("concurrent_requests", sa.BigInteger),
        sa.Column("max_tokens", sa.BigInteger),
        sa.Column("updated_by", sa.String(320), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_limits"),
        sa.UniqueConstraint("scope", "subject_id", "model", name="uq_limits_scope_subject_id_model"),
    )


def _price_versions() -> None:
    op.create_table(
        "price_versions",
        sa.Column("version", sa.String(16), nullable=False),
        sa.Column("rate", sa.JSON, nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_price_versions"),
    )


def _answer_chunks() -> None:
    op.create_table(
        "answer_chunks",
        sa.Column("answer_id", sa.LargeBinary(32), nullable=False),
        sa.Column("attempt", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["answer_id"], ["answers.id"], name="fk_answer_chunks_answer_id_answers", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("answer_id", "attempt", "number", name="pk_answer_chunks"),
    )


def _budget_periods() -> None:
    op.create_table(
        "budget_periods",
        sa.Column("budget_id", sa.String(36), nullable=False),
        sa.Column("starts_on", sa.String(10), nullable=False),
        sa.Column("spent_nanos", sa.BigInteger, nullable=False),
        sa.Column("alerted", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["budget_id"], ["budgets.id"], name="fk_budget_periods_budget_id_budgets", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("budget_id", "starts_on", name="pk_budget_periods"),
    )


def _app_policies() -> None:
    op.create_table(
        "app_policies",
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("reserve_percent", sa.Integer, nullable=False),
        sa.Column("cache_ttl_s", sa.Integer),
        sa.Column("content_days", sa.Integer),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_app_policies_app_id_apps", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("app_id", name="pk_app_policies"),
    )


def _heads() -> None:
    op.execute("INSERT INTO governance_revision (id, revision) VALUES (1, 0)")
    first = {"id": 1, "seq": 0, "hash": bytes(32), "pruned_seq": 0, "pruned_hash": bytes(32), "pruned_us": 0}
    op.bulk_insert(sa.table("ledger_head", *(sa.column(name) for name in first)), [first])


def _append_only() -> None:
    pruned = "(SELECT pruned_seq FROM ledger_head WHERE id = 1)"
    if op.get_context().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries "
            f"BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END"
        )
        op.execute(
            f"CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries WHEN OLD.seq > {pruned} "
            f"BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION ledger_entries_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF TG_OP = 'DELETE' THEN IF OLD.seq <= {pruned} THEN RETURN OLD; END IF; END IF; "
        f"RAISE EXCEPTION '{_APPEND_ONLY}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE OR DELETE ON ledger_entries "
        "FOR EACH ROW EXECUTE FUNCTION ledger_entries_append_only()"
    )
    op.execute(
        "CREATE TRIGGER ledger_entries_no_truncate BEFORE TRUNCATE ON ledger_entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION ledger_entries_append_only()"
    )
