"""`export`: finished runs as one long table for other programs, CSV or Parquet."""

from __future__ import annotations

import argparse
import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genrec_bench.commands import common
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.results.index import described
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.results.test_users import ARRAYS, UserFacts, find_users

RUN = {"run_id": str, "dataset": str, "profile": str, "method": str, "backbone": str, "objectives": str, "seed": int}
METRICS = {**RUN, "part": str, "level": str, "metric": str, "k": int, "value": float}
RANKS = ("rank", "ties", "id_rank")
USERS = {"run_id": str, "row": int, **dict.fromkeys((*RANKS, *ARRAYS), int)}
KEY = re.compile(r"(valid_)?(id_)?(.+?)(?:@(\d+))?")

Columns = dict[str, Sequence[Any]]  # the lines of one run, by column


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to write where, of which runs."""
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="file to write: .csv or .parquet")
    parser.add_argument("--users", action="store_true",
                        help="one line a run and test user (ranks), instead of one a run and metric")
    parser.add_argument("--suite", default=None, metavar="NAME", help="only runs of this suite")
    parser.add_argument("--datasets", type=common.comma_list, default=None, metavar="A,B",
                        help="only runs on these datasets, as the records name them")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    common.add_results(parser)


def run(args: argparse.Namespace) -> int:
    """Write the table and print its path. Raises: UserError before anything is written."""
    write = _writer(args.to)
    _check_place(args)
    store = RecordStore(args.results)
    records = _chosen(store, args)
    if args.users:
        columns, tables = USERS, (user_lines(store, record, facts) for record, facts in _with_facts(store, records))
    else:
        columns, tables = METRICS, map(metric_lines, records)
    temporary = args.to.with_name(f".{args.to.name}.{os.getpid()}.tmp")
    try:
        lines = write(temporary, columns, tables)
        os.replace(temporary, args.to)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{args.to}: {lines} lines of {len(records)} runs")
    return 0


def _writer(path: Path) -> Any:
    """What writes files of this ending. Raises: UserError for another one."""
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix.lower() not in writers:
        raise unknown("ending", path.suffix or path.name, writers, "--to")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError("--to: Parquet needs pyarrow. Install it, or give a name that ends in .csv.") from None
    return writers[path.suffix.lower()]


def _check_place(args: argparse.Namespace) -> None:
    """Raises: UserError for a folder that is missing or a file that is there."""
    if not args.to.parent.is_dir():
        raise UserError(f"--to points at {args.to}, but {args.to.parent} is not a folder. Make it first.")
    if args.to.is_dir():
        raise UserError(f"--to points at {args.to}, which is a folder. Give the name of a file.")
    if args.to.exists() and not args.force:
        raise UserError(f"{args.to} is there already. Give another name, or --force to write over it.")


def _chosen(store: RecordStore, args: argparse.Namespace) -> list[RunRecord]:
    """The records asked for, sorted by name. Raises: UserError where there are none."""
    suite = _suites(args.suite) if args.suite else None
    records = store.read_all() if store.root.is_dir() else []
    if not records:
        raise UserError(f"no records below {args.results}. Run a suite first, or give --results.")
    there = {record.dataset for record in records}
    for name in args.datasets or ():
        if name not in there:
            raise unknown("dataset", name, there, f"the records below {args.results}")
    chosen = [r for r in records if args.datasets is None or r.dataset in args.datasets]
    if suite is not None:
        from genrec_bench.reporting.matching import row_numbers

        chosen = [r for r in chosen if any(r.method in row_numbers(part, r.profile, r) for part in suite)]
    if not chosen:
        raise UserError(f"no records of suite {args.suite!r} below {args.results}"
                        + (f" on {', '.join(args.datasets)}." if args.datasets else "."))
    return chosen


def _suites(name: str) -> list[Any]:
    """The suite of a name, or those that it stands for."""
    from genrec_bench.reporting.rows import load_suite

    suite = load_suite(name)
    return [load_suite(part) for part in suite.includes] or [suite]


def metric_lines(record: RunRecord) -> Columns:
    """One line a metric: "valid_id_ndcg@10" is part valid, level id, metric ndcg, k 10; values are unrounded."""
    keys = sorted(record.metrics)
    parts = [KEY.fullmatch(key).groups() for key in keys]
    return {**{name: [value] * len(keys) for name, value in described(record).items()},
            "part": ["valid" if valid else "test" for valid, *_ in parts],
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
    """One line a test user in split order; facts are empty cells where they are not known.

    Raises: UserError where ranks and facts are of other numbers of users.
    """
    ranks = store.read_ranks(record)
    count = len(ranks.places)
    if facts is not None and facts.num_users != count:
        raise UserError(f"run {record.run_id} has ranks of {count} users, the facts about its split of "
                        f"{facts.num_users}. Delete the file of the two that is not of this split.")
    told = {name: [None] * count if facts is None else getattr(facts, name).tolist() for name in ARRAYS}
    arrays = zip(RANKS, (ranks.places, ranks.ties, ranks.id_places), strict=True)
    return {"run_id": [record.run_id] * count, "row": range(count), **{n: a.tolist() for n, a in arrays}, **told}


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
