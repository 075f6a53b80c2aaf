"""What a selection still takes: the state of each run and its seconds, and the file of plans for reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genrec_bench.core.errors import UserError
from genrec_bench.core.files import write_atomically
from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.suite_files import load_profile, load_suite
from genrec_bench.reporting.cost import PLAN, PLAN_HEADER, read_plan
from genrec_bench.reporting.tables import csv_text
from genrec_bench.running.estimates import estimates, kind_of
from genrec_bench.running.suites import prepare_blocks
from genrec_bench.running.workspace import Prepared, Workspace


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
    seconds = estimates(wanted, workspace, probe=probe)
    return [PlannedRun(p, status[p.run_id], seconds.get(kind_of(p.identity)), block) for block, p in placed.values()]


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
