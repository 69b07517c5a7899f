"""The command that shows the audit log."""

import json
import shutil
from typing import Any
from urllib.parse import urlencode

import click

from penstock.cli import output
from penstock.cli.client import Platform, PlatformError, segment
from penstock.cli.options import app_option, filled, json_option, with_platform

# The server's longest page.
_PAGES = {"Range": "seq ..; max=1000"}
# The change gets what a terminal has left beside the other columns, but not less than this.
_NARROWEST, _WIDEST = 30, 100
_TITLES = ("Time", "Who", "Action", "Object", "From", "Change")


@click.command("audit")
@app_option(required=False)
@click.option("--since", type=filled, metavar="TIME", help="24h, 7d, or an ISO 8601 time such as 2026-01-31T12:00:00Z.")
@click.option(
    "--action", type=filled, metavar="ACTION", help="Only these, such as addon.create; or by their beginning: token."
)
@json_option
@with_platform
def show(platform: Platform, app: str | None, since: str | None, action: str | None, json_: bool) -> None:
    """Show who did what, oldest first: to an app, or to anything."""
    chosen = {name: item for name, item in {"since": since, "action": action}.items() if item}
    found = _of_app(platform, app, chosen) if app else _events(platform, "/audit-events", chosen)
    if json_:
        output.as_json(found)
        return
    if not found:
        output.value("No events.")
        if action:
            output.note("An action begins with what it is done to: app.create, operator.sign_in, key.rotate.")
        return
    rows = [_row(event) for event in found]
    beside = sum(max(len(title), *(len(row[at]) for row in rows)) + 2 for at, title in enumerate(_TITLES[:-1]))
    room = min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size((beside + _WIDEST, 0)).columns - beside))
    output.table(_TITLES, [(*row[:-1], _cut(row[-1], room)) for row in rows])


def _of_app(platform: Platform, app: str, chosen: dict[str, str]) -> list[Any]:
    try:
        return _events(platform, f"/apps/{segment(app)}/audit-events", chosen)
    except PlatformError as gone:
        # The log outlives the app, for those who may read all of it.
        if gone.status != 404:
            raise
        try:
            found = _events(platform, "/audit-events", {**chosen, "app": app})
        except PlatformError:
            raise gone from None
        if not found:
            raise
        return found


def _events(platform: Platform, path: str, chosen: dict[str, str]) -> list[Any]:
    return platform.get_all(f"{path}?{urlencode(chosen)}" if chosen else path, headers=_PAGES)


def _row(event: dict[str, Any]) -> tuple[str, ...]:
    name = event["object"]["name"] or event["object"]["id"] or ""
    if event["app"] and event["app"]["name"] != name:
        name = f"{event['app']['name']}/{name}"
    # To the second; --json has the rest.
    cells = (f"{event['at'][:19]}Z", event["actor"]["email"], event["action"], name, event["source"], _change(event))
    return tuple(output.printable(str(cell)).replace("\n", " ") for cell in cells)


def _change(event: dict[str, Any]) -> str:
    """``role: member -> viewer`` for what differs, the fields alone where there is only a before or an after."""
    before, after = event["before"], event["after"]
    if before is None or after is None:
        shown = ", ".join(f"{name}: {_short(item)}" for name, item in (before or after or {}).items())
    else:
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)] or [*after]
        shown = ", ".join(f"{name}: {_short(before.get(name))} -> {_short(after.get(name))}" for name in names)
    return shown


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 3]}..."


def _short(item: object) -> str:
    if item is None:
        return "-"
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
