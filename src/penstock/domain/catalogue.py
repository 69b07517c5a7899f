"""The catalogue: models by public id, and the targets that serve them."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

import msgspec

from penstock.domain.errors import PenstockError
from penstock.domain.limits import Limits

Strategy = Literal["ordered", "weighted", "least_outstanding", "lowest_ttft", "prefix"]


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on one attempt, in seconds; None leaves a bound to the provider. ``first_token_s`` (streams only) and
    ``total_s`` run from the moment the request is sent, ``idle_s`` from each byte to the next."""

    first_token_s: float | None = None
    idle_s: float | None = None
    total_s: float | None = None


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """What a million tokens cost. A cache rate that is None is the input rate. ``source`` says whose price it is."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    currency: str = "USD"
    source: str = "penstock.toml"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One way to serve a model: a provider by name and the model id that it knows.

    ``weight`` is its share under the weighted strategy; ``context_window`` is in tokens, None when it is not known;
    ``rate`` is what the upstream itself asks, None when it is not known.
    """

    provider: str
    model: str
    weight: int = 1
    context_window: int | None = None
    rate: Rate | None = None

    @property
    def name(self) -> str:
        """``provider/model``, as headers, health pages and the ledger show it."""
        return f"{self.provider}/{self.model}"


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's targets are chosen and tried. ``max_attempts`` counts upstream calls of one request; hedging starts
    the next target when the first token is late, for at most ``hedge_share`` of the requests."""

    strategy: Strategy = "ordered"
    max_attempts: int = 3
    hedge: bool = False
    hedge_share: float = 0.05
    timeouts: Timeouts = Timeouts()


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A catalogue entry. ``type`` and ``regions`` are as GET /available-models shows them (heroku-wire.md 2.8).

    ``context_window`` and ``max_output`` are tokens, as the serving target honours them. ``stand_in`` is the id of
    the embedded model that answers in place of a provider without a credential. ``credential_env`` names what to set
    for the real thing, and ``remedy`` says so in a sentence. ``rate`` is the price of the model as it is billed,
    whichever target serves it. ``plan_limits`` hold for each add-on's use of the model unless something else is set
    (heroku-wire.md 2.10).
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
    routing: Routing = Routing()
    rate: Rate | None = None
    plan_limits: Limits = Limits()
    stand_in: str | None = None
    credential_env: str | None = None
    remedy: str | None = None
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
