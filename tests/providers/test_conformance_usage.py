"""What a settlement keeps of usage: the upstream's own account as it sent it, and counts that follow from it."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.domain.usage import Usage
from penstock.ledger.records import Settled
from penstock.providers.accounts import MAX_BYTES
from tests.gateway.lab import lab
from tests.providers.lane import STREAM, Lane, Script, answering, only
from tests.providers.vendors import Answer

ANSWER = Answer(usage=(20, 5, 4, 0), pieces=3)
# Where the vendor's account stands in the body of its plain answer.
_PLACES = {"gemini": "usageMetadata"}


def sent(lane: Lane, answer: Answer) -> dict[str, Any]:
    """The account that the double sends with a plain answer."""
    said: dict[str, Any] = json.loads(lane.vendor.plain(answer))[_PLACES.get(lane.vendor.kind, "usage")]
    return said


def settled(lane: Lane, folder: Path, script: Script, **fields: Any) -> Settled:
    """The settlement of one request to a whole worker with the lane's adapter."""
    lane.script = script

    async def ask() -> Settled:
        async with lab(folder, {}, adapters={"double": lane.adapter}) as worker:
            return (await worker.ask(**fields)).settled

    return lane.runner.run(ask())


def scripted(lane: Lane, answer: Answer, *, streamed: bool) -> Script:
    """The answer, as the double gives it."""
    return lane.streaming(lane.vendor.events(answer)) if streamed else answering(lane.vendor.plain(answer))


@pytest.mark.parametrize(
    "fields", [{}, STREAM, {"stream": True}], ids=["plain", "streamed", "streamed, no usage asked"]
)
def test_the_settlement_keeps_the_upstreams_own_account(lane: Lane, tmp_path: Path, fields: dict[str, Any]) -> None:
    record = settled(lane, tmp_path, scripted(lane, ANSWER, streamed=bool(fields)), **fields)
    assert record.raw_usage is not None
    assert json.loads(record.raw_usage) == sent(lane, ANSWER)
    counts = (record.input_tokens, record.output_tokens, record.cached_input_tokens, record.cache_write_tokens)
    assert (record.outcome, counts, record.estimated) == ("completed", (20, 5, 4, 0), False)


@only(lambda vendor: vendor.kind in ("openai", "azure", "bedrock", "gemini"))
@pytest.mark.parametrize("streamed", [False, True])
def test_an_account_that_comes_in_one_part_is_kept_to_the_byte(lane: Lane, tmp_path: Path, streamed: bool) -> None:
    record = settled(lane, tmp_path, scripted(lane, ANSWER, streamed=streamed), **(STREAM if streamed else {}))
    body = b"".join(lane.vendor.events(ANSWER)) if streamed else lane.vendor.plain(ANSWER)
    assert record.raw_usage is not None
    assert record.raw_usage.encode() in body


@pytest.mark.parametrize("streamed", [False, True])
def test_an_account_that_is_too_large_to_be_one_is_left_out(lane: Lane, tmp_path: Path, streamed: bool) -> None:
    record = settled(lane, tmp_path, enlarged(lane, streamed=streamed), **(STREAM if streamed else {}))
    assert record.raw_usage is None
    assert (record.outcome, record.input_tokens, record.output_tokens) == ("completed", 20, 5)


def enlarged(lane: Lane, *, streamed: bool) -> Script:
    """The answer, its account filled with what nobody knows."""
    vendor = lane.vendor
    filled = {"filling": "x" * MAX_BYTES}
    if vendor.kind == "bedrock" and streamed:
        from tests.providers.vendors.bedrock import frame

        metadata = {"metrics": {"latencyMs": 551}, "usage": sent(lane, ANSWER) | filled}
        return lane.streaming([*vendor.events(ANSWER)[:-1], frame("metadata", metadata)])
    member = json.dumps(filled)[1:-1].encode() + b","

    def more(body: bytes) -> bytes:
        for name in (b'"usage": {', b'"usage":{', b'"usageMetadata": {'):
            body = body.replace(name, name + member)
        return body

    return lane.streaming(map(more, vendor.events(ANSWER))) if streamed else answering(more(vendor.plain(ANSWER)))


@pytest.mark.parametrize("streamed", [False, True])
def test_an_account_that_makes_no_sense_harms_nobody(lane: Lane, tmp_path: Path, streamed: bool) -> None:
    """More read from the cache than the prompt has: the parts are cut, and the counts are marked."""
    vendor = lane.vendor
    answer = ANSWER._replace(usage=(20, 5, 30, 0))
    record = settled(lane, tmp_path, scripted(lane, answer, streamed=streamed), **(STREAM if streamed else {}))
    assert record.outcome == "completed"
    assert 0 <= record.cached_input_tokens + record.cache_write_tokens <= record.input_tokens
    # Of those that count the cache apart no sum can be wrong; what they say of the rest is below nothing.
    if vendor.kind not in ("anthropic", "bedrock"):
        assert (record.input_tokens, record.cached_input_tokens, record.estimated) == (20, 20, True)


