"""An object that names a member twice is found, however it is spelt; any other is left as it is."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.openai.members import each_once
from penstock.providers.openai.request import Body
from penstock.providers.spec import Quirks
from tests.providers.asking import bound

DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["model", "messages", "n", "stream", "max_tokens", "x"])
SPACES = st.text(" \t\r\n", max_size=2)


@st.composite
def objects(draw: st.DrawFn) -> tuple[bytes, bool]:
    """An object with any spaces, and whether each of its names stands there once, in plain letters."""
    pairs = draw(st.lists(st.tuples(NAMES, VALUES), max_size=6))
    parts, plain = [], True
    for name, value in pairs:
        spelt = json.dumps(name)
        if draw(st.integers(0, 9)) == 0:
            spelt, plain = f'"\\u{ord(name[0]):04x}{name[1:]}"', False
        text = json.dumps(value, separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])))
        parts.append(f"{draw(SPACES)}{spelt}{draw(SPACES)}:{draw(SPACES)}{text}{draw(SPACES)}")
    raw = f"{draw(SPACES)}{{{','.join(parts) or draw(SPACES)}}}{draw(SPACES)}".encode()
    return raw, plain and len({name for name, _ in pairs}) == len(pairs)


@given(objects())
def test_exactly_the_objects_with_each_name_once_pass(case: tuple[bytes, bool]) -> None:
    raw, once = case
    assert each_once(raw, DECODER.decode(raw)) == once


@pytest.mark.parametrize(
    "raw",
    [
        b'{"mod\\u0065l":"dear","messages":[{"role":"user","content":"x"}],"model":"m"}',
        b'{"model":"dear","messages":[{"role":"user","content":"x"}],"model":"m"}',
        b'{"max_tokens":100000,"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":1}',
        b'{ "n" : 100000, "model":"m","messages":[{"role":"user","content":"x"}], "n":1}',
    ],
)
def test_what_is_named_twice_reaches_a_server_once_and_as_it_was_judged(raw: bytes) -> None:
    written = Body(Quirks()).write(bound(raw, target_model="m"))
    pairs = json.loads(written, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))
    assert dict(pairs)["model"] == "m"
    assert b"dear" not in written
    assert b"100000" not in written
