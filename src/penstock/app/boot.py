"""What the supervisor tells a child process: JSON lines on stdin, which stays open as the lifeline. The first is the
Boot; each later one is a Serving, when the configuration has been reloaded."""

from typing import Literal

import msgspec

from penstock.domain.catalogue import Catalogue, Model
from penstock.providers.spec import Credential, ProviderSpec
from penstock.settings.tree import BudgetDefault, LimitDefault, LimitsSettings, Settings, UpstreamSettings


class EngineAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where one embedded model listens, the key that it wants, and its size in tokens and slots."""

    model_id: str
    base: str
    key: str
    context: int
    slots: int

    @property
    def provider(self) -> str:
        """The adapter's name."""
        return f"embedded:{self.model_id}"


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that a served model needs, with its secret."""

    spec: ProviderSpec
    credential: Credential | None = None


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What is served, and by whom: all that a reload changes. ``upstreams`` is for gateway workers alone;
    ``secret_variables`` are the environment variables that no child is handed."""

    models: tuple[Model, ...] = ()
    default: str | None = None
    upstreams: tuple[Upstream, ...] = ()
    bounds: UpstreamSettings = UpstreamSettings()
    limits: LimitsSettings = LimitsSettings()
    limit_defaults: tuple[LimitDefault, ...] = ()
    budget_defaults: tuple[BudgetDefault, ...] = ()
    secret_variables: tuple[str, ...] = ()

    def catalogue(self) -> Catalogue:
        """The models, to look up."""
        return Catalogue(self.models, default=self.default)


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """A child's whole configuration. ``listener`` is the number of the inherited listening socket; ``environment`` is
    what a fork of the template takes for its own, None where the process has it already."""

    role: Literal["store", "gateway", "control", "ledger"]
    settings: Settings
    listener: int
    gateway_url: str
    control_url: str
    engines: tuple[EngineAddress, ...] = ()
    serving: Serving = Serving()
    environment: dict[str, str] | None = None
