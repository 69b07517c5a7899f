"""The exact cache: the very same deterministic request of the same app is answered with the very same bytes.

What is looked up before the call and kept after it is encrypted under the request itself: who has only the database
can neither read an answer nor tell what was asked. The cache never fails a request: without the database it misses.
"""

import asyncio
import functools
import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from penstock.domain.answer import ChatEvent
from penstock.domain.catalogue import Model
from penstock.domain.chat import ChatRequest
from penstock.domain.errors import PenstockError
from penstock.domain.money import price_version
from penstock.domain.usage import Usage
from penstock.gateway.admit import Admission
from penstock.gateway.dispatch import Opened
from penstock.gateway.limits.governor import Allowance
from penstock.gateway.replay.asking import CACHE
from penstock.gateway.replay.keeper import AskStore
from penstock.gateway.replay.sealing import Cipher
from penstock.gateway.reply import Reply
from penstock.store.keeping.answers import AnswerStore

_log = logging.getLogger("penstock.gateway")
_encode_canonical = msgspec.json.Encoder(order="sorted").encode
_encode = msgspec.msgpack.Encoder().encode
_PLACE = b"cache"
_MEMORY_BYTES = 32 * 1024 * 1024
_MAX_WRITES = 64
# They say who asks and for what, not what is asked; they reach no model's answer.
_WITHOUT_EFFECT: dict[str, Any] = {
    "user": None, "metadata": None, "store": None, "safety_identifier": None, "prompt_cache_key": None,
    "service_tier": None,
}  # fmt: skip


class CachedAnswer(msgspec.Struct, frozen=True):
    """A complete answer: its frames, and what the meter and the headers need."""

    frames: list[bytes]
    usage: Usage | None
    raw_usage: bytes | None
    output_tokens: int
    ignored: tuple[str, ...]

    def opened(self) -> Opened:
        """The answer as a dispatched one."""
        return Opened(_CachedEvents(self), None, self.ignored)


_decoder = msgspec.msgpack.Decoder(CachedAnswer)


class CacheKey(msgspec.Struct, frozen=True):
    """Names an answer (``id``) and opens it (``cipher``)."""

    id: bytes
    app_id: str
    cipher: Cipher


class Hit(msgspec.Struct, frozen=True):
    """An answer and its age in seconds."""

    answer: CachedAnswer
    age_s: float


class _Held(msgspec.Struct, frozen=True):
    answer: CachedAnswer
    size: int
    born: float  # by the loop's clock
    until: float


def cache_key(app_id: str, model: Model, chat: ChatRequest, *, prompt_caching: bool) -> CacheKey:
    """The key of a request to a model as it is served now: other targets or prices are another answer's."""
    served: list[Any] = [model.id, model.stand_in, [target.name for target in model.targets]]
    served += [price_version(model.rate) if model.rate else None, prompt_caching]
    asked = msgspec.structs.replace(chat, **_WITHOUT_EFFECT)
    canonical = _encode_canonical([app_id, served, asked])
    id_ = hashlib.sha256(b"penstock cache id\0" + canonical).digest()
    return CacheKey(id_, app_id, Cipher(canonical, info=b"penstock cache"))


