"""`run`: every run of a suite that is not there yet, then its report."""

from __future__ import annotations

import argparse
import sys

from genrec_bench import plan, runner
from genrec_bench.commands import common
from genrec_bench.progress import Bars
from genrec_bench.reporting.markdown import render_suite


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    common.add_selection(parser)
    common.add_results(parser)
    common.add_device(parser)
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard scalars into each run's folder")


def run(args: argparse.Namespace) -> int:
    """Check everything, run what is missing, render. Exit code 1 where a run failed."""
    workspace = common.workspace(args)
    prepared = prepare_all(args, workspace, keep=True)
    failed = run_all(prepared, workspace)
    for suite in plan.parts_of(args.suite):
        records = [workspace.store.read(p.run_id) for p in prepared if workspace.store.find(p.run_id)]
        if records:
            print(f"report: {render_suite(suite, workspace.store.read_all(), common.reports_dir(args))}")
    return 1 if failed else 0


def prepare_all(args: argparse.Namespace, workspace: runner.Workspace, *, keep: bool) -> list[runner.Prepared]:
    """All runs of the selection with data read and names made, before anything is trained. Raises: UserError."""
    selection = common.selection(args)
    configs = plan.expand(selection)
    plan.check_overrides(selection.overrides, configs)
    if any(c.baseline is None for c in configs):
        from genrec_bench.generative import build_objectives

        for config in configs:
            build_objectives(config)
    # two passes: a bad dataset must be found before a tokenizer of another one is fitted and cached
    for config in configs:
        workspace.split(config)
    return [workspace.prepare(config, keep=keep) for config in configs]


def run_all(prepared: list[runner.Prepared], workspace: runner.Workspace) -> int:
    """Run what is not done; a failed run does not stop the others. Returns the number of failures."""
    missing = [p for p in prepared if workspace.status(p.run_id) != "done"]
    bars = Bars(len(prepared), len(prepared) - len(missing))
    if len(missing) < len(prepared):
        bars.say(f"{len(prepared) - len(missing)} of {len(prepared)} runs are done already.")
    failed = 0
    try:
        for item in missing:
            name = f"{item.config.label}, {item.dataset}, seed {item.config.seed}"
            try:
                with bars.run(name) as progress:
                    record = runner.run_one(item, workspace, progress)
            except Exception as error:  # noqa: BLE001  one broken run must not cost the others
                failed += 1
                first = str(error).strip().splitlines() or [type(error).__name__]
                log = workspace.folder(item.run_id) / runner.FAILURE
                bars.say(f"FAILED  {name}: {first[0]}" + (f" (log: {log})" if log.exists() else ""))
                continue
            bars.finished(f"{item.run_id}  {name}: NDCG@10 {record.metrics['ndcg@10']:.4f}, "
                          f"Recall@10 {record.metrics['recall@10']:.4f}, {record.timings['total_seconds']:.0f} s")
    except KeyboardInterrupt:
        bars.close()
        left = sum(workspace.status(p.run_id) != "done" for p in prepared)
        print(f"\ninterrupted: {len(prepared) - left} of {len(prepared)} runs are done and stay. To go on (our "
              f"networks from their last epoch, RecBole's from their start):\n  {workspace.command}", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        bars.close()
    return failed
