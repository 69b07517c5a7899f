"""Ids of tool calls for vendors that bound them: the same call and its result get the same id in every request."""

from hashlib import sha256


def shortened(identity: str, length: int) -> str:
    """An id of so many letters and digits that stands for the given one."""
    return sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:length]
