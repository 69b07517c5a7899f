"""Facts that the platform nouns derive."""

from datetime import UTC, datetime

from penstock.domain.platform import AddOn

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def addon(plan: str) -> AddOn:
    return AddOn(
        id="1", name="n", app_id="2", app_name="a", plan=plan, state="provisioned", created_at=NOW, updated_at=NOW
    )


def test_the_standard_plan_has_every_model() -> None:
    assert addon("standard").plan_name == "heroku-inference:standard"
    assert addon("standard").model_id is None


def test_a_model_plan_has_one_model() -> None:
    assert addon("claude-3-7-sonnet").plan_name == "heroku-inference:claude-3-7-sonnet"
    assert addon("claude-3-7-sonnet").model_id == "claude-3-7-sonnet"
