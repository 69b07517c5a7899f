"""Shell completion for bash, zsh and fish: click's own machinery, plus the two spellings of a command's name."""

import os
import re

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from penstock.cli.table import COMMANDS, PROGRAM

SHELLS = ("bash", "zsh", "fish")

# bash splits words at colons (COMP_WORDBREAKS), so the raw line travels and the answer lacks what bash already has.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in
            plain,*) COMPREPLY+=("${line#plain,}") ;;
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
        esac
    done < <(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" \\
        _COMP_BREAKS="$COMP_WORDBREAKS" %(complete_var)s=bash_complete %(prog_name)s)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    source_template = _BASH

    def source(self) -> str:
        """The script. The parent would start bash to look at its version."""
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor (without the program) and the word under it, colons kept."""
        line = os.environ.get("COMP_LINE", "")
        point = os.environ.get("COMP_POINT", "")
        line = line[: int(point)] if point.isdigit() else line
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        self._present = incomplete.rpartition(":")[0] + ":" if ":" in incomplete else ""
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """``type,value``, the value without the part before the last colon when bash counts that as another word."""
        split = ":" in os.environ.get("_COMP_BREAKS", ":")
        return f"{item.type},{item.value.removeprefix(self._present) if split else item.value}"


_CLASSES: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": ZshComplete, "fish": FishComplete}


def script(shell: str) -> str:
    """The text that a shell evaluates to complete penstock's command lines."""
    group = click.Group(PROGRAM)
    return _CLASSES[shell](group, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source()


def answer(root: click.Group, instruction: str) -> int:
    """Print the completions a shell's script asks for (``bash_complete``, ...); the exit code."""
    shell, _, verb = instruction.partition("_")
    if shell not in _CLASSES or verb not in ("complete", "source"):
        return 1
    if verb == "source":
        click.echo(script(shell))
        return 0
    complete = _CLASSES[shell](root, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE")
    words, incomplete = complete.get_completion_args()
    items = _names(words, incomplete)
    if incomplete.startswith("-") or not items:
        items = complete.get_completions(words, incomplete)
    click.echo("\n".join(complete.format_completion(item) for item in items))
    return 0


def _names(words: list[str], incomplete: str) -> list[CompletionItem]:
    """Command names that go on from the words: full names for the first word, the next part after it."""
    if any(not re.fullmatch(r"[\w:-]+", word) or word.startswith("-") for word in words):
        return []
    prefix = "".join(f"{word}:" for word in words)
    if not prefix and ":" not in incomplete:
        items = {name: entry.summary for name, entry in COMMANDS.items() if name.startswith(incomplete)}
        return [CompletionItem(name, help=summary) for name, summary in sorted(items.items())]
    known = {name.removeprefix(prefix): entry for name, entry in COMMANDS.items() if name.startswith(prefix)}
    return [
        CompletionItem(rest, help=entry.summary) for rest, entry in sorted(known.items()) if rest.startswith(incomplete)
    ]
