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


def refuse_existing(path: Path) -> None:
    """Told before anything is asked, which may cost money. Raises CliError."""
    if path.exists():
        # It may be the configuration itself, whose providers and settings no answer brings back.
        raise CliError(f"{path} exists already, and check overwrites no file. Name a new one.", exit_code=2)
    if not path.parent.is_dir():
        raise CliError(f"{path.parent} is no folder. Name a file in one that exists.", exit_code=2)


def write_rows(path: Path, settings: Settings, catalogue: Catalogue, probes: Mapping[str, "Probe"]) -> list[str]:
    """One row for every model whose targets all answered; what is left out of the file, and why. Raises CliError."""
    own = {row.id: row for row in settings.model}
    rows, notes = [], []
    for model in catalogue.models:
        found = {target.name: probes.get(target.name) for target in model.targets}
        answered = [one for one in found.values() if one is not None and one.reachable]
        if answered and len(answered) == len(found):
            rows.append(_row(model, own.get(model.id)) | _found(model, answered))
            notes += [f"{model.id}: {name} was not found out and is as before" for name in _open(answered)]
        elif answered or any(found.values()):
            silent = [name for name, one in found.items() if one is None or not one.reachable]
            notes.append(f"{model.id} is left out: no answer of {', '.join(silent)}")
        elif model.id in own:
            notes.append(f"{model.id} is left out: nothing of it was asked")
    if not rows:
        raise CliError(f"{path} is not written: no model's targets have all answered.")
    text = json.dumps({"model": rows}, indent=2) if path.suffix == ".json" else "\n".join(map(_toml, rows))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{text.rstrip()}\n")
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from error
    return notes


def _found(model: Model, probes: list["Probe"]) -> dict[str, Any]:
    capabilities = _capabilities(model, probes)
    seen = {one.capabilities.get("vision") for one in probes}
    if seen != {"yes"} and "no" not in seen:
        return {"capabilities": capabilities}
    return {"capabilities": capabilities, "input": ["text", "image"] if seen == {"yes"} else ["text"]}


def _open(probes: list["Probe"]) -> list[str]:
    """The questions that got neither a yes of all nor a no."""
    answers = {name: {one.capabilities[name] for one in probes} for name in probes[0].capabilities}
    return [name for name, given in answers.items() if given != {"yes"} and "no" not in given]


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
