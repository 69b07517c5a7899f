"""Ids of tool calls for vendors that bound them: a call and its result get the same id, in every request."""

from hashlib import sha256

# 2026-11-23, OpenAI: "string too long. Expected a string with maximum length 40".
LONGEST = 40


def shortened(identity: str, length: int) -> str:
    """An id of so many letters and digits that stands for the given one."""
    return sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def short(identity: str) -> str:
    """The id, or one in its place where it is too long for OpenAI and those that follow it."""
    return identity if len(identity) <= LONGEST else f"call_{shortened(identity, 24)}"
