"""Names, spellings, help and what happens on a mistake."""

import pytest

import penstock as package
from penstock.cli.root import load, spell
from penstock.cli.table import COMMANDS
from tests.cli.program import Penstock


def test_the_version_is_one_line(offline: Penstock) -> None:
    assert offline.ok("--version") == f"penstock/{package.__version__}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_name_leads_to_a_command_that_can_be_spelled_in_words(name: str) -> None:
    assert load(COMMANDS[name]).callback is not None
    assert spell([*name.split(":"), "-a", "x"]) == (name, ["-a", "x"])
    assert spell([name, "-a", "x"]) == (name, ["-a", "x"])


def test_the_longest_name_wins_and_arguments_stay() -> None:
    assert spell(["config", "get", "KEY"]) == ("config:get", ["KEY"])
    assert spell(["config", "-a", "get"]) == ("config", ["-a", "get"])
    assert spell(["ai", "models", "call", "x"]) == ("ai:models:call", ["x"])
    assert spell(["create", "info"]) == ("create", ["info"])
    assert spell(["auth"]) == (None, ["auth"])


def test_an_unknown_command_names_the_closest_one(offline: Penstock) -> None:
    told = offline.refused("addons:crate", code=2)
    assert "addons:crate is not a penstock command" in told
    assert "Did you mean addons:create?" in told


def test_help_lists_every_command_that_is_no_alias(offline: Penstock) -> None:
    shown = offline.ok("--help")
    assert not [name for name, entry in COMMANDS.items() if not entry.alias_of and f"  {name} " not in shown]
    assert offline.ok("help") == shown
    assert offline.ok() == shown


def test_a_topic_alone_lists_its_commands(offline: Penstock) -> None:
    assert "auth:whoami" in offline.ok("auth")
    assert "auth:whoami" in offline.ok("help", "auth")


def test_help_on_a_command_shows_its_options(offline: Penstock) -> None:
    for line in (["help", "config:get"], ["config", "get", "--help"], ["help", "config", "get"]):
        assert "--shell" in offline.ok(*line)


def test_a_missing_app_is_a_usage_error(offline: Penstock) -> None:
    assert "--app" in offline.refused("config", code=2)


def test_an_unknown_option_is_a_usage_error(offline: Penstock) -> None:
    assert "--colour" in offline.refused("apps", "--colour", code=2)


def test_a_wrong_setting_is_named_without_a_traceback(offline: Penstock) -> None:
    assert "PENSTOCK_GATWAY_PORT" in offline.within(PENSTOCK_GATWAY_PORT="1").refused("apps")


def test_installing_the_ai_plugin_says_that_it_is_built_in(offline: Penstock) -> None:
    done = offline("plugins:install", "@heroku/plugin-ai")
    assert (done.returncode, done.stdout) == (0, "")
    assert "built in" in done.stderr
    assert "was not installed" in offline("plugins", "install", "heroku-accounts").stderr
    assert "built in" in offline.ok("plugins")


def test_a_reader_that_goes_away_leaves_no_traceback(offline: Penstock) -> None:
    import subprocess

    command = f"'{offline.program}' --help | head -1"
    done = subprocess.run(command, shell=True, env=offline.env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
