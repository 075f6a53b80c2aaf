"""Reports of a thousand records: what the whole command takes, with a process a core and with one."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.corpora import Setting
from benchmarks.harness import Arm, Case, Row, Unequal
from benchmarks.machine import KEEPS
from genrec_bench.core.files import APART
from genrec_bench.results.records import RecordStore, write_ranks
from genrec_bench.running.folders import ROOT

LEAST = 1_000  # records
SECONDS = (10.0, 5.0)  # target and aim of the whole command
CORES = 2
NOTE = ("the whole command, with Python's start and every figure as PNG and SVG; records below --results and copies of "
        "them under other seeds, with the same numbers of other users")


def cases(setting: Setting) -> Iterator[Case]:
    """One case: all reports of LEAST records or more, those below --results and copies of them under other seeds."""
    if not RecordStore(setting.results).read_all():
        print(f"reports: no records below {setting.results}, so nothing is rendered. Run a suite first.",
              file=sys.stderr)
        return
    folder = Path(tempfile.mkdtemp(prefix="genrec-bench-reports-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    results = folder / "results"
    count = many_records(setting.results, results)
    arms = (Arm(f"{CORES} processes", lambda: rendered(results, folder / "many", CORES), count),
            Arm("1 process", lambda: rendered(results, folder / "one", 1), count))
    case = Case("reports", f"{count:,} records, all suites", arms, _equal, unit="records", note=NOTE,
                threads=(CORES,))

    def whole(seconds: list[float]) -> list[Row]:
        value = seconds[0] * count
        return [Row("reports", case.name, "time of the whole command", value, value, value, "seconds", CORES, *SECONDS,
                    at_most=True, note=case.note)]

    yield replace(case, after=whole)


def many_records(source: Path, results: Path) -> int:
    """The records of a folder and copies of all of them under other seeds, each with ranks; returns how many."""
    shutil.copytree(source, results, ignore=shutil.ignore_patterns(*APART))
    store = RecordStore(results)
    known = store.read_all()
    turns = -(-LEAST // len(known))
    for record, turn in product(known, range(1, turns)):
        data = json.loads(store.path(record).read_text(encoding="utf-8"))
        data["run_id"] = hashlib.sha256(f"{record.run_id} {turn}".encode()).hexdigest()[:16]
        data["config"]["seed"] += 100 * turn
        if "seed" in data["identity"]:
            data["identity"]["seed"] = data["config"]["seed"]
        path = store.path(record).with_name(f"{data['run_id']}.json")
        ranks = [store.read_ranks(record, unseen=unseen) for unseen in (False, True)]
        write_ranks(path.with_name(f"{data['run_id']}.ranks.npz"), *(
            replace(one, **{name: np.roll(getattr(one, name), turn) for name in ("ranks", "ties", "id_ranks")})
            for one in ranks))
        path.write_text(json.dumps(data), encoding="utf-8")
    return turns * len(known)


def rendered(results: Path, reports: Path, jobs: int) -> dict[str, bytes]:
    """Run the command on an empty folder, where no figure is kept from before, and return what it wrote."""
    shutil.rmtree(reports, ignore_errors=True)
    subprocess.run([sys.executable, "benchmark.py", "report", "--results", str(results), "--reports", str(reports),
                    "--jobs", str(jobs)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
                   env={name: text for name, text in os.environ.items() if name not in KEEPS})
    return {str(p.relative_to(reports)): p.read_bytes() for p in sorted(reports.rglob("*")) if p.is_file()}


def _equal(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    different = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    if different:
        raise Unequal(f"{len(different)} files differ, the first {different[0]}")