class Cache:
    """The cached answers of all workers, and the latest of them in this one's memory."""

    def __init__(self, store: AnswerStore, ask: AskStore, *, max_answer_bytes: int) -> None:
        self._store = store
        self._ask = ask
        self.max_answer_bytes = max_answer_bytes
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        self._size = 0
        self._writes: set[asyncio.Task[None]] = set()

    async def find(self, key: CacheKey, ttl_s: float) -> Hit | None:
        """The answer, if there is one that is not older."""
        now = asyncio.get_running_loop().time()
        held = self._held.get(key.id)
        if held is not None and held.until > now:
            self._held.move_to_end(key.id)
            return Hit(held.answer, now - held.born) if now - held.born <= ttl_s else None
        try:
            kept = await self._ask(functools.partial(self._store.kept, key.id))
        except PenstockError:
            return None
        if kept is None or kept.age_s > ttl_s:
            return None
        answer = _decoder.decode(key.cipher.open(kept.body, place=_PLACE))
        self._hold(key.id, _Held(answer, len(kept.body), now - kept.age_s, now + kept.left_s))
        return Hit(answer, kept.age_s)

    def keep(self, key: CacheKey, answer: CachedAnswer, ttl_s: float) -> None:
        """Keeps a complete answer, soon and in a thread; while too many wait for that, not at all."""
        body = _encode(answer)
        if len(body) > self.max_answer_bytes or len(self._writes) >= _MAX_WRITES:
            return
        now = asyncio.get_running_loop().time()
        self._hold(key.id, _Held(answer, len(body), now, now + ttl_s))
        task = asyncio.create_task(self._write(key, body, ttl_s))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def aclose(self) -> None:
        """Wait for what is being written."""
        if self._writes:
            await asyncio.wait(self._writes)

    async def _write(self, key: CacheKey, body: bytes, ttl_s: float) -> None:
        def write() -> None:
            sealed = key.cipher.seal(body, place=_PLACE)
            self._store.keep(key.id, app_id=key.app_id, body=sealed, ttl_s=ttl_s)

        try:
            await self._ask(write)
        except Exception as error:  # noqa: BLE001 - what is not kept is made again
            _log.debug("an answer is not cached: %s", type(error).__name__)

    def _hold(self, id_: bytes, held: _Held) -> None:
        if (old := self._held.pop(id_, None)) is not None:
            self._size -= old.size
        self._held[id_] = held
        self._size += held.size
        while self._size > _MEMORY_BYTES:
            self._size -= self._held.popitem(last=False)[1].size


class Capture:
    """Passes an answer on, told whether it is out of the cache, which ``hit`` may be, and keeps a copy of a new one, as
    long as that is not too large."""

    def __init__(self, reply: Reply, hit: Hit | None, *, bound: int) -> None:
        self._out = reply
        self._hit = hit
        self._bound = bound
        self._frames: list[bytes] = []
        self._size = 0
        self._output_tokens = 0
        self._usage: Usage | None = None
        self._raw_usage: bytes | None = None
        self._ignored: tuple[str, ...] = ()
        self._done = False

    def limited(self, allowance: Allowance) -> None:
        """As ``Out``."""
        self._out.limited(allowance)

    def bounded(self, told: str) -> None:
        """As ``Out``. An answer with a bound that the client did not ask for may be shorter than what the same request
        gets elsewhere: it is not kept."""
        self._bound = -1
        self._out.bounded(told)

    def admitted(self, admission: Admission) -> None:
        """As ``Out``."""
        self._out.admitted(admission)

    async def begin(self, opened: Opened) -> None:
        """As ``Out``."""
        self._ignored = opened.ignored
        if opened.attempt is None and self._hit is not None:
            self._bound = -1
            self._out.add_header(CACHE, b"hit; age=%d" % self._hit.age_s)
        else:
            self._out.add_header(CACHE, b"miss")
        await self._out.begin(opened)

    async def event(self, event: ChatEvent) -> None:
        """As ``Out``."""
        self._size += len(event.frame)
        self._output_tokens += event.output_tokens
        if event.usage is not None:
            self._usage, self._raw_usage = event.usage, event.raw_usage
        self._done |= event.done
        if self._size <= self._bound:
            self._frames.append(event.frame)
        else:
            self._frames.clear()
        await self._out.event(event)

    def answer(self) -> CachedAnswer | None:
        """The whole answer; None while it is not whole, or when it is too large."""
        if not self._done or self._size > self._bound:
            return None
        ignored = tuple(name for name in self._ignored if name not in _WITHOUT_EFFECT)
        return CachedAnswer(self._frames, self._usage, self._raw_usage, self._output_tokens, ignored)


class _CachedEvents:
    """A cached answer as the event stream of a dispatched one."""

    def __init__(self, answer: CachedAnswer) -> None:
        self._events = self._all(answer)

    def __aiter__(self) -> AsyncIterator[ChatEvent]:
        return self._events

    async def __anext__(self) -> ChatEvent:
        return await anext(self._events)

    async def aclose(self) -> None:
        """Nothing to hang up on."""

    @staticmethod
    async def _all(answer: CachedAnswer) -> AsyncIterator[ChatEvent]:
        frame = b"".join(answer.frames)
        yield ChatEvent(frame, answer.output_tokens, answer.usage, done=True, raw_usage=answer.raw_usage)
