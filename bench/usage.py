"""``python -m bench.usage``: how long the usage of a month takes over 10 million entries of the ledger.

Fills a SQLite file, or with --postgres a server of its own, with entries and their sums by day; asks what the Platform
API asks; prints medians as JSON, and with --plans how the database answers each statement.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from operator import methodcaller
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench import machine
from bench.listing import statements
from penstock.domain.ledger import DAY_US
from penstock.store.database import Database
from penstock.store.metering.usage import Chosen, Cursor, UsageStore
from penstock.store.paging import Page

TARGETS_S = {"sqlite": 5.0, "postgresql": 2.0}
DAYS, KEYS, APPS = 31, 1000, 200
# 2026-10-01 in UTC.
BEGIN_US = 20_727 * DAY_US
_BATCH = 500_000
_NOON_US = DAY_US // 2
_NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :end)",
    "postgresql": "WITH n(i) AS (SELECT generate_series(CAST(:first AS BIGINT), CAST(:end AS BIGINT) - 1))",
}
_BYTES = {"sqlite": "zeroblob(32)", "postgresql": "decode(repeat('00', 32), 'hex')"}
# Each key asks three models in turn, each of which two targets serve.
_ENTRIES = """
INSERT INTO ledger_entries (seq, request_id, admitted_us, settled_us, key_id, key_prefix, app_id, app_name, addon_id,
  attachment_id, asked, model, target, stand_in, stream, outcome, cached_answer, estimated, input_tokens,
  cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, raw_usage, currency, price_version,
  amount_nanos, cost_nanos, cost_currency, queued_ms, first_event_ms, total_ms, attempts, idempotency_id, hash)
{numbers} SELECT i + 1, 'request-' || i, CAST(:begin AS BIGINT) + i * :step,
  CAST(:begin AS BIGINT) + i * :step + 900000,
  'key-' || (i % {keys}), 'inf-' || (i % {keys}), 'app-' || (i % {apps}), 'app-' || (i % {apps}),
  'addon-' || (i % {apps}), 'attachment-' || (i % {keys}), 'model-' || ((i + i / {keys} % 3) % 20),
  'model-' || ((i + i / {keys} % 3) % 20), 'provider-' || (i / 3 % 2) || '/m', NULL, (i % 2 = 0),
  CASE WHEN i % 50 = 0 THEN 'upstream_error' ELSE 'completed' END, (1 = 0), (i % 50 = 1), i % 4000, i % 400, 0,
  i % 700, i % 70, '{{"prompt_tokens": 900, "completion_tokens": 200}}', 'USD', '0123456789abcdef', i % 9000 * 1000,
  i % 7000 * 1000, 'USD', 0.5, 200.5, 900.0, '[["provider-0/m","completed",200.5,900.0]]', NULL, {bytes} FROM n
"""
_DAYS = """
INSERT INTO ledger_days (day, key_id, model, target, currency, key_prefix, app_id, app_name, addon_id, attachment_id,
  requests, failed, estimated, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
  amount_nanos, cost_nanos)
SELECT admitted_us / {day}, key_id, model, target, currency, MIN(key_prefix), MIN(app_id), MIN(app_name), MIN(addon_id),
  MIN(attachment_id), COUNT(*), SUM(CASE WHEN outcome = 'completed' THEN 0 ELSE 1 END),
  SUM(CASE WHEN estimated THEN 1 ELSE 0 END), SUM(input_tokens), SUM(cached_input_tokens), SUM(cache_write_tokens),
  SUM(output_tokens), SUM(reasoning_tokens), SUM(amount_nanos), SUM(cost_nanos)
