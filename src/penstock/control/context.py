"""What the composition root tells the control plane about the deployment."""

import time
from collections.abc import Callable

import msgspec

from penstock.domain.catalogue import Catalogue
from penstock.settings.tree import BudgetDefault, LimitDefault


class ControlContext(msgspec.Struct, kw_only=True):
    """``catalogue`` and the defaults of limits and budgets are others after each reload of the configuration; the rest
    stays. ``heroku_limits`` says whether what Heroku's plans allow is among these defaults.
    ``gateway_url`` becomes the ``_URL`` config vars: scheme, host and port, no path (both quick-starts append one).
    ``control_url`` is where clients reach this plane; empty means that apps show the gateway as their web address.
    ``revocation_s`` is how long after a commit a gateway worker may still take a key that is gone: what revokes keys is
    answered only then. Of ``trusted_proxies`` X-Forwarded-For is believed; ``clock`` gives seconds that only grow."""

    gateway_url: str
    catalogue: Catalogue
    version: str
    control_url: str = ""
    revocation_s: float = 0.0
    trusted_proxies: tuple[str, ...] = ()
    clock: Callable[[], float] = time.monotonic
    limit_defaults: tuple[LimitDefault, ...] = ()
    budget_defaults: tuple[BudgetDefault, ...] = ()
    heroku_limits: bool = True

    @property
    def inference_url(self) -> str:
        """The gateway without a trailing slash."""
        return self.gateway_url.rstrip("/")

    def web_url(self, app_name: str) -> str:
        """Where a browser finds an app."""
        return f"{self.control_url.rstrip('/')}/apps/{app_name}" if self.control_url else f"{self.inference_url}/"
