"""Finished runs as one long table for other programs, CSV or Parquet."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec_bench.core.errors import UserError, unknown
from genrec_bench.results.index import described
from genrec_bench.results.records import RANKS, RecordStore, RunRecord
from genrec_bench.results.test_users import ARRAYS, UserFacts, find_users

RUN = {"run_id": str, "dataset": str, "profile": str, "method": str, "backbone": str, "objectives": str, "seed": int}
METRICS = {**RUN, "part": str, "level": str, "metric": str, "k": int, "value": float}
RANKED = ("rank", "ties", "id_rank", "unseen_rank", "unseen_ties", "unseen_id_rank")
FACTS = tuple(name for name in ARRAYS if name != "user")  # a column of its own
USERS = {"run_id": str, "row": int, **dict.fromkeys(("user", *RANKED, *FACTS), int)}
KEY = re.compile(r"(?:(valid|unseen)_)?(id_)?(.+?)(?:@(\d+))?")

Columns = dict[str, Sequence[Any]]  # the lines of one run, by column


@dataclass(frozen=True)
class Exported:
    """What was written: lines below the header, of how many runs."""

    lines: int
    runs: int


def export(results: Path, to: Path, *, users: bool = False, datasets: Sequence[str] | None = None,
           wanted: Callable[[RunRecord], bool] | None = None, force: bool = False) -> Exported:
    """Write the records below a folder as a table: one line a run and metric, or with `users` one a run and test user.

    to: a file that ends in .csv or .parquet; one that is there is replaced only with `force`. datasets: only runs on
    these, as the records name them. wanted: only records for which it is true. Numbers are unrounded.
    Raises: UserError before anything is written.
    """
    write = _writer(to)
    _check_place(to, force)
    store = RecordStore(results)
    records = _chosen(store, datasets, wanted)
    if users:
        columns, tables = USERS, (user_lines(store, record, facts) for record, facts in _with_facts(store, records))
    else:
        columns, tables = METRICS, map(metric_lines, records)
    temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        lines = write(temporary, columns, tables)
        os.replace(temporary, to)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(lines, len(records))


def _writer(path: Path) -> Callable[[Path, dict[str, type], Iterable[Columns]], int]:
    """What writes files of this ending. Raises: UserError for another one."""
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    ending = path.suffix.lower()
    if ending not in writers:
        raise unknown("ending", path.suffix or path.name, writers, "the name of the file to write")
    if ending == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError("Parquet needs pyarrow. Install it, or give a name that ends in .csv.") from None
    return writers[ending]


def _check_place(path: Path, force: bool) -> None:
    """Raises: UserError for a folder that is missing or a file that is there."""
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: {path.parent} is not a folder. Make it first.")
    if path.is_dir():
        raise UserError(f"cannot write {path}, which is a folder. Give the name of a file.")
    if path.exists() and not force:
        raise UserError(f"{path} is there already. Give another name, or --force (in Python force=True) to replace it.")


def _chosen(store: RecordStore, datasets: Sequence[str] | None,
            wanted: Callable[[RunRecord], bool] | None) -> list[RunRecord]:
    """The records asked for, sorted by name. Raises: UserError where there are none."""
    records = store.read_results() if store.root.is_dir() else []
    if not records:
        raise UserError(f"no records below {store.root}. Run a suite first, or name another folder of results.")
    there = {record.dataset for record in records}
    for name in datasets or ():
        if name not in there:
            raise unknown("dataset", name, there, f"the records below {store.root}")
    chosen = [r for r in records if (datasets is None or r.dataset in datasets) and (wanted is None or wanted(r))]
    if not chosen:
        raise UserError(f"none of the {len(records)} records below {store.root} is one of those asked for.")
    return chosen


def metric_lines(record: RunRecord) -> Columns:
    """One line a metric: "valid_id_ndcg@10" is part valid, level id, metric ndcg, k 10; values are unrounded."""
    keys = sorted(record.metrics)
    parts = [KEY.fullmatch(key).groups() for key in keys]
    return {**{name: [value] * len(keys) for name, value in described(record).items()},
            "part": [part or "test" for part, *_ in parts],
            "level": ["id" if level else "item" for _, level, *_ in parts], "metric": [name for *_, name, _ in parts],
            "k": [int(k) if k else None for *_, k in parts], "value": [record.metrics[key] for key in keys]}


def _with_facts(store: RecordStore, records: Iterable[RunRecord]) -> Iterator[tuple[RunRecord, UserFacts | None]]:
    """Each record with the facts about its test users; each file is read once."""
    known: dict[tuple[str, str], UserFacts | None] = {}
    for record in records:
        split = record.dataset, record.split_fingerprint
        if split not in known:
            known[split] = find_users(store, *split)
        yield record, known[split]


def user_lines(store: RecordStore, record: RunRecord, facts: UserFacts | None) -> Columns:
    """One line a test row in split order; facts are empty cells where they are not known.

    Raises: UserError where ranks and facts are of other numbers of rows.
    """
    ranks, unseen = store.read_ranks(record), store.read_ranks(record, unseen=True)
    count = len(ranks.ranks)
    known = ranks.users if facts is None else facts.user
    users = [None] * count if known is None else known.tolist()
    if facts is not None and facts.num_rows != count:
        raise UserError(f"run {record.run_id} has ranks of {count} rows, the facts about its split of "
                        f"{facts.num_rows}. One of the two files is not of this split: delete it.")
    told = {name: [None] * count if facts is None else getattr(facts, name).tolist() for name in FACTS}
    arrays = [getattr(part, name) for part in (ranks, unseen) for name in RANKS]
    return {"run_id": [record.run_id] * count, "row": range(count), "user": users,
            **{n: a.tolist() for n, a in zip(RANKED, arrays, strict=True)}, **told}


def _write_csv(path: Path, columns: dict[str, type], tables: Iterable[Columns]) -> int:
    lines = 0
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        for table in tables:
            writer.writerows(zip(*(table[name] for name in columns), strict=True))
            lines += len(table["run_id"])
    return lines


def _write_parquet(path: Path, columns: dict[str, type], tables: Iterable[Columns]) -> int:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    lines = 0
    with ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(pyarrow.table({name: list(table[name]) for name in columns}, schema=schema))
            lines += len(table["run_id"])
    return lines
