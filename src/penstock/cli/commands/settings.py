"""The settings command: what is in effect here, after environment and file."""

import re
from pathlib import Path
from typing import Any

import click

from penstock.cli import output
from penstock.cli.options import json_option
from penstock.settings.load import SECRET_SETTINGS, every_setting, load_settings


@click.command("settings")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The file instead of penstock.toml.")
@json_option
def show(config: Path | None, json_: bool) -> None:
    """Print every setting in effect, with its environment name; secrets are masked."""
    loaded = load_settings(config=config)
    rows = []
    for setting in every_setting():
        found: Any = loaded
        for part in setting.path.split("."):
            found = getattr(found, part)
        rows.append((setting.path, setting.env, _shown(setting.path, found)))
    if json_:
        output.as_json({path: shown for path, _, shown in rows})
        return
    output.table(("Setting", "Environment", "Value"), [(*row[:2], _spelled(row[2])) for row in rows])
    rows_of = {"provider": [row.name for row in loaded.provider], "model": [row.id for row in loaded.model]}
    rows_of["limit"] = [f"{row.scope} {row.model or ''}".strip() for row in loaded.limit]
    rows_of["budget"] = [f"{row.scope} {row.model or ''} {row.amount} a {row.period}" for row in loaded.budget]
    for kind, names in rows_of.items():
        if names:
            output.value(f"\n[[{kind}]]: {', '.join(names)}")


def _spelled(shown: Any) -> Any:
    if shown is None:
        return ""
    if isinstance(shown, tuple):
        return ", ".join(shown)
    # As the file spells them, so that a value can be copied into it.
    return str(shown).lower() if isinstance(shown, bool) else shown


def _shown(path: str, found: Any) -> Any:
    if found is None:
        return None
    if path in SECRET_SETTINGS:
        return "********"
    if path == "database.url":
        return _masked(str(found))
    return found


def _masked(url: str) -> str:
    """A database URL whose user and passwords, also those of its options, are not for the screen."""
    scheme, colon, rest = url.partition("://")
    if "@" in rest:
        rest = f"********@{rest.rpartition('@')[2]}"
    return re.sub(r"(password=)[^&]*", r"\1********", f"{scheme}{colon}{rest}", flags=re.IGNORECASE)
