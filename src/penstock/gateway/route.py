"""The route stage: a model's targets in the order in which they are tried."""

from penstock.domain.catalogue import Model, Target
from penstock.domain.errors import PenstockError


def route(model: Model) -> tuple[Target, ...]:
    """The targets to try for a model. Raises PenstockError model_unavailable when nothing can serve it."""
    if not model.targets:
        remedy = (
            f"Set {model.credential_env} and restart." if model.credential_env else "Give it a target in penstock.toml."
        )
        raise PenstockError(
            "model_unavailable", f"The model '{model.id}' has no provider with a credential. {remedy}", param="model"
        )
    return model.targets
