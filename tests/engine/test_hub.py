"""Pulling from a hub: resolved, downloaded, resumed, verified; each in a process that reads HF_ENDPOINT itself."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.engine.hub import parse
from penstock.engine.weights import PullError, Weights
from tests.engine.hub_double import COMMIT, HubDouble
from tests.engine.test_weights import tiny_gguf

CONTENT = tiny_gguf(architecture="qwen2", context=4096, tail=bytes(range(256)) * 8192)
SOURCE = "hf:acme/tiny-gguf/Tiny-Q4.gguf"


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    """A hub with one file."""
    with HubDouble({"acme/tiny-gguf/Tiny-Q4.gguf": CONTENT}) as double:
        yield double


def pull(home: Path, hub_url: str, source: str = SOURCE) -> dict[str, object]:
    """What a pull in a fresh process came to: the model, or the error and its class."""
    code = (
        "import json, sys, pathlib\n"
        "from penstock.engine.weights import Weights, WeightsError\n"
        "seen = []\n"
        "try:\n"
        "    model = Weights(pathlib.Path(sys.argv[1])).pull(sys.argv[2], progress=lambda *step: seen.append(step))\n"
        "    print(json.dumps({'id': model.id, 'path': model.path, 'sha256': model.sha256, 'last': seen[-1:],\n"
        "                      'steps': sorted({step[2] for step in seen})}))\n"
        "except WeightsError as error:\n"
        "    print(json.dumps({'error': str(error), 'kind': type(error).__name__}))\n"
    )
    env = {**os.environ, "HF_ENDPOINT": hub_url, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_HUB_ETAG_TIMEOUT": "3", "HF_HUB_DOWNLOAD_TIMEOUT": "3"}
    command = [sys.executable, "-c", code, str(home), source]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    outcome: dict[str, object] = json.loads(done.stdout)
    return outcome


def test_a_file_is_resolved_downloaded_and_entered(hub: HubDouble, tmp_path: Path) -> None:
    outcome = pull(tmp_path, hub.url)
    assert outcome["id"] == "tiny-q4"
    assert Path(str(outcome["path"])).read_bytes() == CONTENT
    assert outcome["steps"] == ["download", "verify"]
    found = Weights(tmp_path).find("tiny-q4")
    assert found is not None
    assert (found.source, found.context_length) == (SOURCE, 4096)


def test_the_second_pull_asks_nobody(hub: HubDouble, tmp_path: Path) -> None:
    pull(tmp_path, hub.url)
    asked = len(hub.requests)
    assert pull(tmp_path, hub.url)["id"] == "tiny-q4"
    assert len(hub.requests) == asked


def test_a_download_that_was_cut_is_resumed_where_it_ended(hub: HubDouble, tmp_path: Path) -> None:
    # The client keeps whole blocks of 10 MB.
    hub.files["acme/tiny-gguf/Tiny-Q4.gguf"] = content = CONTENT * 11
    hub.cut_after = 15_000_000
    outcome = pull(tmp_path, hub.url)
    assert Path(str(outcome["path"])).read_bytes() == content
    assert [span for method, path, span in hub.requests if method == "GET" and span]


@pytest.mark.parametrize("source", ["hf:acme/tiny-gguf/No.gguf", "hf:acme/nothing/Tiny-Q4.gguf", f"{SOURCE}@nope"])
def test_what_the_hub_does_not_have_is_said(source: str, hub: HubDouble, tmp_path: Path) -> None:
    assert "the hub has no such repository, revision or file" in str(pull(tmp_path, hub.url, source)["error"])


def test_a_revision_is_honoured(hub: HubDouble, tmp_path: Path) -> None:
    assert pull(tmp_path, hub.url, f"{SOURCE}@{COMMIT}")["id"] == "tiny-q4"


def test_bytes_that_differ_from_the_hubs_checksum_are_not_kept(hub: HubDouble, tmp_path: Path) -> None:
    hub.etag = "0" * 64
    assert "SHA-256 differs" in str(pull(tmp_path, hub.url)["error"])
    assert Weights(tmp_path).list() == ()


def test_a_file_that_is_no_gguf_is_not_kept(tmp_path: Path) -> None:
    with HubDouble({"acme/tiny-gguf/Tiny-Q4.gguf": b"<html>"}) as double:
        assert "GGUF magic" in str(pull(tmp_path, double.url)["error"])
    assert Weights(tmp_path).list() == ()


def test_a_hub_that_cannot_be_reached_is_said_with_the_remedy(tmp_path: Path) -> None:
    outcome = pull(tmp_path, "http://127.0.0.1:9")
    assert "penstock models:add" in str(outcome["error"])
    assert outcome["kind"] == "PullError"


@pytest.mark.parametrize(
    "source", ["hf:", "hf:a/b", "hf:a/b/c.bin", "hf:a/../c.gguf", "hf:a/b/../../c.gguf", "hf:a b/c/d.gguf"]
)
def test_a_source_of_another_form_is_refused(source: str) -> None:
    with pytest.raises(PullError, match="hf:OWNER/REPO"):
        parse(source)
