"""Keys of an AWS profile: resolved as botocore does, refreshed in time, never from the machine's metadata unasked."""

import asyncio
import datetime
import json
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from penstock.domain.errors import UpstreamError
from penstock.providers.bedrock.credentials import Source
from penstock.providers.bedrock.sign import Keys
from tests.upstream import Exchange, ScriptedUpstream

T = TypeVar("T")


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes the two AWS files of a scratch user."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    def write(config: str, shared: str) -> None:
        (tmp_path / "config").write_text(config)
        (tmp_path / "credentials").write_text(shared)

    return write


def in_loop(work: Callable[[], Awaitable[T]]) -> T:
    """Runs it in a loop of its own."""

    async def go() -> T:
        return await work()

    return asyncio.run(go())


def test_a_profile_of_the_shared_files_gives_its_keys(aws: Callable[[str, str], None]) -> None:
    aws("", "[team]\naws_access_key_id = AKIDFILE\naws_secret_access_key = file-secret\naws_session_token = tok\n")
    source = Source(static=None, profile="team")
    assert in_loop(source.keys) == Keys("AKIDFILE", "file-secret", "tok")
    assert source.secrets() == ("AKIDFILE", "file-secret", "tok")


def test_keys_in_the_environment_do_not_stand_in_for_a_named_profile(
    aws: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    aws("", "[team]\naws_access_key_id = AKIDFILE\naws_secret_access_key = file-secret\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    assert in_loop(Source(static=None, profile="team").keys).access_key_id == "AKIDFILE"


def process(folder: Path, minutes: int) -> str:
    """A profile whose keys come from a process: each time others, good for so many minutes."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    script = folder / "keys.py"
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib\n"
        f"runs = pathlib.Path({str(folder / 'runs')!r})\n"
        "count = int(runs.read_text()) + 1 if runs.exists() else 1\n"
        "runs.write_text(str(count))\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': f'AKID{count}', 'SecretAccessKey': 's', 'SessionToken': 't',"
        f" 'Expiration': {json.dumps(until.isoformat())}}}))\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"[profile team]\ncredential_process = {script}\n"


def test_keys_of_a_process_are_kept_while_they_are_good(aws: Callable[[str, str], None], tmp_path: Path) -> None:
    aws(process(tmp_path, minutes=120), "")
    source = Source(static=None, profile="team")

    async def work() -> list[str]:
        several = await asyncio.gather(*(source.keys() for _ in range(5)))
        source.expired()
        return [keys.access_key_id for keys in (*several, await source.keys())]

    assert in_loop(work) == ["AKID1"] * 6
    assert (tmp_path / "runs").read_text() == "1"


def test_keys_about_to_expire_are_replaced_at_the_next_look(aws: Callable[[str, str], None], tmp_path: Path) -> None:
    aws(process(tmp_path, minutes=12), "")
    source = Source(static=None, profile="team")

    async def work() -> list[str]:
        first = await source.keys()
        source.expired()
        return [first.access_key_id, (await source.keys()).access_key_id]

    first, second = in_loop(work)
    assert first != second


def test_while_keys_are_looked_for_the_ones_at_hand_are_used(aws: Callable[[str, str], None], tmp_path: Path) -> None:
    aws(process(tmp_path, minutes=12), "")
    source = Source(static=None, profile="team", look_again_s=0.0)

    async def work() -> list[str]:
        seen = [(await source.keys()).access_key_id for _ in range(2)]
        while seen[-1] == seen[0]:
            await asyncio.sleep(0.01)
            seen.append((await source.keys()).access_key_id)
        return seen

    seen = in_loop(work)
    assert seen[0] == seen[1] != seen[-1]


@pytest.mark.parametrize("config", ["", "[profile team]\ncredential_process = /nonexistent/keys\n"])
def test_a_profile_without_keys_is_the_operators_to_mend(aws: Callable[[str, str], None], config: str) -> None:
    aws(config, "")
    with pytest.raises(UpstreamError) as caught:
        in_loop(Source(static=None, profile="team").keys)
    assert caught.value.code == "upstream_misconfigured"
    assert "/nonexistent" not in caught.value.message


def test_the_machines_metadata_is_not_asked(aws: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    aws("[profile team]\nregion = eu-west-1\n", "")

    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"{}")

    with ScriptedUpstream(script) as metadata:
        address = f"http://127.0.0.1:{metadata.port}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        with pytest.raises(UpstreamError):
            in_loop(Source(static=None, profile="team").keys)
    assert metadata.connections == 0


def test_the_adapter_needs_no_botocore_until_a_profile_does() -> None:
    code = "import sys, penstock.providers.bedrock.adapter; sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
