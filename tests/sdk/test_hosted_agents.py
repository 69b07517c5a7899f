"""pydantic-ai and LangChain as real clients: their own tool loops over hosted models of other dialects, streamed."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from pydantic_ai import Agent
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.heroku import HerokuProvider

from tests.providers.hosted import Host, Hosted
from tests.sdk.talk import CALL, CITIES, FINAL, QUESTION, assert_results_went_back, weather


def agent_of(host: Host, asked: list[str]) -> "Agent[None, str]":
    """An agent with the weather tool; the provider reads the app's config vars as Heroku's users do."""
    agent = Agent(OpenAIChatModel(host.model, provider=HerokuProvider()), system_prompt="Be brief.")

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return weather(city)

    return agent


@pytest.fixture
def config_vars(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that pydantic-ai's HerokuProvider reads."""
    monkeypatch.setenv("HEROKU_INFERENCE_URL", hosted.server.gateway)
    monkeypatch.setenv("HEROKU_INFERENCE_KEY", hosted.key)


@pytest.mark.usefixtures("config_vars")
def test_an_agent_of_pydantic_ai_calls_its_tools_and_answers(host: Host) -> None:
    host.answer(CALL, FINAL)
    asked: list[str] = []
    result = agent_of(host, asked).run_sync(QUESTION)
    assert result.output == FINAL.text
    assert sorted(asked) == sorted(CITIES)
    assert (result.usage.input_tokens, result.usage.output_tokens) == (100, 21)
    assert_results_went_back(host)


@pytest.mark.usefixtures("config_vars")
@pytest.mark.anyio
async def test_an_agent_of_pydantic_ai_streams_its_answer(host: Host) -> None:
    host.answer(CALL, FINAL)
    asked: list[str] = []
    said = ""
    async with agent_of(host, asked).iter(QUESTION) as run:
        async for node in run:
            if not Agent.is_model_request_node(node):
                continue
            said = ""
            async with node.stream(run.ctx) as events:
                async for event in events:
                    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                        said += event.part.content
                    elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                        said += event.delta.content_delta
    assert said == FINAL.text
    assert sorted(asked) == sorted(CITIES)
    assert_results_went_back(host)


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return weather(city)


def test_a_chat_model_of_langchain_calls_its_tools_and_answers(hosted: Hosted, host: Host) -> None:
    host.answer(CALL, FINAL)
    model: Any = ChatOpenAI(
        base_url=hosted.base_url, api_key=SecretStr(hosted.key), model=host.model, max_retries=0
    ).bind_tools([get_weather])
    messages: list[BaseMessage] = [HumanMessage(QUESTION)]
    first = streamed(model, messages)
    assert [call["args"]["city"] for call in first.tool_calls] == list(CITIES)
    messages.append(first)
    messages += [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in first.tool_calls]
    last = streamed(model, messages)
    assert last.text == FINAL.text
    assert last.usage_metadata is not None
    assert last.usage_metadata["input_tokens"] == FINAL.usage[0]
    assert_results_went_back(host)


def streamed(model: Any, messages: list[BaseMessage]) -> AIMessage:
    """One answer, put together by LangChain from its chunks."""
    whole: AIMessageChunk | None = None
    for chunk in model.stream(messages, stream_usage=True):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    return whole
