"""docs/fields.md tells the truth: what each adapter's table says of a parameter is what happens on the wire."""

from typing import Any

import pytest

from penstock.domain.chat import ChatRequest
from penstock.providers.openai.request import FIELDS, table
from penstock.providers.profiles import built_in_providers
from penstock.providers.translation.fields import Field, Handling
from scripts.fields_page import OURS, parameters, tables
from tests.providers.lane import ANY, STREAM, Heard, Lane, answering, bound, doubles, make
from tests.providers.vendors import Answer

TOOL = {"tools": [{"type": "function", "function": {"name": "paint", "parameters": ANY}}]}
SCHEMA = {"name": "sea", "strict": True, "schema": {"type": "object", "properties": {}, "additionalProperties": False}}
# Values that ask for something; what else a request needs to be allowed to ask stands with them.
SAMPLES: dict[str, list[dict[str, Any]]] = {
    "max_tokens": [{"max_tokens": 77}],
    "max_completion_tokens": [{"max_completion_tokens": 77}],
    "temperature": [{"temperature": 0.5}],
    "top_p": [{"top_p": 0.5}],
    "top_k": [{"top_k": 7}],
    "min_p": [{"min_p": 0.1}],
    "stop": [{"stop": "END"}, {"stop": ["END", "STOP"]}],
    "seed": [{"seed": 5}],
    "n": [{"n": 2}],
    "presence_penalty": [{"presence_penalty": 0.5}],
    "frequency_penalty": [{"frequency_penalty": 0.5}],
    "logprobs": [{"logprobs": True}],
    "top_logprobs": [{"top_logprobs": 2, "logprobs": True}],
    "logit_bias": [{"logit_bias": {"5": 1}}],
    "stream_options": [STREAM],
    "response_format": [
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
        {"response_format": {"type": "json_object"}},
    ],
    "tools": [TOOL],
    "tool_choice": [TOOL | {"tool_choice": "required"}],
    "parallel_tool_calls": [TOOL | {"parallel_tool_calls": False}],
    "reasoning_effort": [{"reasoning_effort": "high"}],
    "extended_thinking": [{"extended_thinking": {"enabled": True, "budget_tokens": 2048, "include_reasoning": True}}],
    "modalities": [{"modalities": ["text", "audio"]}],
    "user": [{"user": "someone"}],
    "metadata": [{"metadata": {"a": "b"}}],
    "store": [{"store": True}],
    "prediction": [{"prediction": {"type": "content", "content": "x"}}],
    "service_tier": [{"service_tier": "flex"}, {"service_tier": "default"}],
    "safety_identifier": [{"safety_identifier": "someone"}],
    "prompt_cache_key": [{"prompt_cache_key": "k"}],
    "audio": [{"audio": {"voice": "a", "format": "mp3"}}],
    "verbosity": [{"verbosity": "low"}],
}


def handled(lane: Lane, name: str) -> Field:
    """What the table of the lane's adapter says."""
    return tables()[lane.vendor.kind][name]


def sent(lane: Lane, fields: dict[str, Any]) -> tuple[Heard, tuple[str, bytes]]:
    """What came of a request, and its path and body as they reached the upstream."""
    answer, count = Answer(), len(lane.exchanges)
    vendor = lane.vendor
    heard = (
        lane.stream(vendor.events(answer), **fields)
        if fields.get("stream")
        else lane.plain(vendor.plain(answer), **fields)
    )
    if len(lane.exchanges) == count:
        return heard, ("", b"")
    exchange = lane.exchanges[-1]
    return heard, (exchange.head.split(b" ")[1].decode(), exchange.body)


def ignored(lane: Lane, fields: dict[str, Any]) -> tuple[str, ...]:
    """What the answer to such a request names."""
    request = bound(fields, lane.model)
    return lane.adapter.ignored(request)


def without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """The same request, not asking for that."""
    return {key: value for key, value in fields.items() if key != name}


