"""`plan`: which runs are done, failed, interrupted or missing, and how long the rest takes."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

from tabulate import tabulate

from genrec_bench.commands import common
from genrec_bench.commands.run import prepare_all
from genrec_bench.progress import Quiet
from genrec_bench.records import RunRecord
from genrec_bench.runner import Prepared, Workspace, run_one

PROBE_USERS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    common.add_selection(parser)
    common.add_results(parser)
    common.add_device(parser)
    parser.add_argument("--no-probe", action="store_true", help="estimate from finished runs alone, train nothing")


def run(args: argparse.Namespace) -> int:
    """Print the table and the estimate; nothing below --results is written."""
    workspace = common.workspace(args)
    prepared = prepare_all(args, workspace, keep=False)
    status = {p.run_id: workspace.status(p.run_id) for p in prepared}
    known = workspace.store.read_all()
    seconds: dict[str, float | None] = {}
    rows, left = [], 0.0
    for item in prepared:
        kind = _kind(item)
        if status[item.run_id] != "done" and kind not in seconds:
            seconds[kind] = _from_records(item, known)
            if seconds[kind] is None and not args.no_probe:
                seconds[kind] = _probe(item, workspace)
        estimate = None if status[item.run_id] == "done" else seconds[kind]
        left += estimate or 0.0
        rows.append([item.run_id, item.dataset, item.config.label, item.config.seed, status[item.run_id],
                     _duration(estimate) if estimate is not None else ""])
    print(tabulate(rows, headers=["run", "dataset", "method", "seed", "status", "at most"]))
    counts = [f"{sum(s == name for s in status.values())} {name}" for name in
              ("done", "failed", "interrupted", "missing")]
    unknown = sum(1 for p in prepared if status[p.run_id] != "done" and seconds[_kind(p)] is None)
    print(f"\n{', '.join(counts)}. Time left: at most about {_duration(left)}"
          + (f", without {unknown} runs that nothing is known of." if unknown else "."))
    return 0


def _kind(item: Prepared) -> str:
    """Runs that differ in the seed alone take the same time."""
    return str(dataclasses.replace(item.config, seed=0)) + item.split.fingerprint


def _from_records(item: Prepared, records: list[RunRecord]) -> float | None:
    """Median total seconds of finished runs with equal settings, or None."""
    parts = {**item.identity, "seed": None}
    equal = [r.timings["total_seconds"] for r in records if {**r.identity, "seed": None} == parts]
    return statistics.median(equal) if equal else None


def _probe(item: Prepared, workspace: Workspace) -> float:
    """Seconds of a whole run, from one epoch on the first users in a temporary folder, scaled to all rows.

    An upper bound: early stopping may end the run sooner.
    """
    split = dataclasses.replace(item.config.split, max_users=min(PROBE_USERS, len(item.split.test)))
    with tempfile.TemporaryDirectory() as folder:
        probe = Workspace(Path(folder), workspace.data_dir, workspace.device, workspace.threads)
        record = run_one(probe.prepare(_one_epoch(item, split), keep=False), probe, Quiet())
    users = len(item.split.test) / record.data["test"]
    rows = len(item.split.train) / record.data["train"]
    epochs = item.config.training.epochs if item.config.training else (item.config.baseline or {}).get("epochs", 0)
    epoch = record.timings.get("seconds_per_epoch", 0.0) * rows + record.timings.get("validation_seconds", 0.0) * users
    return record.timings["total_seconds"] + epoch * epochs


def _one_epoch(item: Prepared, split: object) -> object:
    config = dataclasses.replace(item.config, split=split)
    if config.training is not None:
        return dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=1))
    baseline = {**config.baseline, **({"epochs": 1} if "epochs" in config.baseline else {})}
    return dataclasses.replace(config, baseline=baseline)


def _duration(seconds: float) -> str:
    """12 s, 3 min, 2.5 h"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
