"""Which streams stall, and how many at once do not."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.answers import DELTAS, PACED, PLAIN_MARK, STAMP
from bench.contestants import PROMPT, Running, request_text
from bench.pacing import LIMIT_NS, PACE_NS, Gaps, Job, stamps
from bench.processes import UpstreamDouble, run_json
from bench.stalls import highest, holds

PATH = "/v1/chat/completions"
LEVEL = {"streams": 10.0, "counted": 12.0, "stall_free": 12.0, "upstream_held": 12.0}


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[UpstreamDouble]:
    with UpstreamDouble(tmp_path / "upstream.log") as double:
        yield double


def scripted(*gaps: tuple[int, int]) -> Gaps:
    """A stream whose deltas come with these gaps here and at the upstream."""
    found = Gaps()
    seen, sent = 1_000_000_000, 999_000_000
    found.saw(seen, sent)
    for here, there in gaps:
        seen, sent = seen + here, sent + there
        found.saw(seen, sent)
    return found


def test_a_gap_of_more_than_60_ms_beyond_the_upstreams_own_is_a_stall() -> None:
    even, most = (PACE_NS, PACE_NS), PACE_NS + LIMIT_NS
    assert not scripted(even, (most, PACE_NS), even).stalled
    assert scripted(even, (most + 1, PACE_NS), even).stalled


def test_a_gap_that_the_upstream_made_itself_is_its_own_and_no_stall() -> None:
    late = scripted((PACE_NS, PACE_NS), (5 * LIMIT_NS, 5 * LIMIT_NS))
    assert not late.stalled
    assert late.upstream_late
    assert not scripted((PACE_NS, PACE_NS)).upstream_late


def test_a_silence_at_the_end_of_the_look_is_a_stall_too() -> None:
    open_stream = scripted((PACE_NS, PACE_NS))
    open_stream.left_open(open_stream.last_seen + PACE_NS)
    assert not open_stream.stalled
    open_stream.left_open(open_stream.last_seen + PACE_NS + LIMIT_NS + 1)
    assert open_stream.stalled


def test_the_times_of_deltas_are_found_wherever_a_read_ends() -> None:
    whole = b"data: x" + STAMP + b"%019d" % 7 + b"y" + STAMP + b"%019d" % 8 + b'"'
    assert list(stamps(whole)) == [7, 8]
    assert list(stamps(whole[:-3])) == [7]
    assert list(stamps(whole.replace(b"0" * 9, b"0000\r\n1\r\n", 1))) == [8]


def test_the_double_paces_a_stream_and_says_when_each_delta_left(upstream: UpstreamDouble) -> None:
    request = request_text(Running(upstream.port, PATH, {}, ""), streamed=True, prompt=f"{PROMPT} {PACED}")
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=30) as client:
        client.sendall(request.encode())
        raw = b""
        while not raw.endswith(b"0\r\n\r\n"):
            raw += client.recv(65536)
    sent = list(stamps(raw))
    assert len(sent) == DELTAS
    assert sent == sorted(sent)


def test_paced_streams_are_counted_with_what_became_of_them(upstream: UpstreamDouble) -> None:
    request = request_text(Running(upstream.port, PATH, {}, ""), streamed=True, prompt=f"{PROMPT} {PACED}")
    job = Job("127.0.0.1", upstream.port, request, streams=3, duration_s=1.6)
    told = run_json("bench.pacing", job._asdict(), timeout_s=60)
    assert told["streams"] == 3
    assert told["counted"] >= told["stall_free"]


def test_an_answer_that_is_no_stream_ends_the_level() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        client, _ = listener.accept()
        client.recv(65536)
        client.sendall(b"HTTP/1.1 429 No\r\ncontent-length: 2\r\n\r\nno" + PLAIN_MARK)

    threading.Thread(target=refuse, daemon=True).start()
    job = Job("127.0.0.1", listener.getsockname()[1], "POST / HTTP/1.1\r\n\r\n", streams=1, duration_s=0.5)
    with pytest.raises(RuntimeError, match="429 No"):
        run_json("bench.pacing", json.loads(json.dumps(job._asdict())), timeout_s=30)
    listener.close()


def test_a_level_is_carried_when_99_in_100_streams_are_free_of_stalls_at_an_upstream_that_kept_its_pace() -> None:
    assert holds(LEVEL)
    assert not holds(LEVEL | {"stall_free": 11.0})
    assert not holds(LEVEL | {"upstream_held": 11.0})
    assert not holds(LEVEL | {"counted": 4.0, "stall_free": 4.0, "upstream_held": 4.0})
    assert holds(LEVEL | {"counted": 200.0, "stall_free": 198.0, "upstream_held": 200.0})


@pytest.mark.parametrize("bound", [0, 1, 40, 64, 100, 777, 5000])
def test_the_search_finds_the_highest_level_to_an_eighth(bound: int) -> None:
    found = highest(lambda streams: streams <= bound, first=64, most=4096)
    assert found <= bound
    assert min(bound, 4096) - found <= max(1, found // 8)


def test_the_search_tries_no_level_above_its_most() -> None:
    tried: list[int] = []

    def carries(streams: int) -> bool:
        tried.append(streams)
        return True

    assert highest(carries, first=64, most=512) == 512
    assert tried == [64, 128, 256, 512]
