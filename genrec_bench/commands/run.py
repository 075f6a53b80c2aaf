"""`run`: every run of a suite that is not there yet, then its report."""

from __future__ import annotations

import argparse
import sys

from genrec_bench.commands import common
from genrec_bench.core.errors import DoesNotFit
from genrec_bench.core.walk import cores
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import RunConfig
from genrec_bench.experiments.grid import parse_overrides
from genrec_bench.reporting.markdown import render_suite
from genrec_bench.running import runner, tracking
from genrec_bench.running.scheduler import run_all


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
    means = common.means(args)
    prepared = prepare_all(args, workspace, keep=True)
    ended = run_all(prepared, workspace, means)
    if any(workspace.store.find(p.run_id) for p in prepared):
        path = render_suite(args.suite, workspace.store.read_all(), common.reports_dir(args),
                            results=workspace.results, jobs=cores(), overrides=parse_overrides(args.overrides))
        print(f"report: {path}")
    return 1 if ended.failed else 0


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
