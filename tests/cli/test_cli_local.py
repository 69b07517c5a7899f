"""The commands that need no server: weights, settings, completion, and serve's options."""

import subprocess
from pathlib import Path

import pytest
from click import UsageError

from penstock.cli.commands.serve import parse_pairs
from penstock.cli.provisioning import parse_config
from penstock.settings.load import every_setting
from tests.cli.program import Penstock
from tests.engine.test_weights import tiny_gguf
from tests.needs import require_program


def test_settings_shows_what_is_in_effect_with_environment_names(offline: Penstock) -> None:
    shown = offline.within(PENSTOCK_GATEWAY_PORT="9123").ok("settings")
    assert ["gateway.port", "PENSTOCK_GATEWAY_PORT", "9123"] in [line.split() for line in shown.splitlines()]
    assert set(offline.json("settings", "--json")) == {setting.path for setting in every_setting()}


def test_settings_masks_secrets(offline: Penstock) -> None:
    url = "postgresql://me:hunter2@db.test/penstock"
    keys = {"PENSTOCK_SECRETS_MASTER_KEY": "5e" * 32, "PENSTOCK_SECRETS_OLD_MASTER_KEY": "01d" * 21 + "0"}
    within = offline.within(PENSTOCK_CONTROL_TOKEN="pst-secret", PENSTOCK_DATABASE_URL=url, **keys)
    shown = within.ok("settings", "--json")
    assert "pst-secret" not in shown
    assert not [key for key in keys.values() if key in shown]
    assert "hunter2" not in shown
    assert "db.test/penstock" in shown
    url = "postgresql://db.test/penstock?user=me&password=hunter2&sslmode=require"
    shown = offline.within(PENSTOCK_DATABASE_URL=url).ok("settings")
    assert "hunter2" not in shown
    assert "sslmode=require" in shown


def test_no_weights_yet_says_how_to_get_some(offline: Penstock) -> None:
    assert "penstock models:pull" in offline.ok("models:local")
    assert offline.json("models:local", "--json") == []


def test_a_file_that_is_no_gguf_is_not_added(offline: Penstock, tmp_path: Path) -> None:
    file = tmp_path / "not.gguf"
    file.write_bytes(b"hello")
    assert "not.gguf" in offline.refused("models:add", str(file), "--as", "mine")
    assert "no such file" in offline.refused("models:add", str(tmp_path / "none.gguf"), "--as", "mine")


def test_a_model_that_is_not_built_in_is_refused_with_the_remedy(offline: Penstock) -> None:
    assert "hf:OWNER/REPO/FILE.gguf" in offline.refused("models:pull", "no-such-model")


def test_serve_refuses_a_secret_in_argv_and_names_the_variable(offline: Penstock) -> None:
    told = offline.refused("serve", "--set", "control.token=pst-secret", code=2)
    assert "PENSTOCK_CONTROL_TOKEN" in told
    assert "pst-secret" not in told


def test_serve_takes_no_master_key_from_argv(offline: Penstock) -> None:
    told = offline.refused("serve", "--set", f"secrets.master_key={'5e' * 32}", code=2)
    assert "PENSTOCK_SECRETS_MASTER_KEY" in told
    assert "5e5e" not in told


def test_serve_names_a_bad_setting(offline: Penstock) -> None:
    assert "gateway.port" in offline("serve", "--port", "eighty").stderr
    assert "engine.slotz" in offline("serve", "--set", "engine.slotz=1").stderr


def test_set_pairs_become_settings_paths() -> None:
    assert parse_pairs(("engine.slots=8", "log.level=debug")) == {"engine.slots": "8", "log.level": "debug"}
    for bad in (
        "engine.slots",
        "=8",
        "database.url=postgresql://me:secret@db/x",
        "database.url=postgresql://db/x?password=x",
    ):
        with pytest.raises(UsageError):
            parse_pairs((bad,))


def test_words_after_a_double_dash_become_options() -> None:
    assert parse_config(("--region=us", "--size", "two", "--fast")) == {"region": "us", "size": "two", "fast": "true"}
    with pytest.raises(UsageError):
        parse_config(("region=us",))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one_that_its_shell_accepts(offline: Penstock, shell: str) -> None:
    script = offline.ok("completion", shell)
    assert "penstock" in script
    if shell == "bash":
        subprocess.run([require_program("bash"), "-n"], input=script, text=True, check=True)


def complete(penstock: Penstock, line: str) -> list[str]:
    """What bash offers at the end of the line, through the script itself."""
    script = penstock.ok("completion", "bash")
    ask = (
        f'{script}\nCOMP_LINE="{line}" COMP_POINT={len(line)}\n_penstock_completion\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    path = f"{penstock.program.parent}:{penstock.env['PATH']}"
    done = subprocess.run(
        [require_program("bash"), "-c", ask],
        env=penstock.env | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_bash_completes_names_in_both_spellings_and_options(offline: Penstock) -> None:
    assert "addons:create" in complete(offline, "penstock add")
    # bash splits at the colon, so only what follows it is offered.
    assert complete(offline, "penstock addons:cr") == ["create"]
    assert "create" in complete(offline, "penstock addons ")
    assert complete(offline, "penstock config g") == ["get"]
    assert "--shell" in complete(offline, "penstock config:get --")
    assert "--shell" in complete(offline, "penstock config get --s")


def test_fish_is_given_a_summary_with_each_name(offline: Penstock) -> None:
    asked = offline.within(_PENSTOCK_COMPLETE="fish_complete", COMP_WORDS="penstock who", COMP_CWORD="who")
    assert "whoami" in asked.ok()


def test_settings_spells_booleans_as_the_file_does(offline: Penstock) -> None:
    shown = {line.split()[-1] for line in offline.ok("settings").splitlines() if line}
    assert shown & {"true", "false"}
    assert not shown & {"True", "False"}


def test_help_names_the_version_option(offline: Penstock) -> None:
    assert "--version" in offline.ok("--help")
    assert offline.ok("--version").startswith("penstock/")


def test_a_model_is_removed_by_its_id_and_an_unknown_one_refused(offline: Penstock, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(tiny_gguf())
    offline.ok("models:add", str(file), "--as", "mine")
    [entry] = offline.json("models:local", "--json")
    assert offline.ok("models:remove", "mine") == "Removed mine"
    assert offline.json("models:local", "--json") == []
    assert not Path(entry["path"]).exists()
    assert file.exists()
    assert "mine" in offline.refused("models:remove", "mine")
