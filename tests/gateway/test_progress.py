"""What a worker writes of requests under way, so that its death costs nobody what was produced."""

import asyncio
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.ledger.progress import note, settle_late
from penstock.ledger.records import Progress, Record
from penstock.settings.tree import PriceRow
from tests.gateway.conftest import delta
from tests.gateway.lab import Lab, lab, run, says, stalls, until
from tests.upstream import Exchange

PRICE = PriceRow(input=1, output=2)


def notes(worker: Lab) -> list[Progress]:
    """What was noted so far."""
    records: list[Record] = [*worker.records()]
    return [record for record in records if isinstance(record, Progress)]


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_stream_under_way_is_noted_when_it_has_come_further(tmp_path: Path) -> None:
    more = asyncio.Event()

    async def opens(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(delta("one"))
        await more.wait()
        await exchange.chunk(delta("two"))
        await exchange.hung_up()

    async def test() -> None:
        async with lab(tmp_path, {"only": opens}, price=PRICE) as worker:
            journal = worker.app.line.journal
            asking = worker.start(stream=True)
            await until(lambda: [request.produced() for request in journal.open] == [2])
            await note(journal)
            await note(journal)
            (first,) = notes(worker)
            assert (first.outcome, first.output_tokens, first.estimated) == ("interrupted", 1, True)
            assert first.amount_nanos == first.input_tokens * 1000 + 2000
            assert [(leg.target, leg.outcome) for leg in first.attempts] == [("only/up", "interrupted")]
            worker.upstreams["only"].call(more.set)
            await until(lambda: [request.produced() for request in journal.open] == [3])
            await note(journal)
            assert [one.output_tokens for one in notes(worker)] == [1, 2]
            await asking.hang_up()
            await note(journal)
            assert len(notes(worker)) == 2
            assert not journal.open
            assert worker.records()[-1].request_id == first.request_id

    run(test)


def test_nothing_is_noted_of_a_request_that_waits_for_its_first_event(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": stalls}) as worker:
            asking = worker.start(stream=True)
            await until(lambda: worker.upstreams["only"].requests == 1)
            await note(worker.app.line.journal)
            assert not notes(worker)
            await asking.hang_up()

    run(test)


def test_a_settlement_that_the_disk_refuses_is_written_once_it_takes_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with lab(tmp_path, {"only": stalls}) as worker:
            journal = worker.app.line.journal
            asking = worker.start()
            await until(lambda: worker.upstreams["only"].requests == 1)
            with full_disk():
                await asking.hang_up()
                assert not settle_late(journal)
            assert len(worker.records()) == 1
            assert settle_late(journal)
            assert [type(record).__name__ for record in worker.records()] == ["Admitted", "Settled"]
            worker.upstreams["only"].script = says("ok")
            assert (await worker.ask()).status == 200

    run(test)
