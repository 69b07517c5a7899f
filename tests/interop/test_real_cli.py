"""The unmodified Heroku CLI and its AI plugin against a real server: the table of cases.py, line by line."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.interop.cases import SCENES, Case, Stage
from tests.interop.conftest import Heroku

pytestmark = pytest.mark.timeout(1200)

LINES = [
    pytest.param(scene, number, id=f"{case.line} -> {case.code}")
    for scene, cases in SCENES.items()
    for number, case in enumerate(cases)
]


@dataclass(frozen=True)
class Outcome:
    """What one command did, and whether the state afterwards is the expected one."""

    done: subprocess.CompletedProcess[str]
    state_holds: bool


@pytest.fixture(scope="session")
def outcomes(heroku: Heroku, api: httpx.Client) -> dict[str, list[Outcome]]:
    """All scenes, two at a time: nearly all of the time is the CLI's own start."""

    def play(name: str) -> list[Outcome]:
        stage = stage_of(name, api)
        for app in (stage.app, stage.other):
            api.post("/apps", json={"name": app}).raise_for_status()
        return [perform(case, stage, heroku) for case in SCENES[name]]

    api.post("/operators", json={"email": "guest@example.com", "role": "member"}).raise_for_status()
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SCENES, pool.map(play, SCENES), strict=True))


@pytest.mark.parametrize(("scene", "number"), LINES)
def test_the_real_cli_does_what_it_is_told(
    scene: str, number: int, outcomes: dict[str, list[Outcome]], api: httpx.Client
) -> None:
    case, outcome, stage = SCENES[scene][number], outcomes[scene][number], stage_of(scene, api)
    said = f"exit {outcome.done.returncode}\n{outcome.done.stdout}\n{outcome.done.stderr}"
    assert outcome.done.returncode == case.code, said
    assert re.search(filled(case.out, stage), outcome.done.stdout), said
    assert re.search(
        filled(case.err, stage),
        re.sub("[\\s\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}]+", " ", outcome.done.stderr),
    ), said
    assert outcome.state_holds, said
    assert "inf-" not in outcome.done.stderr


def perform(case: Case, stage: Stage, heroku: Heroku) -> Outcome:
    done = heroku(*filled(case.line, stage).split(" "))
    return Outcome(done, case.then(stage))


def stage_of(scene: str, api: httpx.Client) -> Stage:
    name = f"interop-{scene.replace(' ', '-')}"
    return Stage(name, f"{name}-b", api)


def filled(template: str, stage: Stage) -> str:
    return template.replace("OTHER", stage.other).replace("APP", stage.app)
