"""Identifiers: their published forms, and enough randomness."""

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.ids import new_api_key, new_completion_id, new_id, new_operator_token, secret_hash, without_secrets


def test_an_api_key_is_the_prefix_and_256_bits() -> None:
    assert re.fullmatch(r"inf-[A-Za-z0-9_-]{43}", new_api_key())


def test_an_operator_token_has_its_own_prefix() -> None:
    assert re.fullmatch(r"pst-[A-Za-z0-9_-]{43}", new_operator_token())


def test_no_two_secrets_or_ids_are_alike() -> None:
    for make in (new_api_key, new_operator_token, new_id, lambda: new_completion_id(time.time_ns())):
        assert len({make() for _ in range(1000)}) == 1000


def test_a_completion_id_begins_with_the_time_in_nanoseconds() -> None:
    before = time.time_ns()
    made = new_completion_id(time.time_ns())
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{21}", made)
    assert before <= int(made[9:25], 16) <= time.time_ns()


@given(st.text())
def test_any_text_has_a_hash_of_32_bytes(secret: str) -> None:
    assert len(secret_hash(secret)) == 32


def test_a_lone_surrogate_in_a_key_is_hashed_and_not_an_error() -> None:
    assert secret_hash("inf-\ud800") != secret_hash("inf-")


def test_a_quoted_text_comes_without_keys_and_tokens() -> None:
    for make in (new_api_key, new_operator_token):
        secret = make()
        assert without_secrets(f"/v1/{secret}?x={secret}") == f"/v1/{secret[:4]}[masked]?x={secret[:4]}[masked]"
    assert without_secrets("/v1/inf-short and info-graphics") == "/v1/inf-short and info-graphics"
