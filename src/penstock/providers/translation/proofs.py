"""How the proof of a model's thoughts travels through a client and back: one signature for one message.

One block of thoughts keeps its vendor's signature. Several, or blocks that the vendor encrypted, are packed into one
text of ours: for each the length of its thoughts and its signature, or -1 and its encrypted data.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

_PACKED = "blocks:"
_packed = msgspec.json.Decoder(list[tuple[int, str]])


class Block(NamedTuple):
    """One block of a message's thoughts: their length and the vendor's signature, or -1 and what it encrypted."""

    length: int
    proof: str


class Thinking(NamedTuple):
    """A block as a vendor wants it back: the text with its signature, or ``encrypted`` data."""

    text: str
    signature: str
    encrypted: str = ""


class Order:
    """Watches where an answer's thoughts stand. A message of ours keeps them apart from its text and calls: thoughts
    between those would come back before them, which the vendor refuses, while it does without any of models that think
    between (2026-11)."""

    __slots__ = ("_kept", "_spoken")

    def __init__(self) -> None:
        self._kept = True
        self._spoken = False

    def spoke(self) -> None:
        """Something that is no thought began."""
        self._spoken = True

    def thought(self) -> None:
        """A block of thoughts began."""
        self._kept = self._kept and not self._spoken

    def packed(self, blocks: Sequence[Block]) -> str | None:
        """The signature of all blocks, where all stood first."""
        return packed(blocks) if self._kept else None


def packed(blocks: Sequence[Block]) -> str | None:
    """The signature of all blocks; None when there are none or the vendor signed nothing."""
    if len(blocks) == 1 and blocks[0].length >= 0:
        return blocks[0].proof or None
    return _PACKED + msgspec.json.encode(blocks).decode() if any(block.proof for block in blocks) else None


def unpacked(text: str, signature: str) -> list[Thinking]:
    """The blocks again; none for a signature that a client made up or another vendor gave, nor of those that nobody
    signed: this one would refuse them."""
    if not signature.startswith(_PACKED):
        # These vendors' own are base64; what another dialect of ours marks as its own has a colon.
        return [] if ":" in signature else [Thinking(text, signature)]
    try:
        blocks = _packed.decode(signature[len(_PACKED) :])
    except (ValueError, RecursionError):
        return []
    found: list[Thinking] = []
    at = 0
    for length, proof in blocks:
        if length < 0:
            found.append(Thinking("", "", proof))
            continue
        if proof:
            found.append(Thinking(text[at : at + length], proof))
        at += length
    return found
