"""`plan`: which runs are done, damaged, failed, interrupted or missing, and how long the rest takes."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tabulate import tabulate

from genrec_bench.commands import common
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical, write_atomically
from genrec_bench.core.progress import Quiet
from genrec_bench.experiments.config import RunConfig, SplitConfig
from genrec_bench.experiments.suite_files import GRIDS, load_profile, load_suite
from genrec_bench.reporting.cost import PLAN, PLAN_HEADER, read_plan
from genrec_bench.reporting.tables import csv_text
from genrec_bench.running.runner import run_one
from genrec_bench.running.suites import prepare_all
from genrec_bench.running.workspace import Prepared, Workspace

PROBE_USERS = 50
COSTLY = ("num_negatives", "num_beams")  # numbers of objectives that decide how long a step takes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    common.add_selection(parser)
    common.add_results(parser)
    common.add_device(parser)
    parser.add_argument("--probe", action="store_true",
                        help="train one epoch of each kind of run that nothing is known of, in a temporary folder")
    parser.add_argument("--save", action="store_true",
                        help=f"keep what the whole grid takes in {PLAN} below --results, for reports")


def run(args: argparse.Namespace) -> int:
    """Print the table and the estimate; without --save nothing below --results is written. Raises: UserError."""
    if args.save:
        _check_whole(args)
    workspace = common.workspace(args, writes=args.save)
    prepared = prepare_all(common.selection(args), workspace, keep=False)
    status = {p.run_id: workspace.status(p.run_id) for p in prepared}
    wanted = [p for p in prepared if args.save or status[p.run_id] != "done"]
    seconds = _estimates(wanted, workspace, probe=args.probe)
    rows, left = [], 0.0
    for item in prepared:
        estimate = None if status[item.run_id] == "done" else seconds[_kind(item.identity)]
        left += estimate or 0.0
        rows.append([item.run_id, item.dataset, item.config.label, item.config.seed, status[item.run_id],
                     _duration(estimate) if estimate is not None else ""])
    print(tabulate(rows, headers=["run", "dataset", "method", "seed", "status", "about"]))
    found = list(status.values())
    counts = [f"{found.count(name)} {name}" for name in ("done", "damaged", "failed", "interrupted", "missing")
              if name != "damaged" or name in found]
    unknown = sum(1 for p in prepared if status[p.run_id] != "done" and seconds[_kind(p.identity)] is None)
    print(f"\n{', '.join(counts)}. Left: about {_duration(left)} of processor time"
          + (f", without {unknown} runs that nothing is known of." if unknown else "."))
    if args.save:
        print(f"saved: {_save(args, workspace, prepared, seconds)}")
    return 0


def _check_whole(args: argparse.Namespace) -> None:
    """What is saved is the cost of a grid as its files say. Raises: UserError."""
    parts = {"--row": args.rows, "--objectives": args.objectives, "--baselines": args.baselines,
             "--seeds": args.seeds, "--set": args.overrides or None}
    given = [option for option, value in parts.items() if value is not None]
    if given:
        raise UserError(f"--save keeps what a whole grid takes, but {' and '.join(given)} changes it. Leave "
                        f"{'it' if len(given) == 1 else 'them'} out; --grid, --profile and --datasets may stay.")


def _estimates(items: list[Prepared], workspace: Workspace, *, probe: bool) -> dict[str, float | None]:
    """Seconds of a run of each kind: of finished runs, else of a probe in a temporary folder, else None."""
    finished: dict[str, list[float]] = {}
    for record in workspace.store.read_all():
        if all(record.provenance.get(k) == getattr(workspace, k) for k in ("device", "threads")):
            finished.setdefault(_kind(record.identity), []).append(record.timings["total_seconds"])
    seconds: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        probes = Workspace(Path(folder), workspace.data_dir, workspace.device, workspace.threads)
        for item in items:
            kind = _kind(item.identity)
            if kind not in seconds:
                known = finished.get(kind)
                seconds[kind] = statistics.median(known) if known else _probe(item, probes) if probe else None
    return seconds


def _kind(identity: dict[str, Any]) -> str:
    """Runs that differ in the seed, in what they use, and in weights and other numbers of their objectives alone take
    the same time."""
    objectives = [{k: v for k, v in spec.items() if k in COSTLY or isinstance(v, (str, bool))}
                  for spec in identity.get("objectives", ())]
    return canonical({**identity, "objectives": objectives, "seed": None, "uses": None})


def _probe(item: Prepared, workspace: Workspace) -> float:
    """Seconds of a whole run, from one epoch of each stage on the first users, scaled to all rows and epochs.

    An upper bound: early stopping may end the run sooner. The first stage is a run of its own and not counted here.
    """
    split = dataclasses.replace(item.config.split, max_users=min(PROBE_USERS, len(item.split.test)))
    record = run_one(workspace.prepare(_one_epoch(item.config, split), keep=True), workspace, Quiet())
    users = len(item.split.test) / record.data["test"]
    rows = len(item.split.train) / record.data["train"]
    epochs = getattr(item.config.training or item.config.baseline, "epochs", 0)
    epoch = record.timings.get("seconds_per_epoch", 0.0) * rows + record.timings.get("validation_seconds", 0.0) * users
    return record.timings["total_seconds"] + epoch * epochs


def _one_epoch(config: RunConfig, split: SplitConfig) -> RunConfig:
    uses = tuple(dataclasses.replace(used, run=_one_epoch(used.run, split)) for used in config.uses)
    config = dataclasses.replace(config, split=split, uses=uses)
    if config.baseline is not None:
        once = {"epochs": 1} if hasattr(config.baseline, "epochs") else {}
        return dataclasses.replace(config, baseline=dataclasses.replace(config.baseline, **once))
    return dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=1))


def _save(args: argparse.Namespace, workspace: Workspace, prepared: list[Prepared],
          seconds: dict[str, float | None]) -> Path:
    """A line for each dataset into the file of plans; lines of other grids stay. Raises: UserError."""
    path = args.results / PLAN
    grid = args.grid or load_profile(args.profile).get("grid", GRIDS[0])
    lines = {tuple(line[k] for k in PLAN_HEADER[:4]): list(line.values()) for line in read_plan(path)}
    for dataset in dict.fromkeys(p.dataset for p in prepared):
        estimates = [seconds[_kind(p.identity)] for p in prepared if p.dataset == dataset]
        if None in estimates:
            raise UserError(f"nothing is known of {estimates.count(None)} runs on {dataset}, so there is no cost to "
                            "save. Give --probe.")
        key = load_suite(args.suite)["suite"]["name"], args.profile, grid, dataset
        lines[key] = [*key, len(estimates), round(sum(estimates)), workspace.device, workspace.threads]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, csv_text(PLAN_HEADER, [line for _, line in sorted(lines.items())]).encode())
    return path


def _duration(seconds: float) -> str:
    """12 s, 3 min, 2.5 h"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
