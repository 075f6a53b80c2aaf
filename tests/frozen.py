"""The promise about names and numbers: what `tests/golden/frozen.csv` lists is there for ever, and says the same.

A line is a committed run of the profile `standard` at a seed that results have. `python -m tests.frozen` adds those
that are new; it refuses to change or to drop a line.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from genrec_bench.experiments.suite_files import suite_names
from genrec_bench.reporting.matching import has_row
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results.records import RecordStore, RunRecord

ROOT = Path(__file__).resolve().parents[1]
STORED = Path(__file__).parent / "golden" / "frozen.csv"
RECORDS = ROOT / "results" / "reference"
HEADER = ("run_id", "dataset", "seed", "label", "ndcg@10", "recall@10", "unseen_ndcg@10", "valid_ndcg@10")


def records() -> list[RunRecord]:
    """The committed runs whose names and numbers stay."""
    return [r for r in RecordStore(RECORDS).read_all() if r.profile == "standard" and not r.is_trial]


def line(record: RunRecord) -> tuple[str, ...]:
    """What stays of a run; a label may change, and is there for people."""
    numbers = (repr(record.metrics[name]) for name in HEADER[4:])
    return record.run_id, record.dataset, str(record.seed), record.label, *numbers


def stored() -> dict[str, tuple[str, ...]]:
    """The lines by the name of the run."""
    with STORED.open(encoding="utf-8", newline="") as file:
        return {row[0]: tuple(row) for row in list(csv.reader(file))[1:]}


def broken(old: dict[str, tuple[str, ...]], new: dict[str, tuple[str, ...]]) -> list[str]:
    """What a new list changes or drops of an old one."""
    return [f"{key} ({old[key][3]}, {old[key][1]})" for key in old
            if key not in new or _but_label(old[key]) != _but_label(new[key])]


def _but_label(cells: tuple[str, ...]) -> tuple[str, ...]:
    return cells[:3] + cells[4:]


def orphans() -> list[str]:
    """The runs that no row of a suite makes any more."""
    suites = [load_suite(name) for name in suite_names()]
    return [record.run_id for record in records() if not has_row(record, suites)]


if __name__ == "__main__":
    before, now = stored() if STORED.exists() else {}, {r.run_id: line(r) for r in records()}
    if gone := broken(before, now):
        sys.exit(f"frozen, and changed or gone: {', '.join(gone)}")
    with STORED.open("w", encoding="utf-8", newline="") as target:
        lines = sorted(now.values(), key=lambda cells: (cells[1], cells[3], int(cells[2])))
        csv.writer(target, lineterminator="\n").writerows([HEADER, *lines])
