"""Add-ons, attachments and model resources through the console script."""

from pathlib import Path

import pytest

from tests.cli.conftest import controlled
from tests.cli.double import Double
from tests.cli.program import Penstock


def variables(penstock: Penstock, app: str) -> set[str]:
    """The names of an app's config vars."""
    return set(penstock.json("config", "-a", app, "--json"))


def test_addons_create_says_what_the_heroku_cli_says(penstock: Penstock, app: str) -> None:
    done = penstock("addons:create", "heroku-inference:standard", "-a", app, "--as", "INFERENCE")
    assert done.returncode == 0
    assert done.stderr == f"Creating heroku-inference:standard on ⬢ {app}... metered\n"
    first = done.stdout.splitlines()[0]
    assert first.startswith("Created inference-")
    assert first.endswith(" as INFERENCE_KEY, INFERENCE_URL") or first.endswith(" as INFERENCE_URL, INFERENCE_KEY")
    assert variables(penstock, app) == {"INFERENCE_URL", "INFERENCE_KEY"}


def test_both_spellings_of_a_command_do_the_same(penstock: Penstock, app: str) -> None:
    penstock.ok("addons", "create", "heroku-inference:standard", "--as", "ONE", "--app", app)
    penstock.ok("ai", "models", "create", "claude-3-7-sonnet", "-a", app, "--as", "TWO")
    assert {"ONE_URL", "ONE_KEY", "TWO_URL", "TWO_KEY", "TWO_MODEL_ID"} == variables(penstock, app)
    assert penstock.ok("config", "get", "TWO_MODEL_ID", "-a", app) == "claude-3-7-sonnet"


def test_options_after_a_double_dash_reach_the_service(penstock: Penstock, app: str) -> None:
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app, "--", "--region=us")
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app, "--as", "B", "--", "--region", "eu")
    assert "Unexpected argument" in penstock.refused(
        "addons:create", "heroku-inference:standard", "-a", app, "stray", code=2
    )


def test_a_bad_plan_and_a_bad_alias_are_refused(penstock: Penstock, app: str) -> None:
    assert "add-on plan" in penstock.refused("ai:models:create", "no-such-model", "-a", app)
    told = penstock.refused("ai:models:create", "claude-3-7-sonnet", "-a", app, "--as", "1BAD")
    assert "start with a letter" in told


def test_a_second_default_attachment_gets_a_colour(penstock: Penstock, app: str) -> None:
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app)
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app)
    assert len([name for name in variables(penstock, app) if name.endswith("_KEY")]) == 2


def test_addons_shows_add_ons_and_attachments(penstock: Penstock, app: str) -> None:
    assert penstock.ok("addons", "-a", app) == f"No add-ons for app {app}."
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app, "--name", f"named-{app}")
    shown = penstock.ok("addons", "-a", app)
    assert f"heroku-inference (named-{app})" in shown
    assert "└─ as INFERENCE" in shown
    assert [one["name"] for one in penstock.json("addons", "-a", app, "--json")] == [f"named-{app}"]
    assert f"named-{app}" in penstock.ok("addons")
    info = penstock.ok("addons:info", f"named-{app}")
    assert info.startswith(f"=== named-{app}\n")
    assert f"{app}::INFERENCE" in info
    assert (
        penstock.json("addons", "info", f"named-{app}", "-a", app, "-j")["plan"]["name"] == "heroku-inference:standard"
    )


def test_an_attachment_on_another_app_comes_and_goes(penstock: Penstock, app: str) -> None:
    other = f"{app}-b"
    penstock.ok("create", other)
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app, "--name", f"shared-{app}")
    done = penstock("addons:attach", f"shared-{app}", "-a", other, "--as", "BORROWED")
    assert f"Attaching shared-{app} as BORROWED to ⬢ {other}... done" in done.stderr
    assert "Setting BORROWED config vars and restarting" in done.stderr
    assert variables(penstock, other) == {"BORROWED_URL", "BORROWED_KEY"}
    assert f"as BORROWED on ⬢ {other} app" in penstock.ok("addons", "-a", app)
    assert "as BORROWED" in penstock.ok("addons", "-a", other)
    assert "Unsetting BORROWED" in penstock("addons:detach", "BORROWED", "-a", other).stderr
    assert variables(penstock, other) == set()
    penstock.ok("ai:models:attach", "INFERENCE", "--source-app", app, "--target-app", other, "--as", "AGAIN")
    assert variables(penstock, other) == {"AGAIN_URL", "AGAIN_KEY"}
    penstock.ok("ai:models:detach", "AGAIN", "-a", other)
    assert variables(penstock, other) == set()
    penstock.ok("apps:destroy", other, "--confirm", other)


def test_destroying_takes_the_config_vars_away(penstock: Penstock, app: str) -> None:
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app, "--name", f"gone-{app}")
    assert f"--confirm {app}" in penstock.refused("addons:destroy", f"gone-{app}", "-a", app)
    done = penstock("addons:destroy", f"gone-{app}", "-a", app, "--confirm", app)
    assert f"Destroying gone-{app} on ⬢ {app}... done" in done.stderr
    assert variables(penstock, app) == set()
    penstock.ok("ai:models:create", "claude-3-7-sonnet", "-a", app)
    penstock.ok("ai:models:destroy", "INFERENCE", "-a", app, "-c", app)
    assert variables(penstock, app) == set()


