"""What a journal is told of requests under way: about every second how far each has come, so that the ledger can charge
for what was produced when the worker dies; and settlements that the disk refused, once it takes them."""

import asyncio
import logging

from penstock.ledger.journal import Journal, JournalError

_log = logging.getLogger("penstock.ledger")
EVERY_S = 1.0
# So many are written before others get their turn again.
_AT_ONCE = 50


async def follow(journal: Journal, *, every_s: float = EVERY_S) -> None:
    """Note what has changed until cancelled. Belongs to the event loop of the requests."""
    while True:
        await asyncio.sleep(every_s)
        if settle_late(journal):
            await note(journal)


def settle_late(journal: Journal) -> bool:
    """Write the settlements that were refused; whether none is left."""
    while journal.late:
        try:
            journal.append(journal.late[0])
        except JournalError:
            return False
        _log.info("request %s is settled after all", journal.late.popleft().request_id)
    return True


async def note(journal: Journal) -> None:
    """Write how far each request has come that has begun to answer, and has come further since the last time."""
    written = 0
    for request, before in tuple(journal.open.items()):
        now = request.produced()
        # It may have been settled while others had their turn.
        if now == before or request not in journal.open:
            continue
        try:
            journal.append(request.progress())
        except JournalError:
            return  # its disk is full: the next second tries again
        except Exception:  # noqa: BLE001 - one request that cannot be told must not keep the others from it
            _log.exception("how far a request has come cannot be noted")
        journal.open[request] = now
        written += 1
        if written % _AT_ONCE == 0:
            await asyncio.sleep(0)
