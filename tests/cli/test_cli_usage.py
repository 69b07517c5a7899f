"""The commands that read the ledger: usage, its exports, and what proves, compares and reprices it."""

import csv
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from sqlalchemy import text

from penstock.cli.commands.usage import columns
from penstock.domain.catalogue import Rate
from penstock.domain.ledger import DAY_US
from penstock.domain.money import price_nanos, price_version
from penstock.domain.usage import Usage
from penstock.store.database import Database
from penstock.store.metering.ledger import LedgerStore
from tests.cli.conftest import controlled
from tests.cli.double import Double
from tests.cli.program import Penstock
from tests.metered import NOVEMBER_US, fill, metered

RATE = Rate(input=Decimal(3), output=Decimal(15), cached_input=Decimal("0.3"))
COUNT = 60


def database(penstock: Penstock) -> Database:
    """The database behind the program."""
    return Database.open(Path(penstock.env["PENSTOCK_HOME"]) / "penstock.db")


@pytest.fixture(scope="module")
def billed(tmp_path_factory: pytest.TempPathFactory, gateway: Double) -> Iterator[Penstock]:
    """The program with a ledger of sixty requests of the app shop: two days, two models at two providers."""
    with controlled(tmp_path_factory.mktemp("usage") / "home", gateway.url) as penstock:
        penstock.ok("create", "shop")
        penstock.ok("create", "quiet")
        app_id = penstock.json("apps:info", "shop", "--json")["app"]["id"]
        entries = []
        for number in range(COUNT):
            usage = Usage(input_tokens=1000 + number, output_tokens=50, cached_input_tokens=number)
            large = number % 2 == 0
            entries.append(
                metered(
                    f"request-{number}", app_id=app_id, admitted_us=NOVEMBER_US + (number % 4) * DAY_US // 2 + number,
                    model="chat-large" if large else "chat-small", target="someone/it" if large else "other/at",
                    input_tokens=usage.input_tokens, output_tokens=50, cached_input_tokens=number,
                    amount_nanos=price_nanos(usage, RATE), price_version=price_version(RATE),
                    cost_nanos=1_000_000, cost_currency="USD", raw_usage='{"prompt_tokens":1}',
                    attempts='[["someone/it","completed",2.5,12.5]]', first_event_ms=2.5, queued_ms=0.5,
                )
            )  # fmt: skip
        with closing(database(penstock)) as db:
            LedgerStore(db).note_rates([RATE])
            fill(db, entries)
        yield penstock


def rows_of(text_: str) -> list[dict[str, str]]:
    """The rows of a CSV."""
    return list(csv.DictReader(StringIO(text_)))


def test_usage_is_a_table_by_model_with_a_total(billed: Penstock) -> None:
    lines = billed.ok("usage").splitlines()
    assert lines[0].split() == ["Model", "Requests", "Failed", "Input", "Cached", "Output", "Amount"]
    assert [line.split()[:3] for line in lines[2:]] == [
        ["chat-large", "30", "0"], ["chat-small", "30", "0"], ["total", "60", "0"],
    ]  # fmt: skip
    assert [line.split()[0] for line in billed.ok("usage", "-a", "shop", "--by", "day").splitlines()[2:]] == [
        "2026-11-01", "2026-11-02", "total",
    ]  # fmt: skip


def test_usage_as_json_and_csv_says_the_same(billed: Penstock) -> None:
    choice = ["usage", "--by", "app", "--by", "target", "--since", "2026-11-02"]
    found = billed.json(*choice, "--json")
    assert [(row["app"]["name"], row["target"], row["requests"]) for row in found] == [
        ("shop", "other/at", 15), ("shop", "someone/it", 15),
    ]  # fmt: skip
    as_csv = rows_of(billed.ok(*choice, "--csv"))
    assert [(row["app"], row["target"], row["amount"]) for row in as_csv] == [
        (row["app"]["name"], row["target"], row["amount"]) for row in found
    ]


def test_entries_are_objects_with_their_request_id(billed: Penstock) -> None:
    found = billed.json("usage", "-a", "shop", "--entries", "--json")
    assert len(found) == COUNT
    assert {entry["request_id"] for entry in found} == {f"request-{number}" for number in range(COUNT)}
    assert found[0]["usage"]["output_tokens"] == 50
    assert billed.json("usage", "-a", "quiet", "--entries", "--json") == []
    table = billed("usage", "--entries")
    assert "The newest 50;" in table.stderr
    assert table.stdout.splitlines()[-1].split()[-1] == "request-59"
    as_csv = rows_of(billed.ok("usage", "--entries", "--csv", "--until", "2026-11-02"))
    assert len(as_csv) == 30
    assert json.loads(as_csv[0]["raw_usage"]) == {"prompt_tokens": 1}


