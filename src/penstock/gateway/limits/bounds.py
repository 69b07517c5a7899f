"""The most that a request can use: its prompt, its output, and what those can cost.

A text has no more tokens than its body has bytes; what a chat template adds to a message, and what pictures and files
count beyond their bytes, is allowed for. Output is bounded by ``max_tokens``, which this says what to send as.
"""

from decimal import Decimal
from typing import Literal

import msgspec

from penstock.domain.catalogue import Model, Rate
from penstock.domain.chat import ChatRequest
from penstock.domain.money import MAX_PRICE_NANOS
from penstock.domain.value import Value
from penstock.gateway.routing.window import estimate
from penstock.gateway.wire import Parsed

_MESSAGE_TOKENS = 64
_TEMPLATE_TOKENS = 1_024
# The most that a vendor counts for one image, and for one of low detail (2026-11: gpt-4o-mini, 48,169 and 2,833).
_IMAGE_TOKENS, _LOW_DETAIL_TOKENS = 49_152, 4_096
# Of what only the upstream can measure, in a model whose window is not known: the largest window of a vendor (2026-11).
_LARGEST_WINDOW = 2_097_152
# Parts that have no more tokens than bytes in the body.
_SPELLED_OUT = {"text", "refusal", "input_audio"}
# What adapters make of an effort for models that think by a budget of tokens; 2026-11, the largest of all vendors.
EFFORTS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 24_576, "xhigh": 32_768}
_SMALL = 4_096

Why = Literal["", "limit", "budget", "default"]


class Bounds(Value, frozen=True):
    """Tokens of one request: ``output`` is that of each of its ``choices``, ``thinking`` what an adapter may add to a
    ``max_tokens`` that leaves no room beside it. ``send`` is the ``max_tokens`` to send in place of what the client
    asked for (None: as it is), and ``why``; ``asked`` is the client's own."""

    output: int
    choices: int
    thinking: int
    asked: int | None
    send: int | None = None
    why: Why = ""

    @property
    def whole(self) -> int:
        """Output tokens of all choices."""
        return self.output * self.choices

    @property
    def least(self) -> int:
        """Output tokens of all choices, at the least with which the request can be sent."""
        return (self.thinking + 1) * self.choices

    def within(self, tokens: int) -> "Bounds":
        """The same with no more than so many output tokens in all choices, at least ``least``."""
        each = tokens // self.choices
        # Behind a bound that leaves no room for thinking an adapter makes room for it.
        asked = each if self.asked is None else self.asked
        send = min(asked, each) if asked > self.thinking else min(asked, each - self.thinking)
        return msgspec.structs.replace(self, output=each, send=send, why="budget")


def bounds(parsed: Parsed, model: Model, *, limit: int | None, assumed: int | None) -> Bounds | None:
    """The bounds of a request to a model under a ``limit`` of output tokens, if any. ``assumed`` is for where neither
    request nor model has a bound, None without a budget: then no bound is needed. None when the limit cannot be
    kept."""
    chat = parsed.chat
    asked, choices, thinking = chat.most_output, chat.n or 1, _thinking(chat)
    # An effort is no number of tokens that the client asks for: it counts as what it may cost, not against the limit.
    told = 0 if chat.extended_thinking is None else thinking
    if asked is not None:
        if limit is not None and _raised(asked, told) * choices > limit:
            return None
        output = _least_of(_raised(asked, thinking), model.max_output, model.context_window)
        return Bounds(output, choices, thinking, asked)
    room = None if limit is None else limit // choices
    most = model.max_output or assumed
    if room is None or (most is not None and most <= room):
        if assumed is not None:
            return _assumed(parsed, model, model.max_output or assumed)
        return Bounds(most or 0, choices, thinking, None)  # the model itself keeps the limit
    if room <= told:
        return None
    output = _least_of(_raised(room, thinking), model.max_output, model.context_window)
    return Bounds(output, choices, thinking, None, room, "limit")


def _assumed(parsed: Parsed, model: Model, most: int) -> Bounds:
    """The bound of a request that names none. It is sent, so that it is one; prompt and answer have to fit the
    window, at upstreams that insist on it, as far as the prompt's length can be told."""
    window, thinking = model.context_window, _thinking(parsed.chat)
    if window is not None:
        most = min(most, max(window - len(parsed.raw) // 3, window // 8, 1))
    output = _least_of(_raised(most, thinking), model.max_output, window)
    return Bounds(output, parsed.chat.n or 1, thinking, None, most, "default")


def input_bound(parsed: Parsed, model: Model) -> int:
    """The most tokens that the prompt can have."""
    chat = parsed.chat
    tokens = len(parsed.raw) + _MESSAGE_TOKENS * len(chat.messages) + _TEMPLATE_TOKENS
    for message in chat.messages:
        if message.content.__class__ is list:
            tokens += sum(_unspelled(part) for part in message.content or () if isinstance(part, dict))
    return tokens if model.context_window is None else min(tokens, model.context_window)


def input_estimate(parsed: Parsed) -> int:
    """About how many tokens the prompt has; of a small body, by its length alone."""
    size = len(parsed.raw)
    return size // 4 + 1 if size < _SMALL else estimate(parsed.chat) + 1


class Pricing:
    """The rate of one model in whole numbers, for bounds on the hot path; they equal ``domain.money.worst_price``."""

    __slots__ = ("_input", "_output", "_scale")

    def __init__(self, rate: Rate) -> None:
        entry = max(rate.input, rate.cached_input or rate.input, rate.cache_write or rate.input) * 1000
        output = rate.output * 1000
        digits = max(0, *(-int(price.as_tuple().exponent) for price in (entry, output)))
        self._scale = int(10**digits)
        self._input, self._output = (int(Decimal(price).scaleb(digits)) for price in (entry, output))

    def worst(self, input_tokens: int, output_tokens: int) -> int:
        """The most, in 10^-9, that so many tokens can cost; rounded up."""
        worst = -(-(input_tokens * self._input + output_tokens * self._output) // self._scale)
        return worst if worst < MAX_PRICE_NANOS else MAX_PRICE_NANOS

    def affords(self, amount: int, input_tokens: int) -> int | None:
        """How many output tokens an amount in 10^-9 pays beside the prompt; None when they cost nothing."""
        if not self._output:
            return None
        return max(0, amount * self._scale - input_tokens * self._input) // self._output


def _thinking(chat: ChatRequest) -> int:
    """Tokens that an adapter may reserve for thinking beside a bound that is smaller."""
    extended, effort = chat.extended_thinking, chat.reasoning_effort
    if extended is None:
        return EFFORTS.get(effort or "", 0)
    if not extended.enabled:
        return 0
    return extended.budget_tokens or EFFORTS.get(effort or "", EFFORTS["medium"])


def _raised(tokens: int, thinking: int) -> int:
    return tokens if tokens > thinking else tokens + thinking


def _least_of(tokens: int, first: int | None, second: int | None) -> int:
    if first is not None and first < tokens:
        tokens = first
    return second if second is not None and second < tokens else tokens


def _unspelled(part: dict[str, object]) -> int:
    """The most tokens that a part can have beyond its bytes in the body."""
    kind = part.get("type")
    if kind in _SPELLED_OUT:
        return 0
    if kind != "image_url":
        return _LARGEST_WINDOW
    image = part.get("image_url")
    low = isinstance(image, dict) and image.get("detail") == "low"
    return _LOW_DETAIL_TOKENS if low else _IMAGE_TOKENS
