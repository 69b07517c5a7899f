"""Fetching images: what is one, how much and how long, and that no address leads into the operator's network."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.interop.authority import Authority
from penstock.domain.errors import PenstockError
from penstock.providers.images import ImageFetcher, ImagesOfOne
from penstock.providers.outbound.addresses import allowed_by, is_public, networks
from penstock.providers.spec import Image
from penstock.providers.transport import trusted
from penstock.settings.tree import UpstreamSettings
from tests.upstream import Exchange, Script, ScriptedUpstream

T = TypeVar("T")
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels" * 10
KINDS = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0 pixels",
    "image/gif": b"GIF89a pixels",
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 pixels",
}
PARAM = "messages[0].content[1].image_url"
UNREACHABLE = f"'{PARAM}': the image cannot be fetched from this address. Send it as a data URL."


def bounds(*own: str, size: int = 1_000_000, seconds: float = 10.0) -> UpstreamSettings:
    return UpstreamSettings(image_networks=own, max_image_bytes=size, image_timeout_s=seconds)


LOOPBACK = bounds("127.0.0.1/32")


class Names:
    """A resolver of the test's own: each answer for a name is given once, the last one for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(answer) for name, answer in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def run(work: Coroutine[Any, Any, T]) -> T:
    async def go() -> T:
        return await asyncio.wait_for(work, 30)

    with asyncio.Runner() as runner:
        return runner.run(go())


def fetched(script: Script, settings: UpstreamSettings = LOOPBACK, *, path: str = "/cat.png") -> Image:
    with ScriptedUpstream(script) as upstream:
        return run(ImageFetcher(settings).fetch(f"http://127.0.0.1:{upstream.port}{path}", PARAM))


def failure(work: Coroutine[Any, Any, Image]) -> PenstockError:
    with pytest.raises(PenstockError) as caught:
        run(work)
    assert caught.value.code == "image_unavailable"
    assert caught.value.param == PARAM
    return caught.value


def refusal(script: Script, settings: UpstreamSettings = LOOPBACK) -> str:
    with ScriptedUpstream(script) as upstream:
        return failure(ImageFetcher(settings).fetch(f"http://127.0.0.1:{upstream.port}/x", PARAM)).message


def sends(body: bytes, *, kind: str = "image/png", status: str = "200 OK") -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, kind=kind, status=status)

    return script


def leads(to: str, *, status: str = "302 Found") -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.send(f"HTTP/1.1 {status}\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n".encode())

    return script


# What is an image.


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_fetched_with_its_type(kind: str) -> None:
    assert fetched(sends(KINDS[kind], kind=f"{kind}; charset=binary")) == Image(kind, KINDS[kind])


def test_the_type_is_that_of_the_bytes() -> None:
    assert fetched(sends(PNG, kind="IMAGE/JPG")).media_type == "image/png"


@pytest.mark.parametrize("kind", ["text/html", "application/json", "image/svg+xml", "application/octet-stream", ""])
def test_another_type_is_refused(kind: str) -> None:
    assert "is not sent as" in refusal(sends(PNG, kind=kind))


@pytest.mark.parametrize("body", [b"", b"<html>", b"RIFF\x10\0\0\0WAVE", b'{"AccessKeyId":"canary"}', PNG[1:]])
def test_bytes_that_are_no_image_are_refused_and_not_shown(body: bytes) -> None:
    said = refusal(sends(body))
    assert "is no PNG" in said
    assert "canary" not in said


@pytest.mark.parametrize("status", ["201 Created", "204 None", "304 Same", "404 Not Found", "500 Error"])
def test_another_status_is_no_image(status: str) -> None:
    assert f"(status {status[:3]})" in refusal(sends(PNG, status=status))


def test_what_is_asked_for_carries_nothing_of_ours() -> None:
    heads: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        heads.append(exchange.head)
        await exchange.answer(PNG, kind="image/png")

    fetched(script, path="/a%20b/ü c.png?q=a b&r=\r\nx-evil: 1#part")
    line, *headers = heads[0].decode().split("\r\n")
    assert line == "GET /a%20b/%C3%BC%20c.png?q=a%20b&r=x-evil:%201 HTTP/1.1"
    names = {header.partition(":")[0] for header in headers if header}
    assert names == {"host", "user-agent", "accept", "accept-encoding", "connection"}


