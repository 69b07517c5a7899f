"""Reads the settings tree from its four sources and explains every mistake by name, file and line."""

import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
import platformdirs

from penstock.settings.tree import Networks, Settings

ENV_PREFIX = "PENSTOCK_"
CONFIG_FILE = "penstock.toml"
# Sections that are arrays of tables.
ROWS = ("provider", "model", "limit", "budget")
# Read by other parts of the program, never settings of the tree.
RESERVED_ENV = frozenset(
    {"PENSTOCK_CONFIG", "PENSTOCK_REQUIRE_ALL", "PENSTOCK_SOAK", "PENSTOCK_DEBUG", "PENSTOCK_HEROKU_CLI"}
)
# Settings whose value is never shown, logged or handed on in an environment.
SECRET_SETTINGS = frozenset({"control.token", "secrets.master_key", "secrets.old_master_key"})
_HEADER = re.compile(r"\s*\[\[?\s*([\w.-]+)\s*\]\]?")


class SettingsError(Exception):
    """A setting is unknown or its value is bad; the message is one line that names it, its source and the remedy."""


class Setting(NamedTuple):
    """One setting of the tree, for documentation and completion."""

    path: str
    env: str
    default: Any
    annotation: Any


def every_setting() -> Iterator[Setting]:
    """All scalar settings in tree order."""
    for section in msgspec.structs.fields(Settings):
        if section.name in ROWS:
            continue
        if section.name == "home":
            yield Setting("home", "PENSTOCK_HOME", default_home(), str)
            continue
        for field in msgspec.structs.fields(section.type):
            path = f"{section.name}.{field.name}"
            yield Setting(path, env_name(path), field.default, field.type)


def env_name(path: str) -> str:
    """The environment name of a setting: ``gateway.port`` is PENSTOCK_GATEWAY_PORT."""
    return ENV_PREFIX + path.replace(".", "_").upper()


def default_home() -> str:
    """The platform's data folder for Penstock."""
    return platformdirs.user_data_dir("penstock")


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Flags (by path, ``gateway.port``) over environment over file over defaults.

    ``config`` defaults to PENSTOCK_CONFIG, then ./penstock.toml, then HOME/penstock.toml. Raises SettingsError.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    from_env = dict(_environment(env))
    path = _config_path(config, env, (flags or {}).get("home") or from_env.get("home"))
    if path is not None:
        _merge_file(values, path)
    for name, value in from_env.items():
        _assign(values, name, value, f"environment {env_name(name)}")
    for name, value in (flags or {}).items():
        if value is not None:
            _assign(values, name, value, f"flag for {name}")
    values["home"] = str(Path(values.get("home") or default_home()).expanduser().absolute())
    return msgspec.convert(values, Settings)


