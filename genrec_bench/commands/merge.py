"""`merge`: move finished records, of this machine or of others, into one folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from genrec_bench.commands import common
from genrec_bench.results.index import NAME as INDEX
from genrec_bench.results.index import write_index
from genrec_bench.results.merge import merge
from genrec_bench.results.records import RecordStore
from genrec_bench.running.folders import REFERENCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `merge`."""
    common.add_results(parser)
    parser.add_argument("--from", type=Path, nargs="+", default=None, metavar="DIR", dest="sources",
                        help="folders of records to take, such as those of other machines (default: --results alone)")
    parser.add_argument("--into", type=Path, default=REFERENCE, metavar="DIR",
                        help="folder that receives the records (default: results/reference)")
    parser.add_argument("--index", action="store_true",
                        help=f"move nothing; write {INDEX} of --into again from its records")


def run(args: argparse.Namespace) -> int:
    """Merge, or write the index, and say what was done. Raises: UserError."""
    if args.index:
        print(write_index(RecordStore(args.into)))
        return 0
    done = merge(args.sources or [args.results], args.into)
    print(f"{done.moved} records moved to {args.into}, {done.known} were there already."
          + (f" Diagnoses taken along: {done.diagnoses}." if done.diagnoses else ""))
    return 0
