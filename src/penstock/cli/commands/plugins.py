"""The commands on plugins, for scripts written for the Heroku CLI: the AI commands need none."""

import click

from penstock.cli import output

AI_PLUGIN = "@heroku/plugin-ai"


@click.command("plugins")
def list_plugins() -> None:
    """List plugins: there are none, the AI commands are built in."""
    output.value("No plugins installed: the AI commands are built in.")


@click.command("plugins:install")
@click.argument("plugins", nargs=-1, required=True, metavar="PLUGIN...")
def install(plugins: tuple[str, ...]) -> None:
    """Accept PLUGIN without installing anything: the AI commands are built in."""
    for plugin in plugins:
        if plugin == AI_PLUGIN or plugin.startswith(f"{AI_PLUGIN}@"):
            output.note(f"{plugin} is built in: nothing to install.")
        else:
            output.warn(f"{plugin} was not installed: penstock has no plugins. The AI commands are built in.")
