"""The three grammars that a request can ask for: a schema, any JSON object, calls of tools."""

from penstock.domain.chat import ChatRequest, Json, Tool
from penstock.providers.embedded.grammar.arguments import arguments
from penstock.providers.embedded.grammar.fit import fitted
from penstock.providers.embedded.grammar.nodes import Anything, Map
from penstock.providers.embedded.grammar.reader import read
from penstock.providers.embedded.grammar.rules import Rule, RuleBook, json_text, literal

MAX_CALLS = 4


def schema_grammar(schema: Json, *, budget: int, where: str) -> str:
    """A grammar of the JSON texts that match the schema, at most about ``budget`` tokens long where that is possible.

    Raises PenstockError unsupported_schema, invalid_value.
    """
    node = read(schema, where)
    return fitted(lambda book, fuel: book.rule(node, fuel), budget, where)


def object_grammar(*, budget: int) -> str:
    """A grammar of JSON objects of bounded size."""
    node = Map(Anything())
    return fitted(lambda book, fuel: book.rule(node, fuel), budget, "response_format")


def call_grammar(chat: ChatRequest, tools: list[Tool], *, budget: int, opened: bool = False) -> str:
    """A grammar of one call, or of one to ``MAX_CALLS`` when parallel_tool_calls is true.

    ``tools`` are among the chat's. ``opened``: the first ``<tool_call>`` has been written already.
    Raises PenstockError unsupported_schema, invalid_value.
    """
    places = {id(tool): at for at, tool in enumerate(chat.tools or [])}
    nodes = [(tool.function.name, arguments(chat, tool, places[id(tool)])[0]) for tool in tools]
    most = MAX_CALLS if chat.parallel_tool_calls else 1

    def written(book: RuleBook, fuel: int) -> Rule | None:
        options, costs = [], []
        for name, node in nodes:
            rule = book.rule(node, fuel)
            if rule is None:
                return None
            head = f'{{"name":{json_text(name)},"arguments":'
            options.append(f"{literal(head)} {rule.name}")
            costs.append(rule.cost + len(head) / 2 + 14)
        call = book.define(f"({' | '.join(options)}) {literal('}</tool_call>')}", max(costs))
        tag = literal("<tool_call>")
        first = call.name if opened else f"{tag} {call.name}"
        more = f" ({tag} {call.name}){{0,{most - 1}}}" if most > 1 else ""
        return book.define(first + more, call.cost * most)

    return fitted(written, budget, "tools")
