"""What the first start promises on the terminal: a line that can be pasted, and the addresses."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from tests.needs import require_program
from tests.server import Server


def test_the_curl_line_of_the_first_start_answers(
    penstock_server: Server, run: Callable[..., str], tmp_path: Path
) -> None:
    require_program("curl")
    lines = [line for line in penstock_server.log.read_text().splitlines() if line.startswith("curl ")]
    assert len(lines) == 1
    answer = json.loads(run(["sh", "-c", lines[0]], tmp_path))
    assert answer["choices"][0]["message"]["content"]


def test_the_last_line_of_the_start_says_where_the_server_is(penstock_server: Server) -> None:
    ready = re.search(r"^ready gateway=(\S+) control=(\S+)$", penstock_server.log.read_text(), re.MULTILINE)
    assert ready is not None
    assert ready.groups() == (penstock_server.gateway, penstock_server.control)


def test_the_start_says_which_ids_are_stand_ins(penstock_server: Server) -> None:
    said = penstock_server.log.read_text()
    assert re.search(r"stand-ins +\d+ ids answered by smollm2-135m-instruct", said)
    assert "claude-4-5-sonnet" in said
