"""The adapter of the embedded engine: a bound request becomes events in our dialect."""

from collections.abc import AsyncGenerator

import msgspec

from penstock.domain.answer import ChatEvent, Produced
from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.usage import Usage
from penstock.providers.accounts import kept
from penstock.providers.embedded import sampling
from penstock.providers.embedded.choice import ChoiceRun
from penstock.providers.embedded.constraint import constrained, usable_tools
from penstock.providers.embedded.merge import merged
from penstock.providers.embedded.native import NativeClient
from penstock.providers.embedded.prefill import PromptReader
from penstock.providers.embedded.prompt import rendered
from penstock.providers.translation.parts import Fold, Frames, Part
from penstock.providers.transport import Transport
from penstock.providers.wire_out import ChatWriter

_OPENED = ChatEvent(b"")


class EmbeddedAdapter:
    """Serves chat requests from one engine child behind ``transport``. ``context`` is tokens per slot."""

    def __init__(self, transport: Transport, *, key: str, context: int) -> None:
        self._client = NativeClient(transport, key=key)
        self._reader = PromptReader(self._client)
        self._context = context

    def ignored(self, request: BoundRequest) -> tuple[str, ...]:
        """Names of parameters that are set and have no effect here."""
        return sampling.ignored(request.chat)

    async def open(self, request: BoundRequest) -> AsyncGenerator[ChatEvent, None]:
        """Wait for the first event (streamed) or the whole answer (plain), then hand over the rest.

        Raises PenstockError for what the model cannot do, UpstreamError when the engine fails.
        """
        events = self._streamed(request) if request.chat.stream else self._plain(request)
        # A generator that never ran has no finally to run when it is closed: the first step starts it.
        await anext(events)
        return events

    async def _parts(self, chat: ChatRequest) -> AsyncGenerator[Part, None]:
        count = sampling.choices(chat)
        tools = usable_tools(chat)
        limits = constrained(chat, tools, context=self._context)
        body = {**sampling.body(chat), **limits.body}
        body["prompt"] = await self._client.template(rendered(chat, tools))
        stream = merged(
            [
                ChoiceRun(self._reader, chat, limits, index=index).parts({**body, **sampling.seed(chat, index)})
                for index in range(count)
            ]
        )
        try:
            async for part in stream:
                yield part
        finally:
            await stream.aclose()

    async def _streamed(self, request: BoundRequest) -> AsyncGenerator[ChatEvent, None]:
        frames, count = Frames(request), _Count()
        source = self._parts(request.chat)
        opened = False
        try:
            async for part in source:
                count.add(part)
                frame = frames.part(part)
                if frame and not opened:
                    opened = True
                    yield _OPENED
                if opened:
                    yield ChatEvent(frame, count.take(), part.usage and count.begun)
        except BaseException:
            if not opened:
                count.tell(request.produced)
            raise
        finally:
            await source.aclose()
        usage = total(count.usages)
        yield ChatEvent(frames.last(usage), usage=usage, done=True, raw_usage=count.account())

    async def _plain(self, request: BoundRequest) -> AsyncGenerator[ChatEvent, None]:
        folds, count = dict[int, Fold](), _Count()
        source = self._parts(request.chat)
        try:
            async for part in source:
                folds.setdefault(part.choice, Fold()).add(part)
                count.add(part)
        except BaseException:
            count.tell(request.produced)
            raise
        finally:
            await source.aclose()
        usage = total(count.usages)
        choices = [folds[index].choice(index) for index in sorted(folds)]
        yield _OPENED
        body = ChatWriter(request).answer(choices, usage)
        yield ChatEvent(body, count.take(), usage, done=True, raw_usage=count.account())


class _Count:
    """What the engine has produced so far: tokens that no event has told yet, the prompt's length once it is known, and
    the usage of the choices that have ended. The account of the whole answer is ``{"completions": [...]}``."""

    __slots__ = ("_accounts", "_owed", "begun", "usages")

    def __init__(self) -> None:
        self._owed = 0
        self._accounts: list[msgspec.Raw] = []
        self.begun: Usage | None = None
        self.usages: list[Usage] = []

    def add(self, part: Part) -> None:
        """One more part."""
        self._owed += part.tokens
        if part.usage is not None and part.usage.estimated:
            self.begun = part.usage
        elif part.usage is not None:
            self.usages.append(part.usage)
            self._accounts.append(msgspec.Raw((part.raw_usage or b"[]")[1:-1]))

    def take(self) -> int:
        """The tokens that are to be told now."""
        owed, self._owed = self._owed, 0
        return owed

    def tell(self, produced: Produced | None) -> None:
        """The answer ends before it began."""
        if produced is not None:
            produced.add(self._owed, self.begun, None)

    def account(self) -> bytes | None:
        """What the engine said of every completion of the answer."""
        return kept(msgspec.Raw(b'{"completions":[%b]}' % b",".join(map(bytes, self._accounts))))


def total(usages: list[Usage]) -> Usage:
    """One usage for the whole answer: the prompt counts once, as the choices share it; output is summed.

    The cached count is that of the choice which found most, so that it never exceeds the prompt.
    """
    return Usage(
        input_tokens=max((usage.input_tokens for usage in usages), default=0),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cached_input_tokens=max((usage.cached_input_tokens for usage in usages), default=0),
    )
