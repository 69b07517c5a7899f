"""The unmodified Heroku CLI and its AI plugin against a real server: the table of cases.py, line by line.

The CLI takes two seconds to load its modules and a fifth of one to do what it is told, so a scene loads them once: its
lines run in one process (scene.mjs), each through the CLI's own entry, the next only when the state that the one before
left behind has been looked at. What only a process of its own shows, its exit code and its streams as `penstock heroku`
hands them on, is shown by the lines that run ``alone``; those of them that can be run again are run in the scene too,
and must come to the same, to the byte.
"""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from tests.interop.cases import SCENES, Case, Stage, anything
from tests.interop.conftest import Heroku
from tests.interop.scene import Scene, playing

pytestmark = pytest.mark.timeout(1200)

LINES = [
    pytest.param(scene, number, id=f"{case.line} -> {case.code}")
    for scene, cases in SCENES.items()
    for number, case in enumerate(cases)
]
# The first line of the table for each exit code.
FIRST_OF_CODE = {case.code: case for cases in reversed(SCENES.values()) for case in reversed(cases)}


def is_alone(case: Case) -> bool:
    """Whether the line has a process of its own: the table's first for each exit code, and the plugin's first."""
    return case is SCENES["model"][0] or case is FIRST_OF_CODE[case.code]


def is_repeatable(case: Case) -> bool:
    """Whether the line, asked once more, is answered the same: it fails, or only reads."""
    return case.code != 0 or case.then is anything


BOTH_WAYS = [
    pytest.param(scene, number, id=case.line)
    for scene, cases in SCENES.items()
    for number, case in enumerate(cases)
    if is_alone(case) and is_repeatable(case)
]


@dataclass(frozen=True)
class Outcome:
    """What one command did, and whether the state afterwards is the expected one.

    ``again`` is what it did in the scene's process after it had run alone.
    """

    done: subprocess.CompletedProcess[str]
    state_holds: bool
    again: subprocess.CompletedProcess[str] | None = None


@pytest.fixture(scope="session")
def outcomes(heroku: Heroku, api: httpx.Client) -> dict[str, list[Outcome]]:
    """All scenes, two at a time."""

    def play(name: str) -> list[Outcome]:
        stage = stage_of(name, api)
        for app in (stage.app, stage.other):
            api.post("/apps", json={"name": app}).raise_for_status()
        with playing(heroku) as scene:
            done = [perform(case, name, stage, heroku, scene) for case in SCENES[name]]
            scene.end()
        return done

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


@pytest.mark.parametrize(("scene", "number"), BOTH_WAYS)
def test_a_scenes_process_and_one_of_its_own_come_to_the_same(
    scene: str, number: int, outcomes: dict[str, list[Outcome]]
) -> None:
    alone, again = outcomes[scene][number].done, outcomes[scene][number].again
    assert again is not None
    assert (again.returncode, again.stdout, again.stderr) == (alone.returncode, alone.stdout, alone.stderr)


def perform(case: Case, name: str, stage: Stage, heroku: Heroku, scene: Scene) -> Outcome:
    """Run the line in its scene's process, or in one of its own."""
    arguments = filled(case.line, stage).split(" ")
    if not is_alone(case):
        return Outcome(scene(*arguments), case.then(stage))
    done = heroku(*arguments)
    state_holds = case.then(stage)
    return Outcome(done, state_holds, scene(*arguments) if is_repeatable(case) else None)


def stage_of(scene: str, api: httpx.Client) -> Stage:
    name = f"interop-{scene.replace(' ', '-')}"
    return Stage(name, f"{name}-b", api)


def filled(template: str, stage: Stage) -> str:
    return template.replace("OTHER", stage.other).replace("APP", stage.app)
