"""Where a setting comes from: flag over environment over file over default."""

from pathlib import Path

import pytest

from penstock.settings.load import SettingsError, default_home, every_setting, load_settings


@pytest.fixture(autouse=True)
def empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def home_env(tmp_path: Path, **env: str) -> dict[str, str]:
    return {"PENSTOCK_HOME": str(tmp_path / "home"), **env}


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "penstock.toml"
    path.write_text(text)
    return path


def test_defaults_need_no_source_at_all() -> None:
    settings = load_settings(environ={})
    assert settings.home == default_home()
    assert (settings.gateway.host, settings.gateway.port) == ("127.0.0.1", 8400)
    assert (settings.control.host, settings.control.port) == ("127.0.0.1", 8401)
    assert settings.serve.mode == "development"


def test_the_file_beats_the_default(tmp_path: Path) -> None:
    path = config(tmp_path, "[gateway]\nport = 9001\n")
    assert load_settings(environ=home_env(tmp_path), config=path).gateway.port == 9001


def test_the_environment_beats_the_file(tmp_path: Path) -> None:
    path = config(tmp_path, "[gateway]\nport = 9001\n")
    env = home_env(tmp_path, PENSTOCK_GATEWAY_PORT="9002")
    assert load_settings(environ=env, config=path).gateway.port == 9002


def test_a_flag_beats_the_environment(tmp_path: Path) -> None:
    env = home_env(tmp_path, PENSTOCK_GATEWAY_PORT="9002")
    assert load_settings({"gateway.port": 9003}, env).gateway.port == 9003


def test_a_flag_that_was_not_given_leaves_the_environment_alone(tmp_path: Path) -> None:
    env = home_env(tmp_path, PENSTOCK_GATEWAY_PORT="9002")
    assert load_settings({"gateway.port": None}, env).gateway.port == 9002


def test_an_empty_environment_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert load_settings(environ=home_env(tmp_path, PENSTOCK_GATEWAY_PORT="")).gateway.port == 8400


def test_one_source_does_not_wipe_out_the_other_values_of_a_section(tmp_path: Path) -> None:
    path = config(tmp_path, '[gateway]\nport = 9001\nhost = "127.0.0.2"\n')
    gateway = load_settings(environ=home_env(tmp_path, PENSTOCK_GATEWAY_PORT="9002"), config=path).gateway
    assert (gateway.host, gateway.port) == ("127.0.0.2", 9002)


def test_the_file_named_by_the_environment_is_read(tmp_path: Path) -> None:
    path = config(tmp_path, "[gateway]\nport = 9001\n")
    assert load_settings(environ=home_env(tmp_path, PENSTOCK_CONFIG=str(path))).gateway.port == 9001


def test_the_working_folder_comes_before_the_home(tmp_path: Path, empty_working_folder: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "penstock.toml").write_text("[gateway]\nport = 9001\n")
    assert load_settings(environ=home_env(tmp_path)).gateway.port == 9001
    (empty_working_folder / "penstock.toml").write_text("[gateway]\nport = 9002\n")
    assert load_settings(environ=home_env(tmp_path)).gateway.port == 9002


def test_a_named_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml: no such configuration file"):
        load_settings(environ=home_env(tmp_path), config=tmp_path / "nowhere.toml")


def test_a_home_of_the_file_is_taken(tmp_path: Path) -> None:
    path = config(tmp_path, f'home = "{tmp_path}/elsewhere"\n')
    assert load_settings(environ={}, config=path).home == str(tmp_path / "elsewhere")


def test_a_relative_home_becomes_absolute(empty_working_folder: Path) -> None:
    assert load_settings(environ={"PENSTOCK_HOME": "data"}).home == str(empty_working_folder / "data")


def test_variables_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    load_settings(environ=home_env(tmp_path, PATH="/bin", PENSTOCKING="1", PENSTOCK_REQUIRE_ALL="1", PENSTOCK_SOAK="1"))


def test_a_list_is_read_from_the_file_and_with_commas_from_the_environment(tmp_path: Path) -> None:
    wanted = ("127.0.0.1", "10.0.0.0/8")
    env = home_env(tmp_path, PENSTOCK_CONTROL_TRUSTED_PROXIES="127.0.0.1, 10.0.0.0/8")
    assert load_settings({}, env).control.trusted_proxies == wanted
    text = '[control]\ntrusted_proxies = ["127.0.0.1", "10.0.0.0/8"]\n'
    assert load_settings({}, home_env(tmp_path), config(tmp_path, text)).control.trusted_proxies == wanted


def test_rows_of_providers_and_models_are_read(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        '[[provider]]\nname = "lab"\nbase_url = "http://127.0.0.1:9000/v1"\napi_key_env = "LAB_KEY"\n'
        '[[model]]\nid = "house"\ntargets = [{ provider = "lab", model = "own" }]\naliases = ["h"]\n',
    )
    settings = load_settings(environ=home_env(tmp_path), config=path)
    assert settings.provider[0].api_key_env == "LAB_KEY"
    assert settings.model[0].targets[0].model == "own"


def test_every_setting_has_one_environment_name_of_its_own() -> None:
    settings = list(every_setting())
    assert len({setting.env for setting in settings}) == len(settings)
    assert {"PENSTOCK_GATEWAY_PORT", "PENSTOCK_CONTROL_PORT", "PENSTOCK_CONTROL_URL", "PENSTOCK_HOME"} <= {
        setting.env for setting in settings
    }


def test_the_tree_cannot_be_changed_after_it_was_read(tmp_path: Path) -> None:
    settings = load_settings(environ=home_env(tmp_path))
    with pytest.raises(AttributeError):
        settings.gateway.port = 1  # type: ignore[misc]


def test_the_master_keys_are_not_in_what_a_log_would_print(tmp_path: Path) -> None:
    key = "5e" * 32
    env = home_env(tmp_path, PENSTOCK_SECRETS_MASTER_KEY=key, PENSTOCK_SECRETS_OLD_MASTER_KEY=key)
    settings = load_settings(environ=env)
    assert settings.secrets.master_key == settings.secrets.old_master_key == key
    assert key not in repr(settings)
