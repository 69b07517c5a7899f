"""How the proof of a model's thoughts travels through a client and back: one signature for one message.

Several blocks, or ones that the vendor encrypted, are packed into one text of ours: for each the length of its thoughts
and its signature, or -1 and its encrypted data.
"""

from typing import Any

import msgspec

_PACKED = "blocks:"
_packed = msgspec.json.Decoder(list[tuple[int, str]])


def pack(blocks: list[tuple[int, str]]) -> str | None:
    """The signature of all blocks; None when the vendor signed nothing."""
    if len(blocks) == 1 and blocks[0][0] >= 0:
        return blocks[0][1] or None
    return _PACKED + msgspec.json.encode(blocks).decode() if blocks else None


def unpack(text: str, signature: str) -> list[dict[str, Any]]:
    """The vendor's blocks again; none for a signature that a client made up."""
    if not signature.startswith(_PACKED):
        return [_signed(text, signature)]
    try:
        packed = _packed.decode(signature[len(_PACKED) :])
    except (ValueError, RecursionError):
        return []
    blocks: list[dict[str, Any]] = []
    at = 0
    for length, proof in packed:
        if length < 0:
            blocks.append({"reasoningContent": {"redactedContent": proof}})
        else:
            blocks.append(_signed(text[at : at + length], proof))
            at += length
    return blocks


def _signed(text: str, signature: str) -> dict[str, Any]:
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}
