"""Where the keys of a provider come from: bound once, or from a profile of the AWS configuration, refreshed in time.

A profile is resolved by botocore (shared files, SSO's cache, a process, an assumed role), in a thread: that reads files
and may call the network. Instance and container metadata are asked only where the profile itself names them
(``credential_source``).
"""

import asyncio
import time

from penstock.domain.errors import UpstreamError
from penstock.providers.bedrock.sign import Keys

# botocore refreshes keys that have less than 15 minutes, and gives out none with less than 10.
_SURE_S = 540.0
_METADATA = ("iam-role", "container-role")


class Source:
    """The current keys. ``static`` are bound ones; else ``profile`` is resolved when they are first needed."""

    def __init__(self, *, static: Keys | None, profile: str | None, look_again_s: float = 60.0) -> None:
        self._keys = static
        self._profile = profile
        self._look_again_s = look_again_s
        self._looked_at = float("-inf")
        self._credentials: object = None
        self._task: asyncio.Task[None] | None = None

    async def keys(self) -> Keys:
        """Keys that are good for minutes. Raises UpstreamError upstream_misconfigured."""
        if self._profile is not None:
            age = time.monotonic() - self._looked_at
            if age > self._look_again_s:
                if self._task is None or self._task.done():
                    self._task = asyncio.get_running_loop().create_task(self._look())
                    # A failure that nobody waits for is found again when somebody does.
                    self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
                if self._keys is None or age > _SURE_S:
                    await asyncio.shield(self._task)
        if self._keys is None:
            message = "The upstream has no credential: set its AWS keys, a key of the service, or aws_profile."
            raise UpstreamError("upstream_misconfigured", message)
        return self._keys

    def expired(self) -> None:
        """The keys were refused as expired: look before the next call."""
        self._looked_at = float("-inf")

    def secrets(self) -> tuple[str, ...]:
        """What must stand in no message."""
        return tuple(text for text in self._keys or () if text)

    async def _look(self) -> None:
        try:
            self._keys = await asyncio.to_thread(self._resolve)
        except Exception as error:
            # botocore raises its own and whatever a process or a file brings; its texts may name accounts.
            message = f"The keys of the profile cannot be had ({type(error).__name__}); see the operator's AWS files."
            raise UpstreamError("upstream_misconfigured", message) from error
        self._looked_at = time.monotonic()

    def _resolve(self) -> Keys | None:
        from botocore.session import Session  # noqa: PLC0415 - 0.2 s that only such a provider pays

        if self._credentials is None:
            session = Session(profile=self._profile)
            resolver = session.get_component("credential_provider")
            for name in _METADATA:
                resolver.remove(name)
            self._credentials = resolver.load_credentials()
        if self._credentials is None:
            return None
        frozen = self._credentials.get_frozen_credentials()  # type: ignore[attr-defined]
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)
