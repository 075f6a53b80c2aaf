"""`report`: write the reports again, from records alone; needs neither torch nor the data."""

from __future__ import annotations

import argparse
from pathlib import Path

from genrec_bench.commands import common
from genrec_bench.errors import UserError
from genrec_bench.records import RecordStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--suite`, `--ledger`, `--results`, `--reports`."""
    parser.add_argument("--suite", default="all", metavar="NAME", help="suite to report on (default: all)")
    parser.add_argument("--ledger", action="store_true",
                        help="write the ledger of choices instead: docs/ledger.md for results/reference, otherwise "
                             "ledger.md in the folder of reports")
    common.add_results(parser)


def run(args: argparse.Namespace) -> int:
    """Render and print the path of the report. Raises: UserError where there is no record to report on."""
    from genrec_bench.reporting.ledger import render_ledger
    from genrec_bench.reporting.markdown import render_suite
    from genrec_bench.reporting.rows import load_suite

    load_suite(args.suite)  # a wrong name is the first thing to say
    records = RecordStore(args.results).read_all() if args.results.is_dir() else []
    if not records:
        raise UserError(f"no records below {args.results} for suite {args.suite!r}; "
                        f"run `python benchmark.py --suite {args.suite} --results {args.results}` first.")
    if args.ledger:
        print(render_ledger(records, _ledger_path(args)))
        return 0
    print(render_suite(args.suite, records, common.reports_dir(args), results=args.results))
    return 0


def _ledger_path(args: argparse.Namespace) -> Path:
    folder = common.reports_dir(args)
    return common.ROOT / "docs" / "ledger.md" if folder == common.ROOT / "reports" else folder / "ledger.md"
