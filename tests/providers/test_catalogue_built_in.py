"""The built-in ids: served by the real thing with a credential, and what is known of their prices and windows."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from penstock.app.boot import Serving
from penstock.domain.catalogue import Catalogue, Model
from penstock.providers.catalogue import LocalModel, build_catalogue, resolve_providers
from penstock.settings.tree import Settings
from tests.house.test_borders import python

LOCAL = LocalModel(id="smollm2-135m-instruct", context_window=8192, provider="embedded:smollm2-135m-instruct")
AWS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "aws-secret"}
AWS_MISSING = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_BEARER_TOKEN_BEDROCK"
EVERY_CHAT_ID = [
    "claude-3-haiku",
    "claude-3-5-haiku",
    "claude-3-5-sonnet-latest",
    "claude-3-7-sonnet",
    "claude-4-sonnet",
    "claude-4-5-sonnet",
    "claude-4-5-haiku",
    "claude-opus-4-5",
    "claude-4-6-sonnet",
    "claude-sonnet-4-6",
    "claude-opus-4-6",
    "claude-opus-4-7",
    "claude-opus-4-8",
    "claude-fable-5-1",
    "claude-haiku-5-5",
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "gpt-oss-120b",
    "nova-lite",
    "nova-pro",
    "nova-2-lite",
    "qwen3-235b",
    "qwen3-coder-480b",
    "kimi-k2-thinking",
    "kimi-k2-5",
    "minimax-m2",
    "minimax-m2-1",
    "deepseek-v3-2",
    "glm-4-7",
    "glm-4-7-flash",
]


def catalogue(environ: Mapping[str, str], tree: dict[str, Any] | None = None) -> Catalogue:
    settings = msgspec.convert(tree or {}, Settings)
    return build_catalogue(settings, (LOCAL,), resolve_providers(settings, environ))


def names(model: Model) -> list[str]:
    return [target.name for target in model.targets]


@pytest.mark.parametrize("model_id", EVERY_CHAT_ID)
def test_every_id_has_the_real_thing_once_a_credential_is_there(model_id: str) -> None:
    without = catalogue({}).get(model_id)
    assert without.stand_in == LOCAL.id
    served = catalogue(AWS).get(model_id)
    assert served.stand_in is None
    assert [target.provider for target in served.targets] == ["bedrock"]
    assert served.context_window is not None
    assert "{" not in served.targets[0].model


def test_an_id_without_a_credential_is_nobodys_in_production_and_says_what_to_set() -> None:
    production = {"serve": {"mode": "production"}}
    model = catalogue({}, production).get("claude-4-5-sonnet")
    assert (model.targets, model.stand_in) == ((), None)
    assert model.credential_env == f"ANTHROPIC_API_KEY, or {AWS_MISSING}"
    assert catalogue({}, production).get("nova-pro").credential_env == AWS_MISSING


def test_the_vendor_itself_comes_before_the_others() -> None:
    model = catalogue(AWS | {"ANTHROPIC_API_KEY": "k"}).get("claude-4-5-haiku")
    assert names(model) == [
        "anthropic/claude-haiku-4-5",
        "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0",
    ]
    assert (model.input, model.max_output) == (("text", "image"), 64_000)
    assert "vision" in model.capabilities


@pytest.mark.parametrize(
    ("region", "newer", "older"),
    [
        ("us-west-2", "us", "us"),
        ("eu-central-1", "eu", "eu"),
        ("us-gov-west-1", "us-gov", "us-gov"),
        ("ap-northeast-1", "global", "apac"),
        ("ca-central-1", "global", "us"),
    ],
)
def test_an_inference_profile_is_that_of_the_region(region: str, newer: str, older: str) -> None:
    found = catalogue(AWS | {"AWS_REGION": region})
    assert names(found.get("claude-opus-5-5")) == [f"bedrock/{newer}.anthropic.claude-opus-5-5"]
    assert names(found.get("nova-pro")) == [f"bedrock/{older}.amazon.nova-pro-v1:0"]
    assert names(found.get("gpt-oss-120b")) == ["bedrock/openai.gpt-oss-120b-1:0"]


def test_the_region_of_a_row_counts_for_the_built_in_ids() -> None:
    tree = {"provider": [{"name": "bedrock", "region": "eu-west-3"}]}
    assert names(catalogue(AWS, tree).get("claude-opus-5-5")) == ["bedrock/eu.anthropic.claude-opus-5-5"]


def test_prices_and_windows_of_hosted_models_are_known_with_their_source() -> None:
    model = catalogue(AWS | {"ANTHROPIC_API_KEY": "k"}).get("claude-4-5-haiku")
    assert model.context_window == 200_000
    assert model.rate is not None
    assert model.rate.source.startswith("genai-prices ")
    assert (model.rate.input, model.rate.output) == (Decimal(1), Decimal(5))
    assert (model.rate.cached_input, model.rate.cache_write) == (Decimal("0.1"), Decimal("1.25"))
    assert [target.rate.input for target in model.targets if target.rate] == [Decimal(1), Decimal("1.1")]


def test_a_price_in_tiers_counts_with_its_first() -> None:
    rate = catalogue({"ANTHROPIC_API_KEY": "k"}).get("claude-4-5-sonnet").rate
    assert rate is not None
    assert (rate.input, rate.output) == (Decimal(3), Decimal(15))


def test_a_row_wins_over_the_price_data() -> None:
    target = {"provider": "anthropic", "model": "claude-haiku-4-5", "context_window": 50_000}
    row = {"id": "cheap", "targets": [target], "price": {"input": 7, "output": "8.5"}}
    model = catalogue({"ANTHROPIC_API_KEY": "k"}, {"model": [row]}).get("cheap")
    assert model.rate is not None
    assert (model.rate.input, model.rate.output, model.rate.source) == (Decimal(7), Decimal("8.5"), "penstock.toml")
    assert (model.context_window, model.targets[0].context_window) == (50_000, 50_000)


def test_a_row_that_says_nothing_takes_window_and_price_of_its_targets() -> None:
    rows = [{"id": "haiku", "targets": [{"provider": "anthropic", "model": "claude-haiku-4-5"}]}]
    model = catalogue({"ANTHROPIC_API_KEY": "k"}, {"model": rows}).get("haiku")
    assert model.context_window == 200_000
    assert model.rate is not None
    assert model.rate.output == Decimal(5)


def test_a_model_that_the_price_data_does_not_know_has_no_price() -> None:
    rows = [{"id": "new", "targets": [{"provider": "anthropic", "model": "x-unheard-of"}]}]
    model = catalogue({"ANTHROPIC_API_KEY": "k"}, {"model": rows}).get("new")
    assert (model.rate, model.context_window) == (None, None)


def test_a_row_of_ones_own_may_have_a_stand_in() -> None:
    row = {"id": "mine", "stand_in": True, "targets": [{"provider": "openai", "model": "x"}]}
    assert catalogue({}, {"model": [row]}).get("mine").stand_in == LOCAL.id
    assert catalogue({}, {"model": [row | {"stand_in": False}]}).get("mine").targets == ()
    assert catalogue({"OPENAI_API_KEY": "k"}, {"model": [row]}).get("mine").stand_in is None


def test_what_is_served_survives_the_way_to_a_child() -> None:
    models = catalogue(AWS).models
    sent = msgspec.json.encode(Serving(models=models, default=LOCAL.id))
    assert msgspec.json.decode(sent, type=Serving).models == models


def test_an_installation_without_hosted_providers_never_loads_the_price_data() -> None:
    probe = (
        "import sys\n"
        "from penstock.app.serving.plan import plan\n"
        "from penstock.settings.tree import ModelRow, ProviderRow, Settings, TargetRow\n"
        "lab = ProviderRow(name='lab', base_url='http://127.0.0.1:9/v1')\n"
        "row = ModelRow(id='m', targets=(TargetRow(provider='lab', model='x'),))\n"
        "plan(Settings(home='/tmp', provider=(lab,), model=(row,)), environ={})\n"
        "print('genai_prices' in sys.modules, 'botocore' in sys.modules, 'pydantic' in sys.modules)"
    )
    assert python(probe).split() == ["False"] * 3
