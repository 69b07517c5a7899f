"""What a completion asks for, in the listener's names, and the engine's own configuration for it."""

import math
import secrets
from typing import Any

import msgspec

from penstock.engine.openvino.grammar import rewritten
from penstock.engine.openvino.text import Vocabulary

_SEEDS = 0xFFFFFFFF
# The nearest values that the engine takes (openvino-genai 2026.4.1) to those at the edge: top_p 0 and min_p 1 leave
# the most probable token.
_LEAST_TOP_P = 1e-6
_MOST_MIN_P = 1.0 - 1e-6
# A text without end, of any characters: no token that ends an answer fits. The engine has no bias of tokens (its
# min_new_tokens sets the logit of the end to 0, which is no ban).
_ENDLESS = "root ::= [\\x00-\\U0010FFFF] root"
_BANNED = -100.0


class Refused(Exception):
    """The request cannot be served as it is. ``kind`` and ``fields`` go into the listener's error object."""

    status = 400

    def __init__(self, message: str, kind: str = "invalid_request_error", **fields: Any) -> None:
        super().__init__(message)
        self.body = {"error": {"code": self.status, "message": message, "type": kind, **fields}}


class Ending(Refused):
    """The child takes no more requests, as it is about to be started again."""

    status = 503

    def __init__(self) -> None:
        super().__init__("the engine is being started again", "unavailable_error")


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /completion, as far as providers/embedded writes it.

    ``n_predict`` -1 is as far as the context goes; ``top_logprobs`` is how many alternatives of a token are wanted.
    """

    prompt: str
    n_predict: int = -1
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: list[str] = []
    grammar: str | None = None
    preserved_tokens: list[str] = []
    logit_bias: list[tuple[int, float]] = []
    ignore_eos: bool = False
    n_probs: int = 0
    top_logprobs: int = 0


def check(asked: Completion, vocabulary: Vocabulary) -> None:
    """Raises Refused for what the engine has no means for: better no answer than one that ignores what was asked."""
    if asked.logit_bias and not _only_bans_the_end(asked, vocabulary):
        raise _unable("logit_bias", "the engine driver openvino can forbid the end of the answer, no other token")
    if asked.logit_bias and asked.grammar is not None:
        raise _unable("logit_bias", "the engine driver openvino cannot combine it with structured output")
    if asked.top_logprobs > 0 and (asked.top_logprobs > 1 or asked.temperature > 0):
        raise _unable("top_logprobs", "the engine driver openvino knows the probability of the chosen token alone")


def bound_of(asked: Completion, prompt: int, context: int) -> int:
    """How many tokens may be written after a prompt of so many. Raises Refused when the prompt does not fit."""
    if prompt >= context:
        message = f"the request exceeds the available context size ({context} tokens)"
        raise Refused(message, "exceed_context_size_error", n_prompt_tokens=prompt, n_ctx=context)
    room = context - prompt
    return room if asked.n_predict < 0 else min(asked.n_predict, room)


def configuration(genai: Any, asked: Completion, bound: int, vocabulary: Vocabulary) -> Any:
    """The engine's GenerationConfig for at most ``bound`` tokens. Raises RuntimeError for values that it refuses."""
    config = genai.GenerationConfig(apply_chat_template=False, max_new_tokens=bound)
    config.stop_token_ids = set(vocabulary.ends)
    config.logprobs = 1 if asked.n_probs else 0
    config.presence_penalty = asked.presence_penalty
    config.frequency_penalty = asked.frequency_penalty
    if asked.temperature > 0:
        config.do_sample = True
        config.temperature = asked.temperature
        config.top_k = max(asked.top_k, 0)
        config.top_p = min(max(asked.top_p, _LEAST_TOP_P), 1.0)
        config.min_p = min(max(asked.min_p, 0.0), _MOST_MIN_P)
        # Its own default is one seed for all.
        config.rng_seed = secrets.randbelow(_SEEDS) if asked.seed is None else asked.seed % _SEEDS
    grammar = None if asked.grammar is None else rewritten(asked.grammar)
    if grammar is None and (asked.ignore_eos or asked.logit_bias):
        grammar = _ENDLESS
    if grammar is not None:
        config.structured_output_config = genai.StructuredOutputConfig(grammar=grammar)
    config.validate()
    return config


def _only_bans_the_end(asked: Completion, vocabulary: Vocabulary) -> bool:
    # Through JSON a bias may come as infinity's stand-in; whatever is no number bans nothing.
    banned = {token for token, bias in asked.logit_bias if not math.isnan(bias) and bias <= _BANNED}
    return len(banned) == len(asked.logit_bias) and banned == vocabulary.ends


def _unable(param: str, why: str) -> Refused:
    return Refused(f"{param}: {why}.", "unsupported_parameter", param=param)
