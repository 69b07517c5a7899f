"""What is refused can be found in the log: by request, app, key and limit, and never what was asked."""

import asyncio
import logging
from pathlib import Path

import pytest

from penstock.domain.errors import PenstockError
from penstock.domain.limits import Scope
from penstock.gateway.limits.noted import LINES, RefusalLog
from tests.gateway.allowances import Governed, budget, principal, row
from tests.gateway.lab import KEY, lab, run, says, until
from tests.gateway.test_budgets import PRICE


def test_each_kind_of_refusal_is_a_line_with_the_request_the_app_the_key_and_the_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(Scope.KEY, requests_per_minute=1), row(Scope.APP, max_tokens=100)]

    async def test() -> None:
        who = principal(limits=rows, budgets=[budget("0")])
        free = principal(limits=rows)
        for number, (one, fields) in enumerate(((free, {}), (free, {"max_tokens": 999}), (who, {}))):
            async with lab(
                tmp_path / str(number), {"a": says("Hello.")}, governor=Governed(), principals={KEY: one}, price=PRICE
            ) as it:
                answers = [await it.ask(**fields) for _ in range(2)]
                assert answers[1].status in (400, 429)
                refused.append(answers[1])

    refused: list[object] = []
    with caplog.at_level(logging.INFO, "penstock.refused"):
        run(test)
    for answer, code in zip(refused, ("rate_limit_exceeded", "max_tokens_exceeded", "budget_exceeded"), strict=True):
        id_ = answer.headers["x-request-id"]  # type: ignore[attr-defined]
        (line,) = (record for record in caplog.records if id_ in record.getMessage())
        assert line.getMessage().startswith(f"refused {id_} of app shop, key inf-ab12, model m: {code}: The ")
        assert line.levelno == (logging.WARNING if code == "budget_exceeded" else logging.INFO)
    assert KEY not in caplog.text
    assert "hi" not in {word.strip('".') for word in caplog.text.split()}


def test_of_very_many_refusals_a_few_are_told_and_the_others_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        log = RefusalLog(every_s=0.05)
        error = PenstockError("rate_limit_exceeded", "The app shop may make 1 request a minute.")
        for number in range(500):
            log.note(principal(), "m", error, f"req_{number}")
        for number in range(300):
            log.note(principal(key_prefix=f"inf-{number:04}"), "m", error, "req_x")
        await until(lambda: "other keys" in caplog.text)
        assert f"refused {500 - LINES} more of app shop, key inf-ab12: rate_limit_exceeded" in caplog.text
        assert "refused 101 requests of other keys" in caplog.text
        assert len(caplog.messages) == LINES + 1 + 199 + 1
        log.note(principal(), "m", error, "req_again")
        assert "req_again" in caplog.messages[-1]
        await asyncio.sleep(0)

    with caplog.at_level(logging.INFO, "penstock.refused"):
        run(test)
