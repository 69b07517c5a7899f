"""A tiny reader of the engine's grammar language that writes random texts from a grammar, to check grammars quickly.

It knows what our grammars use: rules, literals, classes, groups, alternation and repetition.
"""

import random
import re
from typing import Any

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{\d+(?:,\d+)?\}|[a-z][a-z0-9-]*|[()|?])')
_ESCAPE = re.compile(r"\\(?:x([0-9A-F]{2})|u([0-9A-F]{4})|U([0-9A-F]{8})|(.))", re.DOTALL)


def parse(grammar: str) -> dict[str, Any]:
    """The grammar's rules as trees."""
    rules = {}
    for line in grammar.split("\n"):
        name, _, text = line.partition(" ::= ")
        tokens, at = [], 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            assert match is not None, f"cannot read {text[at:]!r}"
            tokens.append(match[1])
            at = match.end()
        rules[name] = _alternation(tokens)
        assert not tokens, f"left over: {tokens}"
    return rules


def sample(rules: dict[str, Any], choose: random.Random, *, greedy: bool = False) -> str:
    """A text of the grammar. ``greedy`` repeats as often as is allowed."""
    return _written(("rule", "root"), rules, choose, greedy)


def _alternation(tokens: list[str]) -> Any:
    options = [_sequence(tokens)]
    while tokens and tokens[0] == "|":
        tokens.pop(0)
        options.append(_sequence(tokens))
    return ("any", options)


def _sequence(tokens: list[str]) -> Any:
    parts: list[Any] = []
    while tokens and tokens[0] not in "|)":
        token = tokens.pop(0)
        if token == "(":
            parts.append(_alternation(tokens))
            assert tokens.pop(0) == ")"
        elif token == "?":
            parts.append(("repeat", parts.pop(), 0, 1))
        elif token[0] == "{":
            low, _, high = token[1:-1].partition(",")
            parts.append(("repeat", parts.pop(), int(low), int(high or low)))
        elif token[0] == '"':
            parts.append(("text", "".join(_points(token[1:-1]))))
        elif token[0] == "[":
            parts.append(("class", _ranges(_points(token[1:-1], mark=True))))
        else:
            parts.append(("rule", token))
    return ("all", parts)


def _points(text: str, *, mark: bool = False) -> list[str]:
    """Characters with escapes undone; with ``mark`` an unescaped hyphen is kept apart as the empty string."""
    found, at = [], 0
    while at < len(text):
        if match := _ESCAPE.match(text, at):
            code = match[1] or match[2] or match[3]
            found.append(chr(int(code, 16)) if code else {"n": "\n", "r": "\r"}.get(match[4], match[4]))
            at = match.end()
        else:
            found.append("" if mark and text[at] == "-" else text[at])
            at += 1
    return found


def _ranges(points: list[str]) -> list[tuple[int, int]]:
    ranges, at = [], 0
    while at < len(points):
        if points[at + 1 : at + 2] == [""]:
            ranges.append((ord(points[at]), ord(points[at + 2])))
            at += 3
        else:
            ranges.append((ord(points[at]), ord(points[at])))
            at += 1
    return ranges


def _written(tree: Any, rules: dict[str, Any], choose: random.Random, greedy: bool) -> str:
    kind = tree[0]
    if kind == "text":
        return str(tree[1])
    if kind == "class":
        low, high = choose.choice(tree[1])
        return chr(choose.choice((low, high, choose.randint(low, high))))
    if kind == "rule":
        return _written(rules[tree[1]], rules, choose, greedy)
    if kind == "all":
        return "".join(_written(part, rules, choose, greedy) for part in tree[1])
    if kind == "any":
        return _written(choose.choice(tree[1]), rules, choose, greedy)
    _, part, low, high = tree
    count = high if greedy else choose.choice((low, high, choose.randint(low, high)))
    return "".join(_written(part, rules, choose, greedy) for _ in range(min(count, low + 40)))
