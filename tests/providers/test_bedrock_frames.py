"""Event-stream messages: ours and botocore's decoder agree, whatever the blocks and however the bytes are damaged."""

import struct
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from penstock.providers.bedrock.frames import BrokenFrame, Frames, Message, Value
from tests.providers.vendors.bedrock import frame

_FORMATS = {2: "!b", 3: "!h", 4: "!i", 5: "!q", 8: "!q"}
_integers = {
    kind: st.integers(-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1)
    for kind, size in ((2, 1), (3, 2), (4, 4), (5, 8), (8, 8))
}
_values = st.one_of(
    st.tuples(st.sampled_from([0, 1]), st.none()),
    st.tuples(st.just(6), st.binary(max_size=40)),
    st.tuples(st.just(7), st.text(max_size=20)),
    st.tuples(st.just(9), st.binary(min_size=16, max_size=16)),
    *(st.tuples(st.just(kind), numbers) for kind, numbers in _integers.items()),
)
_headers = st.dictionaries(st.text(min_size=1, max_size=12), _values, max_size=4)
_messages = st.lists(st.tuples(_headers, st.binary(max_size=120)), max_size=4)
Wire = tuple[int, str | bytes | int | None]


def encoded(headers: dict[str, Wire], payload: bytes) -> bytes:
    """One message with headers of every type."""
    raw = b""
    for name, (kind, value) in headers.items():
        raw += struct.pack("!B", len(name.encode())) + name.encode() + struct.pack("!B", kind)
        if isinstance(value, int):
            raw += struct.pack(_FORMATS[kind], value)
        elif value is not None:
            data = value.encode() if isinstance(value, str) else value
            raw += data if kind == 9 else struct.pack("!H", len(data)) + data
    prelude = struct.pack("!II", 16 + len(raw) + len(payload), len(raw))
    body = prelude + struct.pack("!I", crc32(prelude)) + raw + payload
    return body + struct.pack("!I", crc32(body))


def by_botocore(data: bytes) -> tuple[list[tuple[dict[str, Value], bytes]], bool]:
    """botocore's messages, and whether it raised."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    found = []
    try:
        for message in buffer:
            found.append((message.headers, message.payload))
    except (ParserError, struct.error, UnicodeDecodeError, KeyError):
        return found, True
    return found, False


def by_us(blocks: list[bytes]) -> tuple[list[Message], bool]:
    """Our messages, and whether it raised."""
    frames, found = Frames(), list[Message]()
    try:
        for block in blocks:
            for message in frames.feed(block):
                found.append(message)
    except BrokenFrame:
        return found, True
    return found, False


def blocks_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    places = sorted({min(cut, len(data)) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(_messages, st.lists(st.integers(0, 400), max_size=6))
def test_messages_of_every_type_of_header_come_out_as_botocore_reads_them(
    messages: list[tuple[dict[str, Wire], bytes]], cuts: list[int]
) -> None:
    data = b"".join(encoded(headers, payload) for headers, payload in messages)
    found, raised = by_us(blocks_of(data, cuts))
    assert ([tuple(message) for message in found], raised) == by_botocore(data)
    assert len(found) == len(messages)


@given(_messages.filter(bool), st.data())
def test_a_damaged_byte_is_refused_where_botocore_refuses_it(
    messages: list[tuple[dict[str, Wire], bytes]], data: st.DataObject
) -> None:
    wire = bytearray(b"".join(encoded(headers, payload) for headers, payload in messages))
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    found, raised = by_us([bytes(wire)])
    assert ([tuple(message) for message in found], raised) == by_botocore(bytes(wire))
    assert raised


def test_a_stream_cut_at_any_byte_gives_whole_messages_only() -> None:
    data = frame("messageStart", {"role": "assistant"}) + frame("messageStop", {"stopReason": "end_turn"})
    first = len(frame("messageStart", {"role": "assistant"}))
    for end in range(len(data)):
        found, raised = by_us([data[:end]])
        assert (len(found), raised) == (int(end >= first), False)


def test_a_message_of_a_megabyte_in_small_blocks_is_one_message() -> None:
    data = frame("contentBlockDelta", {"delta": {"text": "x" * 1_000_000}})
    found, raised = by_us([data[at : at + 1000] for at in range(0, len(data), 1000)])
    assert not raised
    assert len(found[0].payload) > 1_000_000


def with_checks(total: int, headers: int, rest: bytes = b"") -> bytes:
    """A message that claims these lengths, its checksums right."""
    prelude = struct.pack("!II", total, headers)
    body = prelude + struct.pack("!I", crc32(prelude)) + rest
    return body + struct.pack("!I", crc32(body))


@pytest.mark.parametrize(
    "wire",
    [
        with_checks(15, 0),
        with_checks(20, 100),
        with_checks(2**32 - 1, 0),
        with_checks(200_000, 199_000),
        with_checks(20, 4, b"\x02ab\x07"),
        with_checks(21, 5, b"\x01a\x07\x00\x09"),
        with_checks(19, 3, b"\x01a\x2a"),
        with_checks(22, 6, b"\x01a\x00\x01a\x01"),
    ],
)
def test_lengths_and_headers_that_cannot_be_are_refused(wire: bytes) -> None:
    assert by_us([wire])[1]
