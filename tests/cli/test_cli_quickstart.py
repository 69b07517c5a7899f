"""Every command of both published quick-starts runs word for word once ``heroku`` means ``penstock``."""

import subprocess
from pathlib import Path

import pytest

from tests.cli.program import Penstock
from tests.cli.quickstart import commands
from tests.needs import require, require_program


@pytest.mark.parametrize(
    ("document", "expected"), [("javascript", {"INFERENCE_URL", "INFERENCE_KEY"}), ("ruby", {"INFERENCE_MODEL_ID"})]
)
def test_the_commands_of_a_quick_start_run_word_for_word(
    penstock: Penstock, shared: Path, document: str, expected: set[str]
) -> None:
    page = shared / "reference" / f"quickstart-{document}.txt"
    require(page.is_file(), f"../shared/reference/{page.name} is not there")
    lines = commands(page.read_text(encoding="utf-8"))
    assert len(lines) >= 4
    script = "\n".join(["shopt -s expand_aliases", f"alias heroku={penstock.program}", "set -e"])
    script += "".join(f"\necho '>' {line.split()[-1]}\nheroku {line}" for line in lines)
    app = "example-app"
    done = subprocess.run(
        [require_program("bash"), "-c", script],
        env=penstock.env | {"APP_NAME": app},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + script
    assert expected <= set(penstock.json("config", "-a", app, "--json"))
    values = dict(part.split("\n", 1) for part in done.stdout.split("> ")[1:])
    assert values["INFERENCE_URL"].strip().startswith("http://")
    assert values["INFERENCE_KEY"].strip().startswith("inf-")
    penstock.ok("apps:destroy", app, "--confirm", app)
