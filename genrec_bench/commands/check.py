"""`check`: a plug-in against the contract tests, one line each."""

from __future__ import annotations

import argparse

from genrec_bench.commands import common
from genrec_bench.core import registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The objective to check."""
    parser.add_argument("objective", metavar="NAME_OR_FILE.py:CLASS",
                        help="a registered objective (see `list objectives`), or your own file and the class in it")
    common.add_results(parser)


def run(args: argparse.Namespace) -> int:
    """Print what holds and what does not; exit code 1 where something does not. Raises: UserError."""
    from genrec_bench.running.plugin_file import is_file, load_objective
    from genrec_bench.training.contract_checks import check_objective

    name = load_objective(args.objective) if is_file(args.objective) else args.objective
    findings = check_objective(registry.objectives.get(name))
    for finding in findings:
        detail = f": {finding.detail}" if not finding.passed else f" ({finding.detail})" if finding.detail else ""
        print(f"{'ok    ' if finding.passed else 'FAILED'}  {finding.name}{detail}")
    failed = sum(not finding.passed for finding in findings)
    print(f"{name}: {len(findings)} check{'s' if len(findings) > 1 else ''}, {failed or 'none'} failed.")
    return 1 if failed else 0
