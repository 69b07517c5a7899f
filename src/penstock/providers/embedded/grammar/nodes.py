"""What a checked schema becomes: a tree of few node kinds, each of which can be written as a grammar rule."""

from dataclasses import dataclass, field
from fractions import Fraction

from penstock.providers.embedded.grammar.pattern import Regex


@dataclass(frozen=True, eq=False)
class Literals:
    """One of these JSON texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Text:
    """A string of ``shortest`` to ``longest`` characters (None: no bound), of a regular expression when given."""

    shortest: int = 0
    longest: int | None = None
    regex: Regex | None = None


@dataclass(frozen=True, eq=False)
class Number:
    """A number between two inclusive or exclusive bounds (None: open)."""

    low: Fraction | None = None
    high: Fraction | None = None
    low_open: bool = False
    high_open: bool = False
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Array:
    """The ``prefix`` nodes in order, then ``rest`` (None: nothing more), ``fewest`` to ``most`` items in all."""

    prefix: tuple["Node", ...] = ()
    rest: "Node | None" = None
    fewest: int = 0
    most: int | None = None


@dataclass(frozen=True, eq=False)
class Field:
    """A property of an object."""

    name: str
    node: "Node"
    required: bool


@dataclass(frozen=True, eq=False)
class Object:
    """Exactly these properties, in this order; optional ones may be absent."""

    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, eq=False)
class Map:
    """Any property names, all of one value node."""

    value: "Node"
    fewest: int = 0
    most: int | None = None


@dataclass(frozen=True, eq=False)
class AnyOf:
    """One of these."""

    options: tuple["Node", ...]


@dataclass(frozen=True, eq=False)
class Anything:
    """Any JSON value of bounded depth."""


@dataclass(frozen=True, eq=False)
class FreeForm:
    """Any object of bounded size, counted as what it usually takes and not as the most it can."""


@dataclass(frozen=True, eq=False)
class Never:
    """Nothing matches: the schema false."""


@dataclass(eq=False)
class Reference:
    """A $ref; ``target`` is set once the definition is read. ``recursive`` when the definition contains itself."""

    target: "Node" = field(default_factory=Never)
    recursive: bool = False


Node = Literals | Text | Number | Array | Object | Map | AnyOf | Anything | FreeForm | Never | Reference


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside a node."""
    match node:
        case Array():
            return (*node.prefix, *((node.rest,) if node.rest is not None else ()))
        case Object():
            return tuple(one.node for one in node.fields)
        case Map():
            return (node.value,)
        case AnyOf():
            return node.options
        case Reference():
            return (node.target,)
        case _:
            return ()


def mark_recursion(references: list[Reference]) -> None:
    """Set ``recursive`` on the references that can be reached from their own target."""
    for reference in references:
        seen: set[int] = set()
        waiting: list[Node] = [reference.target]
        while waiting:
            node = waiting.pop()
            if node is reference:
                reference.recursive = True
                break
            if id(node) not in seen:
                seen.add(id(node))
                waiting.extend(children(node))
