"""Sets the clock of every Python that finds this folder on its path, by the seconds that stand, as a double, in the
file that PYTHON_TESTS_CLOCK names: the template of the children is given what is called PYTHON. The machine's own clock
is not a test's to set."""

import mmap
import os
import struct
import time
from pathlib import Path

_real, _real_ns = time.time, time.time_ns
with Path(os.environ["PYTHON_TESTS_CLOCK"]).open("rb") as _file:
    _offset = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _ahead() -> float:
    seconds: float = struct.unpack("d", _offset[:])[0]
    return seconds


time.time = lambda: _real() + _ahead()
time.time_ns = lambda: _real_ns() + int(_ahead() * 1e9)
