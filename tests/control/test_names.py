"""Name rules, against an independent reading of Heroku's."""

import string
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.control.names import (
    COLOURS,
    check_alias,
    check_app_name,
    default_aliases,
    free_name,
    random_addon_name,
    random_app_name,
)
from penstock.web.api import ApiError

LOWER, DIGITS = string.ascii_lowercase, string.digits
NEARLY_NAMES = st.text(alphabet=LOWER + DIGITS + "-_A ü\n\0", max_size=33)


def accepted(check: object, name: str) -> bool:
    """Whether a check lets a name pass."""
    assert callable(check)
    try:
        check(name)
    except ApiError as error:
        return (error.status, error.id) != (422, "invalid_params")
    return True


@given(NEARLY_NAMES | st.text(max_size=40))
def test_an_app_name_passes_exactly_when_it_is_herokus(name: str) -> None:
    expected = (
        3 <= len(name) <= 30
        and set(name) <= set(LOWER + DIGITS + "-")
        and name[0] in LOWER
        and name[-1] in LOWER + DIGITS
    )
    assert accepted(check_app_name, name) is expected


@given(st.from_regex(r"[a-z][a-z0-9-]{1,28}[a-z0-9]", fullmatch=True, alphabet=st.characters(codec="ascii")))
def test_a_good_app_name_comes_back_unchanged(name: str) -> None:
    assert check_app_name(name) == name


@given(NEARLY_NAMES | st.text(max_size=70))
def test_an_alias_passes_exactly_when_it_can_prefix_a_variable(name: str) -> None:
    expected = (
        1 <= len(name) <= 64
        and set(name) <= set(string.ascii_letters + DIGITS + "_")
        and name[0] in string.ascii_letters
    )
    assert accepted(check_alias, name) is expected


def test_a_trailing_newline_is_not_part_of_a_name() -> None:
    for check in (check_app_name, check_alias):
        assert not accepted(check, "abc\n")


def test_random_names_pass_their_own_rules() -> None:
    for _ in range(200):
        assert check_app_name(random_app_name())
        assert random_addon_name().startswith("inference-")


def test_a_free_name_is_tried_again_until_it_is_free() -> None:
    names = iter(["one", "two", "three"])
    assert free_name(lambda: next(names), taken=lambda name: name != "three") == "three"


def test_names_that_are_all_taken_end_in_an_error() -> None:
    with pytest.raises(RuntimeError):
        free_name(random_app_name, taken=lambda name: True)


def test_default_aliases_never_end_and_never_repeat() -> None:
    found = list(islice(default_aliases("RERANK"), 3 * len(COLOURS)))
    assert found[:2] == ["RERANK", "RERANK_PINK"]
    assert len(set(found)) == len(found)
    assert all(check_alias(name) == name for name in found)
