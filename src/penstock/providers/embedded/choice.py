"""One choice of an answer: the engine's pieces become wire deltas, a finish reason and exact counts."""

from collections.abc import AsyncGenerator

import msgspec
from msgspec import UNSET

from penstock.domain.chat import ChatRequest, Json
from penstock.domain.errors import PenstockError
from penstock.domain.usage import Usage
from penstock.providers.embedded.calls import CallScanner
from penstock.providers.embedded.constraint import Constraint
from penstock.providers.embedded.native import Piece
from penstock.providers.embedded.prefill import PromptReader
from penstock.providers.embedded.prompt import CALL_OPEN
from penstock.providers.embedded.sampling import logprobs
from penstock.providers.translation.parts import Part
from penstock.providers.wire_out import Delta, Finish


class ChoiceRun:
    """Generates one choice with the engine, in one completion or, when the model begins a call by itself, in two."""

    def __init__(self, reader: PromptReader, chat: ChatRequest, constraint: Constraint, *, index: int) -> None:
        self._reader = reader
        self._chat = chat
        self._constraint = constraint
        self._index = index
        self._scanner = CallScanner() if constraint.forced else None
        self._last: Piece | None = None
        self._evaluated = 0
        self._text: list[str] = []

    async def parts(self, body: dict[str, Json]) -> AsyncGenerator[Part, None]:
        """The parts of the choice. Raises PenstockError, UpstreamError."""
        run = self._run(body)
        try:
            async for part in run:
                yield part
        finally:
            await run.aclose()
        last = self._ended()
        if last.stopping_word != CALL_OPEN or self._constraint.offered is None:
            yield self._end(last, before=None)
            return
        async for part in self._called(body, last):
            yield part

    async def _called(self, body: dict[str, Json], before: Piece) -> AsyncGenerator[Part, None]:
        left = body["n_predict"] - before.tokens_predicted if body["n_predict"] >= 0 else -1
        if left == 0:
            yield self._end(before, before=None, finish="length")
            return
        self._scanner = CallScanner(CALL_OPEN)
        prompt = body["prompt"] + "".join(self._text) + CALL_OPEN
        continued = {**body, "prompt": prompt, "n_predict": left, "grammar": self._constraint.offered, "stop": []}
        run = self._run(continued)
        try:
            async for part in run:
                yield part
        except PenstockError as error:
            if error.code != "context_length_exceeded":
                raise
            # The free text ended exactly where the slot's context does: no room for the call.
            yield self._end(before, before=None, finish="length")
            return
        finally:
            await run.aclose()
        yield self._end(self._ended(), before=before)

    async def _run(self, body: dict[str, Json]) -> AsyncGenerator[Part, None]:
        """Parts of one completion without its end, which is kept."""
        counted = 0
        self._last = None
        first = not self._evaluated
        pieces = self._reader.complete(body)
        try:
            async for piece in pieces:
                tokens, counted = piece.tokens_predicted - counted, max(counted, piece.tokens_predicted)
                deltas = self._deltas(piece.content)
                entries = logprobs(piece.completion_probabilities, self._chat)
                if piece.stop:
                    self._last = piece
                    entries = entries if piece.completion_probabilities else UNSET
                if deltas or tokens > 0:
                    part = Part(self._index, deltas, max(tokens, 0), entries)
                    if first and piece.tokens_evaluated and not self._evaluated:
                        # The prompt is counted by now, for an answer that is cut.
                        self._evaluated = piece.tokens_evaluated
                        part = part._replace(usage=Usage(input_tokens=self._evaluated, estimated=True))
                    yield part
        finally:
            await pieces.aclose()

    def _deltas(self, text: str) -> list[Delta]:
        if not text:
            return []
        if self._scanner is not None:
            return self._scanner.feed(text)
        self._text.append(text)
        return [Delta(content=text)]

    def _ended(self) -> Piece:
        assert self._last is not None, "complete() raises unless a last piece came"
        return self._last

    def _end(self, last: Piece, *, before: Piece | None, finish: Finish | None = None) -> Part:
        if finish is None:
            finish = "length" if last.stop_type == "limit" else "stop"
        if finish == "stop" and self._scanner is not None and self._scanner.calls:
            finish = "tool_calls"
        first = before or last
        usage = Usage(
            input_tokens=first.tokens_evaluated,
            output_tokens=last.tokens_predicted + (before.tokens_predicted if before else 0),
            cached_input_tokens=first.timings.cache_n if first.timings else 0,
        )
        calls = [piece for piece in (before, last) if piece is not None]
        return Part(
            self._index, [], finish=finish, usage=usage, raw_usage=msgspec.json.encode(list(map(_account, calls)))
        )


def _account(piece: Piece) -> dict[str, Json]:
    """What the engine says of one completion, by its own names."""
    cached = {} if piece.timings is None else {"timings": {"cache_n": piece.timings.cache_n}}
    return {"tokens_evaluated": piece.tokens_evaluated, "tokens_predicted": piece.tokens_predicted} | cached
