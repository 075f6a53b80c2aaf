"""What beam search throws away in the finished runs of a suite: their diagnoses, made side by side like runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from genrec_bench.core.errors import UserError
from genrec_bench.experiments.grid import Overrides, Selection
from genrec_bench.experiments.queue import blocks
from genrec_bench.running.diagnosis import BEAMS, DiagnoseTask, Question, answered  # noqa: F401  BEAMS for callers
from genrec_bench.running.runner import has_weights
from genrec_bench.running.scheduler import Means, work
from genrec_bench.running.suites import prepare_all
from genrec_bench.running.workspace import Prepared, Workspace


@dataclass(frozen=True)
class Diagnosable:
    """The runs of a selection by what can be done: diagnosed already, to diagnose, and neither (no run, no weights)."""

    answered: tuple[Prepared, ...]
    todo: tuple[Prepared, ...]
    left: tuple[Prepared, ...]


def diagnosable(selection: Selection, workspace: Workspace, question: Question) -> Diagnosable:
    """What there is to diagnose of a selection. Raises: UserError for what is wrong with the selection."""
    if blocks(selection.suite):  # whose file says which rows; baselines among them are left out here
        selection = replace(selection, baselines=None)
    prepared = [p for p in prepare_all(selection, workspace, keep=False) if p.config.baseline is None]
    kinds: dict[str, list[Prepared]] = {"answered": [], "todo": [], "left": []}
    for item in prepared:
        kinds["answered" if answered(item, workspace, question) else "todo" if has_weights(item, workspace)
              else "left"].append(item)
    return Diagnosable(**{kind: tuple(items) for kind, items in kinds.items()})


def diagnose_suite(suite: str, found: Diagnosable, workspace: Workspace, question: Question, means: Means,
                   reports: Path, overrides: Overrides) -> tuple[tuple[str, ...], Path]:
    """Diagnose what can be, and render the suite's report. Returns the errors of single runs, and the report.

    Raises: UserError where there is nothing to diagnose, nothing can be written, or nothing could be diagnosed.
    """
    from genrec_bench.reporting.markdown import render_suite  # brings matplotlib, as late as possible

    if not found.answered and not found.todo:
        raise UserError(f"nothing to diagnose: no run of this selection is finished below {workspace.results} and has "
                        "its weights there.")
    for folder in sorted({workspace.store.path(workspace.store.read(p.run_id)).parent for p in found.todo}):
        if not os.access(folder, os.W_OK):
            raise UserError(f"nothing can be written in {folder}, where diagnoses belong. Make it writable, or copy "
                            "the results and give the copy with --results.")
    errors = diagnose_all(list(found.todo), workspace, question, means, len(found.answered))
    if errors and len(errors) == len(found.todo) and not found.answered:
        raise UserError(errors[0])
    return errors, render_suite(suite, workspace.store.read_all(), reports, results=workspace.results,
                                overrides=overrides)


def diagnose_all(todo: list[Prepared], workspace: Workspace, question: Question, means: Means,
                 answered: int = 0) -> tuple[str, ...]:
    """Diagnose some runs; one that fails does not stop the others. Returns the errors."""
    notes = [f"{answered} of {len(todo) + answered} runs are diagnosed already, with these beams or for more users; "
             "that stays."] if answered else []
    tasks = [DiagnoseTask.of(item, workspace, question) for item in todo]
    return work(tasks, workspace, means, done=answered, notes=notes).failed
