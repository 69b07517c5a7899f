"""Gemini's answers as our parts: every event of a stream is a GenerateContentResponse of its own."""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import UNSET

from penstock.domain.chat import Json
from penstock.domain.errors import UpstreamError
from penstock.domain.usage import TokenCount, Usage
from penstock.providers.accounts import ABSENT, kept
from penstock.providers.faults import masked
from penstock.providers.gemini import signatures
from penstock.providers.gemini.errors import read_error
from penstock.providers.sse import SseParser
from penstock.providers.translation.parts import Part
from penstock.providers.wire_out import Call, Delta, Finish, Function, Reasoning

# 2026-11-23, the API's FinishReason. What is missing here is no ending that our dialect has: it is a failure.
_FINISHES: dict[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"), "content_filter"),
    **dict.fromkeys(("ESCALATION", "MODEL_ARMOR", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT"), "content_filter"),
}


class _Wire(msgspec.Struct, rename="camel"):
    """Names as proto3's JSON has them."""


class _FunctionCall(_Wire):
    name: str = ""
    args: msgspec.Raw = msgspec.Raw()
    id: str | None = None


class _Piece(_Wire):
    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None


class _Content(_Wire):
    parts: list[_Piece] | None = None


class _Token(_Wire):
    token: str = ""
    log_probability: float = 0.0


class _Logprobs(_Wire):
    chosen_candidates: list[_Token] | None = None
    top_candidates: list[dict[str, list[_Token]]] | None = None


class _Candidate(_Wire):
    index: TokenCount = 0
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    logprobs_result: _Logprobs | None = None


class _Feedback(_Wire):
    block_reason: str | None = None


class _Answer(_Wire):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: msgspec.Raw = msgspec.Raw()
    response_id: str = ""
    error: msgspec.Raw = msgspec.Raw()


class _UsageMetadata(_Wire):
    prompt_token_count: TokenCount = 0
    cached_content_token_count: TokenCount = 0
    candidates_token_count: TokenCount = 0
    thoughts_token_count: TokenCount = 0
    tool_use_prompt_token_count: TokenCount = 0


_answer = msgspec.json.Decoder(_Answer)
_usage = msgspec.json.Decoder(_UsageMetadata)


class Candidates:
    """The choices of one answer as they come. ``finished`` are those whose end was seen; ``usage`` is the last one."""

    def __init__(self, choices: int, credential: str | None) -> None:
        self.finished: set[int] = set()
        self.usage: Usage | None = None
        self.raw_usage: bytes | None = None
        self._expected = set(range(choices))
        self._credential = credential
        self._calls: Counter[int] = Counter()
        self._thought: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether the end of every choice was seen."""
        return self.finished >= self._expected

    def take(self, payload: bytes) -> Iterator[Part]:
        """The parts of one response. Raises UpstreamError."""
        try:
            answer = _answer.decode(payload)
        except (ValueError, RecursionError) as error:
            raise UpstreamError("upstream_error", "The upstream sent an answer that is not Gemini's.") from error
        if bytes(answer.error) not in ABSENT:
            raise read_error(200, {}, payload, self._credential)
        for candidate in answer.candidates or ():
            self._expected.add(candidate.index)
            yield self._part(candidate, answer.response_id)
        if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason and not answer.candidates:
            for index in sorted((self._expected or {0}) - self.finished):
                self.finished.add(index)
                yield Part(index, [], finish="content_filter")
        if bytes(answer.usage_metadata) not in ABSENT and (usage := _read_usage(answer.usage_metadata)):
            # Every event counts the whole answer so far, so the last account is the account: nothing is merged.
            self.usage, self.raw_usage = usage, kept(answer.usage_metadata)
            known = usage if self.complete else msgspec.structs.replace(usage, estimated=True)
            yield Part(0, [], usage=known, raw_usage=self.raw_usage)

    def _part(self, candidate: _Candidate, response_id: str) -> Part:
        deltas: list[Delta] = []
        pieces = (candidate.content.parts if candidate.content else None) or ()
        for piece in pieces:
            deltas += self._deltas(candidate.index, piece, response_id)
        finish = self._finish(candidate) if candidate.finish_reason else None
        return Part(candidate.index, deltas, len(deltas), _logprobs(candidate.logprobs_result), finish)

    def _deltas(self, choice: int, piece: _Piece, response_id: str) -> Iterator[Delta]:
        call = piece.function_call
        if call is not None:
            yield from self._called(choice, call, piece.thought_signature, response_id)
            return
        if piece.text and piece.thought:
            self._thought.add(choice)
            yield Delta(reasoning=Reasoning(thinking=piece.text))
        elif piece.text:
            yield Delta(content=piece.text)
        if piece.thought_signature and choice in self._thought:
            # Only to those who see thoughts: there is no place for it in a message without any.
            yield Delta(reasoning=Reasoning(signature=signatures.mark_thought(piece.thought_signature)))

    def _called(self, choice: int, call: _FunctionCall, signature: str | None, response_id: str) -> Iterator[Delta]:
        number = self._calls[choice]
        self._calls[choice] += 1
        arguments = "{}" if bytes(call.args) in ABSENT else bytes(call.args).decode()
        identity = signatures.call_id(call.id, signature, response_id, choice, number, call.name, arguments)
        yield Delta(tool_calls=[Call(number, identity, "function", Function(call.name, ""))])
        yield Delta(tool_calls=[Call(number, function=Function(arguments=arguments))])

    def _finish(self, candidate: _Candidate) -> Finish:
        reason = candidate.finish_reason or ""
        finish = _FINISHES.get(reason)
        if finish is None:
            said = masked(candidate.finish_message, self._credential)
            code = "upstream_refused" if reason == "MISSING_THOUGHT_SIGNATURE" else "upstream_error"
            message = f"The upstream gave up on its answer ({reason[:60]})" + (f": {said}" if said else ".")
            raise UpstreamError(code, message)
        self.finished.add(candidate.index)
        return "tool_calls" if finish == "stop" and self._calls[candidate.index] else finish


class GeminiReader:
    """A streamed answer. Nothing marks its end: it is whole when every choice has ended and then the body did."""

    def __init__(self, choices: int, credential: str | None) -> None:
        self.done = False
        self._candidates = Candidates(choices, credential)
        self._parser = SseParser()

    def feed(self, block: bytes) -> Iterable[Part]:
        """The parts that a block completes. Raises UpstreamError."""
        try:
            payloads = self._parser.feed(block)
        except ValueError as error:
            raise UpstreamError("upstream_error", f"{error}.") from error
        for payload in payloads:
            yield from self._candidates.take(payload)

    def end(self) -> Iterable[Part]:
        """The final usage, when the answer is whole."""
        self.done = self._candidates.complete and not self._parser.pending
        last = Part(0, [], usage=self._candidates.usage, raw_usage=self._candidates.raw_usage)
        return [last] if self.done else []


def whole(body: bytes, credential: str | None) -> list[Part]:
    """The parts of a plain answer. Raises UpstreamError."""
    candidates = Candidates(0, credential)
    parts = list(candidates.take(body))
    if not candidates.finished or not candidates.complete:
        raise UpstreamError("upstream_error", "The upstream sent no whole answer.")
    return parts


def _read_usage(raw: msgspec.Raw) -> Usage | None:
    """None where the counts make no sense: a good answer is not thrown away for a bad count."""
    try:
        wire = _usage.decode(raw)
    except (ValueError, RecursionError):
        return None
    return Usage(
        input_tokens=wire.prompt_token_count + wire.tool_use_prompt_token_count,
        output_tokens=wire.candidates_token_count + wire.thoughts_token_count,
        cached_input_tokens=wire.cached_content_token_count,
        reasoning_tokens=wire.thoughts_token_count,
    )


def _logprobs(result: _Logprobs | None) -> Json:
    if result is None or not result.chosen_candidates:
        return UNSET
    tops = result.top_candidates or []
    entries = []
    for at, chosen in enumerate(result.chosen_candidates):
        top = tops[at].get("candidates", ()) if at < len(tops) else ()
        entries.append(_entry(chosen) | {"top_logprobs": [_entry(token) for token in top]})
    return {"content": entries, "refusal": None}


def _entry(token: _Token) -> dict[str, Json]:
    return {"token": token.token, "logprob": token.log_probability, "bytes": list(token.token.encode())}
