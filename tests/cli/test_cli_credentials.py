"""Credentials of providers from the command line: a secret goes in by standard input, and never comes out."""

import hashlib
import os
import pty
import select
import subprocess
from pathlib import Path

from tests.cli.program import Penstock

SECRET = "sk-canary-0123456789abcdef"
FINGERPRINT = hashlib.sha256(SECRET.encode()).hexdigest()[:8]


def test_a_credential_is_set_from_standard_input_listed_and_removed(penstock: Penstock) -> None:
    done = penstock("credentials:set", "double", stdin=f"{SECRET}\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert FINGERPRINT in done.stderr
    assert "canary" not in done.stderr
    table = penstock.ok("credentials")
    assert "double" in table
    assert FINGERPRINT in table
    (shown,) = penstock.json("credentials", "--json")
    assert (shown["name"], shown["fingerprint"], "value" in shown) == ("double", FINGERPRINT, False)
    penstock.ok("credentials:remove", "double")
    assert penstock.ok("credentials") == "There are no stored credentials."
    assert "Couldn't find that credential" in penstock.refused("credentials:remove", "double")


def test_a_credential_that_no_row_asks_for_is_set_with_a_warning(penstock: Penstock, tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text('[[provider]]\nname = "lab"\nbase_url = "http://127.0.0.1:9"\napi_key_stored = true\n')
    here = penstock.within(PENSTOCK_CONFIG=str(config))
    for name, warned in (("nosuch", True), ("lab", False)):
        done = here("credentials:set", name, stdin=f"{SECRET}\n")
        assert (done.returncode, "no [[provider]] row" in done.stderr) == (0, warned)
        here.ok("credentials:remove", name)


def test_a_secret_is_not_taken_from_the_command_line(penstock: Penstock) -> None:
    assert penstock("credentials:set", "double", SECRET).returncode == 2
    assert "No credential on standard input" in penstock.refused("credentials:set", "double")
    assert penstock.json("credentials", "--json") == []


def test_a_terminal_is_asked_and_shows_nothing(penstock: Penstock) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(penstock.program), "credentials:set", "typed"],
        env=penstock.env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"Credential:" not in seen:
        assert select.select([ours], [], [], 30)[0], seen
        seen += os.read(ours, 1024)
    os.write(ours, f"{SECRET}\n".encode())
    assert process.wait(30) == 0
    while select.select([ours], [], [], 0)[0]:
        try:
            seen += os.read(ours, 1024)
        except OSError:
            break
    os.close(ours)
    assert FINGERPRINT.encode() in seen
    assert b"canary" not in seen
    penstock.ok("credentials:remove", "typed")
