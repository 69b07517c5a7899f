"""Decides what the arguments of each offered tool may be: its schema, or any object where that cannot be enforced."""

from penstock.domain.chat import ChatRequest, Json, NamedToolChoice, Tool
from penstock.domain.errors import PenstockError
from penstock.providers.embedded.grammar.combine import combined
from penstock.providers.embedded.grammar.fit import checked
from penstock.providers.embedded.grammar.nodes import FreeForm, Node, Object
from penstock.providers.embedded.grammar.reader import TYPES, read


def arguments(chat: ChatRequest, tool: Tool, at: int) -> tuple[Node, bool]:
    """The node of the arguments of tool ``at``, and whether it enforces the whole schema.

    It need not where the tool is not strict: formats without a grammar are then annotations, and when the model is free
    to call or not, options of oneOf may overlap and any other schema becomes any object.
    Raises PenstockError invalid_value, unsupported_schema.
    """
    where = place(at)
    if not tool.function.parameters:
        return Object(), True
    schema = _of_object(tool.function.parameters, where)
    try:
        return checked(read(schema, where), where), True
    except PenstockError as error:
        if error.code != "unsupported_schema" or tool.function.strict:
            raise
    free = chat.tool_choice in (None, "auto")
    try:
        return checked(read(schema, where, any_format=True, overlaps=free), where), False
    except PenstockError as error:
        if error.code != "unsupported_schema" or not free:
            raise
    return FreeForm(), False


def unenforced(chat: ChatRequest) -> list[str]:
    """The places of the tool schemas that are not enforced in full, of a request that is not refused."""
    if not chat.tools or chat.tool_choice == "none":
        return []
    named = chat.tool_choice.function.name if isinstance(chat.tool_choice, NamedToolChoice) else None
    return [
        place(at)
        for at, tool in enumerate(chat.tools)
        if named in (None, tool.function.name) and not tool.function.strict and not _is_enforced(chat, tool, at)
    ]


def place(at: int) -> str:
    """The request field that holds the schema of tool ``at``."""
    return f"tools[{at}].function.parameters"


def _is_enforced(chat: ChatRequest, tool: Tool, at: int) -> bool:
    try:
        return arguments(chat, tool, at)[1]
    except PenstockError:
        return True


def _of_object(schema: dict[str, Json], where: str) -> Json:
    """The schema with type object. Raises PenstockError when its type says otherwise."""
    kinds = schema.get("type", "object")
    listed = kinds if isinstance(kinds, list) and kinds else [kinds]
    where = f"{where}.type"
    for kind in listed:
        if kind not in TYPES:
            raise PenstockError("invalid_value", f"{where}: {_shown(kind)} is not a JSON Schema type.", param=where)
    if "object" not in listed:
        message = f"{where}: must be 'object', not {_shown(listed[0])}; parameters are the schema of an object."
        raise PenstockError("invalid_value", message, param=where)
    return combined(schema, {"type": "object"})


def _shown(value: Json) -> str:
    return f"'{str(value)[:40]}'"
