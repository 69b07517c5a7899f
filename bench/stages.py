"""Where a plain request's CPU time goes, stage by stage, in one process without a network.

``python -m bench.stages`` prints microseconds of CPU time per stage: the least of many short batches, which other load
on the machine barely moves. Both sockets are stubs that answer from memory, so the kernel's share is not in it.
"""

import asyncio
import gc
import inspect
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.answers import PLAIN_MARK, plain_answer
from bench.contestants import MODEL, Running, body_text, request_text
from penstock.domain.answer import ChatEvent
from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.domain.ids import secret_hash
from penstock.domain.limits import Budget, LeaseAsk, LeaseGrant, LimitRow, Shared
from penstock.domain.platform import Principal
from penstock.gateway.admit import Admission, Recent, admit, admitted
from penstock.gateway.authenticate import authenticate, bearer_key
from penstock.gateway.dispatch import bound, dispatch
from penstock.gateway.endpoints import Gateway
from penstock.gateway.limits.defaults import defaults
from penstock.gateway.limits.governor import governor
from penstock.gateway.limits.shared import SharedRules
from penstock.gateway.pages import Health
from penstock.gateway.pipeline import Line
from penstock.gateway.ranges import check_ranges
from penstock.gateway.reply import Reply
from penstock.gateway.route import route
from penstock.gateway.routing.attempt import Trail
from penstock.gateway.routing.board import Board
from penstock.gateway.snapshot import KeySnapshot
from penstock.gateway.wire import parse_chat
from penstock.ledger.journal import Journal
from penstock.ledger.leases import Leases
from penstock.providers.catalogue import build_catalogue
from penstock.providers.openai.adapter import OpenAIAdapter
from penstock.providers.transport import Endpoint, Transport
from penstock.settings.tree import LimitsSettings, ModelRow, PriceRow, ProviderRow, Settings, TargetRow
from penstock.web.http1 import HttpConnection
from penstock.web.hub import HttpLimits, Hub
from penstock.web.server import refusal

_KEY = "inf-" + "k" * 43
_BODY = body_text(streamed=False).encode()
_REQUEST = request_text(Running(8400, "/v1/chat/completions", {"authorization": f"Bearer {_KEY}"}, ""), streamed=False)
_ANSWER = plain_answer()
_BATCHES, _PER_BATCH = 60, 50
# The id of everything that the key belongs to.
SUBJECT = "9b8f6e0a-0000-4000-8000-000000000000"
_decoder = msgspec.json.Decoder(ChatRequest)


