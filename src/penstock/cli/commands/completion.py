"""The completion command."""

import os
from pathlib import Path

import click

from penstock.cli import completion as scripts
from penstock.cli import output


@click.command("completion")
@click.argument("shell", type=click.Choice(scripts.SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the completion script of a shell (default: the one of $SHELL). For bash: eval "$(penstock completion)"."""
    named = Path(os.environ.get("SHELL", "")).name
    chosen = shell or (named if named in scripts.SHELLS else "bash")
    output.value(scripts.script(chosen).rstrip())
