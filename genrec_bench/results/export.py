"""Frames of finished runs for pandas and other programs: chosen, and written as CSV, Parquet or JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from genrec_bench.core.errors import UserError, unknown
from genrec_bench.results.frame import frame, runs, users
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.results.test_users import find_users

if TYPE_CHECKING:
    from pandas import DataFrame

PER = ("metric", "run", "user")  # what a line of a table stands for


@dataclass(frozen=True)
class Exported:
    """What was written: lines below the header, of how many runs."""

    lines: int
    runs: int


def export(results: Path, to: Path, *, per: str = "metric", datasets: Sequence[str] | None = None,
           wanted: Callable[[RunRecord], bool] | None = None, force: bool = False) -> Exported:
    """Write the records below a folder as one table: a line a metric of a run, a run, or a test row (user) of a run.

    to: a file that ends in .csv, .parquet or .jsonl; one that is there is replaced only with `force`. datasets, wanted:
    see `chosen`. Numbers are unrounded. Raises: UserError before anything is written.
    """
    write = _writer(to)
    _check_place(to, force)
    records, lines = chosen(results, datasets, wanted), 0

    def counted() -> Iterator[DataFrame]:
        nonlocal lines
        for table in tables(RecordStore(results), records, per):
            lines += len(table)
            yield table

    temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        write(temporary, counted())
        os.replace(temporary, to)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(lines, len(records))


def chosen(results: Path, datasets: Sequence[str] | None = None, wanted: Callable[[RunRecord], bool] | None = None, *,
           trials: bool = False) -> list[RunRecord]:
    """The records below a folder, sorted by name. Raises: UserError where there are none.

    datasets: only runs on these, as the records name them. wanted: only those for which it is true. trials: also those
    of `tune`.
    """
    store = RecordStore(results)
    records = [r for r in store.read_all() if trials or not r.is_trial] if results.is_dir() else []
    if not records:
        raise UserError(f"no records below {results}. Run a suite first, or name another folder of results.")
    there = {record.dataset for record in records}
    for name in datasets or ():
        if name not in there:
            raise unknown("dataset", name, there, f"the records below {results}")
    found = [r for r in records if (datasets is None or r.dataset in datasets) and (wanted is None or wanted(r))]
    if not found:
        raise UserError(f"none of the {len(records)} records below {results} is one of those asked for.")
    return found


def tables(store: RecordStore, records: Sequence[RunRecord], per: str) -> Iterator[DataFrame]:
    """The table of some records, whole, or run by run where a line is a test row. Raises: UserError."""
    if per not in PER:
        raise unknown("kind of line", per, PER, "per")
    if per != "user":
        yield {"metric": frame, "run": runs}[per](records)
        return
    about = cache(lambda dataset, split: find_users(store, dataset, split))
    yield from (users(store, record, about(record.dataset, record.split_fingerprint)) for record in records)


def _writer(path: Path) -> Callable[[Path, Iterable[DataFrame]], None]:
    """What writes files of this ending. Raises: UserError for another one."""
    writers = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_json_lines}
    if path.suffix.lower() not in writers:
        raise unknown("ending", path.suffix or path.name, writers, "the name of the file to write")
    return writers[path.suffix.lower()]


def _check_place(path: Path, force: bool) -> None:
    """Raises: UserError for a folder that is missing or a file that is there."""
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: {path.parent} is not a folder. Make it first.")
    if path.is_dir():
        raise UserError(f"cannot write {path}, which is a folder. Give the name of a file.")
    if path.exists() and not force:
        raise UserError(f"{path} is there already. Give another name, or --force (in Python force=True) to replace it.")


def _write_csv(path: Path, parts: Iterable[DataFrame]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        for number, part in enumerate(parts):
            part.to_csv(file, header=number == 0, index=False, lineterminator="\n")


def _write_parquet(path: Path, parts: Iterable[DataFrame]) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    writer = None
    for part in parts:
        table = pyarrow.Table.from_pandas(part, preserve_index=False)
        writer = writer or ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def _write_json_lines(path: Path, parts: Iterable[DataFrame]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for part in parts:  # `to_json` rounds at 15 decimals
            rows = part.astype(object).where(part.notna(), None).to_dict("records")
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
