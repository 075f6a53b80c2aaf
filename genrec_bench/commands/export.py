"""`export`: finished runs as one long table for other programs: CSV, Parquet or JSON lines."""

from __future__ import annotations

import argparse
from pathlib import Path

from genrec_bench.commands import common
from genrec_bench.reporting.matching import of_suite
from genrec_bench.results.export import export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to write where, of which runs."""
    parser.add_argument("--to", type=Path, required=True, metavar="FILE",
                        help="file to write: .csv, .parquet or .jsonl")
    line = parser.add_mutually_exclusive_group()
    line.add_argument("--users", dest="per", action="store_const", const="user", default="metric",
                      help="one line a run and test row (ranks), instead of one a run and metric")
    line.add_argument("--runs", dest="per", action="store_const", const="run",
                      help="one line a run: its method, training, cost, machine and versions")
    parser.add_argument("--suite", default=None, metavar="NAME", help="only runs of this suite")
    parser.add_argument("--datasets", type=common.comma_list, default=None, metavar="A,B",
                        help="only runs on these datasets, as the records name them")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    common.add_results(parser)


def run(args: argparse.Namespace) -> int:
    """Write the table and print its path. Raises: UserError before anything is written."""
    done = export(args.results, args.to, per=args.per, datasets=args.datasets,
                  wanted=of_suite(args.suite) if args.suite else None, force=args.force)
    print(f"{args.to}: {done.lines} lines of {done.runs} runs")
    return 0
