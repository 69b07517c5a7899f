"""The route stage: a model's targets that can hold the prompt, in the order in which they are tried."""

from collections.abc import Sequence

from penstock.domain.catalogue import Model, Target
from penstock.domain.errors import PenstockError
from penstock.gateway.routing.board import Board
from penstock.gateway.routing.strategies import Ask, in_order
from penstock.gateway.routing.window import fitting
from penstock.gateway.wire import Parsed


def route(model: Model, parsed: Parsed, board: Board, *, app_id: str) -> Sequence[Target]:
    """The targets to try for a request. One that asked to be left alone comes after those that did not.

    Raises PenstockError model_unavailable when nothing can serve the model, context_length_exceeded.
    """
    if not model.targets:
        remedy = model.remedy or "Give it a target in penstock.toml."
        raise PenstockError(
            "model_unavailable", f"The model '{model.id}' has no provider with a credential. {remedy}", param="model"
        )
    targets = fitting(model.targets, parsed.chat, len(parsed.raw))
    if len(targets) == 1:
        return targets
    healths = [board.health(target.name) for target in targets]
    targets = in_order(model.routing.strategy, targets, Ask(parsed.chat, app_id, healths, board.dice))
    now = board.clock()
    if any(health.rest_until > now for health in healths):
        rests = {health.name: max(0.0, health.rest_until - now) for health in healths}
        targets = sorted(targets, key=lambda target: rests[target.name])
    return targets
