"""Turns whatever went wrong into a message on stderr and an exit code."""

import os
import sys

import click

from penstock.cli import output
from penstock.cli.table import PROGRAM


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
        output.error(error.format_message() + see)
        return 2
    if isinstance(error, click.ClickException):
        output.error(error.format_message())
        return error.exit_code
    if isinstance(error, output.CliError):
        detail = f"\n\nError ID: {error.error_id}" if error.error_id else ""
        output.error(error.message + detail)
        return error.exit_code
    if _is_settings_error(error) or isinstance(error, OSError):
        output.error(str(error))
        return 1
    output.error(f"{type(error).__name__}: {error}\nThis is a bug in {PROGRAM}; PENSTOCK_DEBUG=1 shows the traceback.")
    return 1


def _is_settings_error(error: BaseException) -> bool:
    loaded = sys.modules.get("penstock.settings.load")
    return loaded is not None and isinstance(error, loaded.SettingsError)
