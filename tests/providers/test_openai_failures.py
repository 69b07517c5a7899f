"""What a failure of a server of the OpenAI dialect becomes: by its own words where the status says less."""

import json
from typing import Any

import pytest

from penstock.providers.openai.refusals import refusal

TOO_LONG = [
    (400, "The input (61709 tokens) is longer than the model's context length (40960 tokens)."),
    (400, "The decoder prompt (length 9000) is longer than the maximum model length of 8192."),
    (400, "Trying to keep the first 9000 tokens when the model is loaded with context length of only 4096 tokens."),
    (422, "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000"),
    (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000"),
    (
        429,
        "Request too large for gpt-4o in organization org-a on tokens per min (TPM): Limit 30000, Requested 40000. "
        "The input or output tokens must be reduced in order to run successfully.",
    ),
]


def told(status: int, body: Any) -> tuple[str, str, int | None]:
    error = refusal(status, {"retry-after": "7"}, json.dumps(body).encode(), credential=None)
    return error.code, error.message, error.retry_after_s


@pytest.mark.parametrize(("status", "message"), TOO_LONG)
def test_a_prompt_that_is_too_long_is_told_as_that_in_any_servers_words(status: int, message: str) -> None:
    assert told(status, {"error": {"message": message, "code": status}}) == ("context_length_exceeded", message, None)


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "foo"], "msg": "No extra inputs."}]},
        {"object": "error", "message": {"detail": [{"msg": "No extra inputs."}]}, "type": "invalid_request_error"},
        [{"error": {"code": 400, "message": "No extra inputs.", "status": "INVALID_ARGUMENT"}}],
        {"error": ["No extra inputs."]},
        {"error": {"message": {"text": 1}, "detail": "No extra inputs."}},
    ],
)
def test_a_servers_words_are_found_in_whatever_shape_they_come(body: Any) -> None:
    assert told(422, body)[:2] == ("upstream_refused", "The upstream refused the request: No extra inputs.")


@pytest.mark.parametrize("body", [[], [[]], {"error": 7}, [7], {"detail": [None]}, 7, None, {}])
def test_a_server_without_words_is_told_by_its_status(body: Any) -> None:
    assert told(422, body)[:2] == ("upstream_refused", "The upstream refused the request (status 422).")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("token_limit_exceeded", "token_limit_exceeded"),
        ("key_not_found_error", "key_not_found_error"),
        ("bad sk-abcdefghijkl", "bad [masked]"),
        ("bad key_abcdef12345", "bad [masked]"),
        ("Bearer abcdefgh12", "[masked]"),
    ],
)
def test_a_secret_is_masked_and_a_word_is_not(message: str, shown: str) -> None:
    assert told(422, {"error": {"message": message}})[1] == f"The upstream refused the request: {shown}"


def test_a_rate_limit_stays_one() -> None:
    message = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 4000."
    code, _, wait = told(429, {"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}})
    assert (code, wait) == ("upstream_rate_limited", 7)


@pytest.mark.parametrize("status", [200, 403, 429])
@pytest.mark.parametrize(
    "said",
    [
        {"code": "insufficient_quota", "type": "insufficient_quota"},
        {"code": None, "type": "insufficient_quota"},
        {"code": "billing_hard_limit_reached", "type": "invalid_request_error"},
    ],
)
def test_an_account_without_money_is_no_limit_that_passes(status: int, said: dict[str, Any]) -> None:
    code, _, wait = told(status, {"error": {"message": "You exceeded your current quota.", **said}})
    assert (code, wait) == ("upstream_misconfigured", None)
