"""Many command lines of the unmodified Heroku CLI in one Node process (scene.mjs), led here by `penstock heroku`."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

from tests.interop.conftest import FOLDER, Heroku
from tests.needs import require_program

CONNECTS_WITHIN_S = 60.0
ENDS_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 120.0
# No exit code of a process: there was none to see.
NO_CODE = -1


class Scene:
    """The CLI in one process, told over ``channel`` what to do; it prints into the files ``said``.

    ``answers_within_s`` bounds each command.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        said: tuple[Path, Path],
        answers_within_s: float = ANSWERS_WITHIN_S,
    ) -> None:
        channel.settimeout(answers_within_s)
        self._process = process
        self._channel = channel
        self._answers = channel.makefile("r", encoding="utf-8")
        self._said = said
        self._answered = [0, 0]
        self._is_gone = False

    def __call__(self, *arguments: str) -> CompletedProcess[str]:
        """Run one command line to its end.

        Where the process hangs or is gone the exit code is NO_CODE; the output is what there is of it, and why.
        """
        try:
            self._channel.sendall(f"{json.dumps(arguments)}\n".encode())
            line = self._answers.readline()
        except OSError as error:
            return self._failed(arguments, f"no answer: {error!r}")
        if not line.endswith("\n"):
            return self._failed(arguments, "the process ended")
        self._answered = [file.stat().st_size for file in self._said]
        answer = json.loads(line)
        return CompletedProcess(arguments, answer["code"], answer["stdout"], answer["stderr"])

    def end(self) -> None:
        """Let the process end by itself, unless a command has said already that it is gone.

        Raises AssertionError when it fails, subprocess.TimeoutExpired when it does not end.
        """
        if self._is_gone:
            return
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        code = self._process.wait(ENDS_WITHIN_S)
        assert code == 0, f"the scene's process ended with {code}: {self._unanswered()[1]}"

    def _failed(self, arguments: tuple[str, ...], why: str) -> CompletedProcess[str]:
        # What it still does would blur into the commands that follow: they fail too.
        _kill(self._process)
        self._is_gone = True
        out, err = self._unanswered()
        return CompletedProcess(arguments, NO_CODE, out, f"{err}\n{why}")

    def _unanswered(self) -> tuple[str, str]:
        out, err = (file.read_bytes()[start:] for file, start in zip(self._said, self._answered, strict=True))
        return out.decode(errors="replace"), err.decode(errors="replace")


@contextlib.contextmanager
def playing(heroku: Heroku, answers_within_s: float = ANSWERS_WITHIN_S) -> Iterator[Scene]:
    """A process for a scene of ``heroku``. Raises AssertionError when it does not start."""
    driver = ("--no-deprecation", str(FOLDER / "scene.mjs"), str(heroku.program))
    env = heroku.env | {"PENSTOCK_HEROKU_CLI": require_program("node")}
    with TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        said = Path(folder, "stdout"), Path(folder, "stderr")
        command = [sys.executable, "-m", "penstock", "heroku", *driver, str(listener.getsockname()[1])]
        # The driver reads back what its commands have written.
        with said[0].open("w+b") as out, said[1].open("w+b") as err:
            process = subprocess.Popen(
                command,
                env=env,
                cwd=heroku.home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        try:
            with _accepted(listener, process, said[1]) as channel:
                yield Scene(process, channel, said, answers_within_s)
        finally:
            _kill(process)


def _accepted(listener: socket.socket, process: subprocess.Popen[bytes], stderr: Path) -> socket.socket:
    listener.settimeout(1.0)
    deadline = time.monotonic() + CONNECTS_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            return listener.accept()[0]
    raise AssertionError(f"the scene's process did not start: {stderr.read_text(errors='replace')}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Node stands behind `penstock heroku`, in the same group; without a member left there is no group.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
