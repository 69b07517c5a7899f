"""The commands on limits and budgets."""

from collections.abc import Iterator

import pytest

from penstock.cli.table import COMMANDS
from tests.cli.program import Penstock

MODEL = "claude-4-5-sonnet"


@pytest.fixture
def shop(penstock: Penstock, app: str) -> str:
    """An app with the standard plan as INFERENCE."""
    penstock.ok("addons:create", "heroku-inference:standard", "-a", app, "--as", "INFERENCE")
    return app


@pytest.fixture
def model(penstock: Penstock) -> Iterator[str]:
    """A model, whose limits and budgets go when the test ends."""
    yield MODEL
    penstock("limits:unset", "--model", MODEL)
    penstock("budgets:unset", "--model", MODEL, "--per", "day")


def rows(listed: str) -> list[list[str]]:
    """The cells of a table."""
    return [[cell for cell in line.split("  ") if cell] for line in listed.splitlines()[2:]]


def test_limits_are_set_one_by_one_listed_and_unset(penstock: Penstock, shop: str) -> None:
    done = penstock("limits:set", "-a", shop, "--requests-per-minute", "1500", "--max-tokens", "unlimited")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"Setting limits of ⬢ {shop}... done, requests/min 1,500, max tokens unlimited\n"
    done = penstock("limits:set", "-a", shop, "--concurrent-requests", "4", "--max-tokens", "default")
    assert done.stderr == f"Setting limits of ⬢ {shop}... done, requests/min 1,500, at once 4\n"
    first = [cell.strip() for cell in rows(penstock.ok("limits", "-a", shop))[0]]
    assert first == [f"app {shop}", "all", "1,500", "-", "4", "-", "operator@penstock.local"]
    found = penstock.json("limits", "-a", shop, "--json")
    assert [row["concurrent_requests"] for row in found["limits"]] == [4]
    done = penstock("limits:unset", "-a", shop)
    assert (done.returncode, done.stderr) == (0, f"Removing limits of ⬢ {shop}... done\n")
    assert penstock.json("limits", "-a", shop, "--json")["limits"] == []
    assert "Couldn't find that limit." in penstock.refused("limits:unset", "-a", shop)
    done = penstock("limits:set", "-a", shop, "--max-tokens", "default")
    assert (done.returncode, done.stderr) == (0, f"Setting limits of ⬢ {shop}... done, the defaults hold\n")


def test_the_defaults_stand_below_with_where_they_come_from(penstock: Penstock, shop: str) -> None:
    found = {tuple(cell.strip() for cell in row[:2]): row for row in rows(penstock.ok("limits", "-a", shop))}
    assert [cell.strip() for cell in found["each add-on", MODEL]] == [
        "each add-on", MODEL, "150", "800,000", "-", "-", "Heroku's plans",
    ]  # fmt: skip


def test_every_object_of_an_app_can_be_named(penstock: Penstock, shop: str) -> None:
    prefix = penstock.ok("config:get", "INFERENCE_KEY", "-a", shop)[:12]
    (addon,) = penstock.json("addons", "-a", shop, "--json")
    named: tuple[list[str], ...] = (["--key", prefix], ["--attachment", "inference"], ["--addon", addon["name"]], [])
    for part in named:
        for of_model in ([], ["--model", MODEL]):
            penstock.ok("limits:set", "-a", shop, *part, *of_model, "--max-tokens", "9")
            penstock.ok("budgets:set", "9", "--per", "day", "-a", shop, *part, *of_model)
    objects = [
        (f"{kind} {name}", of_model)
        for kind, name in (("app", shop), ("add-on", addon["name"]), ("attachment", "INFERENCE"), ("key", prefix))
        for of_model in ("all", MODEL)
    ]
    for command in ("limits", "budgets"):
        listed = rows(penstock.ok(command, "-a", shop))
        assert [(row[0].strip(), row[1].strip()) for row in listed][:8] == objects
    assert f"key {prefix} ({shop})" in penstock.ok("limits")
    for part in named:
        for of_model in ([], ["--model", MODEL]):
            penstock.ok("limits:unset", "-a", shop, *part, *of_model)
            penstock.ok("budgets:unset", "--per", "day", "-a", shop, *part, *of_model)
    assert penstock.ok("budgets", "-a", shop) == "There are no budgets."
    assert "Budgets of models bound every app too" in penstock("budgets", "-a", shop).stderr


def test_a_model_alone_is_the_model_whoever_uses_it(penstock: Penstock, model: str) -> None:
    done = penstock("limits:set", "--model", model, "--tokens-per-minute", "5")
    assert done.stderr == f"Setting limits of the model {model}... done, tokens/min 5\n"
    done = penstock("budgets:set", "7", "--per", "day", "--model", model)
    assert done.stderr == f"Setting the budget of the model {model}... done, 7.00 USD per day, 7.00 USD left\n"
    assert f"model {model}" in penstock.ok("limits")
    assert f"model {model}" in penstock.ok("budgets")
    penstock.ok("limits:unset", "--model", model)
    penstock.ok("budgets:unset", "--model", model, "--per", "day")
    assert f"model {model}" not in penstock.ok("budgets")


def test_whatever_heroku_app_says_all_means_the_model_whoever_uses_it(
    penstock: Penstock, shop: str, model: str
) -> None:
    inside = penstock.within(HEROKU_APP=shop)
    assert inside("limits:set", "--model", model, "--max-tokens", "9").stderr.startswith(
        f"Setting limits of ⬢ {shop}, {model} alone... done"
    )
    assert inside("limits:set", "-A", "--model", model, "--max-tokens", "9").stderr.startswith(
        f"Setting limits of the model {model}... done"
    )
    assert f"model {model}" in inside.ok("limits", "--all")
    inside.ok("limits:unset", "-A", "--model", model)


