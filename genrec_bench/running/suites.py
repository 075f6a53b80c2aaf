"""A suite's runs: ready to start, made, and reported."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from genrec_bench.core import registry
from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.core.walk import cores
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import RunConfig
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.suite_files import load_suite
from genrec_bench.running.runner import check_fit
from genrec_bench.running.scheduler import Ended, Means, run_all
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
    ended, report = run_all(prepared, workspace, means), None
    if any(workspace.store.find(p.run_id) for p in prepared):
        from genrec_bench.reporting.markdown import render_suite  # matplotlib takes a second, and plans draw nothing

        report = render_suite(selection.suite, workspace.store.read_all(), reports, results=workspace.results,
                              jobs=cores(), overrides=selection.overrides)
    return SuiteRun(tuple(prepared), ended, report)


def prepare_all(selection: Selection, workspace: Workspace, *, keep: bool) -> list[Prepared]:
    """All runs of a selection with data read and names made, before anything is trained. Raises: UserError."""
    configs = grid.expand(with_datasets(selection, workspace))
    grid.check_overrides(selection.overrides, configs)
    return prepare_configs(configs, workspace, keep=keep)


def with_datasets(selection: Selection, workspace: Workspace) -> Selection:
    """The selection with its datasets named: of those that the suite itself names, the ones whose files are there.

    Raises: UserError where none is.
    """
    names = grid.datasets_of(selection)
    if selection.datasets or not load_suite(selection.suite)["suite"].get("datasets"):
        return replace(selection, datasets=names)
    there = tuple(n for n in names if not registry.datasets.build({"name": n}).missing_files(workspace.data_dir))
    left = ", ".join(name for name in names if name not in there)
    if not there:
        raise UserError(f"suite {selection.suite}: no files of its datasets are there: {left}. Give --data-dir, or "
                        "name others with --datasets; `data fetch` says where to get them.")
    if left:
        print(f"left out: {left}: no files there (--data-dir, GENREC_BENCH_DATA)", file=sys.stderr)
    return replace(selection, datasets=there)


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
