"""The whole gateway before every vendor's double: what a client sees of answers, cuts, failures and parameters."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.providers.hosted import Host, Hosted, hosting
from tests.providers.lane import CALLS, STREAM, doubles, expected, plain_answer, shown, streamed_answer
from tests.providers.test_conformance_failures import EXPECTED, words
from tests.providers.vendors import Answer
from tests.upstream import Exchange

RICH = Answer(text="Let me see 🌊.", calls=CALLS, finish="tool_calls")


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """One server for all vendors."""
    with hosting(tmp_path_factory.mktemp("hosted")) as server:
        yield server


@pytest.fixture(params=sorted(doubles()))
def host(request: pytest.FixtureRequest, hosted: Hosted) -> Host:
    """One vendor after the other."""
    return hosted.hosts[request.param]


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a streamed answer, less the end mark."""
    texts = [event.removeprefix("data: ") for event in answer.text.split("\n\n") if event]
    return [json.loads(text) for text in texts if text != "[DONE]"]


def test_a_plain_answer_arrives(hosted: Hosted, host: Host) -> None:
    host.answer(RICH)
    answer = hosted.post(host, **shown(RICH))
    assert answer.status_code == 200, answer.text
    assert plain_answer(answer.json())._replace(ids=[]) == expected(RICH)._replace(ids=[])


def test_a_streamed_answer_arrives(hosted: Hosted, host: Host) -> None:
    host.answer(RICH)
    answer = hosted.post(host, **STREAM, **shown(RICH))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert streamed_answer(chunks(answer))._replace(ids=[]) == expected(RICH)._replace(ids=[])


def test_a_stream_that_is_cut_ends_with_an_error_and_without_the_end_mark(hosted: Hosted, host: Host) -> None:
    events = host.vendor.events(RICH)
    for count in range(2, len(events)):

        async def script(exchange: Exchange, sent: tuple[bytes, ...] = tuple(events[:count])) -> None:
            await host.stream(exchange, list(sent))

        host.answer(RICH)
        for _ in range(2):  # a target that does nothing but fail is rested
            assert hosted.post(host, model=f"{host.model}-cut", **shown(RICH)).status_code == 200
        host.upstream.script = script
        answer = hosted.post(host, model=f"{host.model}-cut", **STREAM, **shown(RICH))
        last = answer.json() if answer.status_code != 200 else chunks(answer)[-1]
        assert last["error"]["code"] == "upstream_closed"
        assert "[DONE]" not in answer.text


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_refusal_reaches_the_client_with_its_code(hosted: Hosted, host: Host, kind: str) -> None:
    status, headers, body = host.vendor.error(kind)
    code, public, passed = EXPECTED[kind]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    async def script(exchange: Exchange) -> None:
        head = f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
        await exchange.send(head.encode() + body)

    host.upstream.script = script
    answer = hosted.post(host, model=f"{host.model}-{kind}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (public, code)
    assert (words(body) in answer.json()["error"]["message"]) is passed
    if code in ("upstream_rate_limited", "upstream_overloaded"):
        assert int(answer.headers["retry-after"]) >= 1


def test_a_client_that_hangs_up_ends_the_call(hosted: Hosted, host: Host) -> None:
    host.upstream.cancelled.clear()

    async def script(exchange: Exchange) -> None:
        await host.stream(exchange, host.vendor.events(RICH)[:-1], end=False)
        await exchange.hung_up()
        host.upstream.cancelled.set()

    host.upstream.script = script
    body = {"model": host.model, "messages": [{"role": "user", "content": "hi"}]} | STREAM | shown(RICH)
    headers = {"authorization": f"Bearer {hosted.key}"}
    with httpx.stream("POST", f"{hosted.base_url}/chat/completions", json=body, headers=headers) as answer:
        next(answer.iter_bytes())
    assert host.upstream.cancelled.wait(10)


def test_what_a_target_ignores_is_named_in_the_answer(hosted: Hosted, host: Host) -> None:
    host.answer(Answer())
    answer = hosted.post(host, min_p=0.1, top_q=1, allow_ignored_params=True)
    assert answer.status_code == 200, answer.text
    assert "top_q" in answer.headers["penstock-ignored-params"]


def test_no_secret_of_an_upstream_is_logged(hosted: Hosted, host: Host) -> None:
    _, _, body = host.vendor.error("unauthorized")
    secrets = [value for name, value in host.vendor.environ.items() if "REGION" not in name]

    async def script(exchange: Exchange) -> None:
        said = json.dumps(f"{words(body)} {' '.join(secrets)}")[1:-1].encode()
        await exchange.answer(body.replace(json.dumps(words(body))[1:-1].encode(), said), status="400 Bad Request")

    host.upstream.script = script
    answer = hosted.post(host)
    seen = answer.text + str(answer.headers) + hosted.server.log.read_text()
    assert not [secret for secret in secrets if secret in seen]
