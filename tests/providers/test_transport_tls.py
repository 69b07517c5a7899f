"""TLS to upstreams: whom we trust, how an answer may end, and calls through a proxy, on both event loops."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import uvloop

from penstock.cli.interop.authority import Authority
from penstock.providers.faults import from_transport
from penstock.providers.registry import make_transport
from penstock.providers.spec import ProviderSpec
from penstock.providers.transport import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    Endpoint,
    ProtocolViolation,
    ProxyRefused,
    Transport,
    TransportError,
    TransportLimits,
)
from tests.upstream import Exchange, Script, ScriptedUpstream

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]
LOGIN = "proxy-user:p%40ss-word"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Trust(NamedTuple):
    """An authority of this test, the file of its certificate, and a server's context for 127.0.0.1."""

    authority: Authority
    ca_file: str
    server: ssl.SSLContext


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    authority = Authority(tmp_path_factory.mktemp("authority") / "ca")
    return Trust(authority, str(authority.certificate_path), authority.context("127.0.0.1"))


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run[object]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def call(work: Awaitable[object]) -> object:
        async def go() -> object:
            return await work

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(go(), 30))

    return call


def made(base: str, *, proxy: str | None = None, ca_file: str | None = None, connect_s: float = 5.0) -> Transport:
    limits = TransportLimits(connect_timeout_s=connect_s)
    return make_transport(ProviderSpec(name="p", kind="x", base_url=base, proxy=proxy, ca_file=ca_file, limits=limits))


async def body_of(transport: Transport, *, times: int = 1) -> bytes:
    try:
        for _ in range(times):
            response = await transport.post("/x", (("authorization", "Bearer sk-canary"),), b"{}")
            body = await response.read()
        return body
    finally:
        await transport.aclose()


def says(data: bytes, *, end: str = "open") -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.send(data)
        if end == "close":
            exchange.close()
        if end == "cut":
            exchange.reset()

    return script


# Whom we trust.


def test_an_upstream_of_the_own_authority_is_called(trust: Trust, run: Run[object]) -> None:
    with ScriptedUpstream(says(OK), tls=trust.server) as upstream:
        assert run(body_of(made(upstream.base, ca_file=trust.ca_file), times=3)) == b"ok"
        assert (upstream.requests, upstream.connections) == (3, 1)


def test_an_upstream_that_nobody_vouches_for_gets_nothing(trust: Trust, run: Run[object]) -> None:
    with ScriptedUpstream(says(OK), tls=trust.server) as upstream:
        with pytest.raises(ConnectFailed, match="certificate is not trusted"):
            run(body_of(made(upstream.base)))
        assert upstream.requests == 0


def test_a_certificate_of_another_name_is_refused(trust: Trust, run: Run[object]) -> None:
    with ScriptedUpstream(says(OK), tls=trust.authority.context("other.example")) as upstream:
        with pytest.raises(ConnectFailed, match="certificate is not trusted"):
            run(body_of(made(upstream.base, ca_file=trust.ca_file)))
        assert upstream.requests == 0


def test_the_own_authority_stands_in_place_of_the_systems(trust: Trust) -> None:
    transport = made("https://127.0.0.1:1", ca_file=trust.ca_file)
    assert transport.tls is not None
    assert len(transport.tls.get_ca_certs()) == 1


def test_an_upstream_that_speaks_no_tls_is_a_failed_connect(trust: Trust, run: Run[object]) -> None:
    with ScriptedUpstream(says(OK)) as upstream, pytest.raises(ConnectFailed):
        run(body_of(made(upstream.base.replace("http:", "https:"), ca_file=trust.ca_file, connect_s=0.5)))


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_ca_file_that_holds_nothing_is_a_value_error_that_names_it(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"ca_file .*ca\.pem"):
        made("https://127.0.0.1:1", ca_file=str(path))


# How an answer may end.

UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


def test_a_body_without_framing_ends_with_close_notify(trust: Trust, run: Run[object]) -> None:
    with ScriptedUpstream(says(UNFRAMED, end="close"), tls=trust.server) as upstream:
        assert run(body_of(made(upstream.base, ca_file=trust.ca_file))) == b"hello"


def test_a_body_without_framing_whose_line_is_cut_is_an_error(trust: Trust, run: Run[object]) -> None:
    with ScriptedUpstream(says(UNFRAMED, end="cut"), tls=trust.server) as upstream, pytest.raises(ConnectionLost):
        run(body_of(made(upstream.base, ca_file=trust.ca_file)))


@pytest.mark.parametrize("whole", [LENGTH, CHUNKED + b"0\r\n\r\n"])
def test_a_framed_body_that_is_whole_needs_no_close_notify(whole: bytes, trust: Trust, run: Run[object]) -> None:
    with ScriptedUpstream(says(whole, end="cut"), tls=trust.server) as upstream:
        assert run(body_of(made(upstream.base, ca_file=trust.ca_file))) == b"hello"


@pytest.mark.parametrize("part", [LENGTH[:-1], CHUNKED])
@pytest.mark.parametrize("end", ["cut", "close"])
def test_a_framed_body_that_is_not_whole_is_an_error(part: bytes, end: str, trust: Trust, run: Run[object]) -> None:
    with ScriptedUpstream(says(part, end=end), tls=trust.server) as upstream, pytest.raises(ConnectionLost):
        run(body_of(made(upstream.base, ca_file=trust.ca_file)))


def test_our_own_hanging_up_completes_nothing(run: Run[object]) -> None:
    async def go() -> None:
        transport = made(upstream.base)
        response = await transport.post("/x", (), b"{}")
        assert await response.block() == b"hello"
        await transport.aclose()
        with pytest.raises(ConnectionLost):
            await response.block()

    with ScriptedUpstream(says(UNFRAMED)) as upstream:
        run(go())


