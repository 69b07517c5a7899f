"""What a request goes through that asks for being given again: its cache, its Idempotency-Key, or both."""

from collections.abc import Mapping

import msgspec

from penstock.domain.platform import Principal
from penstock.gateway.admit import allowed_model
from penstock.gateway.pipeline import Line, Origin, run_line
from penstock.gateway.replay.asking import CACHE, IDEMPOTENCY_KEY, LAST_EVENT_ID, read_asking
from penstock.gateway.replay.cache import Cache, Capture, cache_key
from penstock.gateway.replay.runs import Runs
from penstock.gateway.replay.wishes import Wish, read_wish
from penstock.gateway.reply import Reply
from penstock.gateway.underway import Underway
from penstock.gateway.wire import Parsed
from penstock.settings.tree import CacheSettings, IdempotencySettings
from penstock.store.keeping.answers import AnswerStore

REPLAY_HEADERS = (IDEMPOTENCY_KEY, LAST_EVENT_ID, CACHE)


class Asked(msgspec.Struct, frozen=True):
    """A request: who asks, with which secret, under which of the headers that say something here, and for what."""

    principal: Principal
    secret: str
    headers: Mapping[bytes, bytes]
    parsed: Parsed


def wanted(headers: Mapping[bytes, bytes], principal: Principal) -> bool:
    """Whether a request has to do with any of this."""
    if principal.policy.cache_ttl_s is not None:
        return True
    return IDEMPOTENCY_KEY in headers or CACHE in headers or LAST_EVENT_ID in headers


class Replay:
    """The answers of one worker that are given again. ``owner`` names the worker in the store."""

    def __init__(
        self,
        store: AnswerStore,
        *,
        owner: str,
        underway: Underway,
        idempotency: IdempotencySettings | None = None,
        cache: CacheSettings | None = None,
    ) -> None:
        self._runs = Runs(store, owner=owner, underway=underway, settings=idempotency or IdempotencySettings())
        self._settings = cache or CacheSettings()
        self._cache = Cache(store, self._runs.ask, max_answer_bytes=self._settings.max_answer_bytes)

    async def serve(self, line: Line, asked: Asked, reply: Reply) -> None:
        """Answer one authenticated request. Raises PenstockError, also idempotency_key_invalid, idempotency_conflict,
        resume_not_possible, store_unavailable, and invalid_request for a malformed Penstock-Cache."""
        chat, policy, header = asked.parsed.chat, asked.principal.policy, asked.headers.get(CACHE)
        wish = read_wish(header, policy, chat, max_ttl_s=self._settings.max_ttl_s)
        asking = read_asking(asked.headers, asked.principal, asked.secret, asked.parsed)
        if asking is None:
            await self._make(line, asked, reply, wish)
            return

        async def make(into: Reply, charge_id: bytes) -> None:
            await self._make(line, asked, into, wish, charge_id)

        await self._runs.serve(asking, asked.principal, reply, make)

    async def drain(self, within_s: float) -> None:
        """Let what is running, also for clients that have gone, end within the bound."""
        await self._runs.drain(within_s)

    async def aclose(self) -> None:
        """End what is still running, and write what is to be kept."""
        await self._cache.aclose()
        await self._runs.aclose()

    async def _make(
        self, line: Line, asked: Asked, reply: Reply, wish: Wish | None, charge_id: bytes | None = None
    ) -> None:
        """Make the answer, or take it out of the cache. Raises PenstockError."""
        principal, parsed, id_ = asked.principal, asked.parsed, reply.request_id
        if wish is None or not wish.possible:
            if wish is not None:
                reply.add_header(CACHE, b"bypass")
            await run_line(line, principal, parsed, request_id=id_, out=reply, origin=Origin(charge_id))
            return
        model = allowed_model(line.catalogue, principal, parsed.chat.model)
        key = cache_key(principal.app_id, model, parsed.chat, prompt_caching=parsed.prompt_caching)
        hit = await self._cache.find(key, wish.ttl_s)
        capture = Capture(reply, hit, bound=self._cache.max_answer_bytes)
        origin = Origin(charge_id)
        if hit is not None:
            origin = Origin(charge_id, hit.answer.opened(), self._settings.price_percent)
        await run_line(line, principal, parsed, request_id=id_, out=capture, origin=origin)
        if (answer := capture.answer()) is not None:
            self._cache.keep(key, answer, wish.ttl_s)
