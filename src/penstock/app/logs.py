"""Logging of every process: plain lines on stderr, no prompt, key or stack trace by default."""

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class _OneLine(logging.Formatter):
    """Stack traces appear at the debug level alone: they may quote what a client sent."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        if record.levelno > logging.DEBUG and record.exc_info:
            kind = record.exc_info[0]
            record.exc_info = record.exc_text = None
            record.msg = f"{record.getMessage()} ({kind.__name__ if kind else 'error'})"
            record.args = None
        return super().format(record)


def set_up_logging(level: str) -> None:
    """Send everything at or above ``level`` to stderr; libraries from warning on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(_FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("penstock").setLevel(level.upper())
