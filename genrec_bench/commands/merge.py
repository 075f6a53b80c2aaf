"""`merge`: move finished records, of this machine or of others, into one folder, or only check them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from genrec_bench.commands import common
from genrec_bench.core.errors import UserError
from genrec_bench.core.provenance import own_version
from genrec_bench.results.index import NAME as INDEX
from genrec_bench.results.index import write_index
from genrec_bench.results.makers import check_maker
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
    parser.add_argument("--as", type=check_maker, default=None, metavar="NAME", dest="maker",
                        help="who else made the records of --from; they are checked first, and the leaderboard says so")
    parser.add_argument("--data-dir", type=Path, default=None, metavar="DIR",
                        help="data that --check and --as compare with (default: the variable GENREC_BENCH_DATA)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true",
                      help="move nothing; check names, metrics, fingerprints and files of --from; exit code 1 where "
                           "anything is wrong")
    what.add_argument("--index", action="store_true",
                      help=f"move nothing; write {INDEX} of --into again from its records")


def run(args: argparse.Namespace) -> int:
    """Merge, check, or write the index, and say what was done. Raises: UserError."""
    from genrec_bench.running.submission import take_records

    if args.index:
        print(write_index(RecordStore(args.into)))
        return 0
    if args.maker and not args.sources:
        raise UserError("--as says who made the records of --from: name their folders too, --from DIR.")
    sources = args.sources or [args.results]
    if args.check:
        return _check(sources, args)
    done = take_records(sources, args.into, args.maker, common.data_dir(args)) if args.maker else \
        merge(sources, args.into)
    print(f"{done.moved} records moved to {args.into}, {done.known} were there already."
          + (f" Diagnoses taken along: {done.diagnoses}." if done.diagnoses else ""))
    return 0


def _check(sources: Sequence[Path], args: argparse.Namespace) -> int:
    """Say what is wrong with the sources, and what a merge would do; 1 where anything is wrong."""
    from genrec_bench.running.submission import check_records

    problems = []
    for folder in sources:
        found = check_records(folder, common.data_dir(args))
        problems += found.problems
        for line in found.notes:
            print(f"note: {line}")
        told = {"compared with the data here": found.compared, "data not at hand": found.absent}
        print(f"{folder}: {found.records} records; " + "; ".join(
            f"{what}: {', '.join(sorted(names)) or 'none'}" for what, names in told.items())
            + f"; here: genrec_bench {own_version()}")
    if not problems:
        try:
            would = merge(sources, args.into, maker=args.maker, writes=False)
            print(f"{would.moved} would be new in {args.into}, {would.known} are there with equal numbers.")
        except UserError as error:
            problems.append(str(error))
    for line in problems:
        print(f"wrong: {line}", file=sys.stderr)
    print(f"wrong: {len(problems)}" if problems else "nothing is wrong; validation metrics and times are as stated")
    return 1 if problems else 0
