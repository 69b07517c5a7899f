"""Wires the control plane's process."""

import penstock
from penstock.app.boot import Boot, Serving
from penstock.app.store import open_database
from penstock.control import api
from penstock.control.context import ControlContext

# What a worker may take on top of its poll interval to read the changes, look at open requests again and cut them.
_QUERY_S = 0.25


class ControlParts:
    """The control plane, wired; ``close`` lets go of the database."""

    def __init__(self, boot: Boot) -> None:
        self.db = open_database(boot.settings)
        self._context = ControlContext(
            revocation_s=boot.settings.gateway.snapshot_poll_s + _QUERY_S,
            gateway_url=boot.gateway_url,
            control_url=boot.control_url,
            catalogue=boot.serving.catalogue(),
            version=penstock.__version__,
            trusted_proxies=boot.settings.control.trusted_proxies,
        )
        self.apply(boot.serving)
        self.app = api.build(self.db, self._context)

    def apply(self, serving: Serving) -> None:
        """Offer these models, and show these defaults, from the next request on."""
        self._context.catalogue = serving.catalogue()
        self._context.limit_defaults = serving.limit_defaults
        self._context.budget_defaults = serving.budget_defaults
        self._context.heroku_limits = serving.limits.heroku_defaults

    def close(self) -> None:
        """Close the database."""
        self.db.close()
