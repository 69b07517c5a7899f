"""Writes [[model]] rows with the capabilities that were found, as TOML or JSON that a penstock.toml can take."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.cli.output import CliError
from penstock.domain.catalogue import Catalogue, Model
from penstock.settings.tree import ModelRow, Settings

if TYPE_CHECKING:
    from penstock.app.serving.probe import Probe


def write_rows(path: Path, settings: Settings, catalogue: Catalogue, probes: Mapping[str, "Probe"]) -> None:
    """One row for every model whose targets all answered. Raises CliError."""
    own = {row.id: row for row in settings.model}
    rows = []
    for model in catalogue.served:
        found = [probes.get(target.name) for target in model.targets]
        answered = [one for one in found if one is not None and one.reachable]
        if len(answered) == len(found):
            rows.append(_row(model, own.get(model.id)) | {"capabilities": _capabilities(model, answered)})
    text = json.dumps({"model": rows}, indent=2) if path.suffix == ".json" else "\n".join(map(_toml, rows))
    try:
        path.write_text(f"{text.rstrip()}\n", encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from error


def _capabilities(model: Model, probes: list["Probe"]) -> list[str]:
    """What every target can do; a question that stayed open leaves what the catalogue says."""
    known = list(model.capabilities or ("chat",))
    for name in {name: None for one in probes for name in one.capabilities}:
        answers = {one.capabilities[name] for one in probes}
        if answers == {"yes"} and name not in known:
            known.append(name)
        if "no" in answers and name in known:
            known.remove(name)
    return known


def _row(model: Model, own: ModelRow | None) -> dict[str, Any]:
    if own is not None:
        defaults = {field.name: field.default for field in msgspec.structs.fields(ModelRow)}
        whole: dict[str, Any] = msgspec.to_builtins(own)
        kept = {name: value for name, value in whole.items() if getattr(own, name) != defaults.get(name)}
        kept["targets"] = [{name: value for name, value in row.items() if value is not None} for row in kept["targets"]]
        if "price" in kept:
            kept["price"] = {name: value for name, value in kept["price"].items() if value is not None}
        return kept
    targets = [{"provider": target.provider, "model": target.model} for target in model.targets]
    row = {"id": model.id, "owner": model.owner, "targets": targets, "aliases": list(model.aliases)}
    sizes = {"context_window": model.context_window, "max_output": model.max_output}
    return row | {name: size for name, size in sizes.items() if size} | {"input": list(model.input)}


def _toml(row: Mapping[str, Any]) -> str:
    lines = [f"{name} = {_value(value)}" for name, value in row.items()]
    return "\n".join(["[[model]]", *lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # A JSON text, number or truth is one of TOML's; DEL alone must be escaped there.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
