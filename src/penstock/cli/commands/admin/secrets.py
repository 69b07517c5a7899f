"""The command on the master key."""

import click

from penstock.cli import output
from penstock.settings.load import load_settings


@click.command("secrets:rotate")
def rotate() -> None:
    """Seal every secret under a new master key, while servers run. One that was interrupted is finished."""
    from penstock.app import upkeep  # noqa: PLC0415 - the store is slow to import

    with output.action("Rotating the master key") as running:
        done = upkeep.rotate_master_key(load_settings(), lambda _step: None)
        running.done = f"done, {done.resealed} secrets sealed again"
    if done.from_file:
        output.note("Backups made before open only with the old key, which is gone from here: make a new one.")
    else:
        output.note("Nothing is sealed under the old key any more: remove PENSTOCK_SECRETS_OLD_MASTER_KEY.")