@pytest.mark.parametrize("command", [["addons:destroy", "-c", "x"], ["addons:info"], ["ai:models:detach"]])
def test_an_unknown_add_on_is_refused(penstock: Penstock, app: str, command: list[str]) -> None:
    name, *options = command
    assert "Couldn't find that" in penstock.refused(name, "no-such-thing", "-a", app, *options)


def test_plans_and_services_are_listed(penstock: Penstock) -> None:
    assert "heroku-inference:standard" in penstock.ok("addons:plans", "heroku-inference")
    assert "heroku-inference:standard" in [
        one["name"] for one in penstock.json("addons:plans", "heroku-inference", "-j")
    ]
    assert "heroku-inference" in penstock.ok("addons:services")
    assert penstock.json("addons:services", "--json")[0]["name"] == "heroku-inference"


def test_the_models_that_can_be_had_are_listed(penstock: Penstock) -> None:
    assert "claude-4-5-sonnet" in penstock.ok("ai:models:list")
    assert penstock.ok("ai:models") == penstock.ok("ai", "models", "list")
    assert "claude-3-7-sonnet" in [one["model_id"] for one in penstock.json("ai:models:list", "--json")]


def test_model_resources_are_shown_one_or_all(penstock: Penstock, app: str) -> None:
    assert "no model resources" in penstock.ok("ai:models:info", "-a", app)
    penstock.ok("ai:models:create", "claude-3-7-sonnet", "-a", app)
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app, "--as", "ALL")
    shown = penstock.ok("ai:models:info", "-a", app)
    assert "=== claude-3-7-sonnet" in shown
    assert "=== standard" in shown
    one = penstock.json("ai:models:info", "INFERENCE", "-a", app, "--json")
    assert [(found["model_alias"], found["ready"]) for found in one] == [("INFERENCE", "Yes")]


def test_the_standard_plan_leads_to_its_models_and_says_which_are_stand_ins(penstock: Penstock, app: str) -> None:
    made = penstock.ok("addons:create", "heroku-inference:standard", "-a", app)
    assert made.splitlines()[-1] == "Use penstock ai:models:list to view the models that it opens."
    shown = penstock.ok("ai:models:info", "-a", app)
    assert "claude-4-5-sonnet (answered by smollm2-135m-instruct, a stand-in)" in shown
    assert "smollm2-135m-instruct" in [line.split()[-1] for line in shown.splitlines() if line]


def test_a_model_plan_says_that_another_model_answers(penstock: Penstock, app: str) -> None:
    penstock.ok("ai:models:create", "claude-3-7-sonnet", "-a", app)
    assert "smollm2-135m-instruct (a stand-in)" in penstock.ok("ai:models:info", "-a", app)


def test_in_production_a_model_without_a_provider_is_marked(tmp_path: Path, gateway: Double) -> None:
    with controlled(tmp_path / "home", gateway.url, "production") as penstock:
        penstock.ok("create", "shop")
        penstock.ok("addons:create", "heroku-inference:standard", "-a", "shop", "--as", "ALL")
        penstock.ok("addons:create", "heroku-inference:claude-3-7-sonnet", "-a", "shop", "--as", "ONE")
        every = penstock.ok("ai:models:info", "ALL", "-a", "shop").splitlines()
        assert [line.strip() for line in every if "claude-4-5-sonnet" in line] == ["claude-4-5-sonnet (not served)"]
        assert [line.split()[-1] for line in every if "smollm2" in line] == ["smollm2-135m-instruct"]
        assert "nobody (not served: a call is refused)" in penstock.ok("ai:models:info", "ONE", "-a", "shop")


def test_a_region_that_there_is_not_is_refused_by_name(penstock: Penstock, app: str) -> None:
    told = penstock.refused("addons:create", "heroku-inference:standard", "-a", app, "--", "--region=mars")
    assert "config.region must be one of us, eu." in told


def test_destroying_what_other_apps_use_asks_for_force_and_not_for_what_was_given(penstock: Penstock, app: str) -> None:
    other = f"{app}-o"
    penstock.ok("create", other)
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app, "--name", f"used-{app}")
    penstock.ok("addons:attach", f"used-{app}", "-a", other, "--as", "USED")
    told = penstock.refused("addons:destroy", f"used-{app}", "-a", app, "--confirm", app)
    assert f"used-{app} is also attached to {other}. To destroy it there too, use --force." in told
    assert "confirm" not in told.replace("confirmation_required", "")
    penstock.ok("addons:destroy", f"used-{app}", "-a", app, "--confirm", app, "--force")
    penstock.ok("apps:destroy", other, "--confirm", other)


def test_a_missing_app_names_the_variable_that_stands_in_for_it(penstock: Penstock) -> None:
    assert "HEROKU_APP" in penstock.refused("config", code=2)
    assert "HEROKU_APP" in penstock.refused("apps:info", code=2)
