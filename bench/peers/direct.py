"""The upstream double itself, asked without a gateway: the floor of every latency."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contestants import Running


@contextmanager
def start(upstream_port: int, work: Path) -> Iterator[Running]:
    """Nothing to start."""
    yield Running(upstream_port, "/v1/chat/completions", {}, "upstream double")
