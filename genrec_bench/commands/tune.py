"""`tune`: settings that a suite declares, tried and chosen by validation."""

from __future__ import annotations

import argparse
from pathlib import Path

from genrec_bench.commands import common
from genrec_bench.running.tuning import check_target, save, tune


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tune`."""
    common.add_selection(parser, seeds=False)
    parser.add_argument("--trials", type=int, required=True, metavar="N",
                        help="trials of each row on each data set, the row as it stands among them")
    parser.add_argument("--save", type=Path, default=None, metavar="FILE.toml",
                        help="also write the chosen settings, as tables of a profile")
    common.add_results(parser)
    common.add_device(parser)
    common.add_jobs(parser)


def run(args: argparse.Namespace) -> int:
    """Make the trials, print a table a row and data set and what was chosen. Exit code 1 where a trial failed."""
    check_target(args.save)
    workspace, means = common.workspace(args), common.means(args)
    done = tune(common.selection(args), args.trials, workspace, means, common.reports_dir(args))
    for search in done.searches:
        print(f"{search.label}, {search.dataset}, profile {search.profile}\n\n{search.table()}\n")
        if search.best is None:
            print("nothing chosen: not all trials are finished\n")
        else:
            print(f"chosen: trial {search.best.number}  {search.options()}".rstrip() + "\n")
    print(done.snippet)
    if args.save is not None:
        save(done, args.save)
        print(f"saved: {args.save}")
    for page in done.pages:
        print(f"report: {page}")
    return 1 if done.ended.failed else 0
