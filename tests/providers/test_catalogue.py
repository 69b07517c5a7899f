"""The operator's rows: a mistake in one is one line that names the row."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.catalogue import Catalogue
from penstock.providers.catalogue import CatalogueError, build_catalogue
from penstock.providers.transport import Endpoint, Transport
from penstock.settings.tree import Settings

LAB = {"name": "lab", "base_url": "http://127.0.0.1:9/v1"}
MODEL: dict[str, Any] = {"id": "m", "targets": [{"provider": "lab", "model": "x"}]}


def built(*, provider: list[dict[str, object]], model: list[dict[str, object]]) -> Catalogue:
    return build_catalogue(msgspec.convert({"provider": provider, "model": model}, Settings), ())


def refusal(*, provider: list[dict[str, object]] | None = None, model: list[dict[str, object]] | None = None) -> str:
    """The one line for rows that must be refused."""
    with pytest.raises(CatalogueError) as caught:
        built(provider=[{**LAB}] if provider is None else provider, model=[{**MODEL}] if model is None else model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model_id", ["m", "Qwen3-32B", "meta-llama/Llama-3.3-70B:free", "@cf/meta/llama-3"])
def test_a_row_is_served_under_its_id(model_id: str) -> None:
    assert built(provider=[{**LAB}], model=[{**MODEL, "id": model_id}]).get(model_id).targets[0].provider == "lab"


def test_two_providers_of_one_name_are_refused() -> None:
    said = refusal(provider=[{**LAB}, {**LAB, "base_url": "https://example.test"}])
    assert said.startswith("[[provider]] 'lab': the name is used twice")


@pytest.mark.parametrize("name", ["", " ", "a\nb"])
def test_a_provider_without_a_proper_name_is_refused(name: str) -> None:
    assert refusal(provider=[{**LAB, "name": name}]).startswith(f"[[provider]] {name!r}: bad name")


@pytest.mark.parametrize("model_id", ["", " ", "a b", "a\n", "-a", "ä", "a" * 129])
def test_a_bad_model_id_is_refused(model_id: str) -> None:
    said = refusal(model=[{**MODEL, "id": model_id}])
    assert said.startswith("[[model]] '")
    assert ": bad id; " in said


def test_a_bad_alias_is_refused() -> None:
    assert refusal(model=[{**MODEL, "aliases": [""]}]).startswith("[[model]] 'm': bad alias ''; ")


def test_the_name_of_the_default_model_is_refused() -> None:
    assert "'standard' means the default model" in refusal(model=[{**MODEL, "id": "standard"}])
    assert "'standard' means the default model" in refusal(model=[{**MODEL, "aliases": ["standard"]}])


def test_a_row_wins_over_the_alias_of_a_built_in_model() -> None:
    catalogue = built(provider=[{**LAB}], model=[{**MODEL, "aliases": ["claude-sonnet-4-5"]}])
    assert catalogue.get("claude-sonnet-4-5").id == "m"


def test_a_model_without_targets_is_refused() -> None:
    assert refusal(model=[{**MODEL, "targets": []}]).startswith("[[model]] 'm': targets is empty")


def test_a_target_without_a_model_is_refused() -> None:
    said = refusal(model=[{**MODEL, "targets": [{"provider": "lab", "model": ""}]}])
    assert said.startswith("[[model]] 'm': a target's model is empty")


@pytest.mark.parametrize(
    ("provider", "model", "at"),
    [
        ({"base_url": "x"}, {}, ("provider", 1, "base_url")),
        ({"kind": "x"}, {}, ("provider", 1, "kind")),
        ({"profile": "x"}, {}, ("provider", 1, "profile")),
        ({"name": "first"}, {}, ("provider", 1, "name")),
        ({"api_key_env": "A", "api_key_stored": True}, {}, ("provider", 1, "api_key_stored")),
        ({}, {"targets": []}, ("model", 1, "targets")),
        ({}, {"targets": [*MODEL["targets"], {"provider": "x", "model": "y"}]}, ("model", 1, "targets", 1, "provider")),
        ({}, {"id": "a b"}, ("model", 1, "id")),
        ({}, {"aliases": ["m1"]}, ("model", 1, "aliases")),
        ({}, {"price": {"input": "x", "output": 1}}, ("model", 1, "price")),
        ({}, {"price": {"input": -1, "output": 1}}, ("model", 1, "price")),
        ({}, {"price": {"input": 1, "output": 1_000_001}}, ("model", 1, "price")),
        ({}, {"price": {"input": "1e999", "output": 1}}, ("model", 1, "price")),
        ({}, {"price": {"input": 1, "output": 1, "cached_input": 2_000_000}}, ("model", 1, "price")),
    ],
)
def test_a_mistake_says_where_it_stands(
    provider: dict[str, object], model: dict[str, object], at: tuple[str | int, ...]
) -> None:
    with pytest.raises(CatalogueError) as caught:
        built(
            provider=[{**LAB, "name": "first"}, {**LAB, **provider}],
            model=[{**MODEL, "id": "m1", "targets": [{"provider": "first", "model": "x"}]}, {**MODEL, **model}],
        )
    assert caught.value.at == at


def test_a_name_that_is_used_twice_names_both_places() -> None:
    twice = [{**MODEL, "aliases": ["quick"]}, {**MODEL, "id": "n", "aliases": ["quick"]}]
    assert refusal(model=twice) == "[[model]] 'n': the name 'quick' is used twice, first by [[model]] 'm'"
    assert "used twice, in this row" in refusal(model=[{**MODEL, "aliases": ["a", "a"]}])
    assert "by the rows 1 and 2" in refusal(provider=[{**LAB}, {**LAB}])


@pytest.mark.parametrize(
    "url",
    [
        *("", "lab", "ftp://x", "unix:///x.sock", "http://", "http://:80", "http:///v1", "http://x:abc"),
        *("http://x:99999", "http://x:0", "http://u:pw@x", "http://x?a=1", "http://x/v1#f", "http://x/a b"),
        *("http://x\n", "http://[::1"),
    ],
)
def test_a_bad_base_url_names_its_provider(url: str) -> None:
    said = refusal(provider=[{**LAB, "base_url": url}])
    assert said == "[[provider]] 'lab': base_url must be http(s)://host[:port][/path]"


@pytest.mark.parametrize("url", ["http://x", "https://x:8443/", "HTTPS://x.test/api/v1", "http://[::1]:9/v1"])
def test_a_good_base_url_is_taken(url: str) -> None:
    assert built(provider=[{**LAB, "base_url": url}], model=[{**MODEL}]).find("m") is not None


@settings(deadline=None)  # the first of a vendor's addresses loads the price data
@given(st.from_regex(r"https?://[\x20-\x7e]{0,30}", fullmatch=True))
def test_every_base_url_that_is_taken_suits_the_transport(url: str) -> None:
    with contextlib.suppress(CatalogueError):
        built(provider=[{**LAB, "base_url": url}], model=[{**MODEL}])
        Transport(Endpoint(url))
