"""Grammars for XGrammar: the same language, without what it reads wrongly or slowly."""

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.openvino.grammar import rewritten
from penstock.providers.embedded.grammar.build import object_grammar, schema_grammar
from tests.providers.gbnf import parse, sample
from tests.providers.schemas import check


def written(schema: Any, budget: int = 2000) -> str:
    """The grammar of a schema, rewritten."""
    return rewritten(schema_grammar(schema, budget=budget, where="x"))


@settings(deadline=None, max_examples=40)
@given(fewest=st.integers(0, 200), more=st.integers(0, 700), seed=st.integers(0, 2**32))
def test_a_rewritten_string_keeps_both_of_its_bounds(fewest: int, more: int, seed: int) -> None:
    grammar = written({"type": "string", "minLength": fewest, "maxLength": fewest + more})
    rules, choose = parse(grammar), random.Random(seed)
    for _ in range(10):
        check(sample(rules, choose), {"type": "string", "minLength": fewest, "maxLength": fewest + more})
    spans = [int(high) - int(low) for low, high in re.findall(r"\{(\d+),(\d+)\}", grammar)]
    assert max(spans, default=0) <= 64


@pytest.mark.parametrize("most", [64, 65, 127, 128, 129, 400])
def test_every_length_up_to_the_bound_can_be_written(most: int) -> None:
    lines = rewritten(f'root ::= character{{0,{most}}}\ncharacter ::= "a"').split("\n")
    rules = dict(line.split(" ::= ") for line in lines)

    def pattern(expression: str) -> str:
        """The expression as a regular one: none of these rules holds itself."""
        named = re.sub(r"[a-z][a-z0-9]*", lambda name: f"(?:{pattern(rules[name[0]])})", expression.replace('"a"', "A"))
        return named.replace(" ", "").replace('""', "")

    whole = re.compile(pattern("root"))
    assert [size for size in range(most + 70) if whole.fullmatch("A" * size)] == list(range(most + 1))


@pytest.mark.parametrize("const", ["\xade", "éa1", "ÿF", "\x7f0", 'ü"e', "aéz", "日a"])
def test_a_constant_is_cut_where_it_would_be_misread(const: str) -> None:
    grammar = written({"const": const})
    assert json.loads(sample(parse(grammar), random.Random(1))) == const
    assert not re.search("[\x7f-\xff][0-9a-fA-F]", grammar)


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        (r"[\x2Dab]", r"[ab\x2D]"),
        (r"[\x20-\x21\x23a-c]", r"[a-c\x20-\x21\x23]"),
        (r"[\u00E9-\u00EAa-z]", r"[a-z\u00E9-\u00EA]"),
        (r"[0-\u00E9a]", r"[0-\x7Ea\x7F-\u00E9]"),
        ("[éa日\\]]", r"[a\u00E9\u65E5\x5D]"),
        (r"[\x20-\x21\x5D-\x7E\U00010000-\U0010FFFF]", r"[\x20-\x21\x5D-\x7E\U00010000-\U0010FFFF]"),
    ],
)
def test_no_digit_stands_behind_an_escape_of_a_class(given: str, safe: str) -> None:
    assert rewritten(f"root ::= {given}") == f"root ::= {safe}"


def test_a_group_that_is_repeated_widely_is_taken_whole() -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 300}
    rules, choose = (
        parse(rewritten('root ::= "[" one ("," one){0,300} "]"\none ::= "1" | "(" | [)(]')),
        random.Random(2),
    )
    assert all(sample(rules, choose).endswith("]") for _ in range(50))
    check(sample(parse(written(schema)), choose), schema)


def test_rules_that_say_the_same_are_one() -> None:
    fields = {name: {"type": "string"} for name in "abcdef"}
    grammar = written({"type": "object", "properties": fields, "required": list("abcdef")})
    assert len([line for line in grammar.split("\n") if "{64}" in line]) == 1
    check(sample(parse(grammar), random.Random(3)), {"type": "object", "required": list("abcdef")})


def test_any_object_stays_an_object() -> None:
    rules, choose = parse(rewritten(object_grammar(budget=4000))), random.Random(4)
    assert all(isinstance(json.loads(sample(rules, choose)), dict) for _ in range(50))


@pytest.mark.parametrize("text", ["", "nonsense", "root ::= §"])
def test_what_is_no_grammar_of_ours_is_left_as_it_is(text: str) -> None:
    assert rewritten(text) == text