def test_cookies_of_a_redirect_are_not_kept() -> None:
    async def script(exchange: Exchange) -> None:
        assert exchange.header("cookie") is None
        if b"/x " in exchange.head:
            await exchange.send(
                b"HTTP/1.1 302 Found\r\nset-cookie: a=b\r\nlocation: y.png\r\ncontent-length: 0\r\n\r\n"
            )
        await exchange.answer(PNG, kind="image/png")

    assert fetched(script, path="/x").data == PNG


# How much and how long.


def test_an_image_of_the_limit_is_fetched_and_one_byte_more_is_not() -> None:
    assert fetched(sends(PNG), bounds("127.0.0.1", size=len(PNG))).data == PNG
    assert f"more than {len(PNG) - 1} bytes" in refusal(sends(PNG), bounds("127.0.0.1", size=len(PNG) - 1))


def test_a_body_that_announces_no_length_is_counted_as_it_comes() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n")
        await exchange.chunk(PNG)
        while True:
            await exchange.chunk(b"x" * 65536)

    assert "more than 1000000 bytes" in refusal(endless)


def test_a_body_that_announces_too_much_is_not_read() -> None:
    async def huge(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 99999999999\r\n\r\n")
        await exchange.hung_up()

    assert "more than 1000000 bytes" in refusal(huge)


@pytest.mark.parametrize("where", ["head", "body", "redirects"])
def test_the_whole_way_has_one_time_limit(where: str) -> None:
    async def slow(exchange: Exchange) -> None:
        if where == "redirects":
            await asyncio.sleep(0.2)
            await leads("/on")(exchange)
            return
        if where == "body":
            await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 99999\r\n\r\n" + PNG)
        while True:
            await exchange.send(b"x" if where == "body" else b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.01)

    assert refusal(slow, bounds("127.0.0.1", seconds=0.5)) == UNREACHABLE


def test_a_name_that_takes_too_long_is_given_up() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.get_running_loop().create_future()
        return []

    error = failure(ImageFetcher(bounds(seconds=0.1), resolve=never).fetch("http://slow.example/x", PARAM))
    assert error.message == UNREACHABLE


def test_an_image_cut_short_is_none() -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 9999\r\n\r\n" + PNG)
        exchange.close()

    assert refusal(cut) == UNREACHABLE


class Album:
    """Images of these sizes, one after another."""

    def __init__(self, *megabytes: int) -> None:
        self.sizes = [size << 20 for size in megabytes]
        self.fetched = 0

    async def fetch(self, url: str, param: str, /) -> Image:
        self.fetched += 1
        return Image("image/png", bytes(self.sizes[self.fetched - 1]))


async def gathered(album: Album, seconds: float = 60.0) -> Image:
    images = ImagesOfOne(album, seconds=seconds)
    for _ in album.sizes:
        image = await images.fetch("http://pictures.example/x", PARAM)
    return image


@pytest.mark.parametrize("sizes", [(0,) * 20, (12, 20), (40,)])
def test_one_request_may_have_twenty_images_of_32_mebibytes_together_or_one_of_any_size(sizes: tuple[int, ...]) -> None:
    assert len(run(gathered(Album(*sizes))).data) == sizes[-1] << 20


@pytest.mark.parametrize(("sizes", "fetched"), [((0,) * 30, 20), ((20,) * 30, 2)])
def test_beyond_that_no_more_is_fetched(sizes: tuple[int, ...], fetched: int) -> None:
    album = Album(*sizes)
    assert "the request links to more than" in failure(gathered(album)).message
    assert album.fetched == fetched


def test_when_the_time_of_a_request_is_over_no_other_image_is_begun() -> None:
    album = Album(1, 1)
    assert "fetched in time" in failure(gathered(album, seconds=0.0)).message
    assert album.fetched == 1


def test_a_name_is_measured_before_any_work_is_done_on_it() -> None:
    names = Names()
    url = "http://" + "ü." * 200 + "example/cat.png"
    assert "has no http://" in failure(ImageFetcher(LOOPBACK, resolve=names).fetch(url, PARAM)).message
    assert names.asked == []


@pytest.mark.parametrize("start", ["http://a/", "http://[", "http://" + "ü." * 10, "x"])
def test_an_address_is_measured_before_it_is_looked_at(start: str) -> None:
    message = failure(ImageFetcher(LOOPBACK).fetch(start + "x" * 9000, PARAM)).message
    assert "has an address of more than 8192 characters" in message


# Where it leads.

PRIVATE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "0", "0.0.0.0", "localhost",
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "2852039166", "0xa9fea9fe",
    "168.63.129.16", "100.100.100.200", "192.0.0.192", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1",
    "198.18.0.1", "[::1]", "[::]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:a9fe:a9fe]",
    "[::ffff:0:127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::]", "[fe80::1]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]",
    "[2001:db8::1]", "[100::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_an_address_that_is_not_public_is_not_called(host: str) -> None:
    error = failure(ImageFetcher(bounds(seconds=5)).fetch(f"http://{host}/latest/meta-data/", PARAM))
    assert error.message == UNREACHABLE
    assert error.__cause__ is None  # nobody was called: a call that fails is the cause


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808",
                                     "2002:808:808::1"])  # fmt: skip
