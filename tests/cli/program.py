"""Runs the console script as a person would, in an environment of its own."""

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Penstock:
    """The console script with an environment that leads to one server."""

    env: dict[str, str]
    program: Path

    def __call__(self, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command line; standard input is the text and no terminal."""
        command = [str(self.program), *args]
        return subprocess.run(
            command, env=self.env, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )

    def ok(self, *args: str, stdin: str = "") -> str:
        """Run one that must succeed; its standard output without the last line end."""
        done = self(*args, stdin=stdin)
        assert done.returncode == 0, f"penstock {' '.join(args)}: {done.returncode} {done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout.removesuffix("\n")

    def refused(self, *args: str, stdin: str = "", code: int = 1) -> str:
        """Run one that must fail with one clear message and nothing on standard output; its standard error."""
        done = self(*args, stdin=stdin)
        assert done.returncode == code, f"penstock {' '.join(args)}: {done.returncode} {done.stderr}{done.stdout}"
        assert done.stdout == ""
        assert "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}   Error: " in done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def json(self, *args: str) -> Any:
        """What a command with --json prints."""
        return json.loads(self.ok(*args))

    def within(self, **env: str) -> "Penstock":
        """The same with more environment; an empty value removes a variable."""
        merged = self.env | env
        return replace(self, env={name: item for name, item in merged.items() if item})
