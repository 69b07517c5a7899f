"""Reads a request body as the type that the OpenAPI document describes; a wrong field is a 422 that names it."""

import re
from collections.abc import Collection
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from penstock.control.names import ADDON_NAME, APP_NAME, EMAIL, invalid
from penstock.domain.access import Role
from penstock.web.api import ApiError, Request

_LONGEST = 1024

# PostgreSQL has no NUL in a text, and no environment variable has one.
Text = Annotated[str, Meta(min_length=1, max_length=_LONGEST, pattern=r"^[^\x00]*$")]


def _promise(pattern: str, longest: int, example: str) -> Meta:
    """What the document says of a name; names.py checks it, and says it in Heroku's words."""
    return Meta(extra_json_schema={"pattern": f"^({pattern})$", "maxLength": longest, "examples": [example]})


AppName = Annotated[str, _promise(APP_NAME.pattern, 30, "serene-river")]
AddOnName = Annotated[str, _promise(ADDON_NAME.pattern, 64, "inference-calm-04711")]
Alias = Annotated[str, _promise("[A-Za-z][A-Za-z0-9_]{0,63}", 64, "INFERENCE")]
Email = Annotated[Text, Meta(extra_json_schema={"pattern": f"^{EMAIL.pattern}$", "examples": ["ann@example.com"]})]
RoleName = Annotated[Text, Meta(extra_json_schema={"enum": [role.value for role in Role]})]
SharedRoleName = Annotated[
    Text, Meta(extra_json_schema={"enum": [role.value for role in Role if role is not Role.OWNER]})
]


class Ref(Struct, frozen=True):
    """An object by its id or its name."""

    id: Text | None = None
    name: Text | None = None


_EITHER = [{"required": [name], "properties": {name: {"type": "string"}}} for name in ("id", "name")]
# An object named by itself, or as ``{"id": ...}`` or ``{"name": ...}``: the CLI and Terraform use all three.
Reference = Text | Annotated[Ref, Meta(extra_json_schema={"anyOf": _EITHER})]

_T = TypeVar("_T")
_KINDS = {"str": "a string", "bool": "true or false", "object": "an object", "array": "an array", "int": "a number"}


def body_of(request: Request) -> dict[str, Any]:
    """The body's fields; a missing body has none."""
    if request.body is None:
        return {}
    if not isinstance(request.body, dict):
        raise ApiError(400, "bad_request", "The request body must be a JSON object.")
    return request.body


def read(request: Request, type_: type[_T]) -> _T:
    """The body as that type. Fields that it does not have are ignored; a wrong one is a 422 that names it."""
    try:
        return msgspec.convert(body_of(request), type_)
    except msgspec.ValidationError as error:
        raise invalid(_in_words(str(error))) from None


def named(reference: Reference | None) -> str | None:
    """The id or name that a reference has."""
    return reference.id or reference.name if isinstance(reference, Ref) else reference


def required(value: str | None, name: str) -> str:
    """The value, or a 422 that asks for it."""
    if not value:
        raise invalid(f"{name} is required.")
    return value


def only(request: Request, names: Collection[str]) -> None:
    """Refuses a query parameter that the route does not have, where what it was to choose would be everything: a 422
    that names it."""
    if unknown := next((name for name in request.query if name not in names), None):
        raise invalid(f"There is no query parameter {unknown[:40]!r} here; there are {', '.join(names)}.")


def _in_words(problem: str) -> str:
    """What msgspec (0.22) says of a value, such as "Expected `str`, got `int` - at `$.name`", for a reader."""
    what, _, place = problem.partition(" - at ")
    place = re.sub(r"[`$]|^\W+", "", place).lstrip(".") or "The request body"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{place}.{missing[1]} is required." if " - at " in problem else f"{missing[1]} is required."
    if what == "Expected `str` of length >= 1":
        return f"{place} must not be empty."
    if "regex" in what:
        return f"{place} must not contain NUL characters."
    if "datetime" in what:
        return f"{place} must be a time with its zone, such as 2030-12-31T00:00:00Z."
    if bound := re.fullmatch(r"Expected `(int|array)`(?: of length)? (>=|<=) (\d+)", what):
        kind, sign, limit = bound.groups()
        unit = " entries" if kind == "array" else ""
        return f"{place} must {'have' if unit else 'be'} at {'least' if sign == '>=' else 'most'} {limit}{unit}."
    expected, _, rest = what.removeprefix("Expected ").partition("`,")
    named = expected.strip("`").split(" | ")
    kinds = [_KINDS.get(kind, kind) for kind in named if kind not in ("null", "float")]
    if "int" in named and rest.endswith("got `float`"):
        kinds[kinds.index(_KINDS["int"])], rest = "a whole number", " a fraction"
    if " of length" in expected:
        kind, _, length = expected.partition(" of length <= ")
        return f"{place} must be {_KINDS.get(kind.strip('`'), kind)} of at most {length} characters or fields."
    return f"{place} must be {' or '.join(kinds)}{', not' + rest.replace(' got', '').replace('`', '') if rest else ''}."
