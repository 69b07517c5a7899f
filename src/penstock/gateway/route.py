"""The route stage: a model's targets in the order in which they are tried."""

import msgspec

from penstock.domain.catalogue import Model
from penstock.domain.errors import PenstockError


class Attempt(msgspec.Struct, frozen=True):
    """One target to try: the adapter's name and the model id that it knows."""

    provider: str
    target_model: str


def route(model: Model) -> list[Attempt]:
    """The attempts for a model. Raises PenstockError model_unavailable when nothing can serve it."""
    if not model.targets:
        remedy = (
            f"Set {model.credential_env} and restart." if model.credential_env else "Give it a target in penstock.toml."
        )
        raise PenstockError(
            "model_unavailable", f"The model '{model.id}' has no provider with a credential. {remedy}", param="model"
        )
    return [Attempt(target.provider, target.model) for target in model.targets]
