"""`check`: a plug-in against the contract of its kind, one line a check."""

from __future__ import annotations

import argparse
from pathlib import Path

from genrec_bench.commands import common
from genrec_bench.core.registry import kind_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The plug-in to check."""
    parser.add_argument("name", metavar="NAME_OR_FILE.py:NAME",
                        help="a registered plug-in of any kind (see `list`), or your own file and what is in it")
    parser.add_argument("--data-dir", type=Path, default=None, metavar="DIR",
                        help="where a dataset's files are (default: the environment variable GENREC_BENCH_DATA)")
    common.add_results(parser)


def run(args: argparse.Namespace) -> int:
    """Print what holds and what does not; exit code 1 where something does not. Raises: UserError."""
    from genrec_bench.running.plugin_checks import check_plugin
    from genrec_bench.running.plugin_file import is_file, load_one

    name, folder = load_one(args.name) if is_file(args.name) else args.name, common.data_dir(args)
    kind = kind_of(name)
    findings = check_plugin(kind, kind.get(name), folder)
    for finding in findings:
        detail = f": {finding.detail}" if not finding.passed else f" ({finding.detail})" if finding.detail else ""
        print(f"{'ok    ' if finding.passed else 'FAILED'}  {finding.name}{detail}")
    failed = sum(not finding.passed for finding in findings)
    print(f"{name}: {len(findings)} check{'s' if len(findings) > 1 else ''}, {failed or 'none'} failed.")
    return 1 if failed else 0
