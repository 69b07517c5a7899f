"""The bill: one entry for each admitted request, never changed."""

import msgspec

from penstock.domain.usage import Usage

# Outcomes that count as no failure: the answer was whole, or its client did not want the rest.
NOT_FAILED = ("completed", "disconnected")
# Of a request whose worker died.
INTERRUPTED = "interrupted"
DAY_US = 86_400_000_000


class LedgerEntry(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What one request was, what it used and what it costs. Money is in 10^-9; ``_us`` is microseconds of Unix time.

    ``asked`` is the model as the client named it, ``model`` the catalogue's id whose price is charged, ``target`` what
    served it, as ``provider/model``. ``outcome`` is completed, disconnected, cancelled, an error code, or interrupted
    when the worker died. ``raw_usage`` is the upstream's own account as JSON text; ``attempts`` are the upstream calls
    as JSON text, each [target, outcome, milliseconds to its first event, milliseconds to its end]. ``amount_nanos`` is
    the charge; ``price_version`` None means that the model has no price, ``cost_nanos`` None that the upstream's is
    unknown. ``seq`` and ``hash`` are its place in the chain: 0 and empty until it has one.
    """

    request_id: str
    admitted_us: int
    settled_us: int
    key_id: str
    key_prefix: str
    app_id: str
    app_name: str
    addon_id: str
    attachment_id: str
    asked: str
    model: str
    target: str | None
    stand_in: str | None
    stream: bool
    outcome: str
    usage: Usage
    cached_answer: bool = False
    raw_usage: str | None = None
    currency: str = "USD"
    price_version: str | None = None
    amount_nanos: int = 0
    cost_nanos: int | None = None
    cost_currency: str | None = None
    queued_ms: float | None = None
    first_event_ms: float | None = None
    total_ms: float = 0.0
    attempts: str = "[]"
    idempotency_id: bytes | None = None
    seq: int = 0
    hash: bytes = b""


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over entries of one group in one currency. ``group`` holds the grouping values by name."""

    group: dict[str, str]
    currency: str
    requests: int
    failed: int
    estimated: int
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    amount_nanos: int
    cost_nanos: int
