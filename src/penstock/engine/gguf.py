"""Reads what we need from a GGUF header: architecture and context length. Bounded against hostile files.

Layout: the GGUF specification, versions 2 and 3 (little-endian): magic, version, tensor count, then typed key-values.
"""

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

_FIXED = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING = 8
_ARRAY = 9
_MAX_PAIRS = 65536
_MAX_KEY = 65535
_MAX_STRING = 64 * 1024 * 1024
_MAX_ITEMS = 16 * 1024 * 1024


class BadWeights(Exception):
    """The file is not a GGUF that we can read; the message says why."""


class GgufHeader(NamedTuple):
    """Facts from the header. ``context_length`` is the trained context in tokens."""

    architecture: str
    context_length: int
    name: str | None


def read_header(path: Path) -> GgufHeader:
    """The header of a GGUF file. Raises BadWeights, OSError."""
    with path.open("rb") as file:
        try:
            return _read(file)
        except struct.error:
            raise BadWeights("the file ends inside its GGUF header") from None
        except UnicodeDecodeError:
            raise BadWeights("the GGUF header holds text that is not UTF-8") from None


def _read(file: BinaryIO) -> GgufHeader:
    if file.read(4) != b"GGUF":
        raise BadWeights("the file does not begin with the GGUF magic")
    version = _fixed(file, "<I")
    if version not in (2, 3):
        raise BadWeights(f"GGUF version {version} is not supported (2 and 3 are)")
    _fixed(file, "<Q")
    pairs = _fixed(file, "<Q")
    if pairs > _MAX_PAIRS:
        raise BadWeights(f"the GGUF header claims {pairs} entries")
    architecture = name = None
    contexts: dict[str, int] = {}
    for _ in range(pairs):
        key = _text(file, _MAX_KEY)
        kind = _fixed(file, "<I")
        if key in ("general.architecture", "general.name") and kind == _STRING:
            value = _text(file, _MAX_STRING)
            architecture, name = (value, name) if key.endswith("architecture") else (architecture, value)
        elif key.endswith(".context_length") and kind in _FIXED:
            contexts[key] = int(_fixed(file, _FIXED[kind]))
        else:
            _skip(file, kind, 0)
        # The tokenizer's arrays follow and are long; the facts come first in every file that converters write.
        if architecture and name and f"{architecture}.context_length" in contexts:
            break
    context = contexts.get(f"{architecture}.context_length", 0)
    if not architecture or context <= 0:
        raise BadWeights("the GGUF header names no architecture with a context length")
    return GgufHeader(architecture, context, name)


def _fixed(file: BinaryIO, form: str) -> int:
    value: int = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return value


def _text(file: BinaryIO, bound: int) -> str:
    length = _fixed(file, "<Q")
    if length > bound:
        raise BadWeights(f"the GGUF header holds a text of {length} bytes")
    raw = file.read(length)
    if len(raw) != length:
        raise BadWeights("the file ends inside its GGUF header")
    return raw.decode()


def _skip(file: BinaryIO, kind: int, depth: int) -> None:
    if kind in _FIXED:
        file.seek(struct.calcsize(_FIXED[kind]), 1)
    elif kind == _STRING:
        _skip_bytes(file, _fixed(file, "<Q"))
    elif kind == _ARRAY and depth < 4:
        inner, count = _fixed(file, "<I"), _fixed(file, "<Q")
        if count > _MAX_ITEMS:
            raise BadWeights(f"the GGUF header holds an array of {count} entries")
        if inner in _FIXED:
            _skip_bytes(file, count * struct.calcsize(_FIXED[inner]))
        else:
            for _ in range(count):
                _skip(file, inner, depth + 1)
    else:
        raise BadWeights(f"the GGUF header holds a value of unknown type {kind}")


def _skip_bytes(file: BinaryIO, count: int) -> None:
    if count > _MAX_STRING:
        raise BadWeights(f"the GGUF header holds a value of {count} bytes")
    file.seek(count, 1)
