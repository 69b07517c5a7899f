"""A real engine child in a thread with its own loop, and the adapter in front of it, for tests that ask it things."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from penstock.domain.answer import ChatEvent
from penstock.domain.chat import BoundRequest, ChatRequest
from penstock.engine.drivers import LLAMACPP, Driver, EngineSpec
from penstock.engine.supervised import EngineProcess, new_key, socket_path
from penstock.engine.weights import LocalModel
from penstock.providers.embedded.adapter import EmbeddedAdapter
from penstock.providers.transport import Endpoint, Transport
from tests.needs import require

T = TypeVar("T")
SOAK = bool(os.environ.get("PENSTOCK_SOAK"))
MODEL = "smollm2-135m-instruct"
WITHIN_S = 100.0


def required(driver: Driver) -> Driver:
    """The driver, where its package is there. Else the test is skipped, or fails where all must be there."""
    require(driver.installed, f"the engine driver {driver.name} needs the package {driver.package}")
    return driver


def eventually(condition: Callable[[], T], within_s: float = WITHIN_S) -> T:
    """The condition's value once it is true."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
    return value


def bound(**fields: Any) -> BoundRequest:
    """A request as the gateway binds it; ``user`` is short for one user message."""
    fields = {"model": "asked-for", "max_tokens": 16, "temperature": 0, **fields}
    if "user" in fields:
        fields["messages"] = [{"role": "user", "content": fields.pop("user")}]
    chat = msgspec.convert(fields, ChatRequest)
    return BoundRequest(chat, b"", MODEL, "chatcmpl-18594288", 1754506683, "heroku-inf-test")


class RunningEngine:
    """One supervised child with small slots (1,024 tokens each), and what a test asks of it."""

    def __init__(
        self, model: LocalModel, folder: Path, *, driver: Driver = LLAMACPP, slots: int = 4, context: int = 1024
    ) -> None:
        self.driver = driver
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        spec = EngineSpec(
            model_id=model.id,
            model_path=model.path,
            socket_path=str(socket_path(folder, model.id)),
            key=new_key(),
            slots=slots,
            context=context,
            batch=64,
            # Threads that wait for each other spin, and two test processes share the cores.
            threads=1,
        )
        self.process = EngineProcess(spec, driver=driver)
        self.transport = Transport(Endpoint(f"unix://{spec.socket_path}"))
        self.adapter = EmbeddedAdapter(self.transport, key=spec.key, context=context)
        self.run(self.process.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WITHIN_S)

    def close(self) -> None:
        """Stop the child and the loop."""
        self.run(self.transport.aclose())
        self.run(self.process.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WITHIN_S)
        self.loop.close()

    def events(self, **fields: Any) -> list[ChatEvent]:
        """Every event of one request. Raises PenstockError."""

        async def collect() -> list[ChatEvent]:
            return [event async for event in await self.adapter.open(bound(**fields))]

        return self.run(collect())

    def ask(self, **fields: Any) -> dict[str, Any]:
        """The plain answer to a request."""
        (event,) = self.events(**fields)
        assert event.done
        answer: dict[str, Any] = json.loads(event.frame)
        return answer

    def text(self, **fields: Any) -> str:
        """The text of the plain answer's first choice."""
        text: str = self.ask(**fields)["choices"][0]["message"]["content"]
        return text

    def chunks(self, **fields: Any) -> list[dict[str, Any]]:
        """The chunks of a streamed answer, which must end with [DONE]."""
        events = self.events(stream=True, **fields)
        payloads = [line[6:] for line in b"".join(event.frame for event in events).decode().split("\n\n") if line]
        assert payloads[-1] == "[DONE]"
        assert events[-1].done
        assert all(not event.done for event in events[:-1])
        return [json.loads(payload) for payload in payloads[:-1]]

    def http(self, *, key: str | None) -> httpx.Client:
        """A stock client on the child's socket, with or without a key."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        transport = httpx.HTTPTransport(uds=self.process.spec.socket_path)
        return httpx.Client(transport=transport, base_url="http://engine", headers=headers, timeout=WITHIN_S)

    def busy_slots(self) -> int:
        """How many slots work on a request now."""
        with self.http(key=self.process.spec.key) as client:
            return sum(slot["is_processing"] for slot in client.get("/slots").json())
