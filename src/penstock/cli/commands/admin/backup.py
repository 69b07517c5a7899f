"""The commands on the whole database: back up, restore, move to another one."""

from pathlib import Path

import click

from penstock.cli import output
from penstock.cli.commands.admin.database import warned
from penstock.cli.options import confirm_option, confirmed
from penstock.cli.output import CliError
from penstock.settings.load import load_settings


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
def back_up(file: Path) -> None:
    """Write one state of the whole database to a new FILE, while servers run. The master key is not in it."""
    from penstock.app import upkeep  # noqa: PLC0415 - the store is slow to import
    from penstock.app.store import database_label  # noqa: PLC0415 - as above

    settings = load_settings()
    with output.action(f"Backing up {database_label(settings)} to {file}") as running:
        contents, doubt = upkeep.back_up(settings, file)
        running.done = f"done, {contents.total} rows, verified"
    if doubt:
        output.warn(doubt)
    output.note("The master key is not in it: keep it too, in another place.")


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-f", "--force", is_flag=True, help="Replace what the database holds.")
@confirm_option
def restore(file: Path, force: bool, confirm: str | None) -> None:
    """Replace the configured database by the backup FILE; no server may be running."""
    from penstock.app import upkeep  # noqa: PLC0415 - as above

    with upkeep.restoring(warned(load_settings()), file) as ready:
        where, taken = ready.target.label, f"{ready.source.taken_at:%Y-%m-%d %H:%M:%S} UTC"
        if ready.replaced:
            rows = sum(ready.replaced.values())
            if not force:
                raise CliError(f"{where} holds {rows} rows. To replace them by the backup of {taken}, add --force.")
            name = Path(where).name
            confirmed(name, confirm, warning=f"This will replace all {rows} rows of {where} by the backup of {taken}.")
        with output.action(f"Restoring the backup of {taken} to {where}") as running:
            running.done = f"done, {ready.run().total} rows, verified"
        output.note(f"Keys, tokens and roles that were revoked after {taken} are valid again: revoke them anew.")
        if ready.unopened:
            output.warn(f"{ready.unopened} of {ready.secrets} secrets do not open with the master key in place.")


@click.command("db:copy")
@click.option("--to", required=True, metavar="URL", help="An empty database: sqlite:////FILE or postgresql://...")
def copy(to: str) -> None:
    """Move everything to another, empty database; no server may be running. Take its password from PGPASSWORD."""
    from penstock.app import upkeep  # noqa: PLC0415 - as above
    from penstock.app.store import database_label  # noqa: PLC0415 - as above

    settings = warned(load_settings())
    with output.action(f"Copying {database_label(settings)}") as running:
        contents = upkeep.copy_to(settings, to)
        running.done = f"done, {contents.total} rows, verified"
    output.value(f"PENSTOCK_DATABASE_URL={to}")
    output.note("Set that (or database.url in penstock.toml), and start the server. The master key stays where it is.")
