"""What an adapter does with each parameter of a chat request: data that the adapter obeys and docs/fields.md shows."""

from collections.abc import Mapping
from enum import StrEnum
from operator import attrgetter
from typing import Any, NamedTuple

from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError


class Handling(StrEnum):
    """What becomes of a parameter. Nothing is dropped silently: what is ignored is named in a response header."""

    PASSED = "passed"
    TRANSLATED = "translated"
    IGNORED = "ignored"
    REFUSED = "refused"


class Field(NamedTuple):
    """How one parameter is handled, and what a user should know of it."""

    handling: Handling
    note: str = ""


FieldTable = Mapping[str, Field]

# Values that ask for nothing: what an upstream does anyway.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "store": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"], []),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
    "min_p": (0,),
    "parallel_tool_calls": (True,),
}


def asks(chat: ChatRequest, name: str) -> bool:
    """Whether the request asks for something by this parameter."""
    value = getattr(chat, name)
    if name == "response_format":
        return value is not None and value.type != "text"
    if name == "extended_thinking":
        return value is not None and value.enabled
    return value is not None and value not in _NEUTRAL.get(name, ())


class Fields:
    """One adapter's table, ready to be asked."""

    def __init__(self, adapter: str, table: FieldTable) -> None:
        self.adapter = adapter
        self.table = table
        self._ignored = tuple(name for name, field in table.items() if field.handling is Handling.IGNORED)
        self._refused = tuple(name for name, field in table.items() if field.handling is Handling.REFUSED)
        # On the hot path: most requests set none of them, and a loop over the names costs ten times as much. The first
        # stands there twice because a getter of one name gives no tuple.
        names = ("allow_ignored_params", "allow_ignored_params", *self._ignored, *self._refused)
        self._unusual = attrgetter(*names)
        self._usual = (None,) * len(names)

    def check(self, chat: ChatRequest) -> None:
        """Raise PenstockError unsupported_parameter for the first refused one that is asked for, unless the client lets
        parameters be ignored."""
        if chat.allow_ignored_params or self._unusual(chat) == self._usual:
            return
        for name in self._refused:
            if asks(chat, name):
                why = self.table[name].note or self.adapter
                raise PenstockError(
                    "unsupported_parameter",
                    f"The target of this model cannot honour '{name}' ({why}). Leave it out, or send "
                    "allow_ignored_params: true to have it ignored.",
                    param=name,
                )

    def ignored(self, chat: ChatRequest) -> tuple[str, ...]:
        """The parameters that are asked for and have no effect."""
        if self._unusual(chat) == self._usual:
            return ()
        names = self._ignored if not chat.allow_ignored_params else self._ignored + self._refused
        return tuple(name for name in names if asks(chat, name))
