"""Writes nodes as rules of the engine's grammar language (GBNF), and adds up what the longest document costs."""

import json
import re
from typing import Any

from penstock.providers.embedded.grammar.bounds import FIXED_CHARACTER, FREE_CHARACTER, MAX_KEY, Bounds
from penstock.providers.embedded.grammar.nodes import (
    AnyOf,
    Anything,
    Array,
    FreeForm,
    Literals,
    Map,
    Never,
    Node,
    Number,
    Object,
    Reference,
    Text,
)
from penstock.providers.embedded.grammar.numbers import number_rule
from penstock.providers.embedded.grammar.pattern import lengths, written

# Every character that a JSON string may hold unescaped, without control characters and surrogates, and the short
# escapes. \u escapes are left out: half of a surrogate pair would be no text.
_CHARACTER = (
    r"[\x20-\x21\x23-\x5B\x5D-\x7E\u00A0-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]"
    r' | "\\" (["\\/bfnrt])'
)
_ANY_KEY = rf'"\"" character{{1,{MAX_KEY}}} "\":"'


class Rule:
    """A named rule, the most tokens that it writes."""

    __slots__ = ("cost", "name")

    def __init__(self, name: str, cost: float) -> None:
        self.name = name
        self.cost = cost


# Planes without assigned characters: a vocabulary may lack their UTF-8 lead bytes (SmolLM2's has no 0xF1 and 0xF2), and
# a grammar that asks for a byte without a token leaves the engine with nothing to choose.
_RARE = re.compile("[\U00040000-\U0010ffff]")