def test_a_budget_is_set_listed_and_unset(penstock: Penstock, shop: str) -> None:
    line = ["budgets:set", "12.5", "--per", "month", "-a", shop]
    done = penstock(*line, "--alert", "90", "--alert", "50")
    assert done.stderr == f"Setting the budget of ⬢ {shop}... done, 12.50 USD per month, 12.50 USD left\n"
    (row,) = rows(penstock.ok("budgets", "-a", shop))
    cells = [cell.strip() for cell in row]
    assert cells[:7] == [f"app {shop}", "all", "month", "12.50 USD", "0.00 USD", "0.00 USD", "12.50 USD"]
    assert cells[8:] == ["50%, 90%", "operator@penstock.local"]
    penstock.ok("budgets:set", "1", "--per", "total", "-a", shop, "--currency", "EUR", "--no-alerts")
    found = penstock.json("budgets", "-a", shop, "--json")["budgets"]
    assert [(row["amount"], row["currency"], row["alerts"]) for row in found if row["period"] == "total"] == [
        ("1", "EUR", [])
    ]
    assert "never" in penstock.ok("budgets", "-a", shop)
    assert "Couldn't find that budget." in penstock.refused("budgets:unset", "--per", "total", "-a", shop)
    penstock.ok("budgets:unset", "--per", "total", "--currency", "EUR", "-a", shop)
    penstock.ok("budgets:unset", "--per", "month", "-a", shop)
    assert penstock.json("budgets", "-a", shop, "--json") == {"budgets": [], "defaults": []}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["limits:set", "--max-tokens", "5"], "Name an app (-a APP) or a model (--model ID)."),
        (["limits:set", "--key", "inf-x", "--max-tokens", "5"], "--key needs the app that it is on: -a APP."),
        (["limits:set", "-a", "x", "--key", "k", "--addon", "a", "--max-tokens", "5"], "--key and --addon exclude"),
        (["limits:set", "-a", "x"], "Name a limit: --requests-per-minute,"),
        (["limits:set", "-a", "x", "--max-tokens", "0"], "'--max-tokens': '0' is neither a number above 0"),
        (["limits:set", "-a", "x", "--max-tokens", "none"], "'--max-tokens': 'none' is neither"),
        (["budgets:set", "-a", "x", "--per", "day"], "Missing argument 'AMOUNT'"),
        (["budgets:set", "ten", "-a", "x", "--per", "day"], "'ten' is no amount; write it as 50 or 12.50."),
        (["budgets:set", "1", "-a", "x"], "Missing option '--per'. Choose from: day, week, month, total\n"),
        (["budgets:set", "1", "-a", "x", "--per", "hour"], "'--per'"),
        (["budgets:set", "1", "-a", "x", "--per", "day", "--alert", "0"], "'--alert'"),
        (["budgets:set", "1", "-a", "x", "--per", "day", "--alert", "5", "--no-alerts"], "exclude each other"),
        (["budgets:unset", "--per", "day"], "Name an app"),
        *(
            ([*line, "-a", "x", option, ""], f"'{option}': it must not be empty")
            for line in (
                ["limits:set", "--max-tokens", "7"],
                ["limits:unset"],
                ["budgets:set", "1", "--per", "day"],
                ["budgets:unset", "--per", "day"],
            )
            for option in ("--key", "--attachment", "--addon", "--model")
        ),
        (["limits:set", "-a", "", "--model", "m", "--max-tokens", "7"], "it must not be empty"),
        (["limits", "-a", ""], "it must not be empty"),
        (["budgets", "-a", "x", "-A"], "-a and -A exclude each other."),
        (["contents", "-a", "x", "--request", ""], "it must not be empty"),
    ],
)
def test_a_line_that_cannot_be_meant_is_one_clear_message(offline: Penstock, line: list[str], told: str) -> None:
    assert told in offline.refused(*line, code=2)


def test_what_the_server_refuses_is_told_by_its_name(penstock: Penstock, shop: str) -> None:
    assert "'nope' is not a model" in penstock.refused("limits:set", "--model", "nope", "--max-tokens", "5")
    assert "Couldn't find that key." in penstock.refused("limits:set", "-a", shop, "--key", "nope", "--max-tokens", "5")
    large = penstock.refused("budgets:set", "999999999999999999999999", "--per", "day", "-a", shop)
    assert "amount must be at most 1000000000." in large
    assert "currency must be" in penstock.refused("budgets:set", "1", "--per", "day", "-a", shop, "--currency", "usd")


def test_the_commands_and_their_options_are_completed(offline: Penstock) -> None:
    shell = offline.within(_PENSTOCK_COMPLETE="bash_complete")
    for start in ("limits", "budgets"):
        line = f"penstock {start}"
        told = shell.within(COMP_LINE=line, COMP_POINT=str(len(line)), _COMP_BREAKS=" ").ok()
        assert {f"plain,{name}" for name in COMMANDS if name.startswith(start)} <= {*told.split("\n")}
    line = "penstock budgets:set --a"
    told = shell.within(COMP_LINE=line, COMP_POINT=str(len(line)), _COMP_BREAKS=" ").ok()
    assert {"plain,--alert", "plain,--attachment", "plain,--addon", "plain,--app"} <= {*told.split("\n")}