# Through a proxy.


class Proxy:
    """A proxy that answers CONNECT with ``answer`` and then joins both sides."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\nvia: p\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.gone = asyncio.Event()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://{LOGIN}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        writer.write(self.answer)
        try:
            if b"established" not in self.answer:
                await reader.read()
                return
            host, _, port = head.split()[1].decode().rpartition(":")
            there = await asyncio.open_connection(host, int(port))
            await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
        finally:
            writer.close()
            self.gone.set()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def test_an_https_upstream_is_called_through_a_tunnel(trust: Trust, run: Run[object]) -> None:
    async def go() -> None:
        async with Proxy().running() as proxy:
            assert await body_of(made(upstream.base, proxy=proxy.url, ca_file=trust.ca_file), times=3) == b"ok"
            await proxy.gone.wait()
        (head,) = proxy.heads
        login = base64.b64encode(b"proxy-user:p@ss-word")
        assert head.startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % upstream.port)
        assert b"proxy-authorization: Basic " + login in head
        assert b"canary" not in head

    async def answer(exchange: Exchange) -> None:
        assert exchange.header("proxy-authorization") is None
        await exchange.send(OK)

    with ScriptedUpstream(answer, tls=trust.server) as upstream:
        run(go())
        assert (upstream.requests, upstream.connections) == (3, 1)


def test_the_tunnel_ends_at_the_upstream_that_was_meant(trust: Trust, run: Run[object]) -> None:
    async def go() -> None:
        async with Proxy().running() as proxy:
            with pytest.raises(ConnectFailed, match="certificate is not trusted"):
                await body_of(made(upstream.base, proxy=proxy.url, ca_file=trust.ca_file))
            await proxy.gone.wait()

    with ScriptedUpstream(says(OK), tls=trust.authority.context("other.example")) as upstream:
        run(go())
        assert upstream.requests == 0


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (b"HTTP/1.1 407 Login\r\nproxy-authenticate: Basic\r\n\r\n", ProxyRefused, "upstream_misconfigured"),
        (b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", ProxyRefused, "upstream_misconfigured"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\n\r\n", ProxyRefused, "upstream_misconfigured"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", ConnectFailed, "upstream_error"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ProtocolViolation, "upstream_closed"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ProtocolViolation, "upstream_closed"),
        (b"x" * 20_000, ProtocolViolation, "upstream_closed"),
        (b"HTTP/1.1 200 OK\r\n", ConnectTimeout, "upstream_error"),
    ],
    ids=["407", "403", "302", "502", "ssh", "early", "endless", "silent"],
)  # fmt: skip
def test_what_a_proxy_refuses_is_a_typed_error_without_its_credential(
    answer: bytes, error: type[TransportError], code: str, trust: Trust, run: Run[object]
) -> None:
    async def go() -> None:
        async with Proxy(answer).running() as proxy:
            with pytest.raises(TransportError) as caught:
                await body_of(made("https://127.0.0.1:1/v1", proxy=proxy.url, ca_file=trust.ca_file, connect_s=0.5))
            await proxy.gone.wait()  # it is hung up on
        public = from_transport(caught.value)
        assert type(caught.value) is error
        assert public.code == code
        assert not any(secret in f"{caught.value!r} {public}" for secret in ("proxy-user", "p@ss", "p%40ss"))

    run(go())


def test_an_http_upstream_is_called_with_its_whole_address(run: Run[object]) -> None:
    heads: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        heads.append(exchange.head)
        await exchange.send(OK)

    with ScriptedUpstream(script) as proxy:
        transport = made("http://upstream.example:8000/v1", proxy=f"http://{LOGIN}@127.0.0.1:{proxy.port}")
        assert run(body_of(transport, times=2)) == b"ok"
        assert proxy.connections == 1
    assert heads[0].startswith(b"POST http://upstream.example:8000/v1/x HTTP/1.1\r\nhost: upstream.example:8000\r\n")
    assert b"proxy-authorization: Basic " in heads[0]


def test_a_proxy_of_an_http_upstream_that_wants_another_credential_is_a_typed_error(run: Run[object]) -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    with ScriptedUpstream(says(refusal)) as proxy, pytest.raises(ProxyRefused):
        run(body_of(made("http://upstream.example/v1", proxy=f"http://{LOGIN}@127.0.0.1:{proxy.port}")))


def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch, run: Run[object]) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")
    with ScriptedUpstream(says(OK)) as upstream:
        assert run(body_of(made(upstream.base))) == b"ok"


@pytest.mark.parametrize(
    "proxy",
    ["", "127.0.0.1:3128", "https://127.0.0.1:3128", "socks5://127.0.0.1:1", "http://127.0.0.1", "http://u:canary@h:x",
     "http://u:canary@127.0.0.1:1/path", "http://[::1:80"],
)  # fmt: skip
def test_a_proxy_that_is_none_is_a_value_error_that_quotes_nothing(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy must be") as caught:
        made("https://127.0.0.1:1", proxy=proxy)
    assert "canary" not in str(caught.value)


def test_a_unix_socket_is_called_without_the_proxy(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST /x HTTP/1.1")
        writer.write(OK)

    async def go() -> bytes:
        path = tmp_path / "u.sock"
        async with await asyncio.start_unix_server(serve, path):
            return await body_of(Transport(Endpoint(f"unix://{path}"), proxy="http://127.0.0.1:1"))

    assert asyncio.run(go()) == b"ok"
