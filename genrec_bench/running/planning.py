"""What a selection still takes: the state of each run, and seconds from finished runs of its kind or from a probe."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical, write_atomically
from genrec_bench.core.progress import Quiet
from genrec_bench.core.provenance import device_name
from genrec_bench.experiments.config import RunConfig
from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.suite_files import load_profile, load_suite
from genrec_bench.reporting.cost import PLAN, PLAN_HEADER, read_plan
from genrec_bench.reporting.tables import csv_text
from genrec_bench.running.runner import run_one
from genrec_bench.running.suites import prepare_blocks
from genrec_bench.running.workspace import Prepared, Workspace

PROBE_USERS = 50
COSTLY = ("num_negatives", "num_beams")  # numbers of objectives that decide how long a step takes


@dataclass(frozen=True)
class PlannedRun:
    """A run, its state (see `Workspace.status`), and what a whole run of its kind takes.

    seconds: of processor time from beginning to end, None where nothing is known. block: in a queue, the place of the
    first block that has the run, from 0.
    """

    run: Prepared
    status: str
    seconds: float | None
    block: int = 0

    @property
    def left(self) -> float | None:
        """Seconds that are still to come: 0 for a finished run, None where nothing is known."""
        return 0.0 if self.status == "done" else self.seconds


def plan(selection: Selection, workspace: Workspace, *, probe: bool = False, whole: bool = False) -> list[PlannedRun]:
    """What is done of a selection and what the rest takes; nothing is written below the results folder.

    probe: train one epoch of each kind of run that nothing is known of, in a temporary folder. whole: estimate
    finished runs too. Raises: UserError for what `run` would refuse before it begins.
    """
    placed: dict[str, tuple[int, Prepared]] = {}
    for block, items in enumerate(prepare_blocks(selection, workspace, keep=False)):
        for item in items:
            placed.setdefault(item.run_id, (block, item))
    prepared = [item for _, item in placed.values()]
    status = {p.run_id: workspace.status(p.run_id) for p in prepared}
    wanted = [p for p in prepared if whole or status[p.run_id] != "done"]
    seconds = _estimates(wanted, workspace, probe=probe)
    return [PlannedRun(p, status[p.run_id], seconds.get(_kind(p.identity)), block) for block, p in placed.values()]


def save_cost(planned: list[PlannedRun], selection: Selection, workspace: Workspace) -> Path:
    """Put what a whole grid takes, a line a dataset, into the file of plans; lines of other grids stay.

    Raises: UserError where the selection is not the whole of a grid, or something is not known.
    """
    path = workspace.results / PLAN
    grid = selection.grid or load_profile(selection.profile).get("grid", GRIDS[0])
    lines = {tuple(line[k] for k in PLAN_HEADER[:4]): list(line.values()) for line in read_plan(path)}
    for dataset in dict.fromkeys(p.run.dataset for p in planned):
        estimates = [p.seconds for p in planned if p.run.dataset == dataset]
        if None in estimates:
            raise UserError(f"nothing is known of {estimates.count(None)} runs on {dataset}, so there is no cost to "
                            "save. Give --probe.")
        key = load_suite(selection.suite)["suite"]["name"], selection.profile, grid, dataset
        lines[key] = [*key, len(estimates), round(sum(estimates)), workspace.device, workspace.threads]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, csv_text(PLAN_HEADER, [line for _, line in sorted(lines.items())]).encode())
    return path


def _estimates(items: list[Prepared], workspace: Workspace, *, probe: bool) -> dict[str, float | None]:
    """Seconds of a run of each kind: of finished runs, else of a probe in a temporary folder, else None."""
    here = {"device": device_name(workspace.device), "threads": workspace.threads}
    finished: dict[str, list[float]] = {}
    for record in workspace.store.read_all():
        if all(record.provenance.get(k) == value for k, value in here.items()):
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
    users = len(item.split.valid) / record.data["valid"]
    rows = len(item.split.train) / record.data["train"]
    epochs = getattr(item.config.training or item.config.baseline, "epochs", 0)
    epoch = record.timings.get("seconds_per_epoch", 0.0) * rows + record.timings.get("validation_seconds", 0.0) * users
    return record.timings["total_seconds"] + epoch * epochs


def _one_epoch(config: RunConfig, split: Any) -> RunConfig:
    uses = tuple(dataclasses.replace(used, run=_one_epoch(used.run, split)) for used in config.uses)
    config = dataclasses.replace(config, split=split, uses=uses)
    if config.baseline is not None:
        once = {"epochs": 1} if hasattr(config.baseline, "epochs") else {}
        return dataclasses.replace(config, baseline=dataclasses.replace(config.baseline, **once))
    return dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=1))
