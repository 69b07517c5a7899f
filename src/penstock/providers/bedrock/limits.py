"""What one model refuses of a request that its family takes: Claude's limits are those of its own API (2026-11)."""

from collections.abc import Iterator

import msgspec

from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.errors import PenstockError
from penstock.providers.anthropic import fields
from penstock.providers.anthropic.claude import claude
from penstock.providers.anthropic.thinking import plan, room, thinking_name

# The others stand in the table of the family.
_OF_THE_MODEL = frozenset(("temperature", "top_p", "top_k", "tool_choice", "stop"))
_ANSWER_ROOM = 8_192


def has_budget(request: BoundRequest) -> bool:
    """Whether the request asks for thinking that a tool loop may forbid."""
    target = request.target_model
    return "claude" in target and plan(request.chat, claude(target), resumes=True).budget > 0


def named(request: BoundRequest, *, resumes: bool) -> tuple[str, ...]:
    """What this model does not take as it is, where the client lets that be ignored, and thinking that is left out."""
    chat = request.chat
    names = () if resumes else (thinking_name(chat),)
    if not chat.allow_ignored_params:
        return names
    return (*names, *(name for name, _ in _beyond(chat, request.target_model, resumes=resumes)))


def settled(request: BoundRequest, *, resumes: bool) -> BoundRequest:
    """The request without what its model does not take, where the client lets that be ignored. Raises PenstockError
    unsupported_parameter elsewhere. ``resumes`` is false in a tool loop that began without thinking."""
    chat = request.chat
    changed: dict[str, list[str] | None] = {}
    for name, why in _beyond(chat, request.target_model, resumes=resumes):
        if not chat.allow_ignored_params:
            raise PenstockError("unsupported_parameter", f"'{name}': {why}.", param=name)
        changed[name] = fields.stops(chat) if name == "stop" else None
    if not changed:
        return request
    return msgspec.structs.replace(request, chat=msgspec.structs.replace(chat, **changed))


def tokens(asked: int | None, budget: int, target: str) -> tuple[int | None, int]:
    """The bound on the output and the budget. A budget's tokens count as output, but what the caller bounds is the
    answer; Claude takes no bound above what it can write."""
    if asked is None and not budget:
        return None, 0
    return room(asked or _ANSWER_ROOM + budget, budget, claude(target))


def _beyond(chat: ChatRequest, target: str, *, resumes: bool) -> Iterator[tuple[str, str]]:
    if "claude" not in target:
        return
    model = claude(target)
    for name, why in fields.beyond(chat, model, plan(chat, model, resumes=resumes)):
        if name in _OF_THE_MODEL:
            yield name, why
