"""Bytes to ChatRequest: JSON, types and unknown fields, each mistake named with its field and remedy."""

import json
import re
from typing import Any

import msgspec

from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError
from penstock.domain.value import Value
from penstock.gateway.ranges import check_ranges

_decoder = msgspec.json.Decoder(ChatRequest)
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_AT = re.compile(r" - at `(?:key in )?\$\.?(.*?)`$")
_FIELD = re.compile(r"field `(.*?)`")
_MAX_IGNORED = 64


class Parsed(Value, frozen=True):
    """A request, its bytes without the fields that were dropped, and the names of those. ``prompt_caching`` is what its
    headers say of that (heroku-wire.md 2.1)."""

    chat: ChatRequest
    raw: bytes
    dropped: tuple[str, ...] = ()
    prompt_caching: bool = True


def parse_chat(body: bytes) -> Parsed:
    """Parse one body. Raises PenstockError 400 with the field at fault."""
    try:
        parsed = Parsed(_decoder.decode(body), body)
    except msgspec.ValidationError as error:
        if "unknown field" not in str(error):
            raise _named(error) from None
        parsed = _without_unknown(body, error)
    except (ValueError, RecursionError) as error:
        raise _malformed(body) from error
    check_ranges(parsed.chat)
    return parsed


def with_model(parsed: Parsed, model_id: str) -> Parsed:
    """The same request for the model of that id, as if it had been asked for by it."""
    fields = _raw_object.decode(parsed.raw) | {"model": msgspec.Raw(msgspec.json.encode(model_id))}
    chat = msgspec.structs.replace(parsed.chat, model=model_id)
    return msgspec.structs.replace(parsed, chat=chat, raw=msgspec.json.encode(fields))


def with_max_tokens(parsed: Parsed, most: int) -> Parsed:
    """The same request with that bound on its output, under the name that the client used for it."""
    newer = parsed.chat.max_completion_tokens is not None
    name, other = ("max_completion_tokens", "max_tokens") if newer else ("max_tokens", "max_completion_tokens")
    fields = _raw_object.decode(parsed.raw)
    fields.pop(other, None)
    fields[name] = msgspec.Raw(b"%d" % most)
    chat = msgspec.structs.replace(parsed.chat, **{name: most, other: None})
    return msgspec.structs.replace(parsed, chat=chat, raw=msgspec.json.encode(fields))


def _without_unknown(body: bytes, error: msgspec.ValidationError) -> Parsed:
    """The same request less its unknown fields, when ``allow_ignored_params`` permits (heroku-wire.md 2.1)."""
    data = _plain(body)
    if data.get("allow_ignored_params") is not True:
        raise _named(error)
    dropped: list[str] = []
    while len(dropped) < _MAX_IGNORED:
        try:
            return Parsed(msgspec.convert(data, ChatRequest), msgspec.json.encode(data), tuple(dropped))
        except msgspec.ValidationError as next_error:
            if "unknown field" not in str(next_error):
                raise _named(next_error) from None
            dropped.append(_drop(data, next_error))
    raise PenstockError("unknown_parameter", f"The request has more than {_MAX_IGNORED} unknown fields.")


def _plain(body: bytes) -> dict[str, Any]:
    try:
        data: dict[str, Any] = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise _malformed(body) from error
    return data


def _drop(data: dict[str, Any], error: msgspec.ValidationError) -> str:
    path, name = _path_of(error), _field_of(error)
    holder: Any = data
    for step in re.findall(r"[^.\[\]]+", path):
        holder = holder[int(step)] if isinstance(holder, list) else holder[step]
    del holder[name]
    return f"{path}.{name}" if path else name


def _path_of(error: msgspec.ValidationError) -> str:
    found = _AT.search(str(error))
    return found[1] if found else ""


def _field_of(error: msgspec.ValidationError) -> str:
    found = _FIELD.search(str(error))
    return found[1] if found else ""


def _named(error: msgspec.ValidationError) -> PenstockError:
    """The public error for a value that does not fit the request's type."""
    text = _AT.sub("", str(error))
    path, field = _path_of(error), _field_of(error)
    param = ".".join(part for part in (path, field) if part) or None
    if "unknown field" in text:
        message = f"Unknown parameter: '{param}'. Remove it, or send allow_ignored_params: true to have it ignored."
        return PenstockError("unknown_parameter", message[:500], param=param and param[:200])
    if "missing required field" in text:
        return PenstockError("missing_parameter", f"Missing required parameter: '{param}'.", param=param)
    where = f"'{param}'" if param else "the body"
    if "Expected `object`" in text and not param:
        return PenstockError("invalid_json", "The body must be one JSON object.")
    code = "invalid_type" if text.startswith("Expected") else "invalid_value"
    return PenstockError(code, f"Invalid value for {where}: {text[:1].lower()}{text[1:]}."[:500], param=param)


def _malformed(body: bytes) -> PenstockError:
    """What is wrong with the JSON, with line, column and byte; only ever on the way to a 400."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        return PenstockError("invalid_json", f"The body is not UTF-8: invalid byte at byte {error.start}.")
    try:
        json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        at = len(text[: error.pos].encode())
        return PenstockError(
            "invalid_json", f"Invalid JSON at line {error.lineno} column {error.colno} (byte {at}): {error.msg}."
        )
    except RecursionError:
        return PenstockError("invalid_json", "The JSON is nested too deeply.")
    except ValueError as error:
        return PenstockError("invalid_json", f"Invalid JSON: {error}.")
    return PenstockError("invalid_json", "The JSON holds a lone surrogate (\\ud800-\\udfff without its pair).")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
