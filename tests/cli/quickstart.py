"""The commands that the two published quick-starts tell a reader to type, read out of the documents."""

import re

_COMMAND = re.compile(r"\bheroku ((?:create|plugins:install|addons:create|ai:models:create|config:get)\b[^\n#)]*)")


def commands(text: str) -> list[str]:
    """Each command without ``heroku``, in the order of the text. The text has lost some line ends: a word that
    goes on in lower case after capitals (``INFERENCEInstall``) and a list's dash begin something new."""
    found = []
    for match in _COMMAND.finditer(text):
        line = re.split(r"(?<=[A-Z])(?=[A-Z][a-z])| - ", match[1])[0].strip()
        found.append(line)
    return found