def test_without_usage_it_says_so(billed: Penstock) -> None:
    done = billed("usage", "-a", "quiet")
    assert (done.returncode, done.stdout) == (0, "No usage.\n")
    assert "within a second" in done.stderr


def test_what_does_not_go_together_is_one_clear_line(billed: Penstock) -> None:
    assert "exclude each other" in billed.refused("usage", "--json", "--csv", code=2)
    assert "--by sums up" in billed.refused("usage", "--entries", "--by", "day", code=2)
    assert "'colour'" in billed.refused("usage", "--by", "colour", code=2)
    assert "since must be" in billed.refused("usage", "--since", "soon")
    assert "until must be later" in billed.refused("usage", "--since", "7d", "--until", "8d")
    for option in ("-a", "--key", "-m", "--since", "--until", "--request"):
        assert "must not be empty" in billed.refused("usage", option, "", code=2)


def test_what_never_was_is_an_error_and_no_empty_bill(billed: Penstock, tmp_path: Path) -> None:
    told = "There is no app nope, neither now nor in the ledger."
    assert told in billed.refused("usage", "-a", "nope")
    assert told in billed.within(HEROKU_APP="nope").refused("usage", "--entries")
    assert billed.within(HEROKU_APP="nope").json("usage", "-A", "--json")[0]["requests"] == 30
    assert told in billed.refused("usage:export", "-a", "nope", "--format", "csv", "-o", "-")
    assert "There is no key nope" in billed.refused("usage", "--key", "nope")
    assert "'nope' is not a model" in billed.refused("usage", "-m", "nope")


def test_a_period_without_usage_waits_for_some_only_where_it_reaches_now(billed: Penstock) -> None:
    assert billed("usage", "--until", "2026-01-01").stderr == ""
    assert billed("usage", "--since", "2999-01-01").stderr == "That time is still to come.\n"
    assert "within a second" in billed("usage", "--since", "1s").stderr


def test_one_request_is_found_by_the_id_of_its_answer(billed: Penstock) -> None:
    [entry] = billed.json("usage", "--request", "request-7", "--json")
    assert entry["request_id"] == "request-7"
    assert billed.ok("usage", "--request", "request-7").splitlines()[-1].endswith("request-7")
    assert "--by sums up" in billed.refused("usage", "--request", "request-7", "--by", "day", code=2)


@pytest.mark.parametrize("focus", [False, True])
def test_an_export_has_the_same_rows_in_every_format(billed: Penstock, tmp_path: Path, focus: bool) -> None:
    flags = ["--focus"] if focus else []
    files = {kind: tmp_path / f"usage.{kind}" for kind in ("csv", "jsonl", "parquet")}
    for kind, path in files.items():
        done = billed("usage:export", "--format", kind, *flags, "-o", str(path))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert f"done, {COUNT} requests" in done.stderr
    names = columns.FOCUS if focus else columns.PLAIN
    as_csv = rows_of(files["csv"].read_text())
    table = parquet.read_table(files["parquet"])
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    assert table.column_names == [*as_csv[0]] == [*names]
    amount, id_ = ("BilledCost", "x_RequestId") if focus else ("amount", "request_id")
    assert [Decimal(row[amount]) for row in as_csv] == table[amount].to_pylist()
    assert [row[id_] for row in as_csv] == table[id_].to_pylist() == [row[id_] for row in lines]
    whole = sum(Decimal(row["amount"]) for row in billed.json("usage", "--json"))
    assert sum(table[amount].to_pylist()) == whole
    assert not [path for path in tmp_path.iterdir() if path not in files.values()]


def test_focus_says_period_sku_and_tags(billed: Penstock) -> None:
    done = billed.ok("usage:export", "--format", "jsonl", "--focus", "-o", "-", "--until", "2026-11-02")
    row = json.loads(done.splitlines()[0])
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == (
        "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z",
    )  # fmt: skip
    assert (row["SkuId"], row["PublisherName"], row["ConsumedUnit"]) == ("chat-large", "someone", "Tokens")
    assert row["ConsumedQuantity"] == row["x_InputTokens"] + row["x_OutputTokens"]
    assert row["Tags"]["app"] == row["SubAccountName"] == "shop"


