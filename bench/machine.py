"""What the figures were taken on, and whether it was quiet enough for them to mean anything."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

MAX_LOAD_PER_CORE = 0.25
MAX_FOREIGN_SHARE = 0.05
MAX_STEAL_SHARE = 0.05
_PACKAGES = ("penstock", "uvloop", "httptools", "msgspec")


class CpuClock(NamedTuple):
    """The machine's CPU time so far in ticks: all cores, busy on behalf of some process, taken by the host."""

    total: int
    busy: int
    steal: int


def cpu_clock() -> CpuClock:
    """Read /proc/stat. Interrupt time is left out of ``busy``: no process is charged for it."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, _irq, _softirq, steal = fields
    return CpuClock(sum(fields), user + nice + system, steal)


def shares(before: CpuClock, after: CpuClock, own_ns: int) -> tuple[float, float]:
    """(share of the machine that processes outside the run took, share that the host took) between two readings."""
    total = max(1, after.total - before.total)
    own_ticks = own_ns * os.sysconf("SC_CLK_TCK") / 1e9
    return max(0.0, after.busy - before.busy - own_ticks) / total, (after.steal - before.steal) / total


def describe() -> dict[str, object]:
    """The machine, the software and the moment."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "load_average_1m": round(os.getloadavg()[0], 2),
    }


def too_loaded(load_average: float, foreign: list[float], steal: list[float]) -> str | None:
    """Why no verdict can be given on these readings; None when one can. The shares are one per measurement."""
    limit = MAX_LOAD_PER_CORE * (os.cpu_count() or 1)
    if load_average > limit:
        return f"the load average was {load_average:.2f} before the run began; at most {limit:.2f} is quiet"
    for name, values, most in (
        ("processes outside the run", foreign, MAX_FOREIGN_SHARE),
        ("the host of this virtual machine", steal, MAX_STEAL_SHARE),
    ):
        loud = [value for value in values if value > most]
        if len(loud) > len(values) / 10:
            return f"{name} took more than {most:.0%} of the CPU in {len(loud)} of {len(values)} measurements"
    return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    argv = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
