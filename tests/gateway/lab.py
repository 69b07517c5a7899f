"""One gateway worker in this process, between a real HTTP edge's messages and real sockets to scripted upstreams.

Its board has a clock that the test moves and dice that always show the least, so that pauses are as short as can be.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from penstock.domain.catalogue import Catalogue
from penstock.domain.ids import secret_hash
from penstock.domain.platform import Principal
from penstock.gateway.admit import Recent
from penstock.gateway.dispatch import Adapter
from penstock.gateway.endpoints import Gateway
from penstock.gateway.limits.governor import Governor
from penstock.gateway.pages import Health
from penstock.gateway.pipeline import Line
from penstock.gateway.replay.service import Replay
from penstock.gateway.routing.board import Board
from penstock.gateway.routing.breaker import BreakerRules
from penstock.gateway.snapshot import KeySnapshot
from penstock.gateway.underway import DISCONNECTED, Underway
from penstock.ledger.journal import Journal, read_journal
from penstock.ledger.records import Admitted, Settled
from penstock.providers.catalogue import build_catalogue, specs
from penstock.providers.registry import make_adapter, make_transport
from penstock.providers.spec import Bound
from penstock.providers.transport import Transport
from penstock.settings.tree import CacheSettings, IdempotencySettings, ModelRow, ProviderRow, Settings, TargetRow
from penstock.store.keeping.answers import AnswerStore
from tests.gateway.allowances import ungoverned
from tests.gateway.conftest import ANSWER, DONE, delta
from tests.gateway.test_underway import Table
from tests.upstream import Exchange, Script, ScriptedUpstream


class Answers(NamedTuple):
    """Where answers are kept that are given again, and for how long."""

    store: AnswerStore
    idempotency: IdempotencySettings = IdempotencySettings()
    cache: CacheSettings = CacheSettings()

    def replay(self, owner: str, underway: Underway) -> Replay:
        """What a worker of that name makes of them."""
        return Replay(self.store, owner=owner, underway=underway, idempotency=self.idempotency, cache=self.cache)


KEY = "inf-lab"
OTHER_KEY = "inf-other"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Clock:
    """Monotonic seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class LeastDice(random.Random):
    """Always the least: no jitter, and the first of equals."""

    def random(self) -> float:
        return 0.0


class Answered:
    """What a client got: status, headers, body; and what the journal says of it."""

    def __init__(self, messages: list[dict[str, Any]], settled: Settled | None) -> None:
        self.status = messages[0]["status"] if messages else 0
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]} if messages else {}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])
        self._settled = settled

    @property
    def settled(self) -> Settled:
        """The one settlement."""
        assert self._settled is not None
        return self._settled

    @property
    def code(self) -> str:
        """The code of the error that the client got."""
        return str(json.loads(self.body)["error"]["code"])

    @property
    def legs(self) -> list[tuple[str, str]]:
        """Target and outcome of every attempt."""
        return [(leg.target, leg.outcome) for leg in self.settled.attempts]


class Lab:
    """The worker; ``clock``, ``board`` and the upstreams by name are for the test to look at and to move."""

    def __init__(
        self,
        app: Gateway,
        board: Board,
        journal: Path,
        upstreams: Mapping[str, ScriptedUpstream],
        keys: KeySnapshot,
    ) -> None:
        self.app = app
        self._keys = keys
        self.board = board
        self.upstreams = upstreams
        self.clock = board.clock
        self.catalogue = app.line.catalogue
        self._journal = journal
        self._known: set[str] = set()

    def start(
        self, *, key: str = KEY, headers: Mapping[str, str] | None = None, stalled: bool = False, **fields: Any
    ) -> "Asking":
        """A request under way, as a task. A client that is ``stalled`` takes nothing after the head."""
        asked = {"authorization": f"Bearer {key}"} | dict(headers or {})
        return Asking(self, json.dumps(CHAT | fields).encode(), asked, stalled=stalled)

    async def ask(self, **fields: Any) -> Answered:
        """One request and its answer. Other fields than those of ``start`` go into the body."""
        return await self.start(**fields).answer()

    def settlement(self, request_id: str) -> Settled | None:
        """The one settlement of a request; fails unless it was admitted once and settled once."""
        records = [r for r in self.records() if r.request_id == request_id]
        settled = [record for record in records if isinstance(record, Settled)]
        if not records:
            return None
        assert (len(records), len(settled)) == (2, 1)
        return settled[0]

    def records(self) -> list[Admitted | Settled]:
        """The whole journal."""
        return [record for file in sorted(self._journal.iterdir()) for record in read_journal(file)]

    def move(self, seconds: float) -> None:
        """The clock goes on."""
        assert isinstance(self.clock, Clock)
        self.clock.now += seconds

    def know(self, key: str, principal: Principal) -> None:
        """The key stands for another principal from now on, as when one of its objects has changed."""
        self._keys._known[secret_hash(key)] = principal

    def at_rest(self) -> bool:
        """Whether nothing of any request is left: no call, slot, admission or task."""
        names = [row["target"] for row in self.board.states()]
        limits = [slots for name in self.upstreams if (slots := self.board.slots(name)) is not None]
        records = self.records()
        return (
            all(self.board.health(str(name)).outstanding == 0 for name in names)
            and not any(slots.held or slots.waiting for slots in limits)
            and sum(isinstance(record, Admitted) for record in records) * 2 == len(records)
            and asyncio.all_tasks() == {asyncio.current_task()}
        )


