"""A mistake in the settings names itself, its source and, in a file, its line."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from penstock.settings.load import Setting, SettingsError, every_setting, load_settings


def mistake(tmp_path: Path, text: str = "", **env: str) -> str:
    """The message for a file of that text under that environment."""
    path = tmp_path / "penstock.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={"PENSTOCK_HOME": str(tmp_path), **env}, config=path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{tmp_path}/", "")


def outcome(environ: dict[str, str], config: Path | None = None) -> str:
    """The message of the refusal, or nothing when the settings were read."""
    try:
        load_settings(environ=environ, config=config)
    except SettingsError as error:
        return str(error)
    return ""


def test_an_unknown_section_is_named_with_its_line(tmp_path: Path) -> None:
    said = mistake(tmp_path, "# a comment\n\n[gatewy]\nport = 1\n")
    assert said == "penstock.toml:3: unknown section or key 'gatewy'; did you mean gateway?"


def test_an_unknown_key_is_named_with_its_line(tmp_path: Path) -> None:
    said = mistake(tmp_path, '[gateway]\nhost = "127.0.0.1"\nprt = 8400\n')
    assert said == "penstock.toml:3: unknown setting 'gateway.prt'; did you mean gateway.port?"


def test_an_unknown_environment_name_is_named(tmp_path: Path) -> None:
    said = mistake(tmp_path, PENSTOCK_GATEWAY_PRT="1")
    assert said == "environment PENSTOCK_GATEWAY_PRT: unknown setting; did you mean PENSTOCK_GATEWAY_PORT?"


def test_a_value_of_the_wrong_type_is_named_with_its_line(tmp_path: Path) -> None:
    said = mistake(tmp_path, "[gateway]\nworkers = true\n")
    assert said.startswith("penstock.toml:2: gateway.workers: expected `int`, got `bool`")


def test_a_number_written_as_text_in_the_file_is_refused(tmp_path: Path) -> None:
    said = mistake(tmp_path, '[gateway]\nport = "8400"\n')
    assert said.startswith("penstock.toml:2: gateway.port: expected `int`")


def test_a_value_out_of_range_is_named_with_its_line_and_value(tmp_path: Path) -> None:
    said = mistake(tmp_path, "[gateway]\nport = 70000\n")
    assert said.startswith("penstock.toml:2: gateway.port: expected `int` <= 65535")
    assert "70000" in said


def test_a_bad_environment_value_names_the_variable(tmp_path: Path) -> None:
    said = mistake(tmp_path, PENSTOCK_GATEWAY_PORT="eighty")
    assert said.startswith("environment PENSTOCK_GATEWAY_PORT: gateway.port: ")
    assert "eighty" in said


def test_a_bad_choice_names_itself(tmp_path: Path) -> None:
    said = mistake(tmp_path, PENSTOCK_SERVE_MODE="prod")
    assert "PENSTOCK_SERVE_MODE" in said
    assert "'prod'" in said


def test_a_flag_out_of_range_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"flag for gateway.port: gateway.port: expected `int` <= 65535"):
        load_settings({"gateway.port": 70000}, {"PENSTOCK_HOME": str(tmp_path)})


def test_broken_toml_names_the_file_and_the_line(tmp_path: Path) -> None:
    said = mistake(tmp_path, "[gateway]\nport = \n")
    assert said == "penstock.toml:2: invalid value (column 8)"
    assert mistake(tmp_path, "[gateway]\n\nport = [\n").startswith("penstock.toml:3: ")


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"penstock\.toml: cannot be read"):
        load_settings(environ={"PENSTOCK_HOME": str(tmp_path)}, config=path)


def test_a_section_written_as_a_value_says_how_to_write_it(tmp_path: Path) -> None:
    assert mistake(tmp_path, "gateway = 8400\n") == "penstock.toml:1: 'gateway' is a section, write [gateway]"


def test_an_unknown_field_of_a_row_is_named_with_its_line(tmp_path: Path) -> None:
    said = mistake(tmp_path, '\n[[provider]]\nname = "lab"\nbase_url = "http://127.0.0.1:1"\nkey = "x"\n')
    assert said.startswith("penstock.toml:5: provider: ")
    assert "`key`" in said


ROW = '[[provider]]\nname = "a"\nbase_url = "http://a"\n'
MODEL = '[[model]]\nid = "m"\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{ROW}bogus = 1\n{ROW}", 4),
        (f"{ROW}{ROW}bogus = 1\n", 7),
        (f"{ROW}# bogus = 1\n{ROW} 'bogus' = 1\n{ROW}", 8),
        (f"[gateway]\nport = 0\n{ROW}{MODEL}targets = []\n{ROW}bogus = 1\n[log]\n", 12),
        (f'{ROW}[[provider]]\nname = 1\nbase_url = "x"\n{ROW}', 5),
        (f'{ROW}[[provider]]\nkind = "openai"\n{ROW}', 4),
        ('provider = [\n{ name = "a", base_url = "x" },\n{ name = "b", base_url = "x", bogus = 1 },\n]\n', 3),
        (f'{MODEL}targets = [\n{{ provider = "a", model = "x" }},\n{{ provider = "a", bogus = "x" }},\n]\n', 5),
        (f'{MODEL}[[model.targets]]\nprovider = "a"\nmodel = "x"\n[[model.targets]]\nbogus = "a"\n{MODEL}', 7),
        (f"{MODEL}targets = []\n{MODEL}bogus = 1\ntargets = []\n{MODEL}", 6),
    ],
)
def test_a_mistake_in_one_of_many_rows_is_told_with_its_own_line(tmp_path: Path, text: str, line: int) -> None:
    assert mistake(tmp_path, text).startswith(f"penstock.toml:{line}: ")


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (f'{ROW}basurl = "x"\n', "; did you mean base_url?"),
        (f'{MODEL}targets = [{{ provder = "a", model = "x" }}]\n', "; did you mean provider?"),
        (f"{MODEL}targets = []\nprice = {{ input = 1, outptu = 2 }}\n", "; did you mean output?"),
        (f'{ROW}auth = "basic"\n', "; use key or bearer"),
        (f'{MODEL}targets = []\ninput = ["text", "sound"]\n', "; use text or image"),
        ('[[limit]]\nscope = "key"\nmax_tokens = "many"\n', "; use a whole number or unlimited"),
        ('[[limit]]\nscope = "key"\nmax_tokens = 99999999999999999999999\n', "; use a whole number or unlimited"),
        ('[serve]\nmode = "prod"\n', "; use development or production"),
        (f"{ROW}headers = {{ a = 1 }}\n", "`str`, got `int` - at `$[0].headers[...]`"),
    ],
)
def test_a_wrong_name_or_choice_says_what_is_known(tmp_path: Path, text: str, end: str) -> None:
    assert mistake(tmp_path, text).endswith(end)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_duration_must_be_a_finite_number(tmp_path: Path, value: str) -> None:
    assert "serve.drain_s" in mistake(tmp_path, PENSTOCK_SERVE_DRAIN_S=value)
    assert "serve.drain_s" in mistake(tmp_path, f"[serve]\ndrain_s = {value}\n")


@pytest.mark.parametrize("value", ["10.0.0.0/8,proxy.example.com", "10.0.0.0/33", "::1,300.0.0.1"])
def test_what_is_no_address_or_network_is_named(tmp_path: Path, value: str) -> None:
    said = mistake(tmp_path, PENSTOCK_CONTROL_TRUSTED_PROXIES=value)
    assert said.startswith("environment PENSTOCK_CONTROL_TRUSTED_PROXIES: control.trusted_proxies: expected addresses")
    listed = ", ".join(f'"{one}"' for one in value.split(","))
    assert "penstock.toml:2: control.trusted_proxies" in mistake(tmp_path, f"[control]\ntrusted_proxies = [{listed}]\n")


def test_a_bad_token_is_not_repeated(tmp_path: Path) -> None:
    said = mistake(tmp_path, "[control]\ntoken = 123456\n")
    assert "control.token" in said
    assert "123456" not in said


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@given(setting=st.sampled_from(list(every_setting())), value=texts())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_no_text_in_the_environment_does_more_than_fit_or_fail_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: Setting, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = outcome({"PENSTOCK_HOME": str(tmp_path), setting.env: value})
    assert said == "" or setting.env in said


@given(data=st.binary(max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_no_file_does_more_than_fit_or_fail_clearly(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "penstock.toml"
    path.write_bytes(data)
    said = outcome({"PENSTOCK_HOME": str(tmp_path)}, path)
    assert said == "" or "penstock.toml" in said


@given(port=st.integers(0, 65535), drain=st.floats(0.001, 1e6, allow_nan=False), enabled=st.booleans(), email=texts())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_a_value_reads_the_same_from_the_file_and_from_a_flag(
    tmp_path: Path, port: int, drain: float, enabled: bool, email: str
) -> None:
    flags = {"gateway.port": port, "serve.drain_s": drain, "engine.enabled": enabled, "control.operator_email": email}
    path = tmp_path / "penstock.toml"
    quoted = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in email)
    path.write_text(
        f"[gateway]\nport = {port}\n[serve]\ndrain_s = {drain!r}\n[engine]\nenabled = {str(enabled).lower()}\n"
        f'[control]\noperator_email = "{quoted}"\n'
    )
    env = {"PENSTOCK_HOME": str(tmp_path)}
    assert load_settings(environ=env, config=path) == load_settings(flags, env)
