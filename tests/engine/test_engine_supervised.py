"""The supervised child: restarts with backoff, clear first failures, nothing left behind."""

import asyncio
import logging
import os
import signal
from pathlib import Path

import msgspec
import pytest

from penstock.engine.drivers import EngineFailed, EngineSpec
from penstock.engine.supervised import EngineProcess, socket_path
from tests.engine.engines import RunningEngine, eventually
from tests.server import is_alive

# An engine loads in up to half a minute on a busy machine, and compiles grammars.
pytestmark = pytest.mark.timeout(600)


def killed(engine: RunningEngine) -> int:
    """Kills the running child and returns its process id."""
    eventually(lambda: engine.process.ready)
    pid = engine.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not engine.process.ready or engine.process.pid not in (None, pid))
    return pid


def test_a_killed_child_is_back_and_answers(fragile_engine: RunningEngine) -> None:
    killed(fragile_engine)
    eventually(lambda: fragile_engine.process.ready)
    assert fragile_engine.process.restarts == 1
    assert fragile_engine.text(user="Say hi.")


def test_the_delay_grows_with_every_crash(fragile_engine: RunningEngine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="penstock.engine")
    for _ in range(3):
        killed(fragile_engine)
    eventually(lambda: fragile_engine.process.restarts == 3 and fragile_engine.process.ready)
    delays = [record.args[-1] for record in caplog.records if isinstance(record.args, tuple)]
    assert delays == [0.1, 0.2, 0.4]


def test_stopping_leaves_no_process_and_no_socket(fragile_engine: RunningEngine) -> None:
    pid = fragile_engine.process.pid
    assert pid is not None
    fragile_engine.run(fragile_engine.process.stop())
    assert not is_alive(pid)
    assert not Path(fragile_engine.process.spec.socket_path).exists()
    assert not fragile_engine.process.ready


def test_stopping_while_a_request_runs_is_prompt(fragile_engine: RunningEngine) -> None:
    async def begin() -> None:
        body = msgspec.json.encode({"prompt": "Once", "n_predict": 900, "ignore_eos": True, "stream": True})
        headers = (("authorization", f"Bearer {fragile_engine.process.spec.key}"), ("content-type", "application/json"))
        response = await fragile_engine.transport.post("/completion", headers, body)
        await response.block()

    fragile_engine.run(begin())
    pid = fragile_engine.process.pid
    assert pid is not None
    fragile_engine.run(fragile_engine.process.stop())
    assert not is_alive(pid)


def test_changes_of_readiness_are_told(fragile_engine: RunningEngine) -> None:
    seen: list[bool] = []
    fragile_engine.process._on_change = lambda process: seen.append(process.ready)
    killed(fragile_engine)
    eventually(lambda: seen == [False, True])


def test_weights_that_cannot_be_loaded_fail_the_start(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF but no more")
    spec = EngineSpec(model_id="bad", model_path=str(bad), socket_path=str(tmp_path / "e.sock"), key="k")
    process = EngineProcess(spec)
    with pytest.raises(EngineFailed, match="bad: the weights could not be loaded"):
        asyncio.run(process.start())
    assert process.pid is None


def test_a_home_with_a_long_path_still_gets_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    path = socket_path(folder, "m")
    assert len(os.fsencode(path)) < 108
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.rmdir()
