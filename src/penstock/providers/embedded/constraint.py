"""Decides how one request's output is constrained: freely, by a schema, or to tool calls."""

from typing import NamedTuple

from penstock.domain.chat import ChatRequest, Json, NamedToolChoice, Tool
from penstock.domain.errors import PenstockError
from penstock.providers.embedded.grammar.build import call_grammar, object_grammar, schema_grammar
from penstock.providers.embedded.prompt import CALL_OPEN
from penstock.providers.embedded.sampling import stops

_SCHEMA = "response_format.json_schema.schema"


class Constraint(NamedTuple):
    """Fields for the engine's body, and how tool calls come about.

    ``forced``: the whole output is calls. ``offered`` is the grammar of what follows when the model itself begins a
    call: the free text stops at ``<tool_call>`` and a second, constrained completion continues from there. (The
    engine's own lazy grammar fails the request when the token that completes the trigger does not fit the grammar,
    xllamacpp 2026.10.11549; and here the caller's stop strings cannot cut a call.)
    """

    body: dict[str, Json]
    forced: bool = False
    offered: str | None = None


def usable_tools(chat: ChatRequest) -> list[Tool]:
    """The tools that the model may call on this request. Raises PenstockError when a named one is not among them."""
    tools = chat.tools or []
    if chat.tool_choice == "none":
        return []
    if isinstance(chat.tool_choice, NamedToolChoice):
        name = chat.tool_choice.function.name
        tools = [tool for tool in tools if tool.function.name == name]
        if not tools:
            raise PenstockError("invalid_value", f"tool_choice names '{name[:80]}', no tool.", param="tool_choice")
    elif chat.tool_choice == "required" and not tools:
        raise PenstockError("invalid_value", "tool_choice 'required' needs tools.", param="tool_choice")
    return tools


def constrained(chat: ChatRequest, tools: list[Tool], *, context: int) -> Constraint:
    """The constraint of a request; ``context`` is the slot's tokens, the bound when the caller sets none.

    Raises PenstockError unsupported_schema or invalid_value before anything is generated.
    """
    budget = min(chat.max_output or context // 2, context)
    if tools:
        if chat.tool_choice not in (None, "auto"):
            return Constraint({"grammar": call_grammar(chat, tools, budget=budget)}, forced=True)
        offered = call_grammar(chat, tools, budget=budget, opened=True)
        # A model whose vocabulary has the tag as one special token would not show it as text otherwise.
        free = {"stop": [*stops(chat), CALL_OPEN], "preserved_tokens": [CALL_OPEN]}
        return Constraint(_formatted(chat, free, budget), offered=offered)
    return Constraint(_formatted(chat, {"stop": stops(chat)}, budget))


def _formatted(chat: ChatRequest, body: dict[str, Json], budget: int) -> dict[str, Json]:
    form = chat.response_format
    if form is None or form.type == "text":
        return body
    if form.type == "json_object":
        return {**body, "grammar": object_grammar(budget=budget)}
    if form.json_schema is None or form.json_schema.schema is None:
        raise PenstockError("missing_parameter", "response_format json_schema needs a schema.", param=_SCHEMA)
    return {**body, "grammar": schema_grammar(form.json_schema.schema, budget=budget, where=_SCHEMA)}
