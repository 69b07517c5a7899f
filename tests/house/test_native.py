"""What compiling (scripts/native.py) asks of the modules that are compiled."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.native import sources
from tests.house.rooms import ROOT, tree

MODULES = [str(path) for path in sources()]


def classes(module: str) -> Iterator[ast.ClassDef]:
    """The classes that a module defines."""
    yield from (node for node in ast.walk(tree(Path(module))) if isinstance(node, ast.ClassDef))


@pytest.mark.parametrize("module", MODULES)
def test_a_compiled_module_defines_no_struct_whose_keywords_would_be_lost(module: str) -> None:
    """The compiler drops the keywords of a class: frozen comes from Value all the same, a tag or a name would not."""
    for found in classes(module):
        bases = {ast.unparse(base) for base in found.bases}
        assert "msgspec.Struct" not in bases, f"{module}: {found.name} is a Struct of its own"
        lost = {word.arg for word in found.keywords} - {"frozen", "gc", "kw_only", "metaclass"}
        assert not lost, f"{module}: {found.name} loses {lost}"


@pytest.mark.parametrize("module", MODULES)
def test_a_compiled_module_decodes_nothing_into_a_type_of_its_own(module: str) -> None:
    """Of the types of a compiled struct's fields nothing is left at run time that could be decoded into."""
    own = {found.name for found in classes(module)}
    text = (ROOT / module).read_text()
    for name in own:
        assert f"Decoder({name})" not in text
        assert f"type={name}" not in text
