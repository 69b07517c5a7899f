"""What only OpenVINO's child does: its own listener, served between two steps, and its end when a step fails."""

import socket
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from penstock.domain.answer import ChatEvent
from penstock.engine.drivers import OPENVINO
from penstock.engine.openvino.batch import MOST_GRAMMARS
from penstock.engine.weights import LocalModel
from tests.engine.engines import RunningEngine, bound, eventually, required

# An engine loads in up to half a minute on a busy machine, and compiles grammars.
pytestmark = pytest.mark.timeout(600)

ENDLESS: dict[str, Any] = {"user": "Tell a story.", "max_tokens": 900, "logit_bias": {"2": -100, "0": -100}}


@pytest.fixture(scope="module")
def served(model: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """One engine of this driver."""
    running = RunningEngine(model, tmp_path_factory.mktemp("openvino"), driver=required(OPENVINO), slots=4)
    yield running
    running.close()


def raw(engine: RunningEngine, *pieces: bytes) -> bytes:
    """What the listener answers to bytes that come in pieces, up to its hang-up."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(engine.process.spec.socket_path)
        for piece in pieces:
            client.sendall(piece)
        return b"".join(iter(lambda: client.recv(65536), b""))


def completion(engine: RunningEngine, **fields: Any) -> bytes:
    """The bytes of a request for a completion."""
    body = msgspec.json.encode({"prompt": "Once", "n_predict": 3, "stream": True, **fields})
    key = engine.process.spec.key
    head = f"POST /completion HTTP/1.1\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_health_asks_for_no_key(served: RunningEngine) -> None:
    with served.http(key=None) as client:
        assert client.get("/health").json() == {"status": "ok"}


def test_a_path_that_is_not_there_is_404_with_the_key_alone(served: RunningEngine) -> None:
    for key, status in ((None, 401), (served.process.spec.key, 404)):
        with served.http(key=key) as client:
            assert client.get("/metrics").status_code == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"prompt":3}', b'{"prompt":"a","n_predict":"x"}', b"\xff"])
@pytest.mark.parametrize("path", ["/completion", "/tokenize", "/apply-template"])
def test_a_body_that_cannot_be_read_is_400(served: RunningEngine, path: str, body: bytes) -> None:
    with served.http(key=served.process.spec.key) as client:
        answer = client.post(path, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 400)


def test_an_empty_prompt_is_400(served: RunningEngine) -> None:
    with served.http(key=served.process.spec.key) as client:
        assert client.post("/completion", json={"prompt": ""}).status_code == 400


def test_a_connection_is_used_again(served: RunningEngine) -> None:
    with served.http(key=served.process.spec.key) as client:
        for _ in range(3):
            answer = client.post("/completion", json={"prompt": "Once", "n_predict": 2})
            assert b'"stop":true' in answer.content


def test_what_is_no_http_is_hung_up_on(served: RunningEngine) -> None:
    assert raw(served, b"nonsense\r\n\r\n") == b""


def test_a_request_in_pieces_is_read(served: RunningEngine) -> None:
    whole = completion(served).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
    head, _, _ = raw(served, *(whole[at : at + 7] for at in range(0, len(whole), 7)), b"GET").partition(b"\r\n")
    assert head == b"HTTP/1.1 200 OK"


def test_a_second_request_before_the_end_of_an_answer_ends_both(served: RunningEngine) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(served.process.spec.socket_path)
        client.sendall(completion(served, n_predict=900, ignore_eos=True))
        assert client.recv(65536)
        client.sendall(completion(served))
        assert b'"stop":true' not in b"".join(iter(lambda: client.recv(65536), b""))
    eventually(lambda: served.busy_slots() == 0)


def test_the_child_serves_others_while_all_slots_write(served: RunningEngine) -> None:
    streams = [served.run(served.adapter.open(bound(stream=True, **ENDLESS))) for _ in range(4)]
    assert served.busy_slots() == 4
    with served.http(key=served.process.spec.key) as client:
        assert client.get("/health").status_code == 200
        assert client.post("/tokenize", json={"content": "hello"}).json()["tokens"]
    assert served.busy_slots() == 4
    for events in streams:
        served.run(events.aclose())
    assert served.text(user="Say hi.")


def test_more_answers_than_slots_wait_in_line(served: RunningEngine) -> None:
    answer = served.ask(user="Say hi.", n=9, max_tokens=5, temperature=1, seed=1)
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 9


def test_grammars_without_end_do_not_fill_the_memory(served: RunningEngine) -> None:
    restarts = served.process.restarts
    with served.http(key=served.process.spec.key) as client:
        running = served.run(served.adapter.open(bound(stream=True, **{**ENDLESS, "max_tokens": 150})))
        answers: list[httpx.Response] = []
        while not answers or (answers[-1].status_code == 200 and len(answers) < 2 * MOST_GRAMMARS):
            body = {"prompt": "Once", "n_predict": 1, "grammar": f'root ::= "a{len(answers)}"'}
            answers.append(client.post("/completion", json=body))
            if len(answers) == MOST_GRAMMARS // 2:
                again = client.post("/completion", json={**body, "grammar": 'root ::= "a1"'})
                assert again.status_code == 200
    assert answers[-1].status_code == 503
    assert len(answers) <= MOST_GRAMMARS + 1
    # What was open is answered first.
    assert served.run(ended(running))
    eventually(lambda: served.process.restarts == restarts + 1 and served.process.ready)
    assert served.text(user="Say hi.")


async def ended(events: AsyncGenerator[ChatEvent, None]) -> bool:
    """Whether the answer comes to its end."""
    return any([event.done async for event in events])


def test_a_step_that_fails_ends_the_child_and_it_comes_back(served: RunningEngine) -> None:
    restarts = served.process.restarts
    with pytest.raises(httpx.HTTPError), served.http(key=served.process.spec.key) as client:
        client.post("/completion", json={"prompt": "Once", "grammar": "root ::= ("})
    eventually(lambda: served.process.ready and served.process.restarts == restarts + 1)
    assert served.text(user="Say hi.")