FROM ledger_entries WHERE admitted_us >= {day} * CAST(:first AS BIGINT) AND admitted_us < {day} * CAST(:end AS BIGINT)
GROUP BY admitted_us / {day}, key_id, model, target, currency
"""


def fill(db: Database, count: int) -> None:
    """So many entries, evenly over a month, and their sums. ``db`` is open for upkeep: statements take their time."""
    with db.read() as connection:
        kind = connection.dialect.name
    numbers = text(_ENTRIES.format(numbers=_NUMBERS[kind], keys=KEYS, apps=APPS, bytes=_BYTES[kind]))
    for first in range(0, count, _BATCH):
        asked = {"first": first, "end": min(first + _BATCH, count), "begin": BEGIN_US, "step": DAYS * DAY_US // count}
        with db.write() as connection:
            connection.execute(numbers, asked)
    for day in range(BEGIN_US // DAY_US, BEGIN_US // DAY_US + DAYS):
        with db.write() as connection:
            connection.execute(text(_DAYS.format(day=DAY_US)), {"first": day, "end": day + 1})
    with db.write() as connection:
        connection.execute(text("UPDATE ledger_head SET seq = :seq"), {"seq": count})
        # PostgreSQL gathers statistics by itself, SQLite never does.
        if kind == "postgresql":
            connection.execute(text("ANALYZE"))


def questions() -> dict[str, Callable[[UsageStore], Any]]:
    """What is asked: a whole month by each group, a month that cuts through two days, and pages of entries."""
    month = Chosen(since_us=BEGIN_US, until_us=BEGIN_US + DAYS * DAY_US)
    cut = Chosen(since_us=BEGIN_US + _NOON_US, until_us=BEGIN_US + (DAYS - 1) * DAY_US + _NOON_US)
    of_app = Chosen(app_id="app-7", since_us=cut.since_us, until_us=cut.until_us)
    middle = str(Cursor(BEGIN_US + DAYS * _NOON_US, 0))
    pages = {
        "first": Page(by="cursor", size=1000),
        "last": Page(by="cursor", size=1000, descending=True),
        "middle": Page(by="cursor", size=1000, first=middle, after=True),
    }
    asked: dict[str, Callable[[UsageStore], Any]] = {}
    for by in ("model", "app", "key", "day", "target"):
        asked[f"month by {by}"] = methodcaller("sums", month, (by,))
        asked[f"month with cut days by {by}"] = methodcaller("sums", cut, (by,))
    asked["month of an app by day and model"] = methodcaller("sums", of_app, ("day", "model"))
    asked["month of a key by day"] = methodcaller("sums", Chosen(key="inf-7"), ("day",))
    for name, page in pages.items():
        asked[f"{name} entries"] = methodcaller("entries", Chosen(), page)
        asked[f"{name} entries of an app"] = methodcaller("entries", of_app, page)
    asked["entries by number"] = lambda usage: usage.entries(Chosen(), Page(by="seq", first=5000, size=1000))
    asked["entries of a key and model"] = lambda usage: usage.entries(
        Chosen(key="inf-7", model="model-7"), pages["first"]
    )
    return asked


def plans_of(db: Database, act: Callable[[], Any]) -> Iterator[tuple[str, str]]:
    """Each statement that ``act`` makes, and how the database goes about it, in its own words."""
    with statements() as seen:
        act()
    for statement, parameters in {sent: (sent, values) for sent, values in seen}.values():
        with db.read() as connection:
            lite = connection.dialect.name == "sqlite"
            told = connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' if lite else ''}{statement}", parameters)
            yield " ".join(statement.split()), "\n".join(str(row[3 if lite else 0]) for row in told)


def measure(db: Database, *, repeats: int) -> dict[str, float]:
    """Seconds that each question takes, the median."""
    usage, taken = UsageStore(db), {}
    for name, ask in questions().items():
        readings = []
        for _ in range(repeats):
            start = time.perf_counter()
            ask(usage)
            readings.append(time.perf_counter() - start)
        taken[name] = statistics.median(readings)
    return taken


def run(url: str | Path, home: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one database."""
    Database.open(url, home=home).close()
    db = Database.open(url, home=home, upkeep=True)
    try:
        start = time.perf_counter()
        fill(db, args.entries)
        filled_s = time.perf_counter() - start
        taken = measure(db, repeats=args.repeats)
        if args.plans:
            told = ((name, *how) for name, ask in questions().items() for how in plans_of(db, _asking(ask, db)))
            args.plans.write_text("\n\n".join(f"## {name}\n\n{sent}\n\n{how}" for name, sent, how in told) + "\n")
        with db.read() as connection:
            kind = connection.dialect.name
            days = connection.execute(text("SELECT COUNT(*) FROM ledger_days")).scalar_one()
    finally:
        db.close()
    slowest = max(taken, key=taken.__getitem__)
    figures = {name: round(seconds, 4) for name, seconds in taken.items()}
    sizes = {"database": kind, "entries": args.entries, "days": days, "filled_s": round(filled_s, 1)}
    return {**sizes, "seconds": figures, "slowest": slowest, "target_s": TARGETS_S[kind]}


def _asking(ask: Callable[[UsageStore], Any], db: Database) -> Callable[[], Any]:
    return lambda: ask(UsageStore(db))


def main() -> int:
    """Exit 0 when every question is within the target, 1 when one is not, 2 when the machine is too loaded to say."""
    parser = argparse.ArgumentParser(prog="python -m bench.usage", description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL server of this run's own")
    parser.add_argument("--plans", type=Path, metavar="FILE", help="write the query plans there")
    args = parser.parse_args()
    loud = machine.too_loaded(os.getloadavg()[0], [], [])
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-usage-")))
        url: str | Path = home / "penstock.db"
        if args.postgres:
            from tests.postgres import running_postgres  # noqa: PLC0415 - only where it is asked for

            url = stack.enter_context(running_postgres()).new_database()
        found = run(url, home, args)
    print(json.dumps(found | ({"no_verdict": loud} if loud else {}), indent=2))
    within = max(found["seconds"].values()) <= found["target_s"]
    return 2 if loud else 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
