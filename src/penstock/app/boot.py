"""What the supervisor tells a child process: one JSON line on stdin, which then stays open as the lifeline."""

from typing import Literal

import msgspec

from penstock.settings.tree import Settings


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


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """A child's whole configuration. ``listener`` is the number of the inherited listening socket."""

    role: Literal["gateway", "control"]
    settings: Settings
    listener: int
    gateway_url: str
    control_url: str
    engines: tuple[EngineAddress, ...] = ()
