"""Sampling parameters of a request in the engine's names, and which parameters have no effect."""

import msgspec

from penstock.domain.chat import ChatRequest, Json
from penstock.domain.errors import PenstockError
from penstock.providers.embedded.fields import FIELDS
from penstock.providers.embedded.grammar.arguments import unenforced
from penstock.providers.translation.fields import Fields

MAX_CHOICES = 16
# The engine's own defaults (xllamacpp 2026.10.11549), written out so that an upgrade cannot change answers silently.
_DEFAULTS: dict[str, Json] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
# The engine takes a 32-bit seed, and all ones ask for a random one.
_SEEDS = 0xFFFFFFFF
_FIELDS = Fields("embedded", FIELDS)


def choices(chat: ChatRequest) -> int:
    """How many answers are asked for. Raises PenstockError when more than ``MAX_CHOICES``."""
    wanted = 1 if chat.n is None else chat.n
    if not 1 <= wanted <= MAX_CHOICES:
        raise PenstockError("invalid_value", f"n must be between 1 and {MAX_CHOICES} for this model.", param="n")
    return wanted


def body(chat: ChatRequest) -> dict[str, Json]:
    """The engine's parameters, without prompt, grammar, stop and seed. Raises PenstockError for a bad logit_bias."""
    wanted: dict[str, Json] = {
        "n_predict": -1 if chat.max_output is None else chat.max_output,
        "presence_penalty": chat.presence_penalty or 0.0,
        "frequency_penalty": chat.frequency_penalty or 0.0,
        "cache_prompt": True,
    }
    for name, default in _DEFAULTS.items():
        value = getattr(chat, name)
        wanted[name] = default if value is None else value
    if chat.logprobs:
        wanted["n_probs"] = max(1, chat.top_logprobs or 0)
        wanted["top_logprobs"] = chat.top_logprobs or 0  # n_probs does not tell 0 from 1; llama-server does not read it
    if chat.logit_bias:
        wanted["logit_bias"] = [[_token(key), bias] for key, bias in chat.logit_bias.items()]
    return wanted


def seed(chat: ChatRequest, index: int) -> dict[str, Json]:
    """The seed of one of the choices: the caller's plus the index, so that choices differ and repeat."""
    return {} if chat.seed is None else {"seed": (chat.seed + index) % _SEEDS}


def stops(chat: ChatRequest) -> list[str]:
    """The stop strings as a list; empty ones are dropped."""
    listed = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
    return [text for text in listed if text]


def ignored(chat: ChatRequest) -> tuple[str, ...]:
    """Names of parameters that are set and change nothing on the embedded engine."""
    names = list(_FIELDS.ignored(chat))
    if chat.stop and _is_forced(chat):
        names.append("stop")
    names += unenforced(chat)
    return tuple(sorted(names))


def logprobs(entries: list[dict[str, Json]], chat: ChatRequest) -> Json:
    """The engine's token probabilities in OpenAI's shape; UNSET when they were not asked for."""
    if not chat.logprobs:
        return msgspec.UNSET
    top = chat.top_logprobs or 0
    return {
        "content": [
            {**_probability(entry), "top_logprobs": [_probability(one) for one in entry.get("top_logprobs", [])[:top]]}
            for entry in entries
        ],
        "refusal": None,
    }


def _probability(entry: dict[str, Json]) -> dict[str, Json]:
    return {name: entry.get(name) for name in ("token", "logprob", "bytes")}


def _is_forced(chat: ChatRequest) -> bool:
    return bool(chat.tools) and chat.tool_choice not in (None, "auto", "none")


def _token(key: str) -> int:
    if not key.isascii() or not key.isdigit():
        raise PenstockError("invalid_value", f"'{key[:40]}' is not a token id.", param="logit_bias")
    return int(key)
