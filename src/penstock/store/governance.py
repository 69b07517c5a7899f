"""The tables of limits, budgets, the ledger, and of answers that are kept. Sums are integers: money in 10^-9 of its
currency, ``_us`` in microseconds and ``_s`` in seconds of Unix time."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from penstock.store.columns import at, id_column, metadata

# What an object may do. NULL: nothing is said here, so the next more general row counts; -1: without limit.
# ``model`` is empty for all models together. No foreign keys: subjects are of five kinds.
limits = Table(
    "limits",
    metadata,
    id_column(),
    Column("scope", String(16), nullable=False),
    Column("subject_id", String(256), nullable=False),
    Column("model", String(256), nullable=False),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrent_requests", BigInteger),
    Column("max_tokens", BigInteger),
    Column("updated_by", String(320), nullable=False),
    at("updated_at"),
    UniqueConstraint("scope", "subject_id", "model"),
)

# ``origin`` is operator, or default for one that the defaults in penstock.toml made.
budgets = Table(
    "budgets",
    metadata,
    id_column(),
    Column("scope", String(16), nullable=False),
    Column("subject_id", String(256), nullable=False),
    Column("model", String(256), nullable=False),
    Column("period", String(8), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("amount_nanos", BigInteger, nullable=False),
    Column("alerts", JSON, nullable=False),
    Column("origin", String(16), nullable=False),
    Column("updated_by", String(320), nullable=False),
    at("created_at"),
    at("updated_at"),
    UniqueConstraint("scope", "subject_id", "model", "period", "currency"),
)

# ``starts_on`` is the period's first day (2026-11-01), empty for the whole time; ``alerted`` the highest threshold in
# percent that was told.
budget_periods = Table(
    "budget_periods",
    metadata,
    Column("budget_id", String(36), ForeignKey("budgets.id", ondelete="CASCADE"), primary_key=True),
    Column("starts_on", String(10), primary_key=True),
    Column("spent_nanos", BigInteger, nullable=False),
    Column("alerted", Integer, nullable=False),
)

# How an app is treated: its weight and reserved share in queues, its cache, whether its content is kept.
app_policies = Table(
    "app_policies",
    metadata,
    Column("app_id", String(36), ForeignKey("apps.id", ondelete="CASCADE"), primary_key=True),
    Column("weight", Integer, nullable=False),
    Column("reserve_percent", Integer, nullable=False),
    Column("cache_ttl_s", Integer),
    Column("content_days", Integer),
    at("updated_at"),
)

# One row, bumped by what all gateway workers must know: limits of models, budgets of models, reserved shares.
governance_revision = Table(
    "governance_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)

# What each gateway worker may still take of a counter; ``expires_s`` is by the database's clock.
leases = Table(
    "leases",
    metadata,
    Column("counter", String(400), primary_key=True),
    Column("holder", String(80), primary_key=True),
    Column("granted", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("last_grant", BigInteger, nullable=False),
    Column("expires_s", Float, nullable=False, index=True),
    Index("ix_leases_holder", "holder"),
)

# Sliding windows: units used in each second of the database's clock.
lease_usage = Table(
    "lease_usage",
    metadata,
    Column("counter", String(400), primary_key=True),
    Column("second", BigInteger, primary_key=True),
    Column("used", BigInteger, nullable=False),
    Index("ix_lease_usage_second", "second"),
)

price_versions = Table(
    "price_versions",
    metadata,
    Column("version", String(16), primary_key=True),
    Column("rate", JSON, nullable=False),
    at("first_seen_at"),
)

# Append-only: triggers refuse every change, and every deletion but of what the head says is pruned.
ledger_entries = Table(
    "ledger_entries",
    metadata,
    # On SQLite the very number of the row, which saves an index.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("request_id", String(64), nullable=False, unique=True),
    Column("admitted_us", BigInteger, nullable=False, index=True),
    Column("settled_us", BigInteger, nullable=False),
    Column("key_id", String(36), nullable=False),
    Column("key_prefix", String(16), nullable=False),
    Column("app_id", String(36), nullable=False),
    Column("app_name", String(30), nullable=False),
    Column("addon_id", String(36), nullable=False),
    Column("attachment_id", String(36), nullable=False),
    Column("asked", String(256), nullable=False),
    Column("model", String(256), nullable=False),
    Column("target", String(512)),
    Column("stand_in", String(256)),
    Column("stream", Boolean, nullable=False),
    Column("outcome", String(64), nullable=False),
    Column("cached_answer", Boolean, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("raw_usage", String),
    Column("currency", String(3), nullable=False),
    Column("price_version", String(16)),
    Column("amount_nanos", BigInteger, nullable=False),
    Column("cost_nanos", BigInteger),
    Column("cost_currency", String(3)),
    Column("queued_ms", Float),
    Column("first_event_ms", Float),
    Column("total_ms", Float, nullable=False),
    Column("attempts", String, nullable=False),
    Column("idempotency_id", LargeBinary(32)),
    Column("hash", LargeBinary(32), nullable=False),
    Index("ix_ledger_entries_app_id", "app_id", "admitted_us"),
    # Where there is one: the migration says so, and to say it here would load the modules of both databases.
    Index("ix_ledger_entries_idempotency_id", "idempotency_id"),
)

# One row: the chain's newest entry, and the newest of those that retention has removed; entries admitted before
# ``pruned_us`` may be among those.
ledger_head = Table(
    "ledger_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("pruned_seq", BigInteger, nullable=False),
    Column("pruned_hash", LargeBinary(32), nullable=False),
    Column("pruned_us", BigInteger, nullable=False),
)

# Sums of the entries by the UTC day of their admission (days since 1970); they stay when entries are pruned.
ledger_days = Table(
    "ledger_days",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("key_id", String(36), primary_key=True),
    Column("model", String(256), primary_key=True),
    Column("target", String(512), primary_key=True),
    Column("currency", String(3), primary_key=True),
    Column("key_prefix", String(16), nullable=False),
    Column("app_id", String(36), nullable=False),
    Column("app_name", String(30), nullable=False),
    Column("addon_id", String(36), nullable=False),
    Column("attachment_id", String(36), nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("estimated", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("amount_nanos", BigInteger, nullable=False),
    Column("cost_nanos", BigInteger, nullable=False),
    Index("ix_ledger_days_app_id", "app_id", "day"),
)

# A chain of its own: what the sums of a day say of entries that are pruned. ``sums`` is NULL but in a day's newest.
ledger_seals = Table(
    "ledger_seals",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("day", Integer, nullable=False, index=True),
    Column("entry_hash", LargeBinary(32), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("sums", LargeBinary),
    Column("hash", LargeBinary(32), nullable=False),
)

# Answers of the data plane that are given again: to a repeated Idempotency-Key, or out of the cache. ``body`` and the
# chunks are encrypted under what only the asking client knows, so the master key is not involved. All times are by the
# database's clock: of the owner's last sign of life, and of the last one of a client that follows at another worker.
answers = Table(
    "answers",
    metadata,
    Column("id", LargeBinary(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("app_id", String(36), nullable=False, index=True),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", String(80), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("body", LargeBinary),
    Column("alive_s", Float, nullable=False),
    Column("followed_s", Float, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float, nullable=False, index=True),
)

answer_chunks = Table(
    "answer_chunks",
    metadata,
    Column("answer_id", LargeBinary(32), ForeignKey("answers.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

# Prompts and answers of apps that turned content logging on, encrypted for the public key.
contents = Table(
    "contents",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("app_id", String(36), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False, index=True),
    Index("ix_contents_app_id", "app_id", "created_us"),
)

content_keys = Table(
    "content_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("public", LargeBinary(32), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    at("created_at"),
)

TABLES = (
    limits,
    budgets,
    budget_periods,
    app_policies,
    governance_revision,
    leases,
    lease_usage,
    price_versions,
    ledger_entries,
    ledger_head,
    ledger_days,
    ledger_seals,
    answers,
    answer_chunks,
    contents,
    content_keys,
)
