"""The pipeline and the answers that it works on, one token of each at a step. Belongs to one event loop.

A step holds Python's global lock, so there are no threads: the loop serves the listener between two steps.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from penstock.engine.openvino.asked import Completion, Ending, Refused, bound_of, check, configuration
from penstock.engine.openvino.text import TextRun, Vocabulary

LOGGER = logging.getLogger("penstock.engine")
# Compiled grammars are kept by the library for good, at 3 to 4 MB for one with strings (openvino-genai 2026.4.1): the
# child ends after so many, and is started again.
MOST_GRAMMARS = 200
# Turns of the loop between two steps: a new connection is accepted, made, read and answered within four.
_TURNS = 4


class Piece(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of an answer, by the names of llama-server. Counts are of the whole answer."""

    content: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    stop: bool = False
    stop_type: str = ""
    stopping_word: str = ""
    completion_probabilities: list[dict[str, Any]] = []


class Tools(NamedTuple):
    """The loaded engine: the library, its pipeline and tokenizer, and one slot's context in tokens."""

    genai: Any
    pipeline: Any
    tokenizer: Any
    context: int
    slots: int


class Job:
    """One answer under way. ``send`` takes its pieces; the last has ``stop``, or is None when the engine gave up."""

    def __init__(self, asked: Completion, prompt: int, send: Callable[[Piece | None], None]) -> None:
        self.asked = asked
        self.prompt = prompt
        self.send = send
        self.handle: Any = None
        self.counted = 0
        self.text = TextRun(asked.stop)
        self.entries: list[dict[str, Any]] = []


class Batch:
    """Takes answers, gives their pieces, drops those that nobody waits for."""

    def __init__(self, tools: Tools) -> None:
        self.slots = tools.slots
        self.vocabulary = Vocabulary(tools.tokenizer)
        self._tools = tools
        self._jobs: dict[int, Job] = {}
        self._is_full = False
        self._grammars: set[int] = set()
        self._number = 0
        self._work = asyncio.Event()

    @property
    def busy(self) -> int:
        """Slots that are worked on; what is beyond them waits in line."""
        return min(len(self._jobs), self.slots)

    def prompt(self, messages: list[dict[str, str]]) -> str:
        """The messages by the chat template of the weights. Raises Refused when it cannot be applied."""
        try:
            text: str = self._tools.tokenizer.apply_chat_template(messages, True)
        except RuntimeError as error:
            raise Refused(f"the chat template of the weights cannot be applied: {_reason(error)}") from error
        return text

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text."""
        ids: list[int] = self._encoded(text).data.flatten().tolist()
        return ids

    def begin(self, asked: Completion, send: Callable[[Piece | None], None]) -> int:
        """Enter one answer; its number is for ``drop``. Raises Refused."""
        self._take_note(asked.grammar)
        check(asked, self.vocabulary)
        inputs = self._encoded(asked.prompt)
        job = Job(asked, inputs.get_size(), send)
        if job.prompt == 0:
            raise Refused("the prompt is empty")
        bound = bound_of(asked, job.prompt, self._tools.context)
        self._number += 1
        try:
            config = configuration(self._tools.genai, asked, max(bound, 1), self.vocabulary)
            job.handle = self._tools.pipeline.add_request(self._number, inputs, config)
        except RuntimeError as error:
            raise Refused(_reason(error)) from error
        self._jobs[self._number] = job
        self._work.set()
        return self._number

    def drop(self, number: int) -> None:
        """Give up an answer that nobody waits for any more."""
        job = self._jobs.pop(number, None)
        if job is not None:
            job.handle.cancel()

    async def run(self) -> None:
        """Work until cancelled. Ends the process when a step fails: the pipeline cannot be used after that."""
        pipeline = self._tools.pipeline
        while True:
            if not pipeline.has_non_finished_requests():
                if self._is_full:
                    os._exit(0)
                self._work.clear()
                await self._work.wait()
                continue
            try:
                pipeline.step()
            except RuntimeError:
                LOGGER.exception("a step of the engine failed")
                os._exit(1)
            for number, job in list(self._jobs.items()):
                self._read(number, job)
            for _ in range(_TURNS):
                await asyncio.sleep(0)

    def _take_note(self, grammar: str | None) -> None:
        """Raises Ending from the first grammar on that is one too many."""
        if grammar is not None and not self._is_full:
            self._grammars.add(hash(grammar))
            self._is_full = len(self._grammars) > MOST_GRAMMARS
        if self._is_full:
            self._work.set()
            raise Ending

    def _read(self, number: int, job: Job) -> None:
        status, running = job.handle.get_status(), self._tools.genai.GenerationStatus.RUNNING
        reason = None
        texts: list[str] = []
        while job.text.stop is None and job.handle.can_read():
            for output in job.handle.read().values():
                for token, logprob in zip(output.generated_ids, output.generated_log_probs, strict=True):
                    texts.append(self._taken(job, token, logprob))
                reason = output.finish_reason
        if job.text.stop is not None:
            self.drop(number)
            job.send(self._piece(job, "".join(texts), "word"))
        elif status != running:
            self._jobs.pop(number, None)
            reasons = self._tools.genai.GenerationFinishReason
            if reason in (reasons.STOP, reasons.LENGTH):
                stop_type = "eos" if reason == reasons.STOP else "limit"
                job.send(self._piece(job, "".join(texts) + job.text.rest(), stop_type))
            else:
                job.send(None)
        elif texts:
            job.send(self._piece(job, "".join(texts)))

    def _taken(self, job: Job, token: int, logprob: float) -> str:
        vocabulary, job.counted = self.vocabulary, job.counted + 1
        # A grammar has read a special token as its name; else its name is shown only to one who asked for it.
        name = vocabulary.named(token)
        spelled = job.asked.grammar is not None or name.decode(errors="replace") in job.asked.preserved_tokens
        raw = b"" if token in vocabulary.ends else name if spelled else vocabulary.shown(token)
        if job.asked.n_probs:
            entry = {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}
            job.entries.append({**entry, "top_logprobs": [entry] if job.asked.top_logprobs else []})
        return job.text.feed(raw)

    def _piece(self, job: Job, content: str, stop_type: str = "") -> Piece:
        piece = Piece(
            content=content,
            tokens_predicted=job.counted,
            tokens_evaluated=job.prompt,
            stop=bool(stop_type),
            stop_type=stop_type,
            stopping_word=job.text.stop or "",
        )
        if content or stop_type:
            # Held back with the text that they belong to.
            piece.completion_probabilities, job.entries = job.entries, []
        return piece

    def _encoded(self, text: str) -> Any:
        return self._tools.tokenizer.encode(text, add_special_tokens=False).input_ids


def _reason(error: RuntimeError) -> str:
    """The last line of what the engine says: the ones before are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "the engine refused it"
