"""`diagnose`: what beam search throws away in the finished runs of a suite, then its report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genrec_bench.commands import common
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.overrides import parse_overrides
from genrec_bench.results import diagnoses
from genrec_bench.running.diagnosing import BEAMS, Question, diagnosable, diagnose_suite
from genrec_bench.running.folders import LOCAL
from genrec_bench.running.workspace import Prepared, Workspace

WIDEST = 1_000
MOST_NAMED = 3  # methods that are left out, for each reason


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `diagnose`."""
    common.add_selection(parser)
    parser.set_defaults(baselines=["none"])
    default = ",".join(map(str, BEAMS))
    parser.add_argument("--beams", default=default, metavar="A,B", help=f"beam widths (default: {default})")
    parser.add_argument("--users", type=int, default=None, metavar="N",
                        help="draw N test users, for a quick look; never takes the place of a diagnosis of more "
                             f"(default: all up to {diagnoses.LIMIT}, of more {diagnoses.DRAWN})")
    common.add_results(parser)
    common.add_device(parser)
    common.add_jobs(parser)


def run(args: argparse.Namespace) -> int:
    """Diagnose every finished run whose weights are there, render. Exit code 1 where one could not be diagnosed.

    Raises: UserError for a wrong option, and where no run of the selection can be diagnosed.
    """
    question = Question(_beams(args.beams), _users(args.users))
    if args.baselines != ["none"]:
        raise UserError("diagnose looks at generative runs alone. Leave --baselines out.")
    workspace, means = common.workspace(args), common.means(args)
    found = diagnosable(common.selection(args), workspace, question)
    for line in _left_out(found.left, workspace, args):
        print(line, file=sys.stderr)
    errors, path = diagnose_suite(args.suite, found, workspace, question, means, common.reports_dir(args),
                                  parse_overrides(args.overrides))
    print(f"report: {path}")
    return 1 if errors else 0


def _beams(text: str) -> tuple[int, ...]:
    """The widths after --beams, ascending. Raises: UserError."""
    words = [word.strip() for word in text.split(",")]
    wrong = [w for w in words if not (w.isascii() and w.isdecimal() and 1 <= int(w) <= WIDEST)]
    if wrong:
        raise UserError(f"--beams takes whole numbers from 1 to {WIDEST} such as 10,20,50; got {wrong[0]!r}.")
    widths = sorted(int(w) for w in words)
    again = next((a for a, b in zip(widths, widths[1:], strict=False) if a == b), None)
    if again is not None:
        raise UserError(f"--beams names {again} twice.")
    return tuple(widths)


def _users(number: int | None) -> int:
    if number is not None and number < 1:
        raise UserError(f"--users must be at least 1, got {number}.")
    return number or 0


def _left_out(items: Sequence[Prepared], workspace: Workspace, args: argparse.Namespace) -> Iterator[str]:
    """What cannot be diagnosed, a line a method, and the command that makes it."""
    for finished, what, results in ((False, "not finished", args.results),
                                    (True, "finished, but its weights are not here", _elsewhere(args.results))):
        some = [p for p in items if (workspace.store.find(p.run_id) is not None) == finished]
        seeds: dict[str, list[str]] = {}
        for item in some:
            seeds.setdefault(f"{item.config.label}, {item.dataset}", []).append(str(item.config.seed))
        lines = [f"left out: {name}, seed {', '.join(numbers)}: {what}" for name, numbers in seeds.items()]
        yield from lines[:MOST_NAMED]
        if len(lines) > MOST_NAMED:
            yield f"left out: {len(lines) - MOST_NAMED} more methods: {what}"
        if some:
            yield f"  To make {'it' if len(some) == 1 else f'these {len(some)} runs'}:\n  {_command(args, results)}"


def _elsewhere(results: Path) -> Path:
    """A folder where runs that are finished in this one are run again."""
    return LOCAL if results.resolve() != LOCAL.resolve() else results.with_name(f"{results.name}-again")


def _command(args: argparse.Namespace, results: Path) -> str:
    """The `run` of the same selection."""
    options: list[tuple[str, Any]] = [
        ("--suite", args.suite), ("--profile", args.profile), ("--datasets", args.datasets),
        ("--objectives", args.objectives), *(("--row", row) for row in args.rows or ()), ("--baselines", "none"),
        ("--seeds", args.seeds), ("--grid", args.grid), *(("--set", pair) for pair in args.overrides),
        *(("--plugin", path) for path in args.plugins),
        ("--data-dir", args.data_dir), ("--device", None if args.device == "cpu" else args.device),
        ("--threads", None if args.threads == 1 else args.threads), ("--results", results)]
    words = [word for name, value in options if value is not None
             for word in (name, ",".join(value) if isinstance(value, list) else str(value))]
    return shlex.join(["python", "benchmark.py", "run", *words])
