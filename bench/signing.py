"""What one signature and one stream event cost: botocore's own code against ours.

``python -m bench.signing`` prints microseconds per piece, the least of many short batches, and what importing
botocore's signer takes. Ours give the same bytes: test_bedrock_sign.py and test_bedrock_frames.py hold them to that.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer

from penstock.providers.bedrock.frames import Frames
from penstock.providers.bedrock.sign import Keys, Signer
from tests.providers.vendors.bedrock import frame

HOST = "bedrock-runtime.us-east-1.amazonaws.com"
PATH = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream"
KEYS = Keys("AKIDEXAMPLE", "not-a-real-secret", "a-session-token" * 20)
BODY = b'{"messages":[{"role":"user","content":[{"text":"%s"}]}]}' % (b"x" * 1000)
EVENT = frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "some words"}, "p": "abcdefgh"})
EVENTS = 200


def least(piece: Callable[[], Any], *, per: int = 1, batches: int = 60, calls: int = 50) -> float:
    """Microseconds per call, or per the ``per`` things that one call does: the least of the batches."""
    best = float("inf")
    for _ in range(batches):
        started = time.perf_counter()
        for _ in range(calls):
            piece()
        best = min(best, time.perf_counter() - started)
    return best / calls / per * 1e6


def sign_botocore() -> None:
    """As botocore's client does it: a request object, signed anew."""
    request = AWSRequest("POST", f"https://{HOST}{PATH}", headers={"content-type": "application/json"}, data=BODY)
    SigV4Auth(Credentials(*KEYS), "bedrock", "us-east-1").add_auth(request)


def decode_botocore(stream: bytes) -> int:
    """The number of messages."""
    buffer = EventStreamBuffer()
    buffer.add_data(stream)
    return sum(1 for _ in buffer)


def import_ms() -> float:
    """What a fresh interpreter takes for botocore's signer, less what it takes for nothing."""
    taken = []
    for code in ("pass", "import botocore.auth"):
        runs = []
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            runs.append(time.perf_counter() - started)
        taken.append(min(runs))
    return (taken[1] - taken[0]) * 1e3


def main() -> None:
    """Measure and print."""
    signer = Signer(region="us-east-1", host=HOST)
    one_by_one, together = [EVENT] * EVENTS, EVENT * EVENTS
    rows = [
        ("sign a call of 1 kB: botocore", least(sign_botocore)),
        ("sign a call of 1 kB: ours", least(lambda: signer.headers(KEYS, PATH, BODY))),
        ("decode an event, 200 in one block: botocore", least(lambda: decode_botocore(together), per=EVENTS, calls=3)),
        ("decode an event, 200 in one block: ours", least(lambda: list(Frames().feed(together)), per=EVENTS, calls=3)),
        ("decode an event, alone in its block: ours", least(lambda: _blocks(one_by_one), per=EVENTS, calls=3)),
    ]
    for name, microseconds in rows:
        print(f"{name:<46}{microseconds:9.2f} us")
    print(f"{'import botocore.auth':<46}{import_ms():9.0f} ms")


def _blocks(blocks: list[bytes]) -> None:
    frames = Frames()
    for block in blocks:
        list(frames.feed(block))


if __name__ == "__main__":
    main()
