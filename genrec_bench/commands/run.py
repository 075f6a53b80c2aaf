"""`run`: every run of a suite that is not there yet, then its report."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from genrec_bench.commands import common
from genrec_bench.core.ending import exit_code
from genrec_bench.core.errors import DoesNotFit
from genrec_bench.core.progress import Bars, One
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import RunConfig
from genrec_bench.experiments.grid import parse_overrides
from genrec_bench.reporting.markdown import render_suite
from genrec_bench.reporting.pages import cores
from genrec_bench.results import test_users
from genrec_bench.running import runner, tracking
from genrec_bench.running.workers import FIRST_FAILED, Events, run_parallel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    common.add_selection(parser)
    common.add_results(parser)
    common.add_device(parser)
    common.add_jobs(parser)
    parser.add_argument("--track", type=common.comma_list, default=[], metavar="A,B",
                        help=f"keep track of runs with {', '.join(tracking.TRACKERS)}, in each run's folder")


def run(args: argparse.Namespace) -> int:
    """Check everything, run what is missing, render. Exit code 1 where a run failed."""
    tracking.check(args.track)
    workspace = common.workspace(args)
    common.jobs(args)
    prepared = prepare_all(args, workspace, keep=True)
    failed = run_all(prepared, workspace, common.jobs(args))
    if any(workspace.store.find(p.run_id) for p in prepared):
        path = render_suite(args.suite, workspace.store.read_all(), common.reports_dir(args),
                            results=workspace.results, jobs=cores(), overrides=parse_overrides(args.overrides))
        print(f"report: {path}")
    return 1 if failed else 0


def prepare_all(args: argparse.Namespace, workspace: runner.Workspace, *, keep: bool) -> list[runner.Prepared]:
    """All runs of the selection with data read and names made, before anything is trained. Raises: UserError."""
    selection = common.selection(args)
    configs = grid.expand(selection)
    grid.check_overrides(selection.overrides, configs)
    return prepare_configs(configs, workspace, keep=keep)


def prepare_configs(configs: list[RunConfig], workspace: runner.Workspace, *, keep: bool) -> list[runner.Prepared]:
    """The runs of some configurations, ready to start; whatever is wrong with one is said now. Raises: UserError."""
    # two passes: a bad dataset must be found before a tokenizer of another one is fitted and cached
    for config in configs:
        workspace.split(config)
    return _fitting([workspace.prepare(config, keep=keep) for config in configs])


def _fitting(prepared: list[runner.Prepared]) -> list[runner.Prepared]:
    """Without the methods that their data rule out, which are named. Raises: DoesNotFit where none is left."""
    kept, unfit = [], {}
    for item in prepared:
        try:
            runner.check_fit(item)
            kept.append(item)
        except DoesNotFit as error:
            unfit[f"{item.config.label}, {item.dataset}"] = error
    if not kept:
        raise next(iter(unfit.values()))
    for name, error in unfit.items():
        print(f"left out: {name}: {error}", file=sys.stderr)
    return kept


def run_all(prepared: list[runner.Prepared], workspace: runner.Workspace, jobs: int = 1) -> int:
    """Run what is not done; a failed run does not stop the others. Returns the number of failures."""
    status = {p.run_id: workspace.status(p.run_id) for p in prepared}
    missing = [p for p in prepared if status[p.run_id] != "done"]
    for item in prepared:
        if status[item.run_id] == "done":  # an older version left none beside it
            test_users.keep_users(workspace.store, workspace.store.read(item.run_id).dataset, item.split)
    show = _Show(workspace, Bars(len(prepared), len(prepared) - len(missing)))
    again = {used.run_id: used for p in missing for used in p.before
             if workspace.status(used.run_id) == "done" and not runner.has_weights(used, workspace)}
    if len(missing) < len(prepared):
        show.bars.say(f"{len(prepared) - len(missing)} of {len(prepared)} runs are done already.")
    for item in missing:
        if status[item.run_id] == "damaged":
            show.bars.say(f"{_name(item)}: {workspace.store.damage(item.run_id)}")
    if again:
        show.bars.say(f"{len(again)} first stages are made again: their records are there, their weights are not.")
    missing = [*again.values(), *missing]
    try:
        if jobs > 1 and len(missing) > 1:
            run_parallel(missing, workspace, jobs, Events(show.began, show.step, show.ended), set(again))
        else:
            _run_in_turn(missing, workspace, show, set(again))
    except KeyboardInterrupt as stopped:
        show.bars.close()
        left = sum(workspace.status(p.run_id) != "done" for p in prepared)
        print(f"\ninterrupted: {len(prepared) - left} of {len(prepared)} runs are done and stay. To go on (our "
              f"networks from their last epoch, RecBole's from their start):\n  {workspace.command}", file=sys.stderr)
        raise SystemExit(exit_code(stopped)) from None
    finally:
        show.bars.close()
    return show.failed


def _run_in_turn(missing: list[runner.Prepared], workspace: runner.Workspace, show: _Show, again: set[str]) -> None:
    failed = set()
    for item in missing:
        show.began(item)
        error = None
        if any(used.run_id in failed for used in item.before):
            error = FIRST_FAILED
        else:
            try:
                runner.run_one(item, workspace, One(show.bars, item.run_id), weights=item.run_id in again)
            except Exception as caught:  # noqa: BLE001  one broken run must not cost the others
                error = (str(caught).strip().splitlines() or [type(caught).__name__])[0]
        if error is not None:
            failed.add(item.run_id)
        show.ended(item, error)


@dataclass
class _Show:
    """Tells the user of runs as they begin and end, and counts the failures."""

    workspace: runner.Workspace
    bars: Bars
    failed: int = 0

    def began(self, item: runner.Prepared) -> None:
        self.bars.began(item.run_id, _name(item))

    def step(self, item: runner.Prepared, done: int, total: int, note: str) -> None:
        self.bars.step(item.run_id, done, total, note)

    def ended(self, item: runner.Prepared, error: str | None) -> None:
        self.bars.ended(item.run_id)
        if error is not None:
            self.failed += 1
            log = self.workspace.folder(item.run_id) / runner.FAILURE
            self.bars.say(f"FAILED  {_name(item)}: {error}" + (f" (log: {log})" if log.exists() else ""))
            return
        record = self.workspace.store.read(item.run_id)
        self.bars.finished(f"{item.run_id}  {_name(item)}: NDCG@10 {record.metrics['ndcg@10']:.4f}, "
                           f"Recall@10 {record.metrics['recall@10']:.4f}, {record.timings['total_seconds']:.0f} s")


def _name(item: runner.Prepared) -> str:
    return f"{item.config.label}, {item.dataset}, seed {item.config.seed}"
