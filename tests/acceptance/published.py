"""Reads the shell commands out of the published quick-starts, as text saved from their pages.

The pages lost their line breaks around commands: one stands behind a sentence, and another runs into the next one.
"""

import re

# A command begins with the program's name and a lower-case verb, and ends at a comment or at the end of the line.
COMMAND = re.compile(r"(?<![\w$(@/])heroku [a-z]+(?::[a-z]+)*[^#\n]*")
# `--as INFERENCEInstall the necessary`: the sentence behind an upper-case name begins with an upper-case letter.
GLUED = re.compile(r"(?<=[A-Z])(?=[A-Z][a-z]).*")
EXPORT = re.compile(r"export [A-Z_]+=\$\(heroku [^)]*\)")


def commands(page: str) -> list[str]:
    """The commands that provision, in the order of the page."""
    prose = EXPORT.sub("", page)
    return [GLUED.sub("", found).strip() for found in COMMAND.findall(prose)]


def exports(page: str) -> list[str]:
    """The commands that fetch the config vars into the environment."""
    return EXPORT.findall(page)
