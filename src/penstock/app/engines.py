"""The embedded engines of this installation: weights fetched when missing, one supervised child per local model."""

import asyncio
import sys
from pathlib import Path

from penstock.app.boot import EngineAddress
from penstock.engine.drivers import EngineSpec
from penstock.engine.registry import LocalModel
from penstock.engine.supervised import EngineProcess, new_key, socket_path
from penstock.engine.weights import Weights
from penstock.settings.tree import Settings


class Engines:
    """All engine children, started and stopped together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._processes: list[EngineProcess] = []

    async def prepare(self) -> tuple[EngineAddress, ...]:
        """Fetch the default model's weights when missing, and decide where every engine will listen.

        Raises WeightsError.
        """
        if not self._settings.engine.enabled:
            return ()
        models = await asyncio.to_thread(self._local_models)
        run = Path(self._settings.home) / "run"
        self._processes = [EngineProcess(self._spec(model, run)) for model in models]
        return tuple(_address(process.spec) for process in self._processes)

    async def start(self) -> None:
        """Start every child and wait until all listen. Raises EngineFailed."""
        await asyncio.gather(*(process.start() for process in self._processes))

    async def stop(self) -> None:
        """End every child."""
        await asyncio.gather(*(process.stop() for process in self._processes))

    def _local_models(self) -> tuple[LocalModel, ...]:
        weights = Weights(Path(self._settings.home))
        wanted = self._settings.engine.model
        if weights.find(wanted) is None:
            print(f"penstock: fetching the weights of {wanted} (once)", file=sys.stderr)
            weights.pull(wanted, progress=_Progress())
        return weights.list()

    def _spec(self, model: LocalModel, run: Path) -> EngineSpec:
        engine = self._settings.engine
        window = model.context_length or engine.context
        return EngineSpec(
            model_id=model.id,
            model_path=model.path,
            socket_path=str(socket_path(run, model.id)),
            key=new_key(),
            slots=engine.slots,
            context=min(engine.context, window),
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
