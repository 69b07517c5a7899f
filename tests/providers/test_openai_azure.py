"""Azure OpenAI: where a deployment is called, with what credential, and what its failures become."""

import json
from typing import Any

import pytest

from penstock.providers.spec import Quirks
from tests.providers.asking import KEY, SAID, Heard, answering, ask, plain, spec, streaming

DEPLOYED = "/openai/deployments/their-model/chat/completions?api-version="


def azure(**fields: Any) -> Any:
    return spec(kind="azure", **fields)


def target(heard: Heard) -> str:
    (exchange,) = heard.requests
    return exchange.head.decode().split(" ")[1]


@pytest.mark.parametrize(
    ("version", "path"),
    [
        (None, DEPLOYED + "2024-10-21"),
        ("2025-04-01-preview", DEPLOYED + "2025-04-01-preview"),
        ("v1", "/openai/v1/chat/completions"),
    ],
)
def test_a_deployment_is_called_where_its_version_has_it(version: str | None, path: str) -> None:
    heard = ask(azure(api_version=version), plain)
    assert (target(heard), heard.sent["model"], heard.body) == (path, "their-model", SAID)


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [(None, "api-key", KEY), ("key", "api-key", KEY), ("bearer", "authorization", f"Bearer {KEY}")],
)
def test_the_secret_goes_as_a_key_or_as_a_token_and_the_rows_headers_with_it(auth: Any, name: str, value: str) -> None:
    heard = ask(azure(auth=auth, headers=(("x-ms-client", "a"),)), plain)
    (exchange,) = heard.requests
    assert {header: exchange.header(header) for header in ("api-key", "authorization")} == {
        "api-key": None,
        "authorization": None,
    } | {name: value}
    assert exchange.header("x-ms-client") == "a"


def test_quirks_hold_for_azure_too() -> None:
    heard = ask(azure(quirks=Quirks(max_tokens_field="max_completion_tokens")), plain, max_tokens=3)
    assert heard.sent["max_completion_tokens"] == 3


FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"hate": {"filtered": True, "severity": "high"}, "jailbreak": {"filtered": False}},
        },
    }
}


@pytest.mark.parametrize(
    ("status", "headers", "body", "code", "wait"),
    [
        ("400 Bad Request", "", FILTERED, "upstream_refused", None),
        (
            "404 Not Found",
            "",
            {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
            "upstream_misconfigured",
            None,
        ),
        (
            "429 Too Many",
            "retry-after: 7\r\n",
            {"error": {"code": "429", "message": "Slow."}},
            "upstream_rate_limited",
            7,
        ),
        ("429 Too Many", "retry-after-ms: 2100\r\n", {"error": {"message": "Slow."}}, "upstream_rate_limited", 3),
        ("401 Unauthorized", "", {"error": {"message": f"bad {KEY}"}}, "upstream_misconfigured", None),
        (
            "400 Bad Request",
            "",
            {"error": {"code": "context_length_exceeded", "message": "This model's maximum context length is 8."}},
            "context_length_exceeded",
            None,
        ),
    ],
)
def test_a_failure_becomes_ours_with_azures_words(
    status: str, headers: str, body: dict[str, Any], code: str, wait: int | None
) -> None:
    heard = ask(azure(), answering(json.dumps(body).encode(), status=status, headers=headers))
    assert heard.error is not None
    assert (heard.error.code, heard.error.retry_after_s) == (code, wait)
    assert KEY not in heard.error.message
    if not status.startswith("401"):
        assert body["error"]["message"] in heard.error.message


def test_the_results_of_the_filters_reach_the_client_with_the_answer() -> None:
    first = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{}}]}\n\n'
    text = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"content_filter_results":{"hate":{}}}]}\n\n'
    done = b"data: [DONE]\n\n"
    heard = ask(azure(), streaming([first, text, done]), stream=True)
    assert heard.body == first + text + done
    assert not ask(azure(), streaming([first]), stream=True).opened