def test_without_pyarrow_parquet_names_the_remedy(billed: Penstock, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('none here')")
    without = billed.within(PYTHONPATH=f"{tmp_path}:{billed.env.get('PYTHONPATH', '')}")
    told = without.refused("usage:export", "--format", "parquet", "-o", str(tmp_path / "x"))
    assert "-m pip install pyarrow" in told
    assert "no text" in billed.refused("usage:export", "--format", "parquet", "-o", "-")
    done = billed("usage:export", "--format", "csv", "-o", str(tmp_path / "no" / "x"))
    assert (done.returncode, "cannot be written" in done.stderr) == (1, True)


def test_the_ledger_is_proven_and_a_change_of_it_is_found(billed: Penstock, tmp_path: Path) -> None:
    assert "The ledger is whole." in billed.ok("ledger:verify")
    found = billed.json("ledger:verify", "--json")
    assert found["entries"] == COUNT
    assert f"Head:    {found['head']}" in billed.ok("ledger:verify", "--head", found["head"])
    other_head = found["head"].replace(":", ":ff", 1)
    assert "is not the one of the known head" in billed("ledger:verify", "--head", other_head).stderr
    assert "Not a head of a ledger" in billed("ledger:verify", "--head", "12:xy").stderr
    other = billed.within(PENSTOCK_HOME=str(tmp_path))
    with closing(Database.open(tmp_path / "penstock.db")) as db:
        fill(db, [metered(f"r{number}") for number in range(5)])
        with db.write() as connection:
            connection.execute(text("DROP TRIGGER ledger_entries_no_update"))
            connection.execute(text("UPDATE ledger_entries SET amount_nanos = 1 WHERE seq = 3"))
    done = other("ledger:verify")
    assert done.returncode == 1
    assert "entry 3 (request r2) was changed" in done.stderr
    assert done.stdout.splitlines()[0].split(maxsplit=1) == ["Entries:", "2, up to number 2 of 5"]
    with closing(Database.open(tmp_path / "penstock.db")) as db, db.write() as connection:
        connection.execute(text("UPDATE ledger_days SET requests = 0, failed = 1, estimated = 1, input_tokens = 0"))
    assert "the sums and" in other("ledger:verify").stderr


def account(path: Path, rows: list[dict[str, Any]]) -> str:
    """Rows as CSV or JSON lines, as the file is called."""
    with path.open("w", newline="") as out:
        if path.suffix == ".csv":
            writer = csv.DictWriter(out, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)
        else:
            out.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_provider_that_counts_the_same_agrees_and_another_does_not(
    billed: Penstock, tmp_path: Path, suffix: str
) -> None:
    sums = billed.json("usage", "--by", "day", "--by", "target", "--json")
    rows = [
        {"Date": row["day"], "Model ID": row["target"].partition("/")[2], "prompt_tokens": row["input_tokens"],
         "Completion Tokens": row["output_tokens"], "cost": row["cost"]}
        for row in sums if row["target"].startswith("someone/")
    ]  # fmt: skip
    path = tmp_path / f"account.{suffix}"
    assert "agree: 2026-11-01 to 2026-11-02" in billed.ok(
        "ledger:reconcile", account(path, rows), "--provider", "someone"
    )
    rows[0]["prompt_tokens"] = int(rows[0]["prompt_tokens"]) + 100
    done = billed("ledger:reconcile", account(path, rows), "--provider", "someone")
    assert done.returncode == 1
    assert done.stdout.splitlines()[2].split() == [
        "2026-11-01", "it", "input", str(rows[0]["prompt_tokens"] - 100), str(rows[0]["prompt_tokens"]), "+100",
    ]  # fmt: skip
    again = ["ledger:reconcile", account(path, rows), "--provider", "someone", "--tolerance", "2%"]
    assert "agree" in billed.ok(*again)
    everything = billed("ledger:reconcile", account(path, rows), "--json")
    assert {one["model"] for one in json.loads(everything.stdout)} == {"it", "at"}


def test_an_account_by_request_lists_what_either_side_lacks(billed: Penstock, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"at": entry["admitted_at"], "x-request-id": entry["request_id"], "in": entry["usage"]["input_tokens"] - 7,
         "cached": 7, "output_tokens": 50}
        for entry in billed.json("usage", "--entries", "--json")
    ]  # fmt: skip
    named = ["--column", "day=at", "--column", "input=in+cached"]
    assert "agree" in billed.ok("ledger:reconcile", account(tmp_path / "a.csv", rows), *named)
    rows[3] |= {"x-request-id": "unknown"}
    done = billed("ledger:reconcile", account(tmp_path / "a.csv", rows), *named, "--json")
    ids = {one["request_id"] for one in json.loads(done.stdout)}
    assert done.returncode == 1
    assert "unknown" in ids
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "there is no row"),
        ("[]", "there is no row"),
        ("a,b\n1,2\n", "no column looks like day"),
        (
            "day,model,input_tokens\n23/11/2026,m,1\n",
            "line 2, column day: '23/11/2026' is no day; write it as 2026-11-23",
        ),
        ("day,model,input_tokens\n9999-12-31,m,1\n", "line 2, column day: '9999-12-31' is no day"),
        ("day,model,input_tokens\n,m,1\n", "line 2, column day: there is nothing in it"),
        ("day,model,input_tokens\n2026-11-01,m,1\n2026-11-01\n", "line 3, column model: there is nothing in it"),
        ("day,model,input_tokens\n2026-11-01,m,abc\n", "line 2, column input_tokens: 'abc' is no number; write it as"),
        ('day,model,cost\n2026-11-01,m,"1,5"\n', "line 2, column cost: '1,5' is no number"),
        ("day,model,input_tokens\n2026-11-01,m,NaN\n", "column input_tokens: 'NaN' is no number"),
        ("day,model,input_tokens\n2026-11-01,m,1e999\n", "column input_tokens: '1e999' is no number"),
        ("day,model,input_tokens\n2026-11-01,m,-3\n", "line 2, column input_tokens: -3 is negative"),
        ("day,model,input_tokens\n2026-11-01,m,1,2\n", "line 2 has more cells than the header has columns"),
        ('{"day": "2026-11-01"}\n[]\n', "no column looks like model"),
        ('{"day": "2026-11-01", "model": "m", "cost": 1}\n[]\n', "line 2 is no object"),
        ('{"day": "2026-11-01", "model": "m", "cost": 1}\n{"day": "20', "line 2 is no whole JSON"),
        ('[{"day": "2026-11-01", "model": "m", "cost": 1},\n {"day": "20', "line 2 is no whole JSON"),
        ("\udcff", "is no text in UTF-8"),
    ],
)
def test_an_account_that_cannot_be_read_is_one_clear_line(
    billed: Penstock, tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "account.csv"
    path.write_text(content, errors="surrogateescape")
    assert told in billed.refused("ledger:reconcile", str(path))


def test_a_comparison_that_cannot_be_meant_is_one_clear_line(billed: Penstock, tmp_path: Path) -> None:
    assert "cannot be read" in billed.refused("ledger:reconcile", str(tmp_path / "none"))
    assert "no FIELD=COLUMN" in billed.refused("ledger:reconcile", "x", "--column", "a=b", code=2)
    assert "percentage" in billed.refused("ledger:reconcile", "x", "--tolerance", "-1", code=2)
    assert "'xx' is no currency" in billed.refused("ledger:reconcile", "x", "--currency", "xx", code=2)


def test_a_list_is_an_account_and_what_is_not_known_is_no_difference(billed: Penstock, tmp_path: Path) -> None:
    rows = [
        {"day": row["day"], "model": "it", "input_tokens": row["input_tokens"], "cost": "1,234.5"}
        for row in billed.json("usage", "--by", "day", "--by", "target", "--json")
        if row["target"] == "someone/it"
    ]
    path = tmp_path / "account.json"
    path.write_text(json.dumps(rows, indent=1))
    done = billed("ledger:reconcile", str(path), "--provider", "someone", "--currency", "CHF")
    assert (done.returncode, "agree" in done.stdout) == (0, True), done.stderr
    assert "Costs were not compared in 2 of 2 places" in done.stderr
    done = billed("ledger:reconcile", str(path), "--provider", "nope")
    assert "The ledger has nothing that nope served in these days." in done.stderr


def test_a_member_is_told_that_others_are_not_compared(billed: Penstock, tmp_path: Path) -> None:
    token = billed.ok("operators:add", "member@example.com", "--role", "member")
    path = tmp_path / "account.csv"
    path.write_text("day,model,input_tokens\n2026-11-01,it,5\n")
    done = billed.within(PENSTOCK_CONTROL_TOKEN=token)("ledger:reconcile", str(path))
    assert "As member you read the usage of your own apps alone" in done.stderr


def test_a_past_period_is_repriced_and_the_ledger_stays(billed: Penstock, tmp_path: Path) -> None:
    before = billed.json("usage", "--json")
    prices = tmp_path / "prices.toml"
    prices.write_text('[[model]]\nid = "chat-large"\nprice = {input = 6, output = "30", cached_input = 0.6}\n')
    rerate = ["ledger:rerate", "--since", "2026-11-01"]
    large, small = billed.json(*rerate, "--until", "2026-11-03", "--prices", str(prices), "--json")
    assert (large["model"], large["requests"], Decimal(large["new"])) == ("chat-large", 30, 2 * Decimal(large["old"]))
    assert Decimal(large["difference"]) == Decimal(large["old"]) == Decimal(before[0]["amount"])
    assert (small["model"], small["new"]) == ("chat-small", None)
    assert "no other price" in billed.ok(*rerate, "--prices", str(prices))
    same = rows_of(billed.ok(*rerate, "--price-version", price_version(RATE), "--csv"))
    assert [(row["model"], row["difference"]) for row in same] == [("chat-large", "0"), ("chat-small", "0")]
    assert "No entries" in billed.ok("ledger:rerate", "--since", "1s", "--price-version", price_version(RATE))
    assert billed.json("usage", "--json") == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[[model]]\nid = 3\n", "model row 1, id: must be text, not int"),
        ("model = 3", "model: must be [[...]] rows, not int"),
        ("[", "is no file of prices: "),
        (
            '[[model]]\nid = "m"\nprice = {input = "abc", output = 1}\n',
            "'m', price.input: 'abc' is no price; write it as 3",
        ),
        ('[[model]]\nid = "m"\nprice = {input = -1, output = 1}\n', "price.input: -1.0 is negative"),
        (
            '[[model]]\nid = "m"\nprice = {input = "0.0000000000000001", output = "1e999"}\n',
            "price.output: '1e999' is no",
        ),
        (
            '[[model]]\nid = "m"\nprice = {input = 0, output = 0, cached_input = 2e6}\n',
            "2000000.0 is more than 1000000",
        ),
        ('[[model]]\nid = "m"\nprice = {input = nan, output = 0}\n', "'nan' is no price"),
        ('[[model]]\nid = "m"\nprice = {input = 1}\n', "model row 1, price: output is missing"),
        ('[[model]]\nid = "m"\nprice = {input = 1, output = 1, currency = "euro"}\n', "three capital letters"),
        ("\udcff", "no text in UTF-8"),
    ],
)
def test_prices_that_cannot_be_read_are_one_clear_line(
    billed: Penstock, tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(content, errors="surrogateescape")
    found = billed.refused("ledger:rerate", "--since", "30d", "--prices", str(path))
    assert told in found
    assert "is no file of prices" in found


def test_a_repricing_that_cannot_be_meant_is_one_clear_line(billed: Penstock, tmp_path: Path) -> None:
    rerate, path = ["ledger:rerate", "--since", "2026-11-01", "--until", "2026-11-03"], tmp_path / "prices.toml"
    assert "Give one of" in billed.refused(*rerate, code=2)
    assert "There is no price version" in billed.refused(*rerate, "--price-version", "0" * 16)
    path.write_text("model = []")
    assert "has no [[model]]" in billed.refused(*rerate, "--prices", str(path))
    assert "names models itself" in billed.refused(*rerate, "--prices", str(path), "-m", "chat-large", code=2)
    assert "must be later" in billed.refused(*rerate[:3], "--until", "2026-11-01", "--prices", str(path), code=2)
    path.write_text('[[model]]\nid = "nope"\nprice = {input = 1, output = 1}\n')
    assert "no entry in that time of nope" in billed(*rerate, "--prices", str(path)).stderr


def test_the_versions_of_prices_are_listed(billed: Penstock) -> None:
    line = billed.ok("ledger:prices").splitlines()[2]
    assert line.split()[:6] == [price_version(RATE), "3", "0.3", "-", "15", "USD"]
    assert billed.json("ledger:prices", "--json")[0]["rate"]["output"] == "15"


def test_a_day_before_the_first_of_a_month_ends_its_billing_period() -> None:
    entry = {"admitted_at": datetime(2026, 12, 31, 23, tzinfo=UTC).isoformat(), "settled_at": "", "target": None}
    entry |= dict.fromkeys(
        ("currency", "amount", "model", "price_version", "asked", "request_id", "estimated", "outcome", "cost"), ""
    )
    named = {"id": "", "name": "", "prefix": ""}
    usage = dict.fromkeys(
        ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"), 0
    )
    row = columns.focus(
        {**entry, "cost_currency": "", "app": named, "addon": named, "attachment": named, "key": named, "usage": usage}
    )
    assert row["BillingPeriodEnd"] == "2027-01-01T00:00:00Z"
    assert row["PublisherName"] is None
