"""`plan`: which runs are done, damaged, running, failed, interrupted or missing, and how long the rest takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tabulate import tabulate

from genrec_bench.commands import common
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.file_forms import BlockRow
from genrec_bench.experiments.queue import blocks
from genrec_bench.reporting.cost import PLAN
from genrec_bench.running.estimates import duration, long_rows
from genrec_bench.running.planning import PlannedRun, plan, save_cost

STATES = ("done", "damaged", "running", "failed", "interrupted", "missing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    common.add_selection(parser)
    common.add_results(parser)
    common.add_device(parser)
    parser.add_argument("--probe", action="store_true",
                        help="train one epoch of each kind of run that nothing is known of, in a temporary folder")
    parser.add_argument("--save", action="store_true",
                        help=f"keep what the whole grid takes in {PLAN} below --results, for reports")


def run(args: argparse.Namespace) -> int:
    """Print the table and the estimate; without --save nothing below --results is written. Raises: UserError."""
    if args.save:
        _check_whole(args)
    workspace, selection = common.workspace(args, writes=args.save), common.selection(args)
    planned = plan(selection, workspace, probe=args.probe, whole=args.save)
    parts = blocks(args.suite)
    print(_queue(planned, parts) if parts else _runs(planned))
    print(f"\n{_summary(planned)}")
    for line in long_rows([p.run for p in planned if p.seconds is None and p.status != "done"], workspace, {}):
        print(line)
    if args.save:
        print(f"saved: {save_cost(planned, selection, workspace)}")
    return 0


def _runs(planned: list[PlannedRun]) -> str:
    """A line a run."""
    return tabulate([[p.run.run_id, p.run.dataset, p.run.config.label, p.run.config.seed, p.status,
                      duration(p.left) if p.left else ""] for p in planned],
                    headers=["run", "dataset", "method", "seed", "status", "about"])


def _queue(planned: list[PlannedRun], parts: Sequence[BlockRow]) -> str:
    """A line a block of a queue; a run counts for the first block that has it."""
    lines = []
    for number, block in enumerate(parts):
        own = [p for p in planned if p.block == number]
        done, running = (sum(p.status == state for p in own) for state in ("done", "running"))
        todo = [p.left for p in own if p.status != "done"]
        known = [seconds for seconds in todo if seconds is not None]
        hours = "unknown" if todo and not known else f"{sum(known) / 3600:.1f}" + " and more" * (len(known) < len(todo))
        lines.append([number + 1, block.why, ", ".join(block.datasets), block.profile, done, running,
                      len(own) - done - running, hours])
    return tabulate(lines, headers=["block", "why", "datasets", "profile", "done", "running", "left", "hours left"],
                    maxcolwidths=[None, 60, 16, None, None, None, None, None])


def _summary(planned: list[PlannedRun]) -> str:
    """How many runs are in each state, and how long the rest takes."""
    states = [p.status for p in planned]
    counts = ", ".join(f"{states.count(s)} {s}" for s in STATES if s not in ("damaged", "running") or s in states)
    parts, unknown = [], sum(p.left is None for p in planned)
    if unknown < len(planned):
        parts.append(f"about {duration(sum(p.left or 0.0 for p in planned))} of processor time")
    if unknown:
        parts.append(f"{unknown} runs of kinds that were not run here yet (--probe measures them)")
    return f"{counts}. Left: {', and '.join(parts)}."


def _check_whole(args: argparse.Namespace) -> None:
    """What is saved is the cost of a grid as its files say. Raises: UserError."""
    parts = {"--row": args.rows, "--objectives": args.objectives, "--baselines": args.baselines,
             "--seeds": args.seeds, "--set": args.overrides or None}
    given = [option for option, value in parts.items() if value is not None]
    if blocks(args.suite):
        raise UserError(f"--save keeps what a grid takes, and suite {args.suite} is a queue. Name one of its suites.")
    if given:
        raise UserError(f"--save keeps what a whole grid takes, but {' and '.join(given)} changes it. Leave "
                        f"{'it' if len(given) == 1 else 'them'} out; --grid, --profile and --datasets may stay.")