@pytest.mark.parametrize("kind", sorted(tables()))
def test_every_adapter_has_a_word_for_every_parameter(kind: str) -> None:
    assert sorted(tables()[kind]) == sorted(parameters())


def test_every_parameter_has_a_sample_and_every_adapter_a_double() -> None:
    assert sorted(SAMPLES) == sorted(parameters())
    assert sorted([*SAMPLES, *OURS]) == sorted(ChatRequest.__struct_fields__)
    assert {double.kind for double in doubles().values()} == set(tables()) - {"embedded"}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_the_table_says_happens_on_the_wire(lane: Lane, name: str) -> None:
    field = handled(lane, name)
    if name == "stream_options":
        assert field.handling in (Handling.PASSED, Handling.TRANSLATED)
        assert lane.stream(lane.vendor.events(Answer())).whole.usage is not None
    elif field.handling is Handling.REFUSED:
        assert_refused(lane, name)
    elif field.handling is Handling.IGNORED:
        assert_ignored(lane, name)
    else:
        assert_taken(lane, name)


def assert_refused(lane: Lane, name: str) -> None:
    """A 400 that names it before anything is called, or ignored and named where the client allows that."""
    for fields in SAMPLES[name]:
        heard, (path, _) = sent(lane, fields)
        assert heard.error is not None
        assert (heard.error.code, heard.error.status, heard.error.param) == ("unsupported_parameter", 400, name)
        assert name in heard.error.message
        assert not path
        assert_ignored(lane, name, allow_ignored_params=True)


def assert_ignored(lane: Lane, name: str, **more: Any) -> None:
    """It is named, and what reaches the upstream is what would without it."""
    for fields in SAMPLES[name]:
        if name == "service_tier" and fields[name] == "default":
            continue  # asks for nothing
        heard, body = sent(lane, fields | more)
        bare, other = sent(lane, without(fields, name) | more)
        assert heard.error is None, heard.error
        assert bare.error is None, bare.error
        assert body == other
        assert name in ignored(lane, fields | more)


def assert_taken(lane: Lane, name: str) -> None:
    """What reaches the upstream says something else than without it, by one value at least."""
    changed = False
    for fields in SAMPLES[name]:
        heard, body = sent(lane, fields)
        bare, other = sent(lane, without(fields, name) if name != "tools" else {})
        assert bare.error is None, bare.error
        if heard.error is not None and name != "n":  # the double gives one answer, whatever is asked
            assert (heard.error.code, heard.error.param) == ("unsupported_parameter", name)
            continue
        named = name in ignored(lane, fields)
        assert named is (body == other) or (not named and fields.get("service_tier") == "default")
        changed = changed or body != other
    assert changed


SERVERS = [name for name, server in built_in_providers().items() if server.kind == "openai" and server.base_url]


@pytest.mark.parametrize("server", SERVERS)
def test_what_a_known_server_handles_otherwise_happens_on_the_wire(lanes: dict[str, Lane], server: str) -> None:
    lane = lanes["openai"]

    async def made() -> Any:
        return make(lane.vendor, lane.base, profile=server)[0]

    adapter = lane.runner.run(made())
    plain = answering(lane.vendor.plain(Answer()))
    own = table(built_in_providers()[server].quirks)
    for name, field in own.items():
        fields, count = SAMPLES[name][0], len(lane.exchanges)
        beside = [other for other in fields if other in own and own[other].handling is Handling.REFUSED]
        if field == FIELDS[name] or name == "stream_options" or beside not in ([], [name]):
            continue
        heard = lane.hear(plain, adapter=adapter, **fields)
        if field.handling is Handling.REFUSED:
            assert heard.error is not None, name
            assert (heard.error.code, len(lane.exchanges)) == ("unsupported_parameter", count)
            continue
        assert heard.error is None, name
        lane.hear(plain, adapter=adapter, **without(fields, name))
        said, silent = (exchange.body for exchange in lane.exchanges[-2:])
        assert (said == silent) is (field.handling is Handling.IGNORED), name
        assert (name in adapter.ignored(bound(fields, lane.model))) is (field.handling is Handling.IGNORED)
