"""A subset of regular expressions as grammar: literals, classes, groups, alternation and bounded repetition.

The grammar writes only strings that match; it need not be able to write all of them. So classes are taken where
ECMA-262 and Python agree, and characters outside printable text are left out.
"""

import re
from typing import NamedTuple

Ranges = tuple[tuple[int, int], ...]
_ASCII: Ranges = ((0x20, 0x7E),)
PRINTABLE: Ranges = (*_ASCII, (0xA1, 0xAC), (0xAE, 0x36F), (0x370, 0x1FFF), (0x2010, 0x2027), (0x3041, 0xD7FF))
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_CLASSES: dict[str, Ranges] = {"d": ((48, 57),), "w": _WORD, "s": ((32, 32),)}
_MAX_REPEAT = 1000


class UnsupportedPattern(Exception):
    """The expression uses what cannot be written as grammar; the message names it."""


class Chars(NamedTuple):
    """One character out of ranges of code points."""

    ranges: Ranges


class Sequence(NamedTuple):
    """Parts one after the other."""

    parts: "tuple[Regex, ...]"


class Alternation(NamedTuple):
    """One of the options."""

    options: "tuple[Regex, ...]"


class Repeat(NamedTuple):
    """``fewest`` to ``most`` times (None: unbounded, to be bounded when written)."""

    part: "Regex"
    fewest: int
    most: int | None


Regex = Chars | Sequence | Alternation | Repeat


def parse(pattern: str) -> Regex:
    """The expression as a tree that matches whole strings. Raises UnsupportedPattern."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UnsupportedPattern(f"it is not a regular expression ({error})") from None
    if len(pattern) > 1000:
        raise UnsupportedPattern("it is longer than 1,000 characters")
    parser = _Parser(pattern)
    tree = parser.alternation(top=True)
    if parser.at < len(pattern):
        raise UnsupportedPattern(f"'{pattern[parser.at]}' at position {parser.at}")
    return tree


def lengths(regex: Regex, cap: int) -> tuple[int, int]:
    """Fewest and most characters when unbounded repetition is cut at ``cap`` times more than its minimum."""
    match regex:
        case Chars():
            return (1, 1)
        case Sequence():
            sizes = [lengths(part, cap) for part in regex.parts]
            return sum(low for low, _ in sizes), sum(high for _, high in sizes)
        case Alternation():
            sizes = [lengths(option, cap) for option in regex.options]
            return min(low for low, _ in sizes), max(high for _, high in sizes)
        case Repeat():
            low, high = lengths(regex.part, cap)
            return low * regex.fewest, high * _most(regex, cap)


def written(regex: Regex, cap: int) -> str:
    """The grammar expression of the string's characters as JSON writes them."""
    match regex:
        case Chars():
            return _chars(regex.ranges)
        case Sequence():
            return " ".join(written(part, cap) for part in regex.parts) or '""'
        case Alternation():
            return "(" + " | ".join(written(option, cap) for option in regex.options) + ")"
        case Repeat():
            return f"({written(regex.part, cap)}){{{regex.fewest},{_most(regex, cap)}}}"


def _most(repeat: Repeat, cap: int) -> int:
    return repeat.fewest + cap if repeat.most is None else max(repeat.fewest, min(repeat.most, repeat.fewest + cap))


def _chars(ranges: Ranges) -> str:
    """A character class; the quote and the backslash are written escaped, so they stand beside the class."""
    plain: list[tuple[int, int]] = []
    extra: list[str] = []
    for low, high in ranges:
        for special in (0x22, 0x5C):
            if low <= special <= high:
                extra.append('"\\\\\\""' if special == 0x22 else '"\\\\\\\\"')
        plain += _without(((low, high),), ((0x22, 0x22), (0x5C, 0x5C)))
    shown = "".join(_point(low) if low == high else f"{_point(low)}-{_point(high)}" for low, high in plain)
    options = ([f"[{shown}]"] if shown else []) + extra
    return options[0] if len(options) == 1 else "(" + " | ".join(options) + ")"