def test_a_plain_answer_without_an_account_is_estimated_by_its_length(lane: Lane, tmp_path: Path) -> None:
    answer = Answer(text="four" * 25, pieces=1)
    body = json.loads(lane.vendor.plain(answer))
    del body[_PLACES.get(lane.vendor.kind, "usage")]
    record = settled(
        lane, tmp_path, answering(json.dumps(body).encode()), messages=[{"role": "user", "content": "x" * 400}]
    )
    assert (record.input_tokens, record.output_tokens, record.estimated) == (104, 25, True)
    assert record.raw_usage is None


# What each vendor means by its counts: docs/metering.md has the table.


def counted(lane: Lane, account: dict[str, Any]) -> Usage | None:
    """What the meter makes of an account in the vendor's own words."""
    place = _PLACES.get(lane.vendor.kind, "usage")
    return lane.plain(json.dumps(json.loads(lane.vendor.plain(Answer())) | {place: account}).encode()).usage


@only(lambda vendor: vendor.kind in ("openai", "azure"))
def test_openai_counts_the_cache_in_the_prompt_and_thoughts_in_the_completion(lane: Lane) -> None:
    account: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 30}
    assert counted(lane, account) == Usage(input_tokens=100, output_tokens=30)
    account["prompt_tokens_details"] = {"cached_tokens": 60, "cache_write_tokens": 10}
    account["completion_tokens_details"] = {"reasoning_tokens": 20}
    assert counted(lane, account) == Usage(
        input_tokens=100, output_tokens=30, cached_input_tokens=60, cache_write_tokens=10, reasoning_tokens=20
    )
    assert counted(lane, {"completion_tokens": 30}) is None


@only(lambda vendor: vendor.kind == "any-llm")
def test_the_library_counts_the_cache_in_the_prompt_and_thoughts_in_the_completion(lane: Lane) -> None:
    account: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130}
    assert counted(lane, account) == Usage(input_tokens=100, output_tokens=30)
    account["prompt_tokens_details"] = {"cached_tokens": 60}
    account["completion_tokens_details"] = {"reasoning_tokens": 20}
    assert counted(lane, account) == Usage(
        input_tokens=100, output_tokens=30, cached_input_tokens=60, reasoning_tokens=20
    )


@only(lambda vendor: vendor.kind == "anthropic")
def test_anthropic_counts_the_cache_beside_the_input_and_thoughts_in_the_output(lane: Lane) -> None:
    account: dict[str, Any] = {"input_tokens": 30, "output_tokens": 30}
    assert counted(lane, account) == Usage(input_tokens=30, output_tokens=30)
    account |= {"cache_read_input_tokens": 60, "cache_creation_input_tokens": 10}
    account["output_tokens_details"] = {"thinking_tokens": 20}
    assert counted(lane, account) == Usage(
        input_tokens=100, output_tokens=30, cached_input_tokens=60, cache_write_tokens=10, reasoning_tokens=20
    )
    absent = counted(lane, {"input_tokens": 30, "cache_read_input_tokens": None})
    assert absent == Usage(input_tokens=30, estimated=True)


@only(lambda vendor: vendor.kind == "bedrock")
def test_bedrock_counts_the_cache_beside_the_input_and_does_not_tell_thoughts(lane: Lane) -> None:
    account = {"inputTokens": 30, "outputTokens": 30, "totalTokens": 60}
    assert counted(lane, account) == Usage(input_tokens=30, output_tokens=30)
    account |= {"cacheReadInputTokens": 60, "cacheWriteInputTokens": 10}
    assert counted(lane, account) == Usage(
        input_tokens=100, output_tokens=30, cached_input_tokens=60, cache_write_tokens=10
    )
    assert counted(lane, {"inputTokens": 30}) == Usage(input_tokens=30, estimated=True)


@only(lambda vendor: vendor.kind == "gemini")
def test_gemini_counts_the_cache_in_the_prompt_and_thoughts_beside_the_candidates(lane: Lane) -> None:
    account = {"promptTokenCount": 100, "candidatesTokenCount": 10}
    assert counted(lane, account) == Usage(input_tokens=100, output_tokens=10)
    account |= {"cachedContentTokenCount": 60, "thoughtsTokenCount": 20, "toolUsePromptTokenCount": 5}
    assert counted(lane, account) == Usage(
        input_tokens=105, output_tokens=30, cached_input_tokens=60, reasoning_tokens=20
    )
    # Zeros are left out of its JSON: what is absent is nothing.
    assert counted(lane, {"promptTokenCount": 100}) == Usage(input_tokens=100)


@only(lambda vendor: vendor.kind == "anthropic")
def test_an_account_in_parts_is_merged_and_a_null_takes_nothing_back(lane: Lane, tmp_path: Path) -> None:
    events = lane.vendor.events(ANSWER)
    last = {"input_tokens": None, "output_tokens": 5, "server_tool_use": {"web_search_requests": 0}}
    plain = json.dumps({"output_tokens": 5}).encode()
    events = [event.replace(b'"usage": ' + plain, b'"usage": ' + json.dumps(last).encode()) for event in events]
    record = settled(lane, tmp_path, lane.streaming(events), **STREAM)
    assert record.raw_usage is not None
    assert json.loads(record.raw_usage) == sent(lane, ANSWER) | {"server_tool_use": {"web_search_requests": 0}}
    assert (record.input_tokens, record.output_tokens, record.estimated) == (20, 5, False)
