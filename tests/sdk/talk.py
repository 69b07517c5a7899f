"""What is said in the tests of hosted models: a question, two calls of a tool at once, and the answer from them."""

import json
from typing import Any

from tests.providers.hosted import Host
from tests.providers.vendors import Answer

QUESTION = "Is it raining in Oslo and in São Paulo?"
CITIES = ("Oslo", "São Paulo")
CALL = Answer(
    text="Let me see. 🌧",
    calls=(("call_a1", "get_weather", '{"city":"Oslo"}'), ("call_b2", "get_weather", '{"city":"São Paulo"}')),
    finish="tool_calls",
    usage=(40, 12, 8, 0),
    pieces=4,
)
FINAL = Answer(text="It rains in Oslo, and in São Paulo it does not. ☀️", usage=(60, 9, 40, 0), pieces=5)
THOUGHT = Answer(text="Forty-two.", thinking="Six times seven is 42 🧮.", pieces=3)
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def weather(city: str) -> str:
    """What the tool says."""
    return f"{'rain' if city == 'Oslo' else 'sun'} in {city}"


def assert_results_went_back(host: Host) -> None:
    """The vendor's second request holds the question, both calls and both results, in its own words."""
    assert len(host.exchanges) == 2
    body = host.exchanges[1].body
    texts = json.dumps(host.vendor.request(body)["texts"], ensure_ascii=False)
    assert all(weather(city) in texts for city in CITIES)
    assert QUESTION in texts
    assert host.vendor.request(body)["tools"] == ["get_weather"]
