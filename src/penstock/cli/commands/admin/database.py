"""The commands on the schema and the health of the database that the settings name."""

import click

from penstock.cli import output
from penstock.cli.options import json_option
from penstock.settings.load import load_settings
from penstock.settings.tree import Settings


@click.command("db:upgrade")
def upgrade() -> None:
    """Bring the database to the schema of this penstock, as the next start of the server would."""
    from penstock.app.database import upgrade_database  # noqa: PLC0415 - the store is slow to import

    name, before, after = upgrade_database(warned(load_settings()))
    if before == after:
        output.value(f"{name}: schema {after} is up to date")
    else:
        output.value(f"{name}: upgraded from {f'schema {before}' if before else 'an empty database'} to schema {after}")


@click.command("db:check")
@json_option
def check(json_: bool) -> int:
    """Read the whole database and say whether it is sound; exits 1 when it is not. Changes nothing."""
    from penstock.app.database import check_database  # noqa: PLC0415 - as above

    report = check_database(warned(load_settings()))
    if json_:
        output.as_json({name: getattr(report, name) for name in report.__struct_fields__})
    else:
        output.header(report.database)
        output.fields({"Schema": report.schema or "none", "Needed": report.needs, **report.rows}, empty=True)
        output.value("" if report.problems else "\nNo problems found.")
    for problem in report.problems:
        output.error(problem)
    return 1 if report.problems else 0


def warned(settings: Settings) -> Settings:
    """The settings, after a warning when they name another database than this home's server uses. Raises StoreError."""
    from penstock.app.store import other_database  # noqa: PLC0415 - as above

    if other := other_database(settings):
        output.warn(f"{other[0].upper()}{other[1:]}.")
    return settings
