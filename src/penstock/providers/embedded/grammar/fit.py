"""Writes a grammar under the widest bounds that fit a budget of tokens."""

from collections.abc import Callable

from penstock.domain.errors import PenstockError
from penstock.providers.embedded.grammar.bounds import LADDER, MAX_FUEL, Bounds
from penstock.providers.embedded.grammar.nodes import Node
from penstock.providers.embedded.grammar.rules import Rule, RuleBook

_MAX_GRAMMAR = 400_000
Write = Callable[[RuleBook, int], Rule | None]


def fitted(write: Write, budget: int, where: str) -> str:
    """The grammar under the widest bounds that fit the budget; under the tightest ones when none do.

    Raises PenstockError unsupported_schema when nothing finite matches or the grammar is too large.
    """
    book, root = _written(write, LADDER[0], where)
    for bounds in LADDER[1:]:
        if root.cost <= budget:
            break
        book, root = _written(write, bounds, where)
    return _text(book, root, where)


def checked(node: Node, where: str) -> Node:
    """The node, when it has a grammar. Raises PenstockError unsupported_schema as ``fitted`` does."""
    _text(*_written(lambda book, fuel: book.rule(node, fuel), LADDER[0], where), where)
    return node


def _text(book: RuleBook, root: Rule, where: str) -> str:
    grammar = "\n".join([f"root ::= {root.name}", *book.lines])
    if len(grammar) > _MAX_GRAMMAR:
        raise PenstockError("unsupported_schema", f"{where}: the schema is too large to be enforced.", param=where)
    return grammar


def _written(write: Write, bounds: Bounds, where: str) -> tuple[RuleBook, Rule]:
    fuel = bounds.fuel
    while fuel <= MAX_FUEL:
        book = RuleBook(bounds)
        root = write(book, fuel)
        if root is not None:
            return book, root
        fuel *= 2
    message = f"{where}: no finite JSON value matches the schema."
    raise PenstockError("unsupported_schema", message, param=where)
