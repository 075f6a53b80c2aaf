"""Options that verbs share, read in one way."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from genrec_bench.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
LOCAL = ROOT / "results" / "local"


def add_results(parser: argparse.ArgumentParser) -> None:
    """`--results` and `--reports`."""
    parser.add_argument("--results", type=Path, default=LOCAL, metavar="DIR",
                        help="folder of records (default: results/local)")
    parser.add_argument("--reports", type=Path, default=None, metavar="DIR",
                        help="folder of rendered reports (default: reports/ for results/reference, "
                             "otherwise reports/ inside --results)")


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data-dir` and `--datasets`."""
    parser.add_argument("--data-dir", type=Path, default=None, metavar="DIR",
                        help="folder of downloaded data (default: the environment variable GENREC_BENCH_DATA)")
    parser.add_argument("--datasets", type=comma_list, default=None, metavar="A,B",
                        help="dataset names (see `list datasets`) or folders of your own")


def comma_list(text: str) -> list[str]:
    """`a,b` as a list without blanks or repeats, in the order given."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def data_dir(args: argparse.Namespace) -> Path | None:
    """The data folder from `--data-dir` or GENREC_BENCH_DATA. Raises: UserError where it does not exist."""
    value = args.data_dir or os.environ.get("GENREC_BENCH_DATA") or None
    if value is None:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        origin = "--data-dir" if args.data_dir else "GENREC_BENCH_DATA"
        raise UserError(f"{origin} points at {folder}, which is not a folder.")
    return folder.resolve()


def reports_dir(args: argparse.Namespace) -> Path:
    """Where reports go: as asked, else beside the records they are made from."""
    if args.reports is not None:
        return args.reports
    return ROOT / "reports" if args.results.resolve() == REFERENCE.resolve() else args.results / "reports"
