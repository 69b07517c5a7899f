"""The messages of a request where a server does not take them as they are, which is seldom."""

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from penstock.domain.chat import ChatRequest, Message
from penstock.providers.openai.reasoning import ECHOED, sent_back
from penstock.providers.spec import Quirks
from penstock.providers.translation.call_ids import LONGEST, short, shortened

# 2026-11-23, Mistral: "must be a-z, A-Z, 0-9, with a length of 9".
_MISTRAL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_FITS: dict[str, Callable[[str], object]] = {
    "any": lambda _: True,
    "short": lambda identity: len(identity) <= LONGEST,
    "nine": _MISTRAL_ID.fullmatch,
}
_thoughts = attrgetter(*ECHOED)  # on the hot path: a loop over the names costs ten times as much
_NO_THOUGHTS = (msgspec.UNSET,) * len(ECHOED)
# 2026-11-23, Mistral's SDK: the fields of its messages; any other is a 422.
_STRICT = ("role", "content", "tool_calls", "tool_call_id", "name")


class Messages:
    """What one server does not take of messages, and how it gets them."""

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks
        self._fits = _FITS[quirks.call_ids]

    def are_foreign(self, chat: ChatRequest, raw: bytes) -> bool:
        """Whether a message holds what the server does not know."""
        if self._quirks.strict_messages and (b'"assistant"' in raw or b'"name"' in raw):
            return True
        for message in chat.messages:
            role = message.role
            if role != "user" and role != "system" and self._is_foreign(message):  # noqa: PLR1714 - no tuple to search
                return True
        return False

    def _is_foreign(self, message: Message) -> bool:
        """The developer's role, thoughts in another's form, or a call's id that the server refuses."""
        if message.role != "assistant":
            return message.role == "developer" and not self._quirks.developer_role
        if _thoughts(message) != _NO_THOUGHTS:
            return True
        return message.tool_calls is not None and not all(self._fits(call.id) for call in message.tool_calls)

    def adapted(self, messages: bytes) -> bytes:
        """The JSON of the messages as the server takes them."""
        found: list[dict[str, Any]] = msgspec.json.decode(messages)
        return msgspec.json.encode([self._message(message) for message in found])

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        quirks = self._quirks
        sent_back(message, quirks.reasoning_field, details=quirks.thinking == "reasoning")
        if message["role"] == "developer" and not quirks.developer_role:
            message["role"] = "system"
        for call in message.get("tool_calls") or ():
            if "id" in call:
                call["id"] = self._id(call["id"])
        if isinstance(answered := message.get("tool_call_id"), str):
            message["tool_call_id"] = self._id(answered)
        return _strictly(message) if quirks.strict_messages else message

    def _id(self, identity: str) -> str:
        if self._fits(identity):
            return identity
        return shortened(identity, 9) if self._quirks.call_ids == "nine" else short(identity)


def _strictly(message: dict[str, Any]) -> dict[str, Any]:
    kept = {name: message[name] for name in _STRICT if message.get(name) is not None}
    if message["role"] != "tool":
        kept.pop("name", None)
    if message["role"] == "assistant" and len(kept) == 1:
        kept["content"] = message.get("refusal") or ""
    return kept
