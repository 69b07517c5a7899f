"""The built-in providers are read from data that names only what exists."""

import msgspec
import pytest

from penstock.domain.chat import ChatRequest
from penstock.providers.profiles import built_in_providers

CHAT = {field.name for field in msgspec.structs.fields(ChatRequest)}
PROFILES = built_in_providers()


@pytest.mark.parametrize("name", PROFILES)
def test_the_quirks_of_a_built_in_provider_name_parameters_that_exist_once(name: str) -> None:
    quirks = PROFILES[name].quirks
    named = [*quirks.refuses, *quirks.ignores, *(ours for ours, _ in quirks.renames)]
    assert set(named) <= CHAT
    assert len(named) == len(set(named))


def test_a_hosted_provider_has_a_key_and_https_and_one_of_ones_own_has_neither() -> None:
    for row in PROFILES.values():
        assert row.base_url is None or row.base_url.startswith("https://" if row.api_key_env else "http://127.0.0.1:")
    assert PROFILES["gemini"].api_key_env == ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    assert PROFILES["azure"].base_url is None