class _Socket(asyncio.Transport):
    """A transport whose peer answers every write at once, from memory."""

    def __init__(self, written: Callable[[bytes], object]) -> None:
        super().__init__({"sockname": ("127.0.0.1", 8400), "peername": ("127.0.0.1", 50000)})
        self._written = written

    def write(self, data: Any) -> None:
        self._written(bytes(data))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class _MemoryLoop(uvloop.Loop):
    """Connections of this loop end at a stub that plays the upstream."""

    async def create_connection(self, factory: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        protocol = factory()
        socket = _Socket(lambda data: self.call_soon(protocol.data_received, _ANSWER))
        protocol.connection_made(socket)
        return socket, protocol


class _Keys:
    """A key table with one key."""

    def __init__(self, limits: tuple[LimitRow, ...] = (), budgets: tuple[Budget, ...] = ()) -> None:
        self._limits, self._budgets = limits, budgets

    def find_principal(self, key_hash: bytes, /) -> Principal | None:
        found = msgspec.structs.replace(_principal(), limits=self._limits, budgets=self._budgets)
        return found if key_hash == secret_hash(_KEY) else None

    def find_principals(self, key_hashes: Sequence[bytes], /) -> dict[bytes, Principal]:
        return {}

    def note_uses(self, uses: Mapping[str, float], /) -> None:
        return None

    def changes_since(self, revision: int, /) -> tuple[int, list[bytes] | None]:
        return revision, []

    def revision(self) -> int:
        return 1


def _principal() -> Principal:
    names = ("key_id", "key_prefix", "app_id", "app_name", "addon_id", "attachment_id", "attachment_name")
    fields: dict[str, str | None] = dict.fromkeys(names, SUBJECT)
    return msgspec.convert({**fields, "model_id": None}, Principal)


async def _send(_: dict[str, Any]) -> None:
    return None


class _Nothing:
    """A store without limits."""

    def shared(self) -> Shared:
        return Shared(revision=0)

    def revision(self) -> int:
        return 0

    def exchange(
        self, holder: str, asks: Sequence[LeaseAsk], /, *, lease_s: float, money_lease_s: float
    ) -> list[LeaseGrant]:
        return [LeaseGrant(granted=ask.wants, left=ask.counter.limit // 2, holds=ask.keep + ask.wants) for ask in asks]

    def leave(self, holder: str, /) -> None:
        return None


class Bench:
    """One gateway line wired to stubs, and a key with these limits and budgets."""

    def __init__(self, folder: Path, *, limits: tuple[LimitRow, ...] = (), budgets: tuple[Budget, ...] = ()) -> None:
        base = "http://127.0.0.1:9/v1"
        provider = ProviderRow(name="double", base_url=base)
        price = PriceRow(input="0.15", output="0.60", cached_input="0.075")
        model = ModelRow(id=MODEL, targets=(TargetRow(provider="double", model=MODEL),), price=price)
        self.catalogue = build_catalogue(Settings(provider=(provider,), model=(model,)), [])
        self.journal = Journal(folder)
        self.transport = Transport(Endpoint(base))
        self.adapters = {"double": OpenAIAdapter(self.transport)}
        self.keys = KeySnapshot(_Keys(limits, budgets))
        self.recent = Recent()
        self.board = Board(folder)
        self.leases = Leases(_Nothing(), self.journal.holder)
        rules = defaults(LimitsSettings(), (), (), catalogue=self.catalogue)
        governing = governor(self.leases, SharedRules(_Nothing()), rules)
        line = Line(
            self.catalogue, self.adapters, self.journal, "heroku-inf-000000", self.recent, self.board, governing
        )
        self.app = Gateway(line, self.keys, Health(self.keys, {}, self.board), max_body_bytes=1 << 20)
        self.model = self.catalogue.get(MODEL)
        self.parsed = parse_chat(_BODY)
        self.answer = ChatEvent(_ANSWER[_ANSWER.index(b"{") :], done=True)

    def admitted(self) -> Admission:
        """The admit stage."""
        record = admitted(_PRINCIPAL, self.parsed.chat, self.model, request_id="req_0123456789abcdef00000001")
        return admit(record, self.model, journal=self.journal, recent=self.recent)

    async def authenticated(self) -> None:
        """The authenticate stage."""
        await authenticate(self.keys, bearer_key(f"Bearer {_KEY}", None))

    async def posted(self) -> None:
        """The upstream client alone."""
        await (await self.transport.post("/chat/completions", (("content-type", "application/json"),), _BODY)).read()

    async def dispatched(self) -> None:
        """The dispatch stage, to the end of the answer."""
        request, trail = self.bound(), Trail()
        opened = await dispatch(
            self.model.targets, request, model=self.model, adapters=self.adapters, board=self.board, trail=trail
        )
        async for _ in opened.events:
            pass
        trail.end("completed")

    def bound(self) -> BoundRequest:
        """The request for its first target."""
        target = route(self.model, self.parsed, self.board, app_id="app")[0]
        return bound(self.parsed, self.model, target, fingerprint="heroku-inf-000000", app_id="app")

    async def settled(self) -> None:
        """Admit and settle."""
        admission = self.admitted()
        admission.tally.add(self.answer)
        admission.settle("completed")

    async def replied(self) -> None:
        """The answer into the ASGI messages."""
        await Reply(_send, "req_0123456789abcdef00000001").event(self.answer)

    def stages(self) -> dict[str, Callable[[], object]]:
        """What is timed, by the name that is printed."""
        return {
            "authenticate": self.authenticated,
            "parse: decode": lambda: _decoder.decode(_BODY),
            "parse: ranges": lambda: check_ranges(self.parsed.chat),
            "parse: all": lambda: parse_chat(_BODY),
            "admit + settle (journal)": self.settled,
            "route + bind": self.bound,
            "upstream client": self.posted,
            "dispatch (adapter + client)": self.dispatched,
            "reply": self.replied,
        }


_PRINCIPAL = _principal()


async def _least_us(stage: Callable[[], object]) -> float:
    least = float("inf")
    for _ in range(_BATCHES):
        start = time.thread_time_ns()
        for _ in range(_PER_BATCH):
            if inspect.isawaitable(pending := stage()):
                await pending
        least = min(least, (time.thread_time_ns() - start) / _PER_BATCH / 1e3)
    return least


def _served(app: Any) -> Callable[[], Awaitable[None]]:
    """A whole request through the server's protocol to ``app``, from bytes to bytes."""
    done: list[asyncio.Future[None]] = []

    def written(data: bytes) -> None:
        if PLAIN_MARK in data:
            done[0].set_result(None)

    protocol = HttpConnection(Hub(app, limits=HttpLimits(), hang_up_reason="gone", refusal=refusal))
    protocol.connection_made(_Socket(written))

    async def serve() -> None:
        done[:] = [asyncio.get_running_loop().create_future()]
        protocol.data_received(_REQUEST.encode())
        await done[0]
        await asyncio.sleep(0)

    return serve


async def _trivial(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The least that an ASGI application can do with the same request."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"296")]})
    await send({"type": "http.response.body", "body": _ANSWER[-296:]})


async def _main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        await bench.keys.find(secret_hash(_KEY))
        stages = {
            **bench.stages(),
            "server, trivial application": _served(_trivial),
            "whole request": _served(bench.app),
        }
        gc.collect()
        gc.freeze()
        print("| stage | us |\n|---|--:|")
        for name, stage in stages.items():
            print(f"| {name} | {await _least_us(stage):.1f} |", flush=True)
        bench.journal.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_MemoryLoop) as runner:
        runner.run(_main())
    sys.exit(0)
