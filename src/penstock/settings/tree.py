"""The frozen tree of settings: every field is one setting, with its default, unit and bounds.

A setting ``section.name`` has the environment name ``PENSTOCK_SECTION_NAME``; docs/settings.md documents each.
"""

from typing import Annotated, Literal

import msgspec

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
# A year at most: infinity is a number too, and no timer takes it.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=31_536_000)]

# Addresses and CIDR blocks.
Networks = tuple[Annotated[str, msgspec.Meta(description="address or CIDR block")], ...]


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data plane's listener and its bounds."""

    host: str = "127.0.0.1"
    port: Port = 8400
    public_url: str | None = None
    workers: Positive = 1
    max_body_bytes: Positive = 8 * 1024 * 1024
    max_header_bytes: Positive = 64 * 1024
    header_timeout_s: Seconds = 10.0
    body_timeout_s: Seconds = 30.0
    write_timeout_s: Seconds = 60.0
    keep_alive_s: Seconds = 75.0
    snapshot_poll_s: Seconds = 0.25
    route_headers: bool = True


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control plane's listener. ``url`` is where the CLI finds it; None means the running server's own address."""

    host: str = "127.0.0.1"
    port: Port = 8401
    url: str | None = None
    token: str | None = None
    operator_email: str = "operator@penstock.local"
    trusted_proxies: Networks = ()


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded engine. ``context`` is tokens per slot; the engine reserves ``slots`` times that."""

    enabled: bool = True
    driver: Literal["auto", "llamacpp", "openvino"] = "auto"
    model: str = "smollm2-135m-instruct"
    slots: Annotated[int, msgspec.Meta(ge=1, le=256)] = 4
    context: Annotated[int, msgspec.Meta(ge=256)] = 8192
    batch: Annotated[int, msgspec.Meta(ge=32, le=4096)] = 128
    threads: Annotated[int, msgspec.Meta(ge=0, le=512)] = 0


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on calls to upstreams, in seconds and bytes."""

    connect_timeout_s: Seconds = 5.0
    first_byte_timeout_s: Seconds = 300.0
    idle_timeout_s: Seconds = 120.0
    max_connections: Positive = 512
    max_answer_bytes: Positive = 64 * 1024 * 1024
    first_token_timeout_s: Seconds | None = None
    total_timeout_s: Seconds | None = None
    max_image_bytes: Positive = 20 * 1024 * 1024
    image_timeout_s: Seconds = 10.0
    image_networks: Networks = ()
    breaker_min_calls: Positive = 20
    breaker_rest_s: Seconds = 5.0


class JournalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The journal. A power cut can take at most the last ``fsync_s`` seconds; a crash of a process takes nothing."""

    fsync_s: Seconds = 1.0
    rotate_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 64 * 1024 * 1024


class LimitsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How limits and budgets are kept. ``lease_s`` is for how long a worker may use what it holds without telling the
    store; ``assumed_output_tokens`` is what a budget holds where neither request nor model bounds the output."""

    heroku_defaults: bool = True
    on_outage: Literal["refuse", "admit"] = "refuse"
    lease_s: Annotated[float, msgspec.Meta(ge=0.5, le=60)] = 2.0
    money_lease_s: Annotated[float, msgspec.Meta(ge=5, le=86_400)] = 600.0
    assumed_output_tokens: Positive = 8192


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ledger: how often the journal is brought into it, and how long single entries are kept."""

    ship_s: Annotated[float, msgspec.Meta(ge=0.02, le=60)] = 0.5
    retention_days: Positive = 400


class IdempotencySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers to requests with an Idempotency-Key: how long they are given again, how long an upstream is kept running
    for a client that has gone, and how large they may be."""

    window_s: Seconds = 86_400.0
    detached_s: Seconds = 60.0
    max_answer_bytes: Positive = 8 * 1024 * 1024


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers out of the cache: ``price_percent`` of the price is charged for one."""

    max_ttl_s: Seconds = 604_800.0
    max_answer_bytes: Positive = 1024 * 1024
    price_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the store lives; None means penstock.db under the home."""

    url: str | None = None


class SecretsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The master key: in a file (None: master.key under the home), or itself, as 64 hex digits."""

    master_key_file: str | None = None
    master_key: str | None = None
    old_master_key: str | None = None

    def __repr__(self) -> str:
        return f"SecretsSettings(master_key_file={self.master_key_file!r})"


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The supervisor: development or production mode, and how long open answers may take after SIGTERM."""

    mode: Literal["development", "production"] = "development"
    drain_s: Seconds = 30.0
    ready_file: str | None = None


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[provider]]``: an upstream by name; ``kind`` is the dialect that it speaks. What the row leaves out comes from
    the built-in provider that ``profile`` names (or that has this name), and its bounds from ``[upstream]``.

    The secret stands in the environment (``api_key_env``), in a file (``api_key_file``) or sealed in the store
    (``api_key_stored``), never here. ``headers`` are sent with every call and hold no secret.
    ``library_provider`` is the provider's name in any-llm, for the kind ``any-llm`` (its own name when left out).
    """

    name: str
    profile: str | None = None
    kind: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    api_key_stored: bool = False
    auth: Literal["key", "bearer"] | None = None
    region: str | None = None
    aws_profile: str | None = None
    api_version: str | None = None
    headers: dict[str, str] = {}
    proxy: str | None = None
    ca_file: str | None = None
    connect_timeout_s: Seconds | None = None
    first_byte_timeout_s: Seconds | None = None
    first_token_timeout_s: Seconds | None = None
    idle_timeout_s: Seconds | None = None
    total_timeout_s: Seconds | None = None
    max_connections: Positive | None = None
    max_concurrent: Positive | None = None
    max_queue: Annotated[int, msgspec.Meta(ge=0)] = 100
    queue_timeout_s: Seconds = 10.0
    library_provider: str | None = None


class TargetRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a model's ``targets``, in the order in which they are tried."""

    provider: str
    model: str
    weight: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1
    context_window: Positive | None = None


class PriceRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``price``: what a million tokens cost, as text or number."""

    input: str | float
    output: str | float
    cached_input: str | float | None = None
    cache_write: str | float | None = None
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] = "USD"


class ModelRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[model]]``: a catalogue entry of the operator's own; an id of the built-in catalogue is replaced.

    ``stand_in`` lets the embedded model answer in development while no target has a credential.
    """

    id: str
    targets: tuple[TargetRow, ...]
    owner: str = "local"
    aliases: tuple[str, ...] = ()
    context_window: Positive | None = None
    max_output: Positive | None = None
    input: tuple[Literal["text", "image"], ...] = ("text",)
    capabilities: tuple[str, ...] = ()
    price: PriceRow | None = None
    stand_in: bool = False
    strategy: Literal["ordered", "weighted", "least_outstanding", "lowest_ttft", "prefix"] = "ordered"
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    hedge: bool = False
    hedge_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    first_token_timeout_s: Seconds | None = None
    idle_timeout_s: Seconds | None = None
    total_timeout_s: Seconds | None = None


# What the Platform API takes: a number of 64 bits in the database, with room to count on.
Bound = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000_000)] | Literal["unlimited"]
Scopes = Literal["key", "attachment", "addon", "app", "model"]


class LimitDefault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[limit]]``: what each object of the scope may do unless its own limits say otherwise; of one ``model``, or of
    all together."""

    scope: Scopes
    model: str | None = None
    requests_per_minute: Bound | None = None
    tokens_per_minute: Bound | None = None
    concurrent_requests: Bound | None = None
    max_tokens: Bound | None = None


class BudgetDefault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[budget]]``: what each object of the scope may spend in a period unless a budget of its own for the same
    period, model and currency says otherwise. ``alerts`` are percentages."""

    scope: Scopes
    period: Literal["day", "week", "month", "total"]
    amount: str | float
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] = "USD"
    model: str | None = None
    alerts: tuple[Annotated[int, msgspec.Meta(ge=1, le=1000)], ...] = (50, 80, 100)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole tree. ``home`` holds the database, journal, weights and tokens."""

    home: str = ""
    gateway: GatewaySettings = GatewaySettings()
    control: ControlSettings = ControlSettings()
    engine: EngineSettings = EngineSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    journal: JournalSettings = JournalSettings()
    limits: LimitsSettings = LimitsSettings()
    ledger: LedgerSettings = LedgerSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    cache: CacheSettings = CacheSettings()
    database: DatabaseSettings = DatabaseSettings()
    secrets: SecretsSettings = SecretsSettings()
    serve: ServeSettings = ServeSettings()
    log: LogSettings = LogSettings()
    provider: tuple[ProviderRow, ...] = ()
    model: tuple[ModelRow, ...] = ()
    limit: tuple[LimitDefault, ...] = ()
    budget: tuple[BudgetDefault, ...] = ()
