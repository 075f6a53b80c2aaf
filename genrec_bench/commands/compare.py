"""`compare`: one objective in, a verdict out: it is trained like the stored baselines and tested against them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from genrec_bench.commands import common
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.overrides import parse_overrides
from genrec_bench.running.comparing import BrokenContract, Question, RunsFailed, RunsLeft, compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    parser.add_argument("--objective", required=True, metavar="FILE.py:CLASS",
                        help="your own file and the class in it, or a registered objective")
    parser.add_argument("--with", type=common.comma_list, default=[], metavar="A,B", dest="beside",
                        help="registered objectives that are trained beside it, such as cross_entropy")
    parser.add_argument("--weight", type=float, default=1.0, metavar="W", help="weight of the objective (default: 1)")
    parser.add_argument("--backbone", default="tiger", metavar="NAME", help="see `list backbones` (default: tiger)")
    parser.add_argument("--profile", default="quick", metavar="NAME", help="smoke, quick (default), standard or paper")
    parser.add_argument("--suite", default="all", metavar="NAME",
                        help="whose rows it is tested against, also a file of your own, FILE.toml (default: all)")
    common.add_data(parser)
    parser.add_argument("--seeds", type=common.comma_list, default=None, metavar="0,1,2",
                        help="seeds (default: those of the stored runs)")
    common.add_set(parser, "change one setting of the objective, such as my_loss.tau=2, or of what it runs in")
    parser.add_argument("--tune", type=int, default=None, metavar="N",
                        help="first try N settings on each data set and take those that validation chooses: learning "
                             "rates, and what the objective lists in search_space")
    parser.add_argument("--no-check", action="store_true", help="train even where a contract check fails")
    common.add_results(parser, stored=True)
    common.add_device(parser)
    common.add_jobs(parser)


def run(args: argparse.Namespace) -> int:
    """Check, train, compare, print. Exit code 1 where a check or a run fails. Raises: UserError."""
    from genrec_bench.running.plugin_file import is_file, load_objective

    own = is_file(args.objective)
    name = load_objective(args.objective) if own else args.objective
    workspace = common.workspace(args)
    if own:
        workspace = replace(workspace, plugins=(*workspace.plugins, args.objective))
    question = Question(name, args.backbone, tuple(args.beside), args.weight,
                        tuple(args.datasets) if args.datasets else None, args.profile, common.seeds(args.seeds),
                        parse_overrides(args.overrides), args.suite, _trials(args.tune))
    try:
        verdict = compare(question, workspace, common.means(args), common.reports_dir(args), check=not args.no_check)
    except BrokenContract as broken:
        print(f"error: {broken}", file=sys.stderr)
        return 1
    except RunsFailed:  # each has been told as it failed
        return 1
    except RunsLeft:  # there is no verdict yet; the same command goes on
        return 0
    print("\n".join(verdict.summary))
    if verdict.missing:
        print(f"No stored record yet: {'; '.join(label for label, _ in verdict.missing)}. The report has the commands.")
    print(f"report: {verdict.report}")
    return 0


def _trials(number: int | None) -> int:
    """The number after --tune. Raises: UserError."""
    if number is not None and number < 1:
        raise UserError(f"--tune must be at least 1, got {number}.")
    return number or 0
