"""Settings tried on validation: the trials of a suite's rows, made like any runs, and what they chose."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.core.files import write_atomically
from genrec_bench.core.provenance import portable
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import RunConfig
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.suite_files import FOLDERS
from genrec_bench.experiments.trials import Search, searches
from genrec_bench.reporting.trials import HEADER, METRIC, Searched, Tried, snippet
from genrec_bench.running.runner import check_fit
from genrec_bench.running.scheduler import Ended, Means, run_all
from genrec_bench.running.suites import with_datasets
from genrec_bench.running.workspace import Prepared, Workspace


@dataclass(frozen=True)
class Tuning:
    """What was tried and chosen. snippet: the chosen settings as tables of a profile. pages: of the trials' reports."""

    searches: tuple[Searched, ...]
    snippet: str
    ended: Ended
    pages: tuple[Path, ...]


def tune(selection: Selection, trials: int, workspace: Workspace, means: Means, reports: Path) -> Tuning:
    """Make the trials that are missing, choose by validation NDCG@10 alone, and write the pages of trials.

    Every row that has a search space has the same number of trials on every dataset, fewer only where it has fewer.
    Raises: UserError for whatever is wrong with the selection or the suite's search space, before any work.
    """
    from genrec_bench.reporting.markdown import Source, trial_pages  # brings matplotlib, as late as possible

    if trials < 1:
        raise UserError(f"--trials must be at least 1, got {trials}.")
    selection = with_datasets(selection, workspace)
    found = searches(selection, trials)
    grid.check_overrides(selection.overrides, [t.config for s in found for t in s.trials])
    if without := dict.fromkeys(s.label for s in found if s.size == 1):
        print(f"left out: {', '.join(without)}: {selection.suite} declares nothing to try", file=sys.stderr)
    found, prepared = _fitting([s for s in found if s.size > 1], workspace)
    for search in found:
        if search.size < trials:
            print(f"{search.label}, {search.dataset}: {search.size} trials, not {trials}: its space has no more",
                  file=sys.stderr)
    ended = run_all(list({p.run_id: p for p in prepared.values()}.values()), workspace, means)
    done = tuple(_searched(search, prepared, workspace) for search in found)
    pages = trial_pages(selection.suite, Source(workspace.store.read_all(), overrides=selection.overrides))
    pages.write(reports)
    chosen = snippet(done, portable(workspace.command))
    return Tuning(done, chosen, ended, tuple(reports / name for name in pages.files))


def check_target(path: Path | None) -> None:
    """Whether chosen settings may be written there. Raises: UserError for a file that is something else."""
    if path is None:
        return
    if path.suffix != ".toml" or not path.parent.is_dir():
        raise UserError(f"--save takes a file .toml in a folder that is there, got {path}.")
    if path.resolve().is_relative_to(FOLDERS["profile"].parents[1]):
        raise UserError(f"--save {path}: the package itself is edited by hand. Give a file outside it.")
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
        raise UserError(f"{path} is there and holds no settings that `tune` chose. Give another name.")


def save(tuning: Tuning, path: Path) -> None:
    """Write the chosen settings. Raises: UserError, see `check_target`."""
    check_target(path)
    write_atomically(path, tuning.snippet.encode())


def _fitting(found: Sequence[Search], workspace: Workspace) -> tuple[list[Search], dict[RunConfig, Prepared]]:
    """The searches without the trials that their data rule out, which are named, and the runs of the others.

    Raises: DoesNotFit where none is left.
    """
    for search in found:  # a bad dataset must be found before a tokenizer of another one is fitted and cached
        workspace.split(search.trials[0].config)
    kept, prepared, first = [], {}, None
    for search in found:
        unfit: dict[str, list[str]] = {}
        for trial in search.trials:
            item = workspace.prepare(trial.config)
            try:
                check_fit(item)
                prepared[trial.config] = item
            except DoesNotFit as error:
                first = first or error
                unfit.setdefault(str(error), []).append(str(trial.number))
        for error, numbers in unfit.items():
            which = "" if len(numbers) == len(search.trials) else f", trial {', '.join(numbers)}"
            print(f"left out: {search.label}, {search.dataset}{which}: {error}", file=sys.stderr)
        if any(trial.config in prepared for trial in search.trials):
            kept.append(search)
    if not kept:
        raise first
    return kept, prepared


def _searched(search: Search, prepared: dict[RunConfig, Prepared], workspace: Workspace) -> Searched:
    """A search with what its trials gave."""
    tried = []
    for trial in search.trials:
        if trial.config in prepared:
            run_id = prepared[trial.config].run_id
            found = workspace.store.find(run_id) is not None
            tried.append(Tried(trial.number, trial.changes,
                               workspace.store.read(run_id).metrics[METRIC] if found else None))
    config = search.trials[0].config
    return Searched(search.label, search.dataset, config.profile, tuple(tried), search.size, search.stated,
                    not config.dataset.needs_path)
