"""The compiled gateway: what tests start as a server of its own runs machine code, where there is any."""

import os
from pathlib import Path

from tests.needs import require
from tests.server import Server, descendants


def test_the_workers_of_a_compiled_server_run_machine_code_and_the_banner_says_so(penstock_server: Server) -> None:
    compiled = Path(os.environ.get("PYTHONPATH", ""), "penstock", "compiled.txt").is_file()
    require(compiled, "the server is not compiled (make test NATIVE=1)")
    mapped = [Path(f"/proc/{pid}/maps").read_text() for pid in descendants(penstock_server.process.pid)]
    assert any("penstock__mypyc" in maps for maps in mapped)
    assert f"gateway        {penstock_server.gateway} (compiled)" in penstock_server.log.read_text()
