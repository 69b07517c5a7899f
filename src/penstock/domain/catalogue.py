"""The catalogue: models by public id, and the targets that serve them."""

from collections.abc import Iterable

import msgspec

from penstock.domain.errors import PenstockError


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One way to serve a model: a provider by name and the model id that it knows."""

    provider: str
    model: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A catalogue entry. ``type`` and ``regions`` are as GET /available-models shows them (heroku-wire.md 2.8).

    ``context_window`` and ``max_output`` are tokens, as the serving target honours them. ``stand_in`` is the id of
    the embedded model that answers in place of a provider without a credential. ``credential_env`` names what to set
    for the real thing.
    """

    id: str
    owner: str
    type: tuple[str, ...] = ("text-to-text",)
    regions: tuple[str, ...] = ("us", "eu")
    input: tuple[str, ...] = ("text",)
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    stand_in: str | None = None
    credential_env: str | None = None
    created: int = 0


class Catalogue:
    """Models by id and alias; ``served`` are those with a target. Immutable once built, in the order given.

    ``default`` answers where no model is named: the one of that id when it is served, else the first chat model that
    is; None when there is none.
    """

    def __init__(self, models: Iterable[Model], *, default: str | None = None) -> None:
        self.models = tuple(models)
        self.served = tuple(model for model in self.models if model.targets)
        self._by_name = {name: model for model in self.models for name in (*model.aliases, model.id)}
        chat = [model for model in self.served if "text-to-text" in model.type]
        self.default = next((model for model in chat if model.id == default), chat[0] if chat else None)

    def find(self, name: str) -> Model | None:
        """The model of that id or alias, or None."""
        return self._by_name.get(name)

    def get(self, name: str) -> Model:
        """The model of that id or alias. Raises PenstockError model_not_found."""
        model = self._by_name.get(name)
        if model is None:
            raise PenstockError(
                "model_not_found",
                f"The model '{name[:200]}' does not exist. GET /v1/models lists the ids.",
                param="model",
            )
        return model