def config_file(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Path | None:
    """The file that ``load_settings`` reads with these arguments, None when there is none. Raises SettingsError."""
    from_env = dict(_environment(os.environ))
    return _config_path(config, os.environ, (flags or {}).get("home") or from_env.get("home"))


def _config_path(config: Path | None, env: Mapping[str, str], home: str | None) -> Path | None:
    if config is not None:
        return config
    if named := env.get("PENSTOCK_CONFIG"):
        return Path(named)
    for folder in (Path.cwd(), Path(home or default_home()).expanduser()):
        if (folder / CONFIG_FILE).is_file():
            return folder / CONFIG_FILE
    return None


def _environment(env: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    known = {setting.env: setting.path for setting in every_setting()}
    for name, value in env.items():
        if not name.startswith(ENV_PREFIX) or name in RESERVED_ENV:
            continue
        if name not in known:
            raise SettingsError(f"environment {name}: unknown setting{_closest(name, known)}")
        if value != "":
            yield known[name], value


def _merge_file(values: dict[str, Any], path: Path) -> None:
    text, data = _read(path)
    sections = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    for key, value in data.items():
        where = f"{path}:{_line_of(text, None, key)}"
        if key not in sections:
            raise SettingsError(f"{where}: unknown section or key '{key}'{_closest(key, sections)}")
        if key in ROWS:
            values[key] = _rows(sections[key], value, path, text=text, section=key)
        elif key == "home":
            values[key] = _check(sections[key], value, f"{where}: {key}", strict=True)
        elif not isinstance(value, dict):
            raise SettingsError(f"{where}: '{key}' is a section, write [{key}]")
        else:
            for name, inner in value.items():
                _assign(values, f"{key}.{name}", inner, f"{path}:{_line_of(text, key, name)}", strict=True)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such configuration file") from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), (column \d+)\)$", str(error))
        # What is missed at the end of the document is missed on its last line.
        line, said = (at[1], f"{str(error)[: at.start()]} ({at[2]})") if at else (len(text.splitlines()), str(error))
        raise SettingsError(f"{path}:{line}: {said[:1].lower()}{said[1:]}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error


def _line_of(text: str, section: str | None, key: str) -> int:
    """The line where a key stands, for a message; the section's own line when the key is written unusually."""
    current: str | None = None
    fallback = 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            current = header[1]
            if fallback == 0 and current == (section or key):
                fallback = number
        elif current == section and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return number
    return fallback or 1


def located(said: str, at: Sequence[str | int], file: Path | None) -> str:
    """A message about that place of the tree, such as ``("provider", 0, "base_url")``, with the file and its line."""
    if not at or file is None:
        return said
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return said
    steps = [(str(step), "") if isinstance(step, int) else ("", step) for step in at[1:]]
    return f"{file}:{_line_in_rows(text, str(at[0]), steps)}: {said}"


def _rows(annotation: Any, value: Any, path: Path, *, text: str, section: str) -> Any:
    """The rows of an array of tables, checked; a mistake is told with its own line."""
    try:
        msgspec.convert(value, annotation, strict=True)
    except msgspec.ValidationError as error:
        said = str(error)
        steps = re.findall(r"\[(\d+)\]|\.(\w+)", "".join(re.findall(r" - at `\$(.*)`$", said)))
        unknown = re.findall(r"unknown field `([^`]+)`", said)
        where = f"{path}:{_line_in_rows(text, section, [*steps, *(('', key) for key in unknown)])}: {section}"
        found = _annotation_at(annotation, steps)
        hint = _closest(unknown[0], _names(_bare(found))) if unknown else _allowed(found)
        raise SettingsError(f"{where}: {said[:1].lower()}{said[1:]}{hint}") from error
    return value


def _annotation_at(annotation: Any, steps: Iterable[tuple[str, str]]) -> Any:
    """What the tree wants at the end of a path that msgspec names."""
    for index, key in steps:
        annotation = _bare(annotation)
        annotation = get_args(annotation)[0] if index else get_type_hints(annotation, include_extras=True)[key]
    return annotation


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation


def _names(row: Any) -> list[str]:
    return [field.name for field in msgspec.structs.fields(row)]


def _allowed(annotation: Any) -> str:
    """The values of a choice, as the end of a message."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    number = ["a whole number"] if words and any(_bare(kind) is int for kind in kinds) else []
    return f"; use {' or '.join([*number, *words])}" if words else ""


def _line_in_rows(text: str, section: str, steps: Iterable[tuple[str, str]]) -> int:
    """The line of a key by its path from the section, index or name at each step."""
    lines = text.splitlines()
    headers = [(number, match[1]) for number, line in enumerate(lines) if (match := _HEADER.match(line))]
    table, begin, end = section, _line_of(text, None, section) - 1, len(lines)
    for index, key in steps:
        if key:
            pattern = re.compile(rf"(?:[^#]*[\s{{,])?[\"']?{re.escape(key)}[\"']?\s*[=.]")
            table = f"{table}.{key}"
            begin = next((number for number in range(begin, end) if pattern.match(lines[number])), begin)
            continue
        rows = [number for number, name in headers if begin <= number < end and name == table]
        if int(index) < len(rows):
            begin = rows[int(index)]
            later = (n for n, name in headers if n > begin and not name.startswith(f"{table}."))
            end = min(end, next(later, end))
    return begin + 1


def _assign(values: dict[str, Any], path: str, value: Any, where: str, *, strict: bool = False) -> None:
    known = {setting.path: setting.annotation for setting in every_setting()}
    if path not in known:
        raise SettingsError(f"{where}: unknown setting '{path}'{_closest(path, known)}")
    checked = _check(known[path], value, f"{where}: {path}", strict=strict)
    section, _, name = path.rpartition(".")
    (values.setdefault(section, {}) if section else values)[name] = checked


def _check(annotation: Any, value: Any, where: str, *, strict: bool) -> Any:
    # Text from the environment or a flag is converted ("8400", "true", "a,b"); a value of the file must have its type.
    if not strict and isinstance(value, str) and get_origin(annotation) is tuple:
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        checked = msgspec.to_builtins(msgspec.convert(value, annotation, strict=strict or not isinstance(value, str)))
        if annotation == Networks:
            _check_networks(checked)
        return checked
    except msgspec.ValidationError as error:
        secret = any(word in where for word in ("token", "url", "master_key"))
        shown = "" if secret or isinstance(value, (dict, list)) else f", got {value!r}"
        raise SettingsError(
            f"{where}: {str(error)[:1].lower()}{str(error)[1:]}{shown}{_allowed(_bare(annotation))}"
        ) from error


def _check_networks(entries: Iterable[str]) -> None:
    for entry in entries:
        try:
            ipaddress.ip_network(entry, strict=False)
        except ValueError:
            raise msgspec.ValidationError(f"Expected addresses or networks such as 10.0.0.0/8, not {entry!r}") from None


def _closest(name: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - only on the way to an error

    match = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {match[0]}?" if match else ""