def literal(text: str) -> str:
    """A quoted terminal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


class RuleBook:
    """Rules under one set of bounds. ``rule`` is None for a node that nothing can match within the fuel."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.lines: list[str] = [f"character ::= {_CHARACTER}"]
        self._known: dict[tuple[int, int], Rule | None] = {}
        self._kept: list[Node] = []

    def rule(self, node: Node, fuel: int) -> Rule | None:
        """The rule of a node; equal nodes with equal fuel share one."""
        key = (id(node), fuel)
        if key not in self._known:
            self._kept.append(node)  # ids are unique only among living objects
            self._known[key] = self._written(node, fuel)
        return self._known[key]

    def define(self, expression: str, cost: float) -> Rule:
        """A new rule of that expression."""
        name = f"r{len(self.lines)}"
        self.lines.append(f"{name} ::= {expression}")
        return Rule(name, cost)

    def _written(self, node: Node, fuel: int) -> Rule | None:
        match node:
            case AnyOf():
                rules = [rule for rule in (self.rule(option, fuel) for option in node.options) if rule is not None]
                if not rules:
                    return None
                return self.define(" | ".join(rule.name for rule in rules), max(rule.cost for rule in rules))
            case Reference():
                if not node.recursive:
                    return self.rule(node.target, fuel)
                return self.rule(node.target, fuel - 1) if fuel > 0 else None
            case Array():
                return self._array(node, fuel)
            case Map():
                return self._map(node, fuel)
            case Object():
                return self._object(node, fuel)
            case _:
                return self._leaf(node)

    def _leaf(self, node: Literals | Text | Number | Anything | FreeForm | Never) -> Rule | None:
        match node:
            case Never():
                return None
            case Literals():
                cost = max(len(text) for text in node.texts) * FIXED_CHARACTER + 1
                return self.define(" | ".join(literal(text) for text in node.texts), cost)
            case Text():
                return self._text(node)
            case Number():
                found = number_rule(node)
                return None if found is None else self.define(found[0], found[1])
            case Anything():
                return self._anything(self.bounds.depth)
            case FreeForm():
                return self._free_form()

    def _text(self, node: Text) -> Rule:
        if node.regex is None:
            most = max(node.shortest, self.bounds.text)
            most = most if node.longest is None else min(most, node.longest)
            return self.define(
                f'"\\"" character{{{node.shortest},{most}}} "\\""' if most else '"\\"\\""', most * FREE_CHARACTER + 2
            )
        limit = self.bounds.text if node.longest is None else min(self.bounds.text, node.longest)
        cap = next((cap for cap in range(min(64, limit), 0, -1) if lengths(node.regex, cap)[1] <= limit), 0)
        cost = lengths(node.regex, cap)[1] * 0.8 + 2
        return self.define(f'"\\"" {written(node.regex, cap)} "\\""', cost)

    def _free_form(self) -> Rule:
        value, most = self._anything(self.bounds.depth, text="free-text"), self.bounds.items
        # The most that such an object can take would leave the strings of every other tool a few characters.
        cost = self.bounds.text * FREE_CHARACTER + 24
        entries = f'{_ANY_KEY} {value.name} ("," {_ANY_KEY} {value.name}){{0,{most - 1}}}'
        return self.define(f'"{{" ({entries})? "}}"' if most else '"{}"', cost)

    def _anything(self, depth: int, *, text: str = "any-text") -> Rule:
        plain = f'{text} | any-number | "true" | "false" | "null"'
        if not any(line.startswith(f"{text} ") for line in self.lines):
            most = max(1, self.bounds.text if text == "free-text" else self.bounds.text // 4)
            self.lines.append(f'{text} ::= "\\"" character{{0,{most}}} "\\""')
        if not any(line.startswith("any-number ") for line in self.lines):
            self.lines.append('any-number ::= "-"? ("0" | [1-9] [0-9]{0,8}) ("." [0-9]{1,4})?')
        base = max(16.0, self.bounds.text // 4 * FREE_CHARACTER + 2)
        rule = self.define(plain, base)
        for _ in range(depth):
            more, inner = max(0, min(self.bounds.items, 6) - 1), rule.name
            items = f'"[" ({inner} ("," {inner}){{0,{more}}})? "]"'
            entries = f'"{{" ({_ANY_KEY} {inner} ("," {_ANY_KEY} {inner}){{0,{more}}})? "}}"'
            cost = (more + 1) * (rule.cost + MAX_KEY * FREE_CHARACTER + 3) + 2
            rule = self.define(f"{plain} | {items} | {entries}", cost)
        return rule

    def _array(self, node: Array, fuel: int) -> Rule | None:
        parts: list[str] = []
        cost = 2.0
        for at, one in enumerate(node.prefix):
            if node.most is not None and at >= node.most:
                break
            rule = self.rule(one, fuel)
            if rule is None:
                # A position that nothing can fill: the array must end before it.
                return self._end_array(parts, node, cost)
            cost += rule.cost + 1
            parts.append(rule.name)
        rest = self.rule(node.rest, fuel) if node.rest is not None else None
        return self._end_array(parts, node, cost, rest=rest)

    def _end_array(self, prefix: list[str], node: Array, cost: float, *, rest: Rule | None = None) -> Rule | None:
        filled = len(prefix)
        if rest is None and node.fewest > filled:
            return None
        most = max(node.fewest, filled + self.bounds.items)
        most = most if node.most is None else min(most, node.most)
        more = max(0, most - filled) if rest is not None else 0
        needed = max(0, node.fewest - filled)
        name = rest.name if rest is not None else ""
        cost += more * (rest.cost + 1) if rest is not None else 0
        tail = f'("," {name}){{{needed},{more}}}' if more and filled else ""
        if not filled:
            if not more:
                return self.define('"[]"', cost)
            items = f'{name} ("," {name}){{{max(0, needed - 1)},{more - 1}}}'
            return self.define(f'"[" {items} "]"' if needed else f'"[" ({items})? "]"', cost)
        # prefixItems alone require nothing: the positions beyond the minimum may be left out from the end.
        body = tail
        for at in range(filled - 1, -1, -1):
            step = f'"," {prefix[at]}' if at else prefix[at]
            body = f"{step} {body}" if at < node.fewest else f"({step} {body})?"
        return self.define(f'"[" {body} "]"', cost)

    def _map(self, node: Map, fuel: int) -> Rule | None:
        value = self.rule(node.value, fuel)
        most = max(node.fewest, self.bounds.items)
        most = most if node.most is None else min(most, node.most)
        if value is None or most == 0:
            return self.define('"{}"', 1) if node.fewest == 0 else None
        if most < node.fewest:
            return None
        entries = f'{_ANY_KEY} {value.name} ("," {_ANY_KEY} {value.name}){{0,{most - 1}}}'
        cost = most * (value.cost + MAX_KEY * FREE_CHARACTER + 3) + 2
        return self.define(f'"{{" {entries} "}}"' if node.fewest else f'"{{" ({entries})? "}}"', cost)

    def _object(self, node: Object, fuel: int) -> Rule | None:
        pairs: list[tuple[str, bool]] = []
        cost = 2.0
        for one in node.fields:
            rule = self.rule(one.node, fuel)
            if rule is None:
                if one.required:
                    return None
                continue
            key = json_text(one.name) + ":"
            cost += rule.cost + len(key) * FIXED_CHARACTER + 2
            pairs.append((f"{literal(key)} {rule.name}", one.required))
        return self.define(self._members(pairs), cost)

    def _members(self, pairs: list[tuple[str, bool]]) -> str:
        """Members in order with commas between those present: one rule for each place, so optional ones stay linear."""
        after = ""  # the rest, when a member has been written before it
        first = ""  # the rest, when none has
        for pair, required in reversed(pairs):
            behind = self.define(f'"," {pair} {after}' if required else f'("," {pair})? {after}', 0).name
            if required:
                first = f"{pair} {after}"
            else:
                opening = self.define(first, 0).name if first else '""'
                first = f"({pair} {after} | {opening})"
            after = behind
        return f'"{{" {first} "}}"'


def json_text(value: Any) -> str:
    """A JSON value as compact text that a vocabulary can write."""
    return _RARE.sub(_escaped, json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
