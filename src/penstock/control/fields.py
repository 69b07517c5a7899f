"""Reads fields of a request body; a wrong one is a 422 that names it."""

from typing import Any

from penstock.control.names import invalid
from penstock.web.api import ApiError, Request

_LONGEST = 1024


def body_of(request: Request) -> dict[str, Any]:
    """The body's fields; a missing body has none."""
    if request.body is None:
        return {}
    if not isinstance(request.body, dict):
        raise ApiError(400, "bad_request", "The request body must be a JSON object.")
    return request.body


def text(body: dict[str, Any], name: str) -> str | None:
    """An optional string; null is the same as absent."""
    return _text(body.get(name), name)


def flag(body: dict[str, Any], name: str) -> bool:
    """An optional boolean."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise invalid(f"{name} must be true or false.")


def reference(body: dict[str, Any], name: str) -> str | None:
    """An object named by itself, or as ``{"id": ...}`` or ``{"name": ...}``: the CLI and Terraform use all three."""
    value = body.get(name)
    if isinstance(value, dict):
        return _text(value.get("id"), f"{name}.id") or _text(value.get("name"), f"{name}.name")
    return _text(value, name)


def required(value: str | None, name: str) -> str:
    """The value, or a 422 that asks for it."""
    if not value:
        raise invalid(f"{name} is required.")
    return value


def options(body: dict[str, Any], name: str) -> dict[str, str]:
    """An optional object of short scalars, as text: the add-on options after the CLI's double dash."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > 32:
        raise invalid(f"{name} must be an object of at most 32 options.")
    found = {}
    for key, item in value.items():
        if isinstance(item, bool):
            item = "true" if item else "false"  # noqa: PLW2901 - normalised for the line below
        if not isinstance(item, str | int | float) or len(str(item)) > _LONGEST or len(key) > _LONGEST:
            raise invalid(f"{name}.{key[:80]} must be a short string.")
        found[key] = str(item)
    return found


def _text(value: Any, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _LONGEST or "\0" in value:
        raise invalid(f"{name} must be a string of at most {_LONGEST} characters.")
    return value
