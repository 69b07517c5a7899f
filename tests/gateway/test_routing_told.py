"""What a failed call leaves behind: a line for the operator, and an attempt only where the upstream was called."""

from pathlib import Path

import pytest

from tests.gateway.lab import lab, refuses, run, says
from tests.gateway.test_routing_attempts import Picky


def test_what_an_adapter_refuses_by_itself_is_no_attempt(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"able": says("Hello.")}, adapters={"picky": Picky()}, max_attempts=1) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.headers["penstock-attempts"]) == (200, "1")
            assert answer.legs == [("able/up", "completed")]
        async with lab(tmp_path, {}, adapters={"picky": Picky()}) as worker:
            answer = await worker.ask()
            assert (answer.status, answer.legs) == (400, [])
            assert "penstock-attempts" not in answer.headers
            assert worker.at_rest()

    run(test)


def test_the_operator_is_told_of_failed_calls_once_in_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"down": refuses("401 No")}) as worker:
            for _ in range(3):
                assert (await worker.ask()).code == "upstream_misconfigured"
            assert told(caplog) == ["a call of down/up failed: upstream_misconfigured (status 401)"]
            worker.move(11)
            await worker.ask()
            assert told(caplog)[1:] == [
                "a call of down/up failed: upstream_misconfigured (status 401), and 2 times since the last such line"
            ]

    run(test)


def test_the_callers_own_fault_is_not_told_to_the_operator(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"strict": refuses("400 Bad Request")}) as worker:
            assert (await worker.ask()).code == "upstream_refused"
            assert told(caplog) == []

    run(test)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "penstock.gateway"]
