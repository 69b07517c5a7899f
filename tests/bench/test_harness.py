"""The bench's own parts: the upstream double, the load generator and the report tell the truth."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.answers import DELTA_MARK, DELTAS, plain_body
from bench.contestants import Running, body_text, long_prompt, request_text
from bench.load import Job, Load, dechunk, stream_is_whole
from bench.machine import too_loaded
from bench.processes import UpstreamDouble, http, run_json
from bench.report import TARGETS, build, markdown
from bench.rounds import QUICK, SCENARIOS, Measured, Measurement

PATH = "/v1/chat/completions"
MACHINE = {"date": "d", "cpu": "c", "cores": 2, "memory_gib": 1, "kernel": "k", "python": "p", "packages": {}}


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[UpstreamDouble]:
    with UpstreamDouble(tmp_path / "upstream.log") as double:
        yield double


def job(port: int, *, streamed: bool) -> Job:
    request = request_text(Running(port, PATH, {}, ""), streamed=streamed)
    return Job("127.0.0.1", port, request, connections=4, duration_s=0.2, warmup_s=0.05, streamed=streamed)


def sample(per_s: float) -> Measurement:
    return {"per_s": per_s, "chunks_per_s": per_s, "p50_us": 100.0, "p99_us": 200.0, "foreign": 0.0, "steal": 0.0}


def result(foreign: float = 0.0) -> dict[str, object]:
    names = {"direct": 100.0, "nginx": 50.0, "penstock": 25.0}
    samples = {
        name: {one.name: [sample(per_s) | {"foreign": foreign}] * 3 for one in SCENARIOS}
        for name, per_s in names.items()
    }
    measured = Measured(samples, {"nginx": "1"}, {"litellm": "no wheel", "portkey": "no node"})
    return build(measured, QUICK, {**MACHINE, "commit": "x", "load_average_1m": 0.0})


def test_the_double_gives_a_plain_answer_with_usage(upstream: UpstreamDouble) -> None:
    status, body = http("POST", upstream.port, PATH, body=body_text(streamed=False).encode())
    assert (status, body) == (200, plain_body())
    assert b'"usage"' in body


def test_the_double_streams_64_deltas_to_a_stock_client(upstream: UpstreamDouble) -> None:
    status, body = http("POST", upstream.port, PATH, body=body_text(streamed=True).encode())
    assert status == 200
    assert body.count(DELTA_MARK) == DELTAS
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("streamed", [False, True])
def test_every_request_of_the_load_generator_reaches_the_double_once(upstream: UpstreamDouble, streamed: bool) -> None:
    told = run_json("bench.load", job(upstream.port, streamed=streamed)._asdict(), timeout_s=30)
    assert told["sent"] == upstream.served()
    assert 0 < told["answers"] <= told["sent"]


def test_a_prompt_of_100_000_tokens_is_sent_whole_and_answered(upstream: UpstreamDouble) -> None:
    request = request_text(Running(upstream.port, PATH, {}, ""), streamed=False, prompt=long_prompt(400_000))
    assert 390_000 < len(request.encode()) < 410_000
    long_job = job(upstream.port, streamed=False)._replace(request=request)
    told = run_json("bench.load", long_job._asdict(), timeout_s=30)
    assert told["sent"] == upstream.served()
    assert told["answers"] > 0


def test_the_keys_of_a_job_are_sent_in_turn_in_the_place_of_the_first() -> None:
    request = request_text(Running(1, PATH, {"authorization": "Bearer one"}, ""), streamed=False)
    load = Load(Job("127.0.0.1", 1, request, 1, duration_s=1, warmup_s=0, streamed=False, keys=("one", "two")))
    sent = [next(load.requests).decode() for _ in range(3)]
    assert sent == [request, request.replace("Bearer one", "Bearer two"), request]


def test_the_load_generator_refuses_an_answer_that_is_not_the_one_asked_for() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        for _ in range(4):
            client, _ = listener.accept()
            client.recv(65536)
            client.sendall(b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno")

    threading.Thread(target=refuse, daemon=True).start()
    with pytest.raises(RuntimeError, match="500 Oh"):
        run_json("bench.load", job(listener.getsockname()[1], streamed=False)._asdict(), timeout_s=30)
    listener.close()


def test_a_stream_cut_inside_an_event_by_the_framing_is_still_whole() -> None:
    text = b"data: x" + DELTA_MARK * DELTAS + b"data: [DONE]\n\n"
    cut = text.index(DELTA_MARK) + 2
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (text[:cut], text[cut:])) + b"0\r\n\r\n"
    assert dechunk(framed) == text
    assert stream_is_whole(b"HTTP/1.1 200 OK\r\n\r\n" + framed)


def test_a_stream_with_a_delta_missing_is_not_whole() -> None:
    text = DELTA_MARK * (DELTAS - 1) + b"data: [DONE]\n\n"
    assert not stream_is_whole(b"HTTP/1.1 200 OK\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(text), text))


def test_a_ratio_is_of_medians_and_an_absent_peer_is_null_with_its_reason() -> None:
    ratios = result()["ratios"]
    assert isinstance(ratios, dict)
    assert ratios["plain_c32_vs_nginx"] == 0.5
    assert ratios["plain_c32_vs_litellm"] is None
    assert result()["absent"] == {"litellm": "no wheel", "portkey": "no node"}


def test_a_loaded_machine_gets_no_verdict_and_says_why() -> None:
    told = result(foreign=0.5)
    assert told["verdict"] is None
    assert "processes outside the run" in str(told["too_loaded"])
    assert "No verdict" in markdown(told)


def test_a_quiet_machine_gets_a_verdict_for_every_target() -> None:
    assert too_loaded(0.0, [0.0], [0.0]) is None
    verdict = result()["verdict"]
    assert isinstance(verdict, dict)
    assert list(verdict) == [target.ratio for target in TARGETS]
    assert verdict["plain_c32_vs_nginx"] == verdict["stream_chunks_vs_nginx"] == "met"
    assert verdict["plain_c32_vs_litellm"] == verdict["growth_cpu_many_apps_vs_1"] == "not measured"
