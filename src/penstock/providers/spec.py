"""A provider as one process calls it: what its row and its built-in profile say together, with its secret apart."""

from typing import Literal, NamedTuple, Protocol

import msgspec

from penstock.providers.transport import Transport, TransportLimits


class Quirks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one server of the OpenAI dialect differs.

    ``max_tokens_field`` is the name that it wants for the bound on output (None: as sent); ``refuses`` are parameters
    that it cannot honour, ``ignores`` those that it takes without effect: they are not sent. ``renames`` are pairs of
    our name and its own. ``developer_role`` and ``stream_options`` say that it knows those. ``thinking`` is the field
    that turns thinking on, ``reasoning_field`` where its thoughts stand as text (read under both names, sent back under
    this one; None: passed as they are). ``cache_salt``: sends the app's name, so that apps share no prefix cache.
    ``call_ids`` are the ids of tool calls that it takes: of at most 40 characters, of nine letters and digits, or any;
    ``strict_messages``: it refuses a message for a field that it does not know.
    Without ``done_mark`` a stream whose choice has finished and that HTTP ended is whole, also when [DONE] is missing.
    """

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    refuses: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    developer_role: bool = True
    stream_options: bool = True
    thinking: Literal["reasoning_effort", "reasoning", "thinking", "chat_template_kwargs"] | None = None
    reasoning_field: Literal["reasoning", "reasoning_content"] | None = None
    cache_salt: bool = False
    call_ids: Literal["any", "short", "nine"] = "short"
    strict_messages: bool = False
    done_mark: bool = True


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's secret: an API key or token; for bedrock the AWS secret key, with its id and session token."""

    secret: str
    access_key_id: str | None = None
    session_token: str | None = None

    def __repr__(self) -> str:
        return "Credential(********)"

    def fits_headers(self) -> bool:
        """Whether a header can carry it: vendors' keys are printable ASCII."""
        parts = (self.secret, self.access_key_id or "", self.session_token or "")
        return all(part.isascii() and part.isprintable() for part in parts)


class ProviderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One provider, resolved. ``base_url`` is where its calls go and nowhere else; ``library_provider`` is what
    any-llm calls it, for that kind only (None: as ``name``)."""

    name: str
    kind: str
    base_url: str
    quirks: Quirks = Quirks()
    limits: TransportLimits = TransportLimits()
    auth: str | None = None
    region: str | None = None
    aws_profile: str | None = None
    api_version: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    proxy: str | None = None
    ca_file: str | None = None
    max_concurrent: int | None = None
    max_queue: int = 100
    queue_timeout_s: float = 10.0
    library_provider: str | None = None


class Image(NamedTuple):
    """A fetched image: its media type (``image/png``) and its bytes."""

    media_type: str
    data: bytes


class Images(Protocol):
    """Fetches images for upstreams that take no addresses."""

    async def fetch(self, url: str, param: str, /) -> Image:
        """The image. Raises PenstockError image_unavailable that names ``param``."""


class Bound(NamedTuple):
    """What an adapter is made of: everything arrives bound, nothing is looked up later."""

    spec: ProviderSpec
    credential: Credential | None
    transport: Transport
    images: Images
