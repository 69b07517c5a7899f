"""Doubles of the vendors: each says the same answers, failures and requests in its vendor's real bytes.

``tests/providers/vendors/<name>.py`` holds a class ``Double`` that is a ``Vendor``; the suite finds it there by itself.
"""

from typing import Any, NamedTuple, Protocol


class Answer(NamedTuple):
    """What an upstream says, in our words: a double puts it into its vendor's."""

    text: str = "Hello wörld 🌊"  # "" for none
    thinking: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()  # (id, name, JSON text of the arguments)
    finish: str = "stop"  # stop, length, tool_calls or content_filter
    usage: tuple[int, int, int, int] = (7, 2, 3, 0)  # input incl. all of the cache, output, cache read, cache write
    pieces: int = 3  # into how many deltas text, thinking and arguments are cut


# Every kind of refusal that a double knows (``Vendor.error``), and the code that our clients get for it.
REFUSALS = (
    ("invalid", "upstream_refused"),
    ("unauthorized", "upstream_misconfigured"),
    ("forbidden", "upstream_misconfigured"),
    ("not_found", "upstream_misconfigured"),
    ("rate_limited", "upstream_rate_limited"),
    ("overloaded", "upstream_overloaded"),
    ("internal", "upstream_error"),
    ("too_long", "context_length_exceeded"),
)


class Vendor(Protocol):
    """One vendor's wire as its servers speak it. A double is stateless: every method is a function of its arguments."""

    kind: str  # the kind of its provider row
    stream_type: str  # the content type of a streamed answer
    thinks: bool  # whether its models show what they think
    environ: dict[str, str]  # what must stand in the environment for ``row``; the credential is in its values

    def row(self, base: str) -> str:
        """The ``[[provider]]`` row, in TOML, of a provider named "double" below the base URL (no trailing slash)."""

    def plain(self, answer: Answer) -> bytes:
        """The body of a plain answer."""

    def events(self, answer: Answer) -> list[bytes]:
        """The events of a streamed answer as they stand on the wire, in order; the last one ends the answer."""

    def usage_early(self, answer: Answer) -> list[bytes] | None:
        """The same with the usage before the finish; None where the vendor has one order only."""

    def noise(self) -> list[bytes]:
        """Events that say nothing and may come at any point: pings, comments, keep-alives, empty deltas."""

    def error(self, kind: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a refusal. ``kind`` is one of invalid, unauthorized, forbidden, not_found,
        rate_limited (with Retry-After: 7 where the vendor sends that header), overloaded, internal, too_long."""

    def error_event(self) -> bytes:
        """A failure in the middle of a stream (overloaded, where the vendor says so), as it stands on the wire."""

    def request(self, body: bytes) -> dict[str, Any]:
        """What a request says: ``{"system": str, "texts": [str], "tools": [str], "max_tokens": int | None}``. Texts are
        those of all turns in order, the system's apart and those of tool results included; tools are their names."""
