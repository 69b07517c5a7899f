"""Nothing grows past its bound: files, functions, folders, and the server as a whole."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.house.rooms import ROOT, Function, functions, python_files

BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)
EXEMPT = ("migrations",)


def test_no_file_is_longer_than_its_bound() -> None:
    bounds = {"src": 400, "bench": 400, "scripts": 400, "tests": 600}
    long = {
        str(path): lines
        for path in python_files(*bounds)
        if (lines := line_count(path)) > bounds[path.parts[0]] and not set(EXEMPT) & set(path.parts)
    }
    assert not long


# Lines by plane (decisions 9, 11, 13, 14): the line of a request cannot grow on what the control plane does not need.
PLANES = {
    "the line of a request": ({"gateway", "ledger", "web"}, 8_600),
    "upstreams": ({"providers", "engine"}, 12_000),
    "control": ({"control", "store"}, 12_400),
    "the rest": ({"app", "domain", "settings", "__main__.py", "__init__.py"}, 4_800),
    "client": ({"cli"}, 6_200),
}


@pytest.mark.parametrize("plane", PLANES)
def test_each_plane_stays_under_its_bound(plane: str) -> None:
    rooms, bound = PLANES[plane]
    assert sum(line_count(path) for path in python_files("src") if path.parts[2] in rooms) < bound


def test_every_room_belongs_to_one_plane() -> None:
    placed = [room for rooms, _ in PLANES.values() for room in rooms]
    assert sorted(placed) == sorted({path.parts[2] for path in python_files("src")})


def test_no_function_is_longer_than_50_lines() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path in server_files()
        for node in functions(path)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > 50
    ]
    assert not long


def test_no_function_is_more_complex_than_10() -> None:
    tangled = [
        f"{path}:{node.lineno} {node.name} ({complexity(node)})"
        for path in server_files()
        for node in functions(path)
        if complexity(node) > 10
    ]
    assert not tangled


def test_no_function_takes_more_than_6_parameters() -> None:
    wide = [
        f"{path}:{node.lineno} {node.name}"
        for path in server_files()
        for node in functions(path)
        if parameter_count(node) > 6
    ]
    assert not wide


def test_no_folder_of_the_server_holds_more_than_15_files() -> None:
    crowded = {str(folder): n for folder, n in Counter(path.parent for path in server_files()).items() if n > 15}
    assert not crowded


def server_files() -> list[Path]:
    return [path for path in python_files("src") if not set(EXEMPT) & set(path.parts)]


def line_count(path: Path) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def complexity(node: Function) -> int:
    """One plus the branches, an inner function counted with its outer one, as the linter's C901 counts."""
    return 1 + sum(
        isinstance(inner, BRANCHES) or (isinstance(inner, ast.Try | ast.TryStar) and bool(inner.orelse))
        for inner in ast.walk(node)
    )


def parameter_count(node: Function) -> int:
    """Parameters that a caller gives."""
    names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])
