"""How soon the gateway is ready after its start, how long ``penstock --version`` takes, and what a worker weighs.

The sizes are those of an idle server: taken once they no longer change.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.memory import roles
from bench.outcome import Outcome
from bench.peers import penstock
from bench.processes import ROOT, StartFailed

REPEATS = 10
_LONGEST_START_S = 60.0
_LONGEST_REST_S = 3.0


def measure(work: Path, repeats: int = REPEATS) -> Outcome:
    """Medians of so many starts; the first, which writes a new home, is told apart from the later ones."""
    version_ms = [_version_ms() for _ in range(repeats)]
    home = work / "home"
    home.mkdir(parents=True)
    ready_ms: list[float] = []
    weights: list[dict[str, dict[str, int]]] = []
    for _ in range(repeats + 1):
        took_ms, sizes = _start(home, work / "penstock.log")
        ready_ms.append(took_ms)
        weights.append(sizes)
    medians = {role: _medians(role, weights) for role in weights[-1]}
    worker = next((sizes for role, sizes in medians.items() if role.startswith("worker")), {})
    figures: dict[str, Any] = {
        "version_ms": _summary(version_ms),
        "ready_ms": _summary(ready_ms[1:]),
        "first_ready_ms": round(ready_ms[0], 1),
        "idle_kib": medians,
    }
    ratios: dict[str, float | None] = {
        "start_to_ready_ms": figures["ready_ms"]["median"],
        "version_ms": figures["version_ms"]["median"],
        "idle_worker_rss_mib": _mib(worker.get("rss")),
        "idle_worker_pss_mib": _mib(worker.get("pss")),
    }
    return Outcome(figures, ratios, [])


def _version_ms() -> float:
    program = Path(sys.executable).with_name("penstock")
    argv = [str(program)] if program.exists() else [sys.executable, "-m", "penstock"]
    began = time.perf_counter()
    done = subprocess.run([*argv, "--version"], capture_output=True, check=False, cwd=ROOT)
    took_ms = (time.perf_counter() - began) * 1e3
    if done.returncode != 0:
        raise StartFailed(f"penstock --version: {done.stderr.decode(errors='replace')[-300:]}")
    return took_ms


def _start(home: Path, log: Path) -> tuple[float, dict[str, dict[str, int]]]:
    """Milliseconds from the start of the process to its ready file; the sizes of its processes at rest."""
    env = penstock.environment(home, home / "penstock.toml")
    (home / "penstock.toml").write_text("")
    ready = home / "run" / "ready.json"
    ready.unlink(missing_ok=True)
    with log.open("wb") as output:
        began = time.perf_counter()
        argv = [sys.executable, "-m", "penstock", "serve"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=ROOT)
        try:
            while not ready.exists():
                if process.poll() is not None or time.perf_counter() - began > _LONGEST_START_S:
                    raise StartFailed(f"penstock serve did not come up: {log.read_text(errors='replace')[-300:]}")
                time.sleep(0.001)
            took_ms = (time.perf_counter() - began) * 1e3
            json.loads(ready.read_text())
            return took_ms, _at_rest(process.pid)
        finally:
            process.terminate()
            process.wait()


def _at_rest(pid: int) -> dict[str, dict[str, int]]:
    until = time.monotonic() + _LONGEST_REST_S
    before: dict[str, dict[str, int]] = {}
    sizes = {role: _sizes(one) for one, role in roles(pid).items()}
    while sizes != before and time.monotonic() < until:
        time.sleep(0.3)
        sizes, before = {role: _sizes(one) for one, role in roles(pid).items()}, sizes
    return sizes


def _sizes(pid: int) -> dict[str, int]:
    """Resident and proportional size in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0].lower(): int(line.split()[1]) for line in lines if line.startswith(("Rss:", "Pss:"))}
    return {"rss": found["rss"], "pss": found["pss"]}


def _medians(role: str, every: list[dict[str, dict[str, int]]]) -> dict[str, int]:
    known = [sizes[role] for sizes in every if role in sizes]
    return {key: int(statistics.median(one[key] for one in known)) for key in ("rss", "pss")}


def _summary(values: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 1), "min": round(min(values), 1), "max": round(max(values), 1)}


def _mib(kib: int | None) -> float | None:
    return None if kib is None else round(kib / 1024, 1)
