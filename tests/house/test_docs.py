"""The pages keep up with the code: every setting, error, command, route and dependency is documented."""

import re
import subprocess
import sys
import tomllib

import pytest

from penstock.cli.table import COMMANDS
from penstock.domain.errors import CODES
from penstock.settings.load import every_setting
from scripts.reference_pages import PAGES
from tests.house.rooms import ROOT, SOURCE, project_files

DOCS = ROOT / "docs"
ROUTES = (
    "POST /v1/chat/completions",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "GET /v1/mcp/servers",
    "GET /models/{addon_id}",
    "GET /available-models",
    "GET /healthz",
    "GET /readyz",
)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_generated_page_is_in_step_with_the_code(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page](), "run `make docs`"


def test_every_setting_is_documented() -> None:
    page = (DOCS / "settings.md").read_text()
    assert not [setting.path for setting in every_setting() if f"`{setting.env}`" not in page]


def test_every_error_code_is_documented() -> None:
    page = (DOCS / "errors.md").read_text()
    assert not [code for code in CODES if f"`{code}`" not in page]


def test_every_error_code_is_raised_somewhere() -> None:
    sources = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "errors.py")
    assert not [code for code in CODES if f'"{code}"' not in sources]


def test_every_command_is_documented() -> None:
    page = (DOCS / "cli.md").read_text()
    shown = [name for name, entry in COMMANDS.items() if not entry.hidden]
    assert not [name for name in shown if not re.search(rf"(`|penstock ){re.escape(name)}(?![\w:])", page)]


def test_every_command_that_a_page_or_a_message_names_exists() -> None:
    unknown = [
        f"{path}: {name}"
        for path in project_files()
        if path.suffix == ".md" or path.parts[0] == "src"
        for name in re.findall(r"\bpenstock ([a-z]+(?::[a-z]+)+)", (ROOT / path).read_text(errors="replace"))
        if name not in COMMANDS
    ]
    assert not unknown


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_of_the_data_plane_is_documented(route: str) -> None:
    assert f"`{route}`" in (DOCS / "api.md").read_text()


def test_every_dependency_has_a_line_of_reasons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    wanted += project["dependency-groups"]["build"]
    names = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in wanted if isinstance(line, str)}
    page = (DOCS / "dependencies.md").read_text()
    assert not [name for name in sorted(names) if f"| {name} |" not in page]


def test_the_lock_files_pin_every_dependency_by_hash() -> None:
    for name in ("requirements.lock", "requirements-dev.lock", "requirements-uv.lock"):
        lines = (ROOT / name).read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith((" ", "#"))]
        assert pins
        assert all("==" in line and line.endswith("\\") for line in pins), name
        assert all(line.strip().startswith("--hash=sha256:") for line in lines if line.startswith(" ")), name


def test_the_lock_files_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime, dev = project["project"]["dependencies"], project["dependency-groups"]["dev"]
    for name, wanted in (("requirements.lock", runtime), ("requirements-dev.lock", [*runtime, *dev])):
        pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / name).read_text(), re.MULTILINE))
        asked = {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in wanted if isinstance(line, str)}
        assert asked <= pinned, f"run `make lock`: {sorted(asked - pinned)}"


def test_the_architecture_page_is_short_and_names_every_room() -> None:
    page = (DOCS / "ARCHITECTURE.md").read_text()
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert len(page.splitlines()) < 100
    assert not [room for room in sorted(rooms) if f"`{room}`" not in page and f"`{room}/`" not in page]


def test_every_link_between_our_pages_leads_somewhere() -> None:
    broken = []
    for path in project_files():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / path).read_text()):
            if "://" not in target and not (ROOT / path.parent / target).exists():
                broken.append(f"{path}: {target}")
    assert not broken


def test_the_commands_help_needs_no_server() -> None:
    command = [sys.executable, "-m", "penstock", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout
