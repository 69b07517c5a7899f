"""What the journal holds: a request that was admitted, how far it has come, and how it ended."""

import msgspec


class Admitted(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="admit"):
    """A request was admitted. ``admitted_at`` is Unix time in seconds; ``asked`` is the model as the client named it.
    ``money`` are the counters of budgets on which this worker holds money for it."""

    request_id: str
    admitted_at: float
    key_id: str
    key_prefix: str
    app_id: str
    addon_id: str
    attachment_id: str
    model: str
    stream: bool
    # Since 0.3; records before that are read without them.
    app_name: str = ""
    asked: str = ""
    idempotency_id: bytes | None = None
    money: tuple[str, ...] = ()


class Leg(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One upstream call of a request: the target as ``provider/model``, its outcome in the words of ``Settled`` (a leg
    that lost to another is cancelled), milliseconds from its begin to its first event, and to its end."""

    target: str
    outcome: str
    first_event_ms: float | None
    total_ms: float


class Settled(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="settle"):
    """A request ended. ``outcome`` is completed, disconnected, cancelled or an error code; times are milliseconds.
    ``provider`` and ``target_model`` are the attempt that the client heard of. Money is in 10^-9; ``price_version`` is
    None for a model without a price, ``cost_nanos`` where the upstream's is unknown; ``raw_usage`` is the upstream's
    own account, as JSON."""

    request_id: str
    settled_at: float
    outcome: str
    provider: str | None
    target_model: str | None
    stand_in: str | None
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    estimated: bool
    first_event_ms: float | None
    total_ms: float
    # Since 0.2; records before that are read without them.
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    attempts: tuple[Leg, ...] = ()
    # Since 0.3.
    amount_nanos: int = 0
    currency: str = "USD"
    price_version: str | None = None
    cost_nanos: int | None = None
    cost_currency: str | None = None
    raw_usage: str | None = None
    queued_ms: float | None = None
    cached_answer: bool = False


class Progress(Settled, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="progress"):
    """How far a request under way has come: its settlement, should the worker die. The last one counts."""


Record = Admitted | Settled | Progress
