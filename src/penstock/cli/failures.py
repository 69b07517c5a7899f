"""Turns whatever went wrong into a message on stderr and an exit code."""

import os
import re
import sys

import click

from penstock.cli import output
from penstock.cli.table import PROGRAM

# Errors whose message is written for the person: what is wrong, and the remedy.
_SELF_EXPLAINING = (
    ("penstock.settings.load", "SettingsError"),
    ("penstock.app.home", "HomeError"),
    ("penstock.store.errors", "StoreError"),
    ("penstock.store.errors", "InvalidValueError"),
    ("penstock.domain.errors", "PenstockError"),
)


def report(error: BaseException) -> int:
    """Print the error in its form and return the exit code: 1 failure, 2 usage, 130 interrupted.

    The traceback is shown only with PENSTOCK_DEBUG=1, which is for whoever debugs the program itself.
    """
    if os.environ.get("PENSTOCK_DEBUG") == "1" and not isinstance(error, (click.exceptions.Exit, KeyboardInterrupt)):
        import traceback  # noqa: PLC0415 - only for PENSTOCK_DEBUG=1

        traceback.print_exception(error)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        output.note("")
        return 130
    if isinstance(error, BrokenPipeError):
        # The reader (head, say) went away; point stdout elsewhere so that the interpreter's last flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return _message(error)


def _message(error: BaseException) -> int:
    if isinstance(error, click.UsageError):
        see = f"\nSee more help with {error.ctx.command_path} --help" if error.ctx else ""
        # The choices of an option have a line each there.
        output.error(re.sub(r"\s*\n\t", " ", error.format_message()) + see)
        return 2
    if isinstance(error, click.ClickException):
        output.error(error.format_message())
        return error.exit_code
    if isinstance(error, output.CliError):
        detail = f"\n\nError ID: {error.error_id}" if error.error_id else ""
        output.error(error.message + detail)
        return error.exit_code
    if _explains_itself(error) or isinstance(error, OSError):
        output.error(str(error))
        return 1
    output.error(f"{type(error).__name__}: {error}\nThis is a bug in {PROGRAM}; PENSTOCK_DEBUG=1 shows the traceback.")
    return 1


def _explains_itself(error: BaseException) -> bool:
    # What is not loaded cannot have raised it, and is not loaded for it.
    known = ((sys.modules.get(module), name) for module, name in _SELF_EXPLAINING)
    return any(isinstance(error, getattr(module, name)) for module, name in known if module is not None)
