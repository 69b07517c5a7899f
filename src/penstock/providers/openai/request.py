"""A bound request as a body for one server of the OpenAI dialect: the client's bytes where nothing has to change."""

from operator import attrgetter
from typing import Any

import msgspec

from penstock.domain.chat import BoundRequest, ChatRequest, ExtendedThinking, StreamOptions
from penstock.providers.openai.members import each_once
from penstock.providers.openai.messages import Messages
from penstock.providers.spec import Quirks
from penstock.providers.translation.fields import Field, FieldTable, Handling

# Heroku's own fields, which no upstream of this dialect knows (heroku-wire.md 2.1).
_OURS = ("allow_ignored_params", "extended_thinking")
_NOT_FIELDS = ("model", "messages", "stream", "allow_ignored_params")
_MAX_TOKENS = ("max_tokens", "max_completion_tokens")
# The effort that a budget of thinking tokens stands for: the least whose bound covers it.
_EFFORTS = (("low", 2_048), ("medium", 8_192))
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PASSED = Field(Handling.PASSED)
_NOTES = {
    "reasoning_effort": "reasoning_effort, by the budget",
    "reasoning": "reasoning, with the budget",
    "thinking": "thinking, and reasoning_effort by the budget",
    "chat_template_kwargs": "chat_template_kwargs; the budget has no effect",
}


def table(quirks: Quirks) -> FieldTable:
    """What becomes of each parameter at a server with these quirks."""
    fields = {name: _PASSED for name in ChatRequest.__struct_fields__ if name not in _NOT_FIELDS}
    fields["extended_thinking"] = Field(Handling.IGNORED, "the server is not known to have a switch for it")
    if quirks.thinking is not None:
        fields["extended_thinking"] = Field(Handling.TRANSLATED, _NOTES[quirks.thinking])
    if quirks.max_tokens_field is not None:
        for name in set(_MAX_TOKENS) - {quirks.max_tokens_field}:
            fields[name] = Field(Handling.TRANSLATED, quirks.max_tokens_field)
    if not quirks.stream_options:
        fields["stream_options"] = Field(Handling.TRANSLATED, "the server sends the usage unasked")
    fields |= {ours: Field(Handling.TRANSLATED, theirs) for ours, theirs in quirks.renames}
    fields |= dict.fromkeys(quirks.refuses, Field(Handling.REFUSED, "its server does not take it"))
    return fields | dict.fromkeys(quirks.ignores, Field(Handling.IGNORED, "the server does not use it"))


FIELDS: FieldTable = table(Quirks())


class Body:
    """Writes the bodies for one server."""

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks
        self._messages = Messages(quirks)
        self._dropped = (*_OURS, *quirks.refuses, *quirks.ignores)
        touched = [*self._dropped, *(ours for ours, _ in quirks.renames)]
        if quirks.max_tokens_field is not None:
            touched += [name for name in _MAX_TOKENS if name != quirks.max_tokens_field]
        if not quirks.stream_options:
            touched.append("stream_options")
        self._values = attrgetter(*touched)  # on the hot path: a loop over the names costs ten times as much
        self._untouched = (None,) * len(touched)

    def write(self, request: BoundRequest) -> bytes:
        """The client's bytes where nothing has to change, else its top-level fields with their values untouched.

        A body that names a field twice is always rebuilt: it must not reach an upstream that reads the other one.
        """
        chat, raw = request.chat, request.raw
        ask_usage = self._quirks.stream_options and chat.stream and not chat.wants_usage_chunk
        messages = self._messages.are_foreign(chat, raw)
        fields = _raw_object.decode(raw)
        if (
            request.target_model == chat.model
            and not ask_usage
            and not messages
            and not self._quirks.cache_salt
            and self._values(chat) == self._untouched
            and each_once(raw, fields)
        ):
            return raw
        self._adapt(fields, chat)
        fields["model"] = _json(request.target_model)
        if ask_usage:
            usage = StreamOptions(True, chat.stream_options.include_obfuscation if chat.stream_options else None)
            fields["stream_options"] = _json(usage)
        if messages:
            fields["messages"] = msgspec.Raw(self._messages.adapted(fields["messages"]))
        if self._quirks.cache_salt and request.isolation:
            fields["cache_salt"] = _json(request.isolation)
        return msgspec.json.encode(fields)

    def _adapt(self, fields: dict[str, msgspec.Raw], chat: ChatRequest) -> None:
        quirks = self._quirks
        if not quirks.stream_options:
            fields.pop("stream_options", None)
        for name in self._dropped:
            fields.pop(name, None)
        for ours, theirs in quirks.renames:
            if ours in fields:
                fields[theirs] = fields.pop(ours)
        if quirks.max_tokens_field is not None and chat.max_output is not None:
            for name in _MAX_TOKENS:
                fields.pop(name, None)
            fields[quirks.max_tokens_field] = _json(chat.max_output)
        if chat.extended_thinking is not None and quirks.thinking is not None:
            _think(fields, chat.extended_thinking, quirks.thinking)


def _think(fields: dict[str, msgspec.Raw], asked: ExtendedThinking, way: str) -> None:
    """``extended_thinking`` in the server's words; it wins over ``reasoning_effort``. Servers that are told an effort
    alone have no word for none that all of their models take: thinking that is off is left out there."""
    if way == "chat_template_kwargs":  # Qwen and GLM know the one, Granite and DeepSeek the other (vLLM, 2026-11)
        fields[way] = _json({"enable_thinking": asked.enabled, "thinking": asked.enabled})
        return
    if way == "reasoning":  # OpenRouter, 2026-11
        fields.pop("reasoning_effort", None)
        depth = {"max_tokens": asked.budget_tokens} if asked.budget_tokens else {"enabled": True}
        hidden = {} if asked.include_reasoning else {"exclude": True}
        fields[way] = _json({**depth, **hidden} if asked.enabled else {"enabled": False})
        return
    if way == "thinking":  # DeepSeek, 2026-11
        fields[way] = _json({"type": "enabled" if asked.enabled else "disabled"})
    if not asked.enabled:
        fields.pop("reasoning_effort", None)
    elif way == "reasoning_effort" or asked.budget_tokens:
        budget = asked.budget_tokens or _EFFORTS[1][1]
        fields["reasoning_effort"] = _json(next((name for name, most in _EFFORTS if budget <= most), "high"))


def _json(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
