"""`report`: write the reports again, from records alone; needs neither torch nor the data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from genrec_bench.commands import common
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import write_atomically
from genrec_bench.results.records import RecordStore

if TYPE_CHECKING:
    from genrec_bench.reporting.markdown import Source

PAGE = "index.html"
MOST_LINES = 12  # of differences that are named one by one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to render, and whether to write, to compare or to make a page of it."""
    parser.add_argument("--suite", default="all", metavar="NAME", help="suite to report on (default: all)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", type=common.comma_list, default=None, metavar="A,B",
                      help="single tables and figures, such as table:1,figure:apao-5,figure:forest; nothing else is "
                           "written")
    what.add_argument("--check", action="store_true",
                      help="write nothing; exit code 1 and a list where the reports that are there are not what the "
                           "records give")
    what.add_argument("--html", action="store_true",
                      help="also write index.html: a leaderboard of the suite's runs, a page that needs no other file")
    what.add_argument("--ledger", action="store_true",
                      help="write the ledger of choices instead: ledger.md in the folder of reports")
    parser.add_argument("--jobs", type=int, default=None, metavar="N",
                        help="processes that draw figures (default: one for each core)")
    common.add_results(parser)


def run(args: argparse.Namespace) -> int:
    """Render and print the path of the report. Raises: UserError where there is no record to report on."""
    from genrec_bench.core.walk import cores
    from genrec_bench.reporting import markdown
    from genrec_bench.reporting.ledger import render_ledger
    from genrec_bench.reporting.rows import load_suite

    load_suite(args.suite)  # a wrong name is the first thing to say
    reports = common.reports_dir(args, writes=not args.check)
    records = RecordStore(args.results).read_all() if args.results.is_dir() else []
    if args.ledger:  # without records it says of every choice that its effect is not measured
        print(render_ledger(records, reports / "ledger.md"))
        return 0
    if not records:
        raise UserError(f"no records below {args.results} for suite {args.suite!r}; "
                        f"run `python benchmark.py --suite {args.suite} --results {args.results}` first.")
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {args.jobs}.")
    source = markdown.Source(records, args.results, jobs=args.jobs or cores(), reports=reports)
    if args.only:
        pages, undrawn = markdown.build_some(args.suite, args.only, source)
        pages.write(reports)
        for line in undrawn:
            print(line, file=sys.stderr)
        for name in pages.files:
            print(reports / name)
        return 0
    pages, front = markdown.build(args.suite, source)
    if args.check:
        return _check(pages.differences(reports), reports)
    pages.write(reports)
    (reports / PAGE).unlink(missing_ok=True)  # it would show what was before
    print(reports / front)
    if args.html:
        print(_html(args.suite, source, pages.files, reports))
    return 0


def _check(differences: list[str], reports: Path) -> int:
    for line in differences[:MOST_LINES]:
        print(f"{reports}: {line}", file=sys.stderr)
    if len(differences) > MOST_LINES:
        print(f"and {len(differences) - MOST_LINES} more files", file=sys.stderr)
    print("the reports are what the records give" if not differences else
          f"{len(differences)} files are not what the records give; `report` without --check writes them")
    return 1 if differences else 0


def _html(suite: str, source: Source, files: dict[str, bytes], reports: Path) -> Path:
    from genrec_bench.reporting import claims
    from genrec_bench.reporting.html import html_page
    from genrec_bench.reporting.leaderboard import board

    names = sorted((name for name in files if name.endswith(".md")), key=lambda n: (n != "index.md", n))
    links = {name: _heading(files[name]) for name in names}
    materials = source.materials(suite)
    page = html_page("genrec-bench: leaderboard", board(materials), links, claims.lines(materials))
    path = reports / PAGE
    write_atomically(path, page.encode())
    return path


def _heading(markdown: bytes) -> str:
    """The first heading of a page."""
    return markdown.decode().partition("\n")[0].removeprefix("# ")