def test_an_address_that_is_public_may_be_called(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_no_form_of_a_private_address_is_public(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    for form in (f"{address}", f"::ffff:{address}", f"::{address}", f"64:ff9b::{address}", f"::ffff:0:{address}",
                 f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"):  # fmt: skip
        assert not is_public(form)


@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192",
                                     "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254"])  # fmt: skip
def test_no_setting_opens_a_clouds_metadata(address: str) -> None:
    everything = networks(["0.0.0.0/0", "::/0"])
    assert allowed_by("::1", networks(["::1"]))
    assert allowed_by("::ffff:10.0.0.1", networks(["10.0.0.0/8"]))
    assert allowed_by("10.0.0.1", everything)
    assert allowed_by("fd00::1", everything)
    assert not allowed_by(address, everything)


def test_a_name_with_one_private_address_is_refused_whole() -> None:
    names = Names(mixed_example=[["8.8.8.8", "10.0.0.1"]])
    error = failure(ImageFetcher(bounds(), resolve=names).fetch("http://mixed.example/x", PARAM))
    assert (error.message, error.__cause__) == (UNREACHABLE, None)


@pytest.mark.parametrize("port", [22, 25, 6379, 9200, 65535])
def test_a_public_address_is_called_at_ports_of_the_web_only(port: int) -> None:
    names = Names(public_example=[["8.8.8.8"]])
    error = failure(ImageFetcher(bounds(), resolve=names).fetch(f"http://public.example:{port}/x", PARAM))
    assert (error.message, error.__cause__) == (UNREACHABLE, None)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "//127.0.0.1/x", "/x", "", "http://",
     "http:///x", "http://[::1", "http://127.0.0.1:99999/x", "http://127.0.0.1:x/x", "http://a..b/x", "http://a\0b/x",
     "http://a b/x", "http://a%0d%0ab/x", "http://" + "a" * 64 + "/x",
     "unix:///run/x.sock"],
)  # fmt: skip
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    assert "http:// or https://" in failure(ImageFetcher(LOOPBACK).fetch(url, PARAM)).message


def test_a_user_name_in_an_address_is_refused_and_not_repeated() -> None:
    said = failure(ImageFetcher(LOOPBACK).fetch("http://user:canary@127.0.0.1/x", PARAM)).message
    assert "user name" in said
    assert "canary" not in said


def test_what_is_refused_what_is_closed_and_what_has_no_name_sound_the_same() -> None:
    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    refused = failure(ImageFetcher(bounds()).fetch("http://127.0.0.1:22/x", PARAM))
    closed = failure(ImageFetcher(LOOPBACK).fetch("http://127.0.0.1:1/x", PARAM))
    unknown = failure(ImageFetcher(bounds(), resolve=nowhere).fetch("http://no.example/x", PARAM))
    assert {refused.message, closed.message, unknown.message} == {UNREACHABLE}


# Redirects and names that change.


@asynccontextmanager
async def secret(port: int) -> AsyncIterator[list[bytes]]:
    """A server that must not be called, on 127.0.0.2."""
    called: list[bytes] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.append(b"x")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n" % len(PNG) + PNG)

    async with await asyncio.start_server(serve, "127.0.0.2", port):
        yield called


@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
def test_a_redirect_is_followed_where_it_may_lead(status: str) -> None:
    async def script(exchange: Exchange) -> None:
        if b"/far/cat.png " in exchange.head:
            await exchange.answer(PNG, kind="image/png")
        else:
            await leads("far/cat.png", status=status)(exchange)

    assert fetched(script).data == PNG


