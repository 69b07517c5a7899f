"""Providers: rows over the built-in ones, and credentials that are found, missing, or told to be wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.app.boot import Upstream
from penstock.providers.catalogue import CatalogueError, Provider, build_catalogue, resolve_providers
from penstock.providers.catalogue.credentials import loose_file, secret_variables
from penstock.providers.profiles import built_in_providers
from penstock.settings.tree import ProviderRow, Settings

AWS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "aws-secret"}


def settings(*rows: Mapping[str, Any]) -> Settings:
    return msgspec.convert({"provider": list(rows)}, Settings)


def resolved(name: str, row: Mapping[str, Any] | None = None, /, **environ: str) -> Provider:
    """The provider of that name, with this row of its own or as it is built in."""
    rows = [] if row is None else [{"name": name, **row}]
    return resolve_providers(settings(*rows), environ)[name]


def refusal(**row: Any) -> str:
    """The one line for a row that must be refused."""
    with pytest.raises(CatalogueError) as caught:
        resolve_providers(settings({"name": "lab", **row}), {"LAB_KEY": "s3cret"})
    said = str(caught.value)
    assert said.startswith("[[provider]] 'lab': ")
    assert "\n" not in said
    assert "s3cret" not in said
    return said


def secret(provider: Provider) -> str | None:
    return provider.credential.secret if provider.credential else None


def test_a_row_takes_from_its_profile_what_it_leaves_out() -> None:
    mine = resolved("fast", {"profile": "groq"}, GROQ_API_KEY="g")
    built_in = built_in_providers()["groq"]
    assert (mine.spec.kind, mine.spec.base_url, mine.spec.quirks) == ("openai", built_in.base_url, built_in.quirks)
    assert (secret(mine), mine.source, mine.missing) == ("g", "env GROQ_API_KEY", None)


def test_a_row_with_the_name_of_a_built_in_provider_rests_on_it() -> None:
    mine = resolved("vllm", {"base_url": "http://10.0.0.7:8000/v1"})
    assert mine.spec.base_url == "http://10.0.0.7:8000/v1"
    assert mine.spec.quirks == built_in_providers()["vllm"].quirks
    assert (mine.source, mine.missing) == ("none needed", None)


def test_a_row_wins_over_its_profile() -> None:
    row = {"profile": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key_env": "LAB_KEY"}
    mine = resolved("lab", row, OPENAI_API_KEY="theirs", LAB_KEY="mine")
    assert (mine.spec.base_url, secret(mine)) == ("http://127.0.0.1:1/v1", "mine")


def test_a_server_of_ones_own_is_not_sent_the_key_of_a_vendor() -> None:
    mine = resolved("lab", {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}, OPENAI_API_KEY="theirs")
    assert (mine.credential, mine.source) == (None, "none needed")


def test_an_unknown_kind_or_profile_names_those_that_are_known() -> None:
    assert "unknown kind 'opnai' (known: " in refusal(kind="opnai", base_url="http://x")
    assert "openai" in refusal(kind="opnai", base_url="http://x")
    assert "unknown profile 'grok' (known: " in refusal(profile="grok")
    assert "the profile anthropic is of the kind anthropic, not openai" in refusal(profile="anthropic", kind="openai")


def test_a_row_without_any_address_is_refused() -> None:
    assert refusal() == "[[provider]] 'lab': base_url is missing"


def test_two_sources_of_a_credential_are_refused() -> None:
    said = refusal(base_url="http://x", api_key_env="LAB_KEY", api_key_file="/x")
    assert said.endswith("api_key_env and api_key_file are both set; keep one")
    assert "keep one" in refusal(base_url="http://x", api_key_env="LAB_KEY", api_key_stored=True)


@pytest.mark.parametrize(
    "key", ["sk-123-abc", "", "A B", "1X", "ÄB", "gsk_w0HqT4uYxNc8Rz1LbVd2", f"k{'0a' * 16}", "X\n"]
)
def test_a_key_in_place_of_the_name_of_its_variable_is_refused_and_not_repeated(key: str) -> None:
    said = refusal(base_url="http://x", api_key_env=key)
    assert "api_key_env must be the name of an environment variable" in said
    assert not key.strip() or key.strip() not in said


@pytest.mark.parametrize(
    "name", ["LAB_KEY", "lab_key", "_K1", "Lab_Key", "A_VERY_LONG_NAME_OF_A_VARIABLE_WITH_THE_KEY"]
)
def test_the_name_of_any_variable_is_taken(name: str) -> None:
    assert resolved("lab", {"base_url": "http://x", "api_key_env": name}).missing == name


@pytest.mark.parametrize(
    "headers",
    [{"x-a": "b\r\nc"}, {"x-a": "b\n"}, {"x-a": "\N{SNOWMAN}"}, {"x a": "b"}, {"": "b"}, {"x:": "b"}, {"Host": "b"}],
)
def test_a_header_that_no_request_can_carry_is_refused(headers: dict[str, str]) -> None:
    assert "header" in refusal(base_url="http://x", headers=headers)


def test_an_aws_profile_is_for_bedrock_alone_and_carries_no_secret() -> None:
    assert "aws_profile is for the kind bedrock" in refusal(base_url="http://x", aws_profile="work")
    mine = resolved("bedrock", {"aws_profile": "work"}, **AWS)
    assert (mine.credential, mine.source, mine.missing) == (None, "AWS profile work", None)


@pytest.mark.parametrize("value", ["", "  "])
def test_a_credential_that_is_not_set_is_missing_and_no_mistake(value: str) -> None:
    mine = resolved("lab", {"base_url": "http://x", "api_key_env": "LAB_KEY"}, LAB_KEY=value)
    assert (mine.credential, mine.missing) == (None, "LAB_KEY")


@pytest.mark.parametrize("value", ["sk-\u2019quoted", "sk-a\nb"])
def test_a_credential_that_no_header_can_carry_is_missing(value: str) -> None:
    mine = resolved("lab", {"base_url": "http://x", "api_key_env": "LAB_KEY"}, LAB_KEY=value)
    assert mine.credential is None
    assert str(mine.missing).startswith("env LAB_KEY: the key that is there has characters")


def test_the_first_variable_that_is_set_counts() -> None:
    assert resolved("gemini").missing == "GEMINI_API_KEY"
    assert secret(resolved("gemini", GOOGLE_API_KEY="b")) == "b"
    assert secret(resolved("gemini", GOOGLE_API_KEY="b", GEMINI_API_KEY="a")) == "a"


def test_a_key_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    file.chmod(0o600)
    mine = resolved("lab", {"base_url": "http://x", "api_key_file": str(file)})
    assert (secret(mine), mine.source) == ("from-file", f"file {file}")
    assert loose_file(str(file)) is None
    file.chmod(0o604)
    assert "can be read by others (mode 0604)" in str(loose_file(str(file)))


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0o600, "cannot be read: No such file or directory"),
        (b"", 0o600, "must hold the key on one line"),
        (b"a\nb", 0o600, "must hold the key on one line"),
        (b"\xff\xfe", 0o600, "is not text"),
        (b"key", 0o620, "can be written by others; chmod 600"),
        (b"key", 0o602, "can be written by others; chmod 600"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_a_mistake(
    tmp_path: Path, content: bytes | None, mode: int, said: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    assert refusal(base_url="http://x", api_key_file=str(file)).endswith(f"api_key_file {file} {said}")


def test_a_stored_credential_is_asked_for_by_the_providers_name() -> None:
    rows = settings({"name": "lab", "base_url": "http://x", "api_key_stored": True})
    found = resolve_providers(rows, {}, stored={"lab": "sealed"}.get)["lab"]
    assert (secret(found), found.source) == ("sealed", "store")
    assert resolve_providers(rows, {}, stored={"other": "sealed"}.get)["lab"].missing is not None


def test_bedrock_takes_what_awss_own_tools_take() -> None:
    missing = resolved("bedrock", AWS_ACCESS_KEY_ID="AKIA")
    assert missing.missing == "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_BEARER_TOKEN_BEDROCK"
    keys = resolved("bedrock", None, **AWS, AWS_SESSION_TOKEN="token").credential
    assert keys is not None
    assert (keys.access_key_id, keys.secret, keys.session_token) == ("AKIA", "aws-secret", "token")
    bearer = resolved("bedrock", None, **AWS, AWS_BEARER_TOKEN_BEDROCK="b").credential
    assert bearer is not None
    assert (bearer.access_key_id, bearer.secret) == (None, "b")


@pytest.mark.parametrize(
    ("row", "environ", "region"),
    [
        (None, {}, "us-east-1"),
        (None, {"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        (None, {"AWS_REGION": "ap-south-1", "AWS_DEFAULT_REGION": "eu-west-1"}, "ap-south-1"),
        ({"region": "eu-north-1"}, {"AWS_REGION": "ap-south-1"}, "eu-north-1"),
    ],
)
def test_the_region_gives_bedrock_its_address(row: dict[str, str] | None, environ: dict[str, str], region: str) -> None:
    spec = resolved("bedrock", row, **environ).spec
    assert (spec.region, spec.base_url) == (region, f"https://bedrock-runtime.{region}.amazonaws.com")


def test_a_region_that_would_lead_elsewhere_is_refused() -> None:
    with pytest.raises(CatalogueError, match="is no AWS region"):
        resolved("bedrock", AWS_REGION="evil.example/")


def test_azure_needs_an_endpoint_and_a_key() -> None:
    assert resolved("azure").missing == "AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_API_KEY"
    endpoint = "https://me.openai.azure.com"
    found = resolved("azure", AZURE_OPENAI_ENDPOINT=endpoint, AZURE_OPENAI_API_KEY="k")
    assert (found.spec.base_url, secret(found), found.missing) == (endpoint, "k", None)
    assert resolved("azure", AZURE_OPENAI_ENDPOINT="ftp://x", AZURE_OPENAI_API_KEY="k").missing is not None


def test_a_row_keeps_its_own_bounds_and_addresses() -> None:
    row = {"base_url": "http://x", "idle_timeout_s": 7, "max_concurrent": 3, "headers": {"x-team": "a"}}
    spec = resolved("lab", row).spec
    assert (spec.limits.idle_timeout_s, spec.max_concurrent, spec.headers) == (7, 3, (("x-team", "a"),))


def test_every_variable_that_may_hold_a_secret_is_known() -> None:
    names = secret_variables([ProviderRow(name="lab", api_key_env="LAB_KEY")])
    assert {"LAB_KEY", "ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} <= names
    assert not names & {"AWS_REGION", "HOME", "PATH"}


def test_a_secret_is_masked_wherever_a_provider_is_shown() -> None:
    found = resolved("anthropic", ANTHROPIC_API_KEY="s3cret")
    assert "s3cret" not in repr(found)
    assert "s3cret" not in repr(Upstream(spec=found.spec, credential=found.credential))


def test_a_model_whose_provider_lacks_its_credential_says_what_to_set() -> None:
    rows = {
        "provider": [{"name": "lab", "base_url": "http://x", "api_key_env": "LAB_KEY"}],
        "model": [{"id": "m", "targets": [{"provider": "lab", "model": "x"}, {"provider": "openai", "model": "y"}]}],
    }
    tree = msgspec.convert(rows, Settings)
    model = build_catalogue(tree, (), resolve_providers(tree, {})).get("m")
    assert (model.targets, model.credential_env) == ((), "LAB_KEY, or OPENAI_API_KEY")
    assert model.remedy == "Set LAB_KEY, or OPENAI_API_KEY, then restart."
    model = build_catalogue(tree, (), resolve_providers(tree, {"OPENAI_API_KEY": "k"})).get("m")
    assert [target.name for target in model.targets] == ["openai/y"]