def _point(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    return f"\\x{code:02X}" if code < 0x80 else f"\\u{code:04X}"


def _without(ranges: Ranges, removed: Ranges) -> Ranges:
    left = list(ranges)
    for cut_low, cut_high in removed:
        left = [
            piece
            for low, high in left
            for piece in ((low, min(high, cut_low - 1)), (max(low, cut_high + 1), high))
            if piece[0] <= piece[1]
        ]
    return tuple(left)


def _within(ranges: Ranges, allowed: Ranges) -> Ranges:
    pieces = ((max(low, first), min(high, last)) for low, high in ranges for first, last in allowed)
    return tuple((low, high) for low, high in pieces if low <= high)


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._depth = 0

    def alternation(self, *, top: bool = False) -> Regex:
        options = [self._sequence(top=top)]
        while self._take("|"):
            options.append(self._sequence(top=top))
        return options[0] if len(options) == 1 else Alternation(tuple(options))

    def _sequence(self, *, top: bool) -> Regex:
        # JSON Schema patterns are not anchored: what stands before and after an unanchored one is free.
        filler = Repeat(Chars(PRINTABLE), 0, None)
        parts: list[Regex] = [] if not top or self._take("^") else [filler]
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            if top and self.text[self.at] == "$" and self.text[self.at + 1 : self.at + 2] in ("", "|"):
                self.at += 1
                return Sequence(tuple(parts))
            parts.append(self._repeated(self._atom()))
        return Sequence((*parts, filler) if top else tuple(parts))

    def _repeated(self, atom: Regex) -> Regex:
        bounds: tuple[int, int | None]
        if self._take("*"):
            bounds = (0, None)
        elif self._take("+"):
            bounds = (1, None)
        elif self._take("?"):
            bounds = (0, 1)
        elif match := re.compile(r"\{(\d+)(,?)(\d*)\}").match(self.text, self.at):
            self.at = match.end()
            fewest = int(match[1])
            bounds = (fewest, (int(match[3]) if match[3] else None) if match[2] else fewest)
        else:
            return atom
        if max(bounds[0], bounds[1] or 0) > _MAX_REPEAT:
            raise UnsupportedPattern(f"a repetition of more than {_MAX_REPEAT} times")
        self._take("?")
        if self._peek() == "+":
            raise UnsupportedPattern("a possessive repetition")
        return Repeat(atom, *bounds)

    def _atom(self) -> Regex:
        character = self.text[self.at]
        self.at += 1
        if character == "(":
            return self._group()
        if character == "[":
            return self._class()
        if character == ".":
            return Chars(PRINTABLE)
        if character == "\\":
            return self._usable(*self._escape())
        if character in "^$":
            raise UnsupportedPattern(f"the anchor '{character}' inside the expression")
        return self._usable(((ord(character), ord(character)),))

    def _group(self) -> Regex:
        self._depth += 1
        if self._depth > 20:
            raise UnsupportedPattern("groups nested deeper than 20")
        if opening := re.compile(r"\?(:|P?<[A-Za-z_]\w*>)").match(self.text, self.at):
            self.at = opening.end()
        elif self._peek() == "?":
            raise UnsupportedPattern(f"the group '({self.text[self.at : self.at + 2]}'")
        inner = self.alternation()
        if not self._take(")"):
            raise UnsupportedPattern("a group that does not end")
        self._depth -= 1
        return inner

    def _class(self) -> Regex:
        negated, ranges, first, coarse = self._take("^"), list[tuple[int, int]](), True, False
        while first or self._peek() != "]":
            first = False
            low, one, wide = self._member()
            coarse = coarse or wide
            if one and self._peek() == "-" and self.text[self.at + 1 : self.at + 2] != "]":
                self.at += 1
                high, closes, _ = self._member()
                if not closes:
                    raise UnsupportedPattern("a class as the end of a range")
                ranges.append((low[0][0], high[0][1]))
            else:
                ranges += low
        self.at += 1
        if not negated:
            return self._usable(tuple(ranges))
        return self._usable(_without(_ASCII if coarse else PRINTABLE, tuple(ranges)))

    def _member(self) -> tuple[Ranges, bool, bool]:
        """Ranges of a class member, whether it is one character, whether it is a class of its own."""
        character = self.text[self.at]
        self.at += 1
        if character != "\\":
            return ((ord(character), ord(character)),), True, False
        (ranges,) = self._escape()
        one = len(ranges) == 1 and ranges[0][0] == ranges[0][1] and self.text[self.at - 1] not in "sS"
        return ranges, one, not one

    def _escape(self) -> tuple[Ranges]:
        character = self.text[self.at]
        self.at += 1
        if character in _CLASSES:
            return (_CLASSES[character],)
        if character.lower() in _CLASSES:
            removed = ((9, 13), (32, 32)) if character == "S" else _CLASSES[character.lower()]
            return (_without(_ASCII, removed),)
        if match := re.compile(r"(?<=x)[0-9a-fA-F]{2}|(?<=u)[0-9a-fA-F]{4}").match(self.text, self.at):
            self.at = match.end()
            return (((int(match[0], 16), int(match[0], 16)),),)
        if character.isalnum():
            raise UnsupportedPattern(f"the escape '\\{character}'")
        return (((ord(character), ord(character)),),)

    def _usable(self, ranges: Ranges) -> Chars:
        usable = _within(ranges, PRINTABLE)
        if not usable:
            raise UnsupportedPattern("a character outside of printable text")
        return Chars(usable)

    def _take(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self.at += 1
        return True

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]
