"""An upstream's account of usage is kept as it was sent, but for what could be a prompt."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.accounts import kept, merged

SECRET = "the patient's name is Alice"
NAMES = st.text("abc_", min_size=1, max_size=9)
NUMBERS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
)


@given(st.dictionaries(NAMES, NUMBERS), st.sampled_from([None, 2]))
def test_an_account_of_numbers_is_kept_byte_for_byte(account: dict[str, Any], indent: int | None) -> None:
    sent = json.dumps(account, indent=indent).encode()
    assert kept(msgspec.Raw(sent)) == sent


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ({"prompt_tokens": 3, "tier": "default"}, {"prompt_tokens": 3, "tier": "default"}),
        ({"prompt_tokens": 3, "echo": SECRET}, {"prompt_tokens": 3}),
        ({"a": [1, SECRET, {"b": SECRET, "c": 2}], SECRET: "x"}, {"a": [1, {"c": 2}]}),
        ({"a": 'quotes ": and more', "b": 1}, {"b": 1}),
        ({"a": "x" * 41, "b": "x" * 40}, {"b": "x" * 40}),
    ],
)
def test_texts_are_taken_out_of_an_account(sent: Any, left: Any) -> None:
    assert json.loads(kept(msgspec.Raw(json.dumps(sent).encode())) or b"0") == left


@pytest.mark.parametrize("sent", [SECRET, None])
def test_an_account_that_is_a_text_is_none(sent: Any) -> None:
    assert kept(msgspec.Raw(json.dumps(sent).encode())) is None


def test_an_account_in_parts_has_no_texts_either() -> None:
    first = kept(msgspec.Raw(b'{"input_tokens":5}'))
    assert merged(first, msgspec.Raw(json.dumps({"output_tokens": 2, "echo": SECRET}).encode())) == (
        b'{"input_tokens":5,"output_tokens":2}'
    )
