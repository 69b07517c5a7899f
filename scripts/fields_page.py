"""Writes docs/fields.md: each parameter of a chat request, and what each adapter makes of it, from their own tables."""

from importlib import import_module
from typing import Any

from penstock.domain.chat import ChatRequest
from penstock.providers.embedded.fields import FIELDS as EMBEDDED
from penstock.providers.openai.request import FIELDS, table
from penstock.providers.profiles import built_in_providers
from penstock.providers.registry import KINDS
from penstock.providers.translation.fields import FieldTable, Handling

# What every adapter is asked by, not what it is asked for.
OURS = ("model", "messages", "stream", "allow_ignored_params")

HEAD = """# Parameters by adapter

What each adapter makes of each parameter of `POST /v1/chat/completions`. The table is written from the tables that the
adapters obey; a test holds both to what goes over the wire.

- **passed**: the upstream gets it under the same name, with the same value.
- **translated**: the upstream gets what says the same in its own words, or Penstock does it itself.
- **ignored**: it has no effect there. The answer names it in `Penstock-Ignored-Params`.
- **refused**: 400 `unsupported_parameter` that names it. With `allow_ignored_params: true` it is ignored and named.

A value that asks for nothing (`n: 1`, `logprobs: false`, `response_format: {"type": "text"}`) is never refused or
named. `model`, `messages` and `stream` are every adapter's; `allow_ignored_params` is Penstock's own. A number is that
of a note below the table.

"""

SERVERS = """
## Servers of the OpenAI dialect

What the built-in providers (`profile` of a `[[provider]]` row) handle otherwise than the column `openai` says:

| provider | parameters |
|---|---|
"""


def tables() -> dict[str, FieldTable]:
    """The table of each adapter by its kind; the embedded engine first. Raises AttributeError for one without."""
    return {"embedded": EMBEDDED} | {kind: _table(module) for kind, module in sorted(KINDS.items())}


def parameters() -> tuple[str, ...]:
    """The parameters that an adapter must have a word for, in the order of the request."""
    return tuple(name for name in ChatRequest.__struct_fields__ if name not in OURS)


def fields_page() -> str:
    """The text of docs/fields.md. Raises KeyError for a parameter that an adapter's table leaves out."""
    adapters = tables()
    notes: dict[str, list[str]] = {}
    rows = [f"| parameter | {' | '.join(adapters)} |", f"|---|{'---|' * len(adapters)}"]
    for name in parameters():
        cells = []
        for kind, own in adapters.items():
            field = own[name]
            mark = ""
            if field.note:
                notes.setdefault(kind, []).append(f"`{name}`: {field.note}")
                mark = f" [{len(notes[kind])}](#{kind})"
            cells.append(field.handling + mark)
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    below = "".join(_notes(kind, notes[kind]) for kind in adapters if kind in notes)
    return HEAD + "\n".join(rows) + "\n" + below + SERVERS + "\n".join(_servers()) + "\n"


def _servers() -> list[str]:
    """A row for each built-in provider that handles a parameter otherwise than its dialect does."""
    rows = []
    for name, provider in sorted(built_in_providers().items()):
        own = table(provider.quirks) if provider.kind in ("openai", "azure") else FIELDS
        said: dict[str, list[str]] = {}
        for parameter, field in own.items():
            if field != FIELDS[parameter]:
                why = f" ({field.note})" if field.handling is Handling.TRANSLATED else ""
                said.setdefault(field.handling, []).append(f"`{parameter}`{why}")
        if said:
            lists = "; ".join(f"{how}: {', '.join(names)}" for how, names in said.items())
            rows.append(f"| {name} | {lists} |")
    return rows


def _notes(kind: str, notes: list[str]) -> str:
    lines = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, 1))
    return f"\n## {kind}\n\n{lines}\n"


def _table(module: str) -> FieldTable:
    """The adapter's FIELDS, beside it or in the module that writes its requests."""
    holder: Any = import_module(module)
    if not hasattr(holder, "FIELDS"):
        holder = import_module(f"{module.rpartition('.')[0]}.request")
    table: FieldTable = holder.FIELDS
    return table