class Asking:
    """A request under way."""

    def __init__(self, lab: Lab, body: bytes, headers: Mapping[str, str], *, stalled: bool = False) -> None:
        self._lab = lab
        self.messages: list[dict[str, Any]] = []
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": sent}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            self.messages.append(message)
            if stalled and "body" in message:
                await asyncio.Event().wait()

        self.task = asyncio.create_task(lab.app(scope, receive, send))

    async def answer(self) -> Answered:
        """The answer, once it is there."""
        await self.task
        headers = dict(self.messages[0]["headers"]) if self.messages else {}
        request_id = headers.get(b"x-request-id", b"").decode()
        return Answered(self.messages, self._lab.settlement(request_id) if request_id else None)

    def heard(self) -> bytes:
        """What the client has got of the body so far."""
        return b"".join(message.get("body", b"") for message in self.messages)

    async def hang_up(self) -> None:
        """The client goes, as the HTTP edge tells it."""
        self.task.cancel(DISCONNECTED)
        await asyncio.wait({self.task})


@contextlib.asynccontextmanager
async def lab(  # noqa: PLR0913 - what it is made of, each by its name
    folder: Path,
    scripts: Mapping[str, Script],
    *,
    providers: Mapping[str, Mapping[str, Any]] | None = None,
    adapters: Mapping[str, Adapter] | None = None,
    rules: BreakerRules | None = None,
    targets: Mapping[str, Mapping[str, Any]] | None = None,
    clock: Callable[[], float] | None = None,
    governor: Callable[[Catalogue], Governor] | None = None,
    principals: Mapping[str, Principal] | None = None,
    answers: Answers | None = None,
    **model: Any,
) -> AsyncIterator[Lab]:
    """A worker whose model ``m`` has one target ``NAME/up`` for each script, in order; ``providers`` and ``targets``
    add to those rows, ``adapters`` come first in place of providers, ``principals`` are whom keys stand for,
    ``answers`` are given again; the rest goes to the model's row."""
    with contextlib.ExitStack() as stack:
        upstreams = {name: stack.enter_context(ScriptedUpstream(script)) for name, script in scripts.items()}
        own = dict(adapters or {})
        rows = tuple(
            ProviderRow(
                name=name, **{"base_url": upstream.base, "kind": "openai"} | dict((providers or {}).get(name, {}))
            )
            for name, upstream in upstreams.items()
        ) + tuple(ProviderRow(name=name, base_url="http://127.0.0.1:9/v1") for name in own)
        pointed = tuple(
            TargetRow(**({"provider": name, "model": "up"} | dict((targets or {}).get(name, {}))))
            for name in (*own, *upstreams)
        )
        settings = Settings(provider=rows, model=(ModelRow(id="m", targets=pointed, **model),))
        catalogue = build_catalogue(settings, [])
        board = Board(folder, rules=rules, clock=clock or Clock(), dice=LeastDice())
        board.keep([target.name for target in catalogue.models[0].targets])
        board.set_limits(specs(settings))
        transports: list[Transport] = []
        for spec in specs(settings):
            if spec.name not in own:
                transports.append(make_transport(spec))
                own[spec.name] = make_adapter(Bound(spec, None, transports[-1], None))  # type: ignore[arg-type]
        journal = Journal(folder / "journal")
        table = Table(KEY, OTHER_KEY)
        table.keys |= {secret_hash(key): principal for key, principal in (principals or {}).items()}
        keys = KeySnapshot(table)
        for key in (KEY, OTHER_KEY):
            await keys.find(secret_hash(key))
        line = Line(catalogue, own, journal, "heroku-inf-000000", Recent(), board, (governor or ungoverned)(catalogue))
        replay = None if answers is None else answers.replay(journal.holder, keys.underway)
        app = Gateway(line, keys, Health(keys, {}, board), max_body_bytes=1 << 20, replay=replay)
        try:
            yield Lab(app, board, folder / "journal", upstreams, keys)
        finally:
            if replay is not None:
                await replay.aclose()
            for transport in transports:
                await transport.aclose()
            board.close()
            journal.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; fails after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it happens in other threads and processes
            await asyncio.sleep(0.005)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous test to its end."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


def says(text: str) -> Script:
    """Answers, streamed or plainly as asked."""

    async def script(exchange: Exchange) -> None:
        if b'"stream":true' in exchange.body.replace(b" ", b""):
            await exchange.begin_stream()
            await exchange.chunk(delta(text) + DONE)
            await exchange.chunk(b"")
            return
        choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
        await exchange.answer(json.dumps(ANSWER | {"choices": choices}).encode())

    return script


def refuses(status: str, *, retry_after: int | None = None, code: str | None = None) -> Script:
    """Answers with an error."""

    async def script(exchange: Exchange) -> None:
        body = json.dumps({"error": {"message": "no", "code": code}}).encode()
        wait = "" if retry_after is None else f"retry-after: {retry_after}\r\n"
        head = f"HTTP/1.1 {status}\r\n{wait}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await exchange.send(head.encode() + body)

    return script


async def resets(exchange: Exchange) -> None:
    """Drops the connection."""
    exchange.reset()


async def stalls(exchange: Exchange) -> None:
    """Says nothing until the client goes."""
    await exchange.hung_up()


def in_turn(*scripts: Script) -> Script:
    """Each request gets the next one, the last stays."""
    left = list(scripts)

    async def script(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return script
