"""The three grammars that a request can ask for: a schema, any JSON object, calls of tools."""

from collections.abc import Callable

from penstock.domain.chat import ChatRequest, Json, Tool
from penstock.domain.errors import PenstockError
from penstock.providers.embedded.grammar.bounds import LADDER, MAX_FUEL, Bounds
from penstock.providers.embedded.grammar.combine import CannotCombine, combined
from penstock.providers.embedded.grammar.nodes import Anything, Map, Node, Object
from penstock.providers.embedded.grammar.reader import read
from penstock.providers.embedded.grammar.rules import Rule, RuleBook, json_text, literal

MAX_CALLS = 4
_MAX_GRAMMAR = 400_000


def schema_grammar(schema: Json, *, budget: int, where: str) -> str:
    """A grammar of the JSON texts that match the schema, at most about ``budget`` tokens long where that is possible.

    Raises PenstockError unsupported_schema, invalid_value.
    """
    node = read(schema, where)
    return _fitted(lambda book, fuel: book.rule(node, fuel), budget, where)


def object_grammar(*, budget: int) -> str:
    """A grammar of JSON objects of bounded size."""
    node = Map(Anything())
    return _fitted(lambda book, fuel: book.rule(node, fuel), budget, "response_format")


def call_grammar(chat: ChatRequest, tools: list[Tool], *, budget: int, opened: bool = False) -> str:
    """A grammar of one call, or of one to ``MAX_CALLS`` when parallel_tool_calls is true.

    ``opened``: the first ``<tool_call>`` has been written already. Raises PenstockError unsupported_schema.
    """
    arguments = [(tool.function.name, _parameters(tool, at)) for at, tool in enumerate(tools)]
    most = MAX_CALLS if chat.parallel_tool_calls else 1

    def written(book: RuleBook, fuel: int) -> Rule | None:
        options, costs = [], []
        for name, node in arguments:
            rule = book.rule(node, fuel)
            if rule is not None:
                head = f'{{"name":{json_text(name)},"arguments":'
                options.append(f"{literal(head)} {rule.name}")
                costs.append(rule.cost + len(head) / 2 + 14)
        if not options:
            return None
        call = book.define(f"({' | '.join(options)}) {literal('}</tool_call>')}", max(costs))
        tag = literal("<tool_call>")
        first = call.name if opened else f"{tag} {call.name}"
        more = f" ({tag} {call.name}){{0,{most - 1}}}" if most > 1 else ""
        return book.define(first + more, call.cost * most)

    return _fitted(written, budget, "tools")


def _parameters(tool: Tool, at: int) -> Node:
    where = f"tools[{at}].function.parameters"
    schema = tool.function.parameters
    if not schema:
        return Object()
    try:
        return read(combined(schema, {"type": "object"}), where)
    except CannotCombine:
        raise PenstockError("invalid_value", f"{where}: must be the schema of an object.", param=where) from None


def _fitted(write: Callable[[RuleBook, int], Rule | None], budget: int, where: str) -> str:
    """The grammar under the widest bounds that fit the budget; under the tightest ones when none do."""
    book, root = _written(write, LADDER[0], where)
    for bounds in LADDER[1:]:
        if root.cost <= budget:
            break
        book, root = _written(write, bounds, where)
    grammar = "\n".join([f"root ::= {root.name}", *book.lines])
    if len(grammar) > _MAX_GRAMMAR:
        raise PenstockError("unsupported_schema", f"{where}: the schema is too large to be enforced.", param=where)
    return grammar


def _written(write: Callable[[RuleBook, int], Rule | None], bounds: Bounds, where: str) -> tuple[RuleBook, Rule]:
    fuel = bounds.fuel
    while fuel <= MAX_FUEL:
        book = RuleBook(bounds)
        root = write(book, fuel)
        if root is not None:
            return book, root
        fuel *= 2
    message = f"{where}: no finite JSON value matches the schema."
    raise PenstockError("unsupported_schema", message, param=where)
