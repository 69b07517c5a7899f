"""What ``top`` and ``ps`` call a process."""

import contextlib
from pathlib import Path

# The kernel keeps 15 bytes.
_TITLES = {
    "supervisor": "penstock serve",
    "template": "penstock forks",
    "store": "penstock store",
    "gateway": "penstock worker",
    "control": "penstock ctrl",
    "ledger": "penstock ledger",
}


def set_title(role: str) -> None:
    """Name this process by its role, where the system lets it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(_TITLES[role], encoding="ascii")
