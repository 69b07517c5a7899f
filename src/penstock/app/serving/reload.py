"""Takes a changed configuration up while everything runs: on SIGHUP, or when a file or a stored credential changes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from penstock.app.boot import EngineAddress, Serving
from penstock.app.serving.plan import Plan, plan, serving
from penstock.app.serving.stored import StoredRevision
from penstock.providers.catalogue import CatalogueError
from penstock.settings.load import SettingsError, located
from penstock.settings.tree import Settings
from penstock.store.errors import StoreError

_log = logging.getLogger("penstock.app")
# A file counts as changed when two looks in a row see the same new one: between them, it was being written.
_LOOK_S = 0.5
# What a reload changes; everything else is read once, at the start.
_LIVE = ("provider", "model", "upstream", "limit", "budget")
_NOT_TAKEN = (SettingsError, CatalogueError, StoreError, OSError)

# Time and size by name.
_Seen = dict[str, tuple[int, int]]


class Reloader:
    """Watches the configuration of one supervisor. ``load`` reads the settings again, ``file`` says from where."""

    def __init__(self, settings: Settings, *, load: Callable[[], Settings], file: Callable[[], Path | None]) -> None:
        self._settings = settings
        self._load = load
        self._file = file
        self._asked = asyncio.Event()
        self._plan: Plan | None = None
        self._engines: tuple[EngineAddress, ...] = ()
        self._stored = StoredRevision()
        self._taken_from = file()
        self._seen = self._look()

    def begin(self, served: Plan, engines: Iterable[EngineAddress]) -> None:
        """What is served from the start, and the engines, which a reload does not change."""
        self._plan = served
        self._engines = tuple(engines)

    def ask(self) -> None:
        """Reload now, whether or not a file has changed."""
        self._asked.set()

    async def run(self, tell: Callable[[Serving], Awaitable[list[str]]]) -> None:
        """Reload whenever there is a reason to, until cancelled. ``tell`` hands it on and says who refused."""
        candidate = self._seen
        while True:
            asked = await self._wait()
            now = await asyncio.to_thread(self._look)
            if asked or (now != self._seen and now == candidate):
                self._seen = now
                try:
                    taken = await self._reload(tell)
                except Exception as error:  # noqa: BLE001 - whatever stood in a file, the next one must be taken
                    _log.error("configuration not reloaded, the old one stays: %s", type(error).__name__)
                    _log.debug("the configuration cannot be reloaded", exc_info=error)
                    taken = False
                if not taken:
                    candidate = now
                    continue
                # A file that is named since then is new; one that changed while it was read must count as changed.
                looked = await asyncio.to_thread(self._look)
                self._seen = {name: now.get(name, found) for name, found in looked.items()}
            candidate = now

    async def _wait(self) -> bool:
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    def _look(self) -> _Seen:
        """Name, time and size of the file and of those that it names, and a number of the stored credentials."""
        seen: _Seen = {"the store": (int(self._stored.look(self._settings)[:15] or "0", 16), 0)}
        files = [row.api_key_file for row in self._settings.provider if row.api_key_file]
        try:
            files += [str(path)] if (path := self._file()) else []
        except SettingsError:
            return {}
        for name in files:
            try:
                found = Path(name).stat()
            except OSError:
                continue
            seen[name] = (found.st_mtime_ns, found.st_size)
        return seen

    async def _reload(self, tell: Callable[[Serving], Awaitable[list[str]]]) -> bool:
        """Whether the new configuration is taken."""
        try:
            settings, made = await asyncio.to_thread(self._read)
        except _NOT_TAKEN as error:
            said = located(str(error), error.at, self._file()) if isinstance(error, CatalogueError) else error
            _log.error("configuration not reloaded, the old one stays: %s", said)
            return False
        for path in _elsewhere(self._settings, settings):
            _log.warning("configuration: %s needs a restart", path)
        assert self._plan is not None
        changes = _changes(self._plan, made)
        live = (name for name in _LIVE if name not in ("provider", "model"))
        changes += [name for name in live if getattr(settings, name) != getattr(self._settings, name)]
        old = self._settings, self._plan
        self._settings = _taken(self._settings, settings)
        self._plan = made
        if refusals := await tell(serving(self._settings, made)):
            # All or none: a child that is started again must not fail on what another could not apply.
            self._settings, self._plan = old
            await tell(serving(*old))
            _log.error("configuration not reloaded, the old one stays: %s", "; ".join(refusals))
            return False
        self._taken_from = self._file()
        _log.info("configuration reloaded: %s", ", ".join(changes) or "nothing has changed")
        return True

    def _read(self) -> tuple[Settings, Plan]:
        settings = self._load()
        if self._taken_from is not None and not self._taken_from.is_file():
            # Between the rm and the copy of a deployment: no order to serve nothing, or another folder's file.
            raise SettingsError(f"{self._taken_from}: no such configuration file any more")
        # What needs a restart is judged as it was at the start: the mode decides about stand-ins, for one.
        return settings, plan(_taken(self._settings, settings), self._engines)


def _taken(old: Settings, new: Settings) -> Settings:
    """The old settings with what a reload takes of the new ones."""
    return msgspec.structs.replace(old, **{name: getattr(new, name) for name in _LIVE})


def _elsewhere(old: Settings, new: Settings) -> list[str]:
    """The settings, outside of what a reload changes, that differ: ``gateway.port``."""
    paths = []
    for section in msgspec.structs.fields(Settings):
        before, after = getattr(old, section.name), getattr(new, section.name)
        if section.name in _LIVE or before == after:
            continue
        if not isinstance(before, msgspec.Struct):
            paths.append(section.name)
            continue
        names = [field.name for field in msgspec.structs.fields(before)]
        paths += [f"{section.name}.{name}" for name in names if getattr(before, name) != getattr(after, name)]
    return paths


def _changes(old: Plan, new: Plan) -> list[str]:
    """What differs, for the log: ``model +new``, ``provider ~lab``."""
    models = ({model.id: model for model in one.catalogue.models} for one in (old, new))
    upstreams = (one.providers for one in (old, new))
    return [*_differing("model", *models), *_differing("provider", *upstreams)]


def _differing(what: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    names = [*new, *(name for name in old if name not in new)]
    signs = {name: "+" if name not in old else "-" if name not in new else "~" for name in names}
    return [f"{what} {sign}{name}" for name, sign in signs.items() if old.get(name) != new.get(name)]
