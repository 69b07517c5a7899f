"""The grammar: ``a:b`` and ``a b`` name the same command, code is loaded lazily, errors end in one clear line."""

import logging
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from penstock import __version__
from penstock.cli import failures, output
from penstock.cli.table import COMMANDS, PROGRAM, Entry

COMPLETE_VAR = f"_{PROGRAM.upper()}_COMPLETE"


class Root(click.Group):
    """The group of all commands, by their full names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name that help and completion show."""
        return sorted(name for name, entry in COMMANDS.items() if not entry.hidden)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command's code, imported now; None for an unknown name."""
        entry = COMMANDS.get(cmd_name)
        return load(entry) if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The longest name that the leading words spell, and the words after it."""
        name, rest = spell(args)
        if name is None:
            if ctx.resilient_parsing:
                return None, None, args
            raise UnknownCommand(args[0])
        return name, self.get_command(ctx, name), rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, without loading any command; aliases stand on the line of what they mean."""
        with formatter.section("Commands"):
            formatter.write_dl(rows_under(""))


class UnknownCommand(output.CliError):
    """No command has this name; names the closest ones."""

    def __init__(self, word: str) -> None:
        import difflib  # noqa: PLC0415 - only on the way to an error

        close = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.6)
        hint = f"Did you mean {close[0]}? " if close else ""
        super().__init__(
            f"{word} is not a {PROGRAM} command.\n{hint}Run {PROGRAM} help for a list of available commands.",
            exit_code=2,
        )


def load(entry: Entry) -> click.Command:
    """Import a command's module and return its click command."""
    command: click.Command = getattr(import_module(entry.module), entry.attribute)
    return command


def spell(args: Sequence[str]) -> tuple[str | None, list[str]]:
    """``["addons", "create", "x"]`` is ``("addons:create", ["x"])``; (None, args) when nothing matches."""
    best: tuple[str | None, list[str]] = (None, list(args))
    name = ""
    for index, word in enumerate(args):
        if word.startswith("-") or not word:
            break
        name = f"{name}:{word}" if name else word
        if name in COMMANDS:
            best = (name, list(args[index + 1 :]))
        elif not any(known.startswith(f"{name}:") for known in COMMANDS):
            break
    return best


def rows_under(topic: str) -> list[tuple[str, str]]:
    """(name, summary) of the commands of a topic such as ``addons``, or of all for an empty one."""
    names = [name for name in sorted(COMMANDS) if not topic or name == topic or name.startswith(f"{topic}:")]
    rows = []
    for name in names:
        entry = COMMANDS[name]
        if entry.hidden or entry.alias_of:
            continue
        aliases = sorted(alias for alias, other in COMMANDS.items() if other.alias_of == name)
        also = f" (also: {', '.join(aliases)})" if aliases else ""
        rows.append((name, entry.summary + also))
    return rows


@click.command(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message=f"{PROGRAM}/%(version)s")
def root() -> None:
    """Penstock: managed inference that you run yourself. Commands are written a:b or a b."""


def run(arguments: list[str]) -> int:
    """Run one command line; every failure is a message on stderr and an exit code, never a traceback."""
    output.tolerate_narrow_terminals()
    # A command tells what went wrong once, in its own words; serve sets its log up itself.
    logging.getLogger("penstock").addHandler(logging.NullHandler())
    try:
        if (instruction := os.environ.get(COMPLETE_VAR)) is not None:
            from penstock.cli.completion import answer  # noqa: PLC0415 - only when a shell asks

            return answer(root, instruction)
        return _dispatch(arguments)
    except BaseException as error:  # noqa: BLE001 - the border: a person gets one message, whatever broke
        return failures.report(error)


def _dispatch(arguments: list[str]) -> int:
    words = [word for word in arguments if word not in ("-h", "--help")]
    if words[:1] == ["help"]:
        words = words[1:]
        arguments = [*words, "--help"]
    topic = ":".join(words)
    if words and spell(words)[0] is None and (rows := rows_under(topic)):
        _print_topic(topic, rows)
        return 0
    result: Any = root.main(args=arguments or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    return result if isinstance(result, int) else 0


def _print_topic(topic: str, rows: list[tuple[str, str]]) -> None:
    formatter = click.HelpFormatter(max_width=100)
    formatter.write_usage(PROGRAM, f"{topic}:COMMAND [OPTIONS]")
    with formatter.section("Commands"):
        formatter.write_dl(rows)
    output.value(formatter.getvalue().rstrip())
