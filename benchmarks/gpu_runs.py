"""Runs of suites on the card, by the scheduler of `benchmark.py run`, and their records packed for `merge`."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
from pathlib import Path

from baselines.recbole_adapter import RecBole
from benchmarks.gpu_part import Part
from genrec_bench.cli import Parser
from genrec_bench.commands import common
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.results import test_users
from genrec_bench.results.records import RecordStore
from genrec_bench.running.folders import data_folder, open_workspace
from genrec_bench.running.scheduler import Means, run_all
from genrec_bench.running.suites import prepare_all
from genrec_bench.running.workspace import Prepared, Workspace

STOP_SECONDS = 10.0  # before the part is broken off: nothing that cannot be kept by then is begun
DATASET = "apao_office"
ROWS = ("TIGER + cross-entropy", "TIGER + APAO-Pointwise", "TIGER + APAO-Pairwise", "TIGER + MSL",
        "Llama + cross-entropy")
DEFAULT = tuple(shlex.join(["--suite", "apao", "--profile", "quick", "--datasets", DATASET, "--row", row, "--seeds",
                            "0"]) for row in ROWS)


def runs(part: Part) -> None:
    """The runs of a list in its order, several side by side, as many as the time holds; the same command goes on.

    A line of the list has options of `benchmark.py run` that say which runs: `--suite`, `--row`, `--seeds` and so on.
    """
    lines = DEFAULT if part.runs is None else lines_of(part.runs)
    if part.runs is None and registry.datasets.build({"name": DATASET}).missing_files(data_folder(part.data_dir)):
        part.note(f"skipped: no data of {DATASET} (--data-dir, GENREC_BENCH_DATA) and no --runs")
        return
    workspace = open_workspace(part.out / "results", data_dir=part.data_dir, device=part.device)
    workspace.command = part.words
    found: dict[str, Prepared] = {}
    for line in lines:
        with part.going_on(f"the line {line!r}"):
            found |= {p.run_id: p for p in of_line(line, workspace) if there(p, part)}
    if not found:
        return
    part.note(f"{len(found)} runs, {part.jobs} at a time, whose times in the records are those of a shared card")
    means = Means(part.jobs, part.devices, max(part.seconds_left() - STOP_SECONDS, 1.0) / 60)
    try:
        ended = run_all(list(found.values()), workspace, means)
    finally:  # also of runs that were broken off
        for record in (workspace.store.read(run_id) for run_id in found if workspace.store.find(run_id)):
            part.row(f"{record.label}, {record.dataset}, seed {record.seed}: NDCG@10", record.metrics["ndcg@10"],
                     f"in {record.timings['total_seconds']:.0f} s")
    for error in ended.failed:
        part.note(f"a run failed: {error}")
    part.row("runs that failed", len(ended.failed), f"of {len(found)}, {ended.left} left for want of time", limit=0)


def lines_of(path: Path) -> list[str]:
    """The lines of a list, without comments and empty ones."""
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def of_line(line: str, workspace: Workspace) -> list[Prepared]:
    """The runs of one line. Raises: UserError."""
    parser = Parser(prog="benchmark.py run", allow_abbrev=False)
    common.add_selection(parser)
    args = parser.parse_args(shlex.split(line))
    if args.data_dir is not None:
        raise UserError("--data-dir belongs to the command, not to a line of --runs.")
    return prepare_all(common.selection(args), workspace, keep=True)


def there(prepared: Prepared, part: Part) -> bool:
    """Whether a run's software is installed; says so where it is not."""
    if not isinstance(prepared.config.baseline, RecBole) or importlib.util.find_spec("recbole"):
        return True
    part.note(f"left out: {prepared.config.label}: it needs RecBole, which is not installed")
    return False


def pack(results: Path, into: Path) -> int:
    """Copy finished records and what stands beside them to a folder for `merge --from`; returns how many there are."""
    store, count = RecordStore(results), 0
    for record in store.read_all() if results.is_dir() else ():
        facts = test_users.stored_path(store, record.dataset, record.split_fingerprint)
        for path in (record.path, record.path.with_name(f"{record.path.stem}.ranks.npz"), *([facts] if facts else [])):
            target = into / record.dataset / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        count += 1
    return count
