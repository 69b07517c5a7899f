"""How long and how much of an upstream is waited for."""

import msgspec


class TransportLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Timeouts in seconds, sizes in bytes, connections per endpoint."""

    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 300.0
    first_token_timeout_s: float | None = None
    idle_timeout_s: float = 120.0
    total_timeout_s: float | None = None
    max_connections: int = 512
    max_header_bytes: int = 64 * 1024
    max_answer_bytes: int = 64 * 1024 * 1024