def test_a_redirect_to_a_private_address_is_refused() -> None:
    async def go(upstream: ScriptedUpstream, to: Callable[[int], str]) -> None:
        async with secret(upstream.port) as called:
            upstream.script = leads(to(upstream.port))
            with pytest.raises(PenstockError) as caught:
                await ImageFetcher(LOOPBACK).fetch(f"http://127.0.0.1:{upstream.port}/x", PARAM)
            assert caught.value.message == UNREACHABLE
            assert caught.value.__cause__ is None
            assert not called

    for host in ("127.0.0.2", "2130706434", "[::ffff:127.0.0.2]"):
        with ScriptedUpstream(sends(b"")) as upstream:
            run(go(upstream, lambda port, host=host: f"http://{host}:{port}/x"))  # type: ignore[misc]


@pytest.mark.parametrize("to", ["file:///etc/passwd", "http://user:canary@127.0.0.1/x", "gopher://x", "http://[::1"])
def test_a_redirect_to_what_is_no_web_address_is_refused(to: str) -> None:
    assert "address" in refusal(leads(to))


def test_at_most_three_redirects_are_followed() -> None:
    async def script(exchange: Exchange) -> None:
        left = int(exchange.head.split()[1][1:])
        if left:
            await leads(f"/{left - 1}")(exchange)
        else:
            await exchange.answer(PNG, kind="image/png")

    assert fetched(script, path="/3").data == PNG
    with ScriptedUpstream(script) as upstream:
        error = failure(ImageFetcher(LOOPBACK).fetch(f"http://127.0.0.1:{upstream.port}/4", PARAM))
        assert "too many redirects" in error.message
        assert upstream.requests == 4


def test_a_name_that_means_another_address_a_moment_later_leads_to_the_one_that_was_checked() -> None:
    async def go(port: int) -> None:
        names = Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])
        async with secret(port) as called:
            image = await ImageFetcher(LOOPBACK, resolve=names).fetch(f"http://rebinding.example:{port}/x", PARAM)
            assert image.data == PNG
            assert not called
        assert names.asked == ["rebinding.example"]

    async def script(exchange: Exchange) -> None:
        assert exchange.header("host") == f"rebinding.example:{upstream.port}"
        await exchange.answer(PNG, kind="image/png")

    with ScriptedUpstream(script) as upstream:
        run(go(upstream.port))


def test_a_name_is_checked_anew_behind_a_redirect() -> None:
    async def go(port: int) -> None:
        names = Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])
        async with secret(port) as called:
            with pytest.raises(PenstockError, match="cannot be fetched"):
                await ImageFetcher(LOOPBACK, resolve=names).fetch(f"http://rebinding.example:{port}/x", PARAM)
            assert not called

    with ScriptedUpstream(leads("/again")) as upstream:
        run(go(upstream.port))


def test_the_next_address_of_a_name_is_tried() -> None:
    names = Names(two_example=[["127.0.0.9", "127.0.0.1"]])
    with ScriptedUpstream(sends(PNG)) as upstream:
        fetcher = ImageFetcher(bounds("127.0.0.0/8"), resolve=names)
        assert run(fetcher.fetch(f"http://two.example:{upstream.port}/x", PARAM)).data == PNG


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_over_tls_the_name_is_checked_and_not_the_address(tmp_path: Path, loop: str) -> None:
    authority = Authority(tmp_path / "ca")
    names = Names(images_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])

    async def go(port: int) -> None:
        fetcher = ImageFetcher(LOOPBACK, resolve=names, tls=trusted(str(authority.certificate_path)))
        assert (await fetcher.fetch(f"https://images.example:{port}/x", PARAM)).data == PNG
        with pytest.raises(PenstockError, match="cannot be fetched"):
            await fetcher.fetch(f"https://other.example:{port}/x", PARAM)

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with ScriptedUpstream(sends(PNG), tls=authority.context("images.example")) as upstream:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(go(upstream.port))
        assert upstream.requests == 1


def test_cancelling_hangs_up() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.hung_up()
        upstream.cancelled.set()

    async def go() -> None:
        task = asyncio.create_task(ImageFetcher(LOOPBACK).fetch(f"http://127.0.0.1:{upstream.port}/x", PARAM))
        assert await asyncio.to_thread(upstream.arrived.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(upstream.cancelled.wait, 10)

    with ScriptedUpstream(silent) as upstream:
        run(go())
