"""scene.mjs against a program of a few lines: a command in it ends as it would end in a process of its own."""

from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.interop.conftest import Heroku
from tests.interop.scene import NO_CODE, playing

PROGRAM = """#!/usr/bin/env node
const acts = {
  argv: () => console.log(process.argv.slice(2).join("|")),
  both: () => { process.stdout.write("out"); process.stderr.write("err"); },
  code: () => { process.exitCode = 3; },
  environment: () => { console.log(process.env.LEFT ?? "none"); process.env.LEFT = "behind"; },
  exit: async () => {
    try { process.exit(4); } catch { console.log("never"); }
    await null;
    console.log("nor this");
  },
  later: () => { setTimeout(() => { console.log("later"); process.exit(5); }, 20); },
  stuck: () => new Promise(() => {}),
  hang: () => { console.log("so far"); setInterval(() => {}, 1000); },
  die: () => { console.error("farewell"); process.kill(process.pid, "SIGKILL"); },
  throw: () => { throw new Error("as it is"); },
};
await acts[process.argv[2]]();
"""
ENDINGS = {"argv": 0, "both": 0, "code": 3, "environment": 0, "exit": 4, "later": 5, "stuck": 13}


@pytest.fixture
def program(heroku: Heroku, tmp_path: Path) -> Heroku:
    """PROGRAM in the place of the CLI."""
    path = tmp_path / "program.mjs"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return replace(heroku, program=path, env=heroku.env | {"PENSTOCK_HEROKU_CLI": str(path)})


def test_commands_of_a_scene_end_as_processes_do_and_leave_nothing_to_the_next(program: Heroku) -> None:
    alone = {name: program(name, "a b", "c") for name in ENDINGS}
    assert {name: done.returncode for name, done in alone.items()} == ENDINGS
    with playing(program) as scene:
        for name in [*ENDINGS, *ENDINGS]:
            assert told(scene(name, "a b", "c")) == told(alone[name])
        scene.end()


@pytest.mark.parametrize(("act", "printed", "why"), [("hang", "so far", "no answer"), ("die", "farewell", "ended")])
def test_a_command_that_hangs_or_takes_the_process_with_it_is_told_with_what_it_printed(
    program: Heroku, act: str, printed: str, why: str
) -> None:
    with playing(program, answers_within_s=3) as scene:
        assert scene("argv", "before").returncode == 0
        done = scene(act)
        assert done.returncode == NO_CODE
        assert printed in done.stdout + done.stderr
        assert why in done.stderr
        assert "before" not in done.stdout
        assert scene("argv").returncode == NO_CODE


def test_an_error_that_the_program_does_not_handle_ends_the_scene_with_its_text(program: Heroku) -> None:
    with playing(program) as scene:
        done = scene("throw")
    assert done.returncode == NO_CODE
    assert "Error: as it is" in done.stderr


def told(done: CompletedProcess[str]) -> tuple[int, str, str]:
    # Some versions of Node explain their exit code 13.
    return done.returncode, done.stdout, "" if done.returncode == ENDINGS["stuck"] else done.stderr
