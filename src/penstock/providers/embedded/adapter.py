"""The adapter of the embedded engine: a bound request becomes events in our dialect."""

from collections.abc import AsyncGenerator

from penstock.domain.chat import BoundRequest, ChatEvent, ChatRequest
from penstock.domain.usage import Usage
from penstock.providers.embedded import sampling
from penstock.providers.embedded.choice import ChoiceRun
from penstock.providers.embedded.constraint import constrained, usable_tools
from penstock.providers.embedded.merge import merged
from penstock.providers.embedded.native import NativeClient
from penstock.providers.embedded.prompt import rendered
from penstock.providers.translation.parts import Fold, Frames, Part
from penstock.providers.transport import Transport
from penstock.providers.wire_out import ChatWriter

_OPENED = ChatEvent(b"")


class EmbeddedAdapter:
    """Serves chat requests from one engine child behind ``transport``. ``context`` is tokens per slot."""

    def __init__(self, transport: Transport, *, key: str, context: int) -> None:
        self._client = NativeClient(transport, key=key)
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
                ChoiceRun(self._client, chat, limits, index=index).parts({**body, **sampling.seed(chat, index)})
                for index in range(count)
            ]
        )
        try:
            async for part in stream:
                yield part
        finally:
            await stream.aclose()

    async def _streamed(self, request: BoundRequest) -> AsyncGenerator[ChatEvent, None]:
        frames, usages = Frames(request), list[Usage]()
        source = self._parts(request.chat)
        try:
            opened, owed = False, 0
            async for part in source:
                owed += part.tokens
                frame = frames.part(part)
                if not frame:
                    continue
                if not opened:
                    opened = True
                    yield _OPENED
                if part.usage is not None:
                    usages.append(part.usage)
                yield ChatEvent(frame, output_tokens=owed)
                owed = 0
        finally:
            await source.aclose()
        usage = total(usages)
        yield ChatEvent(frames.last(usage), usage=usage, done=True)

    async def _plain(self, request: BoundRequest) -> AsyncGenerator[ChatEvent, None]:
        folds, usages, tokens = dict[int, Fold](), list[Usage](), 0
        source = self._parts(request.chat)
        try:
            async for part in source:
                folds.setdefault(part.choice, Fold()).add(part)
                tokens += part.tokens
                if part.usage is not None:
                    usages.append(part.usage)
        finally:
            await source.aclose()
        usage = total(usages)
        choices = [folds[index].choice(index) for index in sorted(folds)]
        yield _OPENED
        yield ChatEvent(ChatWriter(request).answer(choices, usage), output_tokens=tokens, usage=usage, done=True)


def total(usages: list[Usage]) -> Usage:
    """One usage for the whole answer: the prompt counts once, as the choices share it; output is summed.

    The cached count is that of the choice which found most, so that it never exceeds the prompt.
    """
    return Usage(
        input_tokens=max((usage.input_tokens for usage in usages), default=0),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cached_input_tokens=max((usage.cached_input_tokens for usage in usages), default=0),
    )
