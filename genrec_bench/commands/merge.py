"""`merge`: take finished local records into the committed reference."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from genrec_bench import diagnoses
from genrec_bench.commands import common
from genrec_bench.contracts import Rankings
from genrec_bench.diagnoses import Diagnosis
from genrec_bench.errors import UserError
from genrec_bench.records import RecordStore, RunRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `merge`."""
    common.add_results(parser)
    parser.add_argument("--into", type=Path, default=common.REFERENCE, metavar="DIR",
                        help="folder that receives the records (default: results/reference)")


def run(args: argparse.Namespace) -> int:
    """Check all, then move; an equal name with other numbers is refused before anything is moved.

    A diagnosis goes with its record, also where the record is there already; one of more users stays in its place.
    """
    source, target = RecordStore(args.results), RecordStore(args.into)
    if args.results.resolve() == args.into.resolve():
        raise UserError(f"--results and --into are the same folder, {args.into}.")
    records = source.read_all()
    if not records:
        raise UserError(f"no records below {args.results}. Run a suite first, or give --results.")
    fresh = [record for record in records if not _is_there(record, source, target)]
    diagnosed = [pair for record in records if (pair := _diagnosis(record, source, target)) is not None]
    for record in fresh:
        target.write(record, source.read_ranks(record))
    for record, diagnosis in diagnosed:
        diagnoses.write(diagnoses.path_of(target, record), diagnosis)
    for record in records:
        source.remove(record)
        diagnoses.path_of(source, record).unlink(missing_ok=True)
    more = f" Diagnoses taken along: {len(diagnosed)}." if diagnosed else ""
    print(f"{len(fresh)} records moved to {args.into}, {len(records) - len(fresh)} were there already.{more}")
    return 0


def _diagnosis(record: RunRecord, source: RecordStore, target: RecordStore) -> tuple[RunRecord, Diagnosis] | None:
    """A record with its diagnosis, where it has one and the target none of more users. Raises: UserError."""
    ours, theirs = diagnoses.find(source, record), diagnoses.find(target, record)
    if ours is None or (theirs is not None and theirs.num_users > ours.num_users):
        return None
    return record, ours


def _is_there(record: RunRecord, source: RecordStore, target: RecordStore) -> bool:
    """Whether an equal record is in the target. Raises: UserError where its numbers differ."""
    if target.find(record.run_id) is None:
        return False
    known = target.read(record.run_id)
    if known.metrics == record.metrics and _equal(source.read_ranks(record), target.read_ranks(known)):
        return True
    names = sorted(k for k in {*known.metrics, *record.metrics} if known.metrics.get(k) != record.metrics.get(k))
    first = names[0] if names else None
    what = f"{first}: {known.metrics.get(first)} there, {record.metrics.get(first)} here" if first else "other ranks"
    raise UserError(f"run {record.run_id} is in {target.root} with other numbers ({what}). Nothing was moved. An equal "
                    "name must mean equal numbers: compare device, threads and versions in the two records.")


def _equal(one: Rankings, other: Rankings) -> bool:
    """Equal numbers; how a file packs them does not count."""
    return all(np.array_equal(getattr(one, f), getattr(other, f)) for f in ("places", "ties", "id_places"))
