"""Writes rows as they come, in any number: CSV, JSON, JSON lines, Parquet."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import IO, Any

from penstock.cli.commands.usage.columns import Columns, Row, as_text, as_value
from penstock.cli.output import CliError

FORMATS = ("csv", "jsonl", "parquet")
# Digits of money in Parquet, nine of them after the point, as the ledger has them.
_DIGITS = 38

Pages = Iterable[list[Row]]
Write = Callable[[Pages], int]


def write_csv(out: IO[str], columns: Columns, pages: Pages) -> int:
    """A header and the rows; how many there were."""
    writer, count, pages = csv.writer(out, lineterminator="\n"), 0, iter(pages)
    # What cannot be read at all has no header either.
    first = next(pages, [])
    writer.writerow(columns)
    for page in chain([first], pages):
        writer.writerows([as_text(row[name], kind) for name, kind in columns.items()] for row in page)
        count += len(page)
    return count


def write_lines(out: IO[str], pages: Pages) -> int:
    """One JSON object on each line; how many there were."""
    count = 0
    for page in pages:
        out.writelines(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in page)
        count += len(page)
    return count


def write_list(out: IO[str], pages: Pages) -> int:
    """One JSON list, indented; how many items there were."""
    count = 0
    for page in pages:
        for row in page:
            text = json.dumps(row, indent=2, ensure_ascii=False).replace("\n", "\n  ")
            out.write(f"{',' if count else '['}\n  {text}")
            count += 1
    out.write("\n]\n" if count else "[]\n")
    return count


def write_parquet(path: Path, columns: Columns, pages: Pages) -> int:
    """A Parquet file, one row group for each page; how many rows there were."""
    arrow, parquet = parquet_library()
    kinds = {
        "count": arrow.int64(),
        "number": arrow.float64(),
        "flag": arrow.bool_(),
        "time": arrow.timestamp("us", tz="UTC"),
        "money": arrow.decimal128(_DIGITS, 9),
    }
    schema = arrow.schema([(name, kinds.get(kind, arrow.string())) for name, kind in columns.items()])
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for page in pages:
            cells = {name: [as_value(row[name], kind) for row in page] for name, kind in columns.items()}
            writer.write_table(arrow.table(cells, schema=schema))
            count += len(page)
    return count


def parquet_library() -> tuple[Any, Any]:
    """pyarrow and its Parquet module. Raises CliError where it is not installed."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise CliError(f"Parquet needs pyarrow ({error}): {sys.executable} -m pip install pyarrow") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside ``path`` that takes its place when it is whole, and goes when it is not. Raises CliError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
