"""Carries Gemini's thought signatures through clients that know of none: in the ids of tool calls, which all echo.

Gemini 3 refuses a function call of the history without the signature that came with it (2026-11-23,
ai.google.dev/gemini-api/docs/thought-signatures). The signature of a text is only asked for, not required: it goes out
as ``reasoning.signature``, marked as ours, so that another vendor's signature is never sent to Gemini.
"""

import re
from hashlib import sha256

# What the documentation gives for calls that another model made; base64, since the field is bytes.
UNSIGNED = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
_MARK = "_sig_"
_THOUGHT = "gemini:"
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_TO_ID, _FROM_ID = str.maketrans("+/", "-_", "="), str.maketrans("-_", "+/")


def call_id(given: str | None, signature: str | None, *facts: object) -> str:
    """The id of a call: the vendor's own, or one made from facts that set the call apart (Gemini need not give any),
    and its signature in the alphabet of ids."""
    identity = given or "call_" + sha256(repr(facts).encode()).hexdigest()[:24]
    if not signature or not _BASE64.fullmatch(signature):
        return identity
    return identity + _MARK + signature.translate(_TO_ID)


def split_id(identity: str) -> tuple[str, str | None]:
    """The id as the vendor knows it, and the signature of its call."""
    bare, mark, packed = identity.partition(_MARK)
    signature = packed.translate(_FROM_ID)
    if not mark or not _BASE64.fullmatch(signature):
        return identity, None
    return bare, signature + "=" * (-len(signature) % 4)


def mark_thought(signature: str) -> str:
    """The signature of a text or thought as a client keeps it."""
    return _THOUGHT + signature


def read_thought(signature: str) -> str | None:
    """The same as Gemini knows it; None for a signature that is not Gemini's."""
    return signature.removeprefix(_THOUGHT) if signature.startswith(_THOUGHT) else None
