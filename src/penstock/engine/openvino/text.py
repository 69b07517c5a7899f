"""Tokens to text as they come: bytes of a token, characters of several tokens, and stop strings across tokens."""

import codecs
from collections.abc import Iterable, Mapping
from typing import Any

# Names of the tokens that end a turn or a text, in the vocabularies of the model families that publish GGUF files.
_ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>", "</s>")


class Vocabulary:
    """The bytes of each token. ``ends`` are the tokens that end an answer."""

    def __init__(self, tokenizer: Any) -> None:
        ids: Mapping[bytes, int] = tokenizer.get_vocab()
        self._tokenizer = tokenizer
        self._names = {token: name for name, token in ids.items()}
        self._shown: dict[int, bytes] = {}
        self.ends = frozenset(
            {tokenizer.get_eos_token_id(), *(ids[end.encode()] for end in _ENDS if end.encode() in ids)}
        )

    def __len__(self) -> int:
        return len(self._names)

    def named(self, token: int) -> bytes:
        """The bytes that a grammar reads a token as: those of a special one are its name."""
        return self._names.get(token, b"")

    def shown(self, token: int) -> bytes:
        """The bytes that a token adds to a text: none for a special one."""
        if token not in self._shown:
            # Only the tokenizer knows which tokens are special: it leaves those out.
            text = self._tokenizer.decode([token], skip_special_tokens=True)
            self._shown[token] = self.named(token) if text else b""
        return self._shown[token]


class TextRun:
    """The text of one answer. Whole characters only, and nothing that may still become a stop string.

    ``stop`` is the stop string that was found, after which nothing more is given.
    """

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self.stop: str | None = None
        self._stops = tuple(stops)
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, raw: bytes) -> str:
        """The text that can be shown now."""
        if self.stop is not None:
            return ""
        self._held += self._decoder.decode(raw)
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            at, self.stop = min(found)
            return self._taken(at)
        return self._taken(len(self._held) - max(map(self._begun, self._stops), default=0))

    def rest(self) -> str:
        """The text that was held back, at the end of an answer; half a character stays out."""
        return "" if self.stop is not None else self._taken(len(self._held))

    def _begun(self, stop: str) -> int:
        """How many characters at the end may be the beginning of ``stop``."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)

    def _taken(self, size: int) -> str:
        taken, self._held = self._held[:size], self._held[size:]
        return taken
