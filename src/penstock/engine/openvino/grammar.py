"""Writes a grammar of the first driver (GBNF) so that XGrammar reads the same language, and quickly enough.

Measured with openvino-genai 2026.4.1: a repetition with more than about 128 lengths costs up to seconds of CPU for
every token, each place of a grammar costs about 20 ms of CPU once, and hexadecimal digits behind an escape are read as
more of it: ``[\\x2Dab]`` is U+2DAB. It writes some characters as such escapes itself and reads that again.
"""

import re
from collections.abc import Iterator

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{\d+(?:,\d+)?\}|[a-z][a-z0-9-]*|[()|?])')
_POINT = re.compile(r"\\x[0-9A-F]{2}|\\u[0-9A-F]{4}|\\U[0-9A-F]{8}|\\.|.", re.DOTALL)
_HEX = "0123456789abcdefABCDEF"
# Lengths of one repetition; beyond it, blocks of so many.
_BLOCK = 64
# "ée" becomes "\xe9e" in between, and that U+0E9E.
_MISREAD = re.compile("(?<=[\x7f-\xff])(?=[0-9A-Fa-f])")


def rewritten(grammar: str) -> str:
    """The same language for XGrammar. What is no grammar of ours comes back as it is."""
    rules: dict[str, list[str]] = {}
    for line in grammar.split("\n"):
        name, found, text = line.partition(" ::= ")
        tokens = _tokens(text)
        if not found or tokens is None:
            return grammar
        rules[name] = tokens
    added: dict[str, list[str]] = {}
    rules = {name: _bounded(tokens, added) for name, tokens in rules.items()} | added
    return "\n".join(f"{name} ::= {' '.join(tokens)}" for name, tokens in _shared(rules).items())


def _tokens(text: str) -> list[str] | None:
    tokens: list[str] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        token = match[1]
        tokens += _literals(token) if token[0] == '"' else [_class(token) if token[0] == "[" else token]
        at = match.end()
    return tokens


def _literals(text: str) -> Iterator[str]:
    """A literal as several in a group of their own, cut where it would be misread."""
    parts = _MISREAD.split(text)
    if len(parts) == 1:
        return iter(parts)
    cut = [(part if at == 0 else f'"{part}') + ("" if at == len(parts) - 1 else '"') for at, part in enumerate(parts)]
    return iter(["(", *cut, ")"])


def _class(text: str) -> str:
    """A character class in an order in which no hexadecimal digit stands behind what is written as an escape."""
    points = _POINT.findall(text[1:-1])
    members: list[tuple[int, int]] = []
    while points:
        size = 3 if len(points) > 2 and points[1] == "-" else 1
        low, high = _code(points[0]), _code(points[size - 1])
        # One that begins with a digit must not end as an escape, since another digit may follow.
        members += [(low, high)] if low > 0x7E or high < 0x7F else [(low, 0x7E), (0x7F, high)]
        points = points[size:]
    members.sort(key=lambda member: chr(member[0]) not in _HEX)
    return f"[{''.join(_point(low) if low == high else f'{_point(low)}-{_point(high)}' for low, high in members)}]"


def _code(point: str) -> int:
    if point[0] != "\\":
        return ord(point)
    return int(point[2:], 16) if point[1] in "xuU" else ord({"n": "\n", "r": "\r", "t": "\t"}.get(point[1], point[1]))


def _point(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    return f"\\x{code:02X}" if code < 0x80 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _bounded(tokens: list[str], added: dict[str, list[str]]) -> list[str]:
    """The expression with every wide repetition in blocks; ``added`` takes the rules that this needs."""
    done: list[str] = []
    for token in tokens:
        if token[0] != "{":
            done.append(token)
            continue
        low, _, high = token[1:-1].partition(",")
        fewest, most = int(low), int(high or low)
        if most - fewest <= _BLOCK:
            done.append(token)
            continue
        start = _element(done)
        element, done = done[start:], done[:start]
        more = _blocks(element, most - fewest, added)
        done += ["(", *element, f"{{{fewest}}}", more, ")"] if fewest else [more]
    return done


def _element(tokens: list[str]) -> int:
    """Where the element begins that the tokens end with: a token or a group."""
    at, depth = len(tokens) - 1, 0
    while True:
        depth += {")": 1, "(": -1}.get(tokens[at], 0)
        if depth == 0:
            return at
        at -= 1


def _blocks(element: list[str], most: int, added: dict[str, list[str]]) -> str:
    """The name of a rule of at most so many elements: a whole block and what follows it, or less than a block."""
    count, rest = divmod(most, _BLOCK)
    whole = _rule([*element, f"{{{_BLOCK}}}"], added)
    less = _rule([*element, f"{{0,{_BLOCK - 1}}}"], added)
    name = _rule([*element, f"{{0,{rest}}}"] if rest else ['""'], added)
    for _ in range(count):
        name = _rule([whole, name, "|", less], added)
    return name


def _rule(tokens: list[str], added: dict[str, list[str]]) -> str:
    known = next((name for name, body in added.items() if body == tokens), None)
    if known is None:
        known = f"w{len(added)}"
        added[known] = tokens
    return known


def _shared(rules: dict[str, list[str]]) -> dict[str, list[str]]:
    """The rules without those that say what another one says: each costs the compiler time."""
    kept: dict[str, list[str]] = {}
    names: dict[tuple[str, ...], str] = {}
    same: dict[str, str] = {}
    for name, tokens in rules.items():
        body = tuple(same.get(token, token) for token in tokens)
        if name != "root" and body in names:
            same[name] = names[body]
        else:
            kept[name] = tokens
            names.setdefault(body, name)
    return {name: [same.get(token, token) for token in tokens] for name, tokens in kept.items()}
