"""What the composition root tells the control plane about the deployment."""

import msgspec

from penstock.domain.catalogue import Catalogue


class ControlContext(msgspec.Struct, frozen=True, kw_only=True):
    """``gateway_url`` becomes the ``_URL`` config vars: scheme, host and port, no path (both quick-starts append one).
    ``control_url`` is where clients reach this plane; empty means that apps show the gateway as their web address."""

    gateway_url: str
    catalogue: Catalogue
    version: str
    control_url: str = ""

    @property
    def inference_url(self) -> str:
        """The gateway without a trailing slash."""
        return self.gateway_url.rstrip("/")

    def web_url(self, app_name: str) -> str:
        """Where a browser finds an app."""
        return f"{self.control_url.rstrip('/')}/apps/{app_name}" if self.control_url else f"{self.inference_url}/"
