"""The GGUF header parser against bytes of all kinds."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.engine.gguf import BadWeights, read_header
from penstock.engine.weights import LocalModel
from tests.engine.test_weights import tiny_gguf

ON_DISK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)


def test_the_facts_of_a_real_file_are_read(model: LocalModel) -> None:
    header = read_header(Path(model.path))
    assert (header.architecture, header.context_length) == ("llama", 8192)


@ON_DISK
@given(content=st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + content)
    with pytest.raises(BadWeights):
        read_header(tmp_path / "x.gguf")


@ON_DISK
@given(at=st.integers(0, len(tiny_gguf()) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(tiny_gguf())))
def test_a_damaged_header_is_read_or_refused(at: int, byte: int, cut: int, tmp_path: Path) -> None:
    content = bytearray(tiny_gguf())
    content[at] = byte
    (tmp_path / "x.gguf").write_bytes(bytes(content[: cut or None]))
    with contextlib.suppress(BadWeights):
        assert read_header(tmp_path / "x.gguf").context_length > 0
