"""Names and borders: docstrings, banned module names, vendors' names and facts of one machine."""

import ast
import re

import pytest

from tests.house.rooms import ROOT, project_files, python_files, tree

BANNED_MODULES = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
VENDORS = ("anthropic", "bedrock", "claude", "cohere", "deepseek", "gemini", "mistral", "ollama", "openai", "vllm")
# A vendor is named where its dialect is spoken, in catalogue data, and where a value of the configuration names one.
VENDOR_ROOMS = ("src/penstock/providers/",)
REGISTRY_HOSTS = (
    "pypi" + ".org",
    "files.python" + "hosted.org",
    "registry.npm" + "js.org",
    "deb.debian" + ".org",
    "proxy.golang" + ".org",
)
MACHINE_PATHS = re.compile(r"/(?:work|root|home/\w+|opt/(?:pypi|wheels))/|/tmp/[xp]/|/tmp/plan")


def test_every_module_starts_with_a_docstring_that_says_its_job() -> None:
    silent = [
        str(path)
        for path in python_files("src", "tests", "bench", "scripts", "examples")
        if tree(path).body and not ast.get_docstring(tree(path))
    ]
    assert not silent


def test_every_public_function_and_class_of_the_server_has_a_docstring() -> None:
    silent = [
        f"{path}:{node.lineno} {node.name}"
        for path in python_files("src")
        if "migrations" not in path.parts
        for node in public_definitions(tree(path))
        if not ast.get_docstring(node)
    ]
    assert not silent


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [str(path) for path in python_files("src", "tests", "bench", "scripts") if path.stem in BANNED_MODULES]
    assert not vague


def test_every_import_is_absolute() -> None:
    relative = [
        f"{path}:{node.lineno}"
        for path in python_files("src", "tests", "bench", "scripts")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_a_vendor_is_named_only_where_its_dialect_is_spoken() -> None:
    named = []
    for path in python_files("src"):
        if str(path).startswith(VENDOR_ROOMS):
            continue
        for number, line in enumerate(code_lines(path.as_posix()), 1):
            if any(vendor in line.lower() for vendor in VENDORS):
                named.append(f"{path}:{number}: {line.strip()}")
    assert not named


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_file_names_a_package_registry_host(host: str) -> None:
    assert not [str(path) for path in project_files() if host in text(path.as_posix())]


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path}: {match[0]}"
        for path in project_files()
        if path.name != "test_names.py" and (match := MACHINE_PATHS.search(text(path.as_posix())))
    ]
    assert not found


def public_definitions(module: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Top-level functions and classes, and the methods of those classes, whose names are public."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    top = [node for node in module.body if isinstance(node, kinds) and not node.name.startswith("_")]
    inner = [
        node
        for owner in top
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]
    return [*top, *inner]


def code_lines(name: str) -> list[str]:
    """The lines of a file with its docstrings and comments blanked: prose may compare and credit."""
    lines = text(name).splitlines()
    for node in ast.walk(ast.parse(text(name))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[number - 1] = ""
    return [re.sub(r"\s#.*|^#.*", "", line) for line in lines]


def text(name: str) -> str:
    """The text of a project file."""
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")
