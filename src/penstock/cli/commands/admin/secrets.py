"""The command on the master key."""

import click

from penstock.cli import output
from penstock.settings.load import load_settings


@click.command("secrets:rotate")
def rotate() -> None:
    """Seal every secret under a new master key, while servers run. One that was interrupted is finished."""
    from penstock.app import upkeep  # noqa: PLC0415 - the store is slow to import

    with upkeep.rotating(load_settings()) as ready:
        kept = ready.keys.path or "the key in PENSTOCK_SECRETS_OLD_MASTER_KEY"
        output.note(f"Backups made before open only with the key as it is now. Keep a copy of it for them: {kept}")
        with output.action(f"Rotating the master key of {ready.target.label}") as running:
            done = ready.run(lambda _step: None)
            running.done = f"done, {done.resealed} secrets sealed again"
    if done.from_file:
        output.note("The old key is gone from here: make a new backup.")
    else:
        output.note("Nothing is sealed under the old key any more: remove PENSTOCK_SECRETS_OLD_MASTER_KEY.")
