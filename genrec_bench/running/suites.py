"""A suite's runs: ready to start, made, and reported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genrec_bench.core import registry
from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.core.walk import cores
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import RunConfig
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.overrides import check_overrides
from genrec_bench.experiments.queue import blocks, selections
from genrec_bench.experiments.suite_files import load_suite
from genrec_bench.running.diagnosis import DiagnoseTask, Question, answered
from genrec_bench.running.runner import check_fit, has_weights
from genrec_bench.running.scheduler import Ended, Means, name_of, run_all
from genrec_bench.running.workspace import Prepared, Workspace


@dataclass(frozen=True)
class SuiteRun:
    """What a selection's runs became. report: the page to read first, None where no run is finished."""

    prepared: tuple[Prepared, ...]
    ended: Ended
    report: Path | None


def run_suite(selection: Selection, workspace: Workspace, means: Means, reports: Path) -> SuiteRun:
    """Check everything, make what is missing, and render the report of all that is there. Raises: UserError."""
    prepared = prepare_all(selection, workspace, keep=True)
    ended, report = run_all(prepared, workspace, means, _diagnosed(selection, workspace)), None
    if any(workspace.store.find(p.run_id) for p in prepared):
        from genrec_bench.reporting.markdown import render_suite  # matplotlib takes a second, and plans draw nothing

        report = render_suite(selection.suite, workspace.store.read_all(), reports, results=workspace.results,
                              jobs=cores(), overrides=selection.overrides)
    return SuiteRun(tuple(prepared), ended, report)


def prepare_all(selection: Selection, workspace: Workspace, *, keep: bool) -> list[Prepared]:
    """All runs of a selection with data read and names made, before anything is trained. Raises: UserError."""
    found: dict[str, Prepared] = {}
    for items in prepare_blocks(selection, workspace, keep=keep):
        for item in items:
            found.setdefault(item.run_id, item)
    return list(found.values())


def prepare_blocks(selection: Selection, workspace: Workspace, *, keep: bool) -> list[list[Prepared]]:
    """The same block by block of a queue, where a run may be in several; another suite is one block."""
    parts = _with_files(selection, workspace)
    configs = [grid.expand(part) if part.datasets else [] for part in parts]
    check_overrides(selection.overrides, [config for some in configs for config in some])
    items = iter(prepare_configs([config for some in configs for config in some], workspace, keep=keep))
    kept = {id(item.config): item for item in items}
    return [[kept[id(config)] for config in some if id(config) in kept] for some in configs]


def with_datasets(selection: Selection, workspace: Workspace) -> Selection:
    """The selection with its datasets named: of those that the suite itself names, the ones whose files are there.

    Raises: UserError where none is.
    """
    return _with_files(selection, workspace)[0]


def _with_files(selection: Selection, workspace: Workspace) -> list[Selection]:
    """The parts of a selection with their datasets named: all that the user names, or the profile; of those that a
    suite's file names, the ones whose files are there, which may be none of a part.

    Raises: UserError where none at all is.
    """
    parts = [replace(part, datasets=grid.datasets_of(part)) for part in selections(selection)]
    if selection.datasets or not (blocks(selection.suite) or load_suite(selection.suite)["suite"].get("datasets")):
        return parts
    names = dict.fromkeys(name for part in parts for name in part.datasets)
    there = [n for n in names if not registry.datasets.build({"name": n}).missing_files(workspace.data_dir)]
    left = ", ".join(name for name in names if name not in there)
    if not there:
        raise UserError(f"suite {selection.suite}: no files of its datasets are there: {left}. Give --data-dir, or "
                        "name others with --datasets; `data fetch` says where to get them.")
    if left:
        print(f"left out: {left}: no files there (--data-dir, GENREC_BENCH_DATA)", file=sys.stderr)
    return [replace(part, datasets=tuple(n for n in part.datasets if n in there)) for part in parts]


def _diagnosed(selection: Selection, workspace: Workspace) -> Callable[[Prepared], Any]:
    """What makes the task that follows a run: its diagnosis, where the suite asks for that and it can be made."""
    users = load_suite(selection.suite)["suite"].get("diagnose", 0)
    question = Question(users=users)

    def then(item: Prepared) -> DiagnoseTask | None:
        if not users or item.config.baseline is not None or answered(item, workspace, question):
            return None
        if workspace.store.find(item.run_id) and not has_weights(item, workspace):
            print(f"{name_of(item)}: not diagnosed, for its weights are not here", file=sys.stderr)
            return None
        return DiagnoseTask.of(item, workspace, question, uses=(item.run_id,))

    return then


def prepare_configs(configs: list[RunConfig], workspace: Workspace, *, keep: bool) -> list[Prepared]:
    """The runs of some configurations, ready to start; whatever is wrong with one is said now. Raises: UserError."""
    # two passes: a bad dataset must be found before a tokenizer of another one is fitted and cached
    for config in configs:
        workspace.split(config)
    return _fitting([workspace.prepare(config, keep=keep) for config in configs])


def _fitting(prepared: list[Prepared]) -> list[Prepared]:
    """Without the methods that their data rule out, which are named. Raises: DoesNotFit where none is left."""
    kept, unfit = [], {}
    for item in prepared:
        try:
            check_fit(item)
            kept.append(item)
        except DoesNotFit as error:
            unfit[f"{item.config.label}, {item.dataset}"] = error
    if not kept:
        raise next(iter(unfit.values()))
    for name, error in unfit.items():
        print(f"left out: {name}: {error}", file=sys.stderr)
    return kept
