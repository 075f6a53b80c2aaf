"""`run`: every run of a suite that is not there yet, then its report."""

from __future__ import annotations

import argparse

from genrec_bench.commands import common
from genrec_bench.running import tracking
from genrec_bench.running.suites import run_suite


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    common.add_selection(parser)
    common.add_results(parser)
    common.add_device(parser)
    common.add_jobs(parser)
    parser.add_argument("--track", type=common.comma_list, default=[], metavar="A,B",
                        help=f"keep track of runs with {', '.join(tracking.TRACKERS)}, in each run's folder")


def run(args: argparse.Namespace) -> int:
    """Make what is missing and print where the report is. Exit code 1 where a run failed."""
    tracking.check(args.track)
    workspace, means = common.workspace(args), common.means(args)
    done = run_suite(common.selection(args), workspace, means, common.reports_dir(args))
    if done.report is not None:
        print(f"report: {done.report}")
    return 1 if done.ended.failed else 0
