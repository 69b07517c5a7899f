"""A real server whose models are served by every vendor's double, each behind a socket of its own."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.providers.lane import MODELS, doubles
from tests.providers.test_conformance_failures import EXPECTED
from tests.providers.vendors import Answer, Vendor
from tests.server import Server, running
from tests.upstream import Exchange, ScriptedUpstream

# What fails here has a target of its own: one that fails or asks to wait is rested, and refuses the next test.
OWN = tuple(f"-{kind}" for kind in ("cut", *EXPECTED))
CONFIG = "[engine]\nenabled = false\n"


@dataclass
class Host:
    """One vendor behind the server: ``model`` is the id by which clients ask for it."""

    vendor: Vendor
    upstream: ScriptedUpstream
    model: str
    exchanges: list[Exchange] = field(default_factory=list)

    def answer(self, *answers: Answer) -> None:
        """Give these answers one after the other, the last one again and again, as it is asked: plain or streamed."""
        waiting = list(answers)

        async def script(exchange: Exchange) -> None:
            self.exchanges.append(exchange)
            answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if is_streamed(exchange):
                await self.stream(exchange, self.vendor.events(answer))
            else:
                await exchange.answer(self.vendor.plain(answer))

        self.exchanges.clear()
        self.upstream.script = script

    async def stream(self, exchange: Exchange, events: list[bytes], *, end: bool = True) -> None:
        """A streamed answer, each event in a chunk of its own."""
        kind = self.vendor.stream_type
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        await exchange.send(head.encode())
        for event in events:
            await exchange.chunk(event)
        if end:
            await exchange.chunk(b"")


@dataclass
class Hosted:
    """The server, a key of it, and the vendors by name."""

    server: Server
    key: str
    hosts: dict[str, Host]

    @property
    def base_url(self) -> str:
        """What an SDK takes."""
        return f"{self.server.gateway}/v1"

    def post(self, host: Host, **fields: Any) -> httpx.Response:
        """One chat request for the host's model."""
        body = {"model": host.model, "messages": [{"role": "user", "content": "hi"}]} | fields
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.post(f"{self.base_url}/chat/completions", json=body, headers=headers, timeout=30)


def is_streamed(exchange: Exchange) -> bool:
    """Whether a vendor is asked for a stream: by its path, or by a field."""
    path = exchange.head.split(b" ")[1].lower()
    return b"stream" in path or json.loads(exchange.body).get("stream") is True


async def _unset(exchange: Exchange) -> None:
    await exchange.answer(b"{}", status="500 No Script")


@contextlib.contextmanager
def hosting(folder: Path) -> Iterator[Hosted]:
    """Starts the server with a provider and a model for every double."""
    with contextlib.ExitStack() as stack:
        hosts, text = {}, CONFIG
        for name, vendor in doubles().items():
            upstream = stack.enter_context(ScriptedUpstream(_unset))
            model = f"hosted-{name}"
            hosts[name] = Host(vendor, upstream, model)
            target = getattr(vendor, "model", None) or MODELS.get(vendor.kind, "target-name")
            for own in ("", *OWN):
                text += vendor.row(upstream.base).replace('"double"', f'"double-{name}{own}"', 1)
                text += f'[[model]]\nid = "{model}{own}"\nmax_attempts = 1\n'
                text += f'targets = [{{ provider = "double-{name}{own}", model = "{target}" }}]\n'
        config = folder / "penstock.toml"
        config.write_text(text)
        stack.enter_context(
            _environ({key: value for host in hosts.values() for key, value in host.vendor.environ.items()})
        )
        server = stack.enter_context(running(folder / "home", "--config", str(config)))
        yield Hosted(server, server.config_var("hello", "INFERENCE_KEY"), hosts)


@contextlib.contextmanager
def _environ(values: dict[str, str]) -> Iterator[None]:
    """These variables in the environment that the server inherits."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
