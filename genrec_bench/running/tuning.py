"""Settings tried on validation: the trials of a suite's rows, made like any runs, and what they chose."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.core.files import write_atomically
from genrec_bench.core.provenance import portable
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.overrides import check_overrides
from genrec_bench.experiments.queue import blocks
from genrec_bench.experiments.suite_files import FOLDERS
from genrec_bench.experiments.trials import Search, cheaper, hopeless, searches
from genrec_bench.reporting.trials import HEADER, Searched, Tried, snippet
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
    if parts := blocks(selection.suite):
        raise UserError(f"suite {selection.suite} is a queue and has no rows of its own to tune. Name one of its "
                        f"suites: {', '.join(dict.fromkeys(block.suite for block in parts))}.")
    selection = with_datasets(selection, workspace)
    found = searches(selection)
    check_overrides(selection.overrides, [t.config for s in found for t in s.trials])
    if without := dict.fromkeys(s.label for s in found if len(s.trials) == 1):
        print(f"left out: {', '.join(without)}: {selection.suite} declares nothing to try", file=sys.stderr)
    ended, done = choose([s for s in found if len(s.trials) > 1], trials, workspace, means)
    pages = trial_pages(selection.suite, Source(workspace.store.read_all(), overrides=selection.overrides))
    pages.write(reports)
    chosen = snippet(done, portable(workspace.command))
    return Tuning(done, chosen, ended, tuple(reports / name for name in pages.files))


def choose(found: Sequence[Search], number: int, workspace: Workspace,
           means: Means) -> tuple[Ended, tuple[Searched, ...]]:
    """Make the trials: the first of every search, then the others, which end early where they are hopeless beside it.

    number: of trials that fit the data, of every search. Raises: DoesNotFit where none does.
    """
    found = _fitting(found, number, workspace)
    until = None if means.minutes is None else time.monotonic() + 60 * means.minutes
    firsts = [workspace.prepare(search.trials[0].config) for search in found]
    ended = run_all(_once(firsts), workspace, means)
    every: list[list[Prepared]] = []
    for search, first in zip(found, firsts, strict=True):
        training = workspace.store.read(first.run_id).training if workspace.store.find(first.run_id) else None
        others = [] if training is None else search.trials[1:]
        every.append([first, *(workspace.prepare(hopeless(t, first.config, training).config) for t in others)])
    rest = _once(item for items in every for item in items[1:])
    if rest and not ended.left:
        minutes = None if until is None else max(0.0, until - time.monotonic()) / 60  # with 0 nothing more is begun
        more = run_all(rest, workspace, replace(means, minutes=minutes))
        ended = Ended((*ended.failed, *more.failed), more.left)
    return ended, tuple(_searched(search, items, workspace) for search, items in zip(found, every, strict=True))


def _once(items: Iterable[Prepared]) -> list[Prepared]:
    return list({item.run_id: item for item in items}.values())


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


def _fitting(found: Sequence[Search], number: int, workspace: Workspace) -> list[Search]:
    """The searches with their first trials that fit their data, `number` of them or as many as there are.

    Those that their data rule out are named. Raises: DoesNotFit where no trial is left.
    """
    for search in found:  # a bad dataset must be found before a tokenizer of another one is fitted and cached
        workspace.split(search.trials[0].config)
    kept, first = [], None
    for search in found:
        fit, unfit = [], {}
        for trial in search.trials:
            if len(fit) == number:
                break
            try:
                check_fit(workspace.prepare(trial.config))
                fit.append(trial)
            except DoesNotFit as error:
                first = first or error
                unfit.setdefault(str(error), []).append(str(trial.number))
        for error, numbers in unfit.items():
            which = "" if not fit else f", trial {', '.join(numbers)}"
            print(f"left out: {search.label}, {search.dataset}{which}: {error}", file=sys.stderr)
        if 0 < len(fit) < number:
            print(f"{search.label}, {search.dataset}: {len(fit)} trials, not {number}: its space has no more",
                  file=sys.stderr)
        if fit:
            kept.append(replace(search, trials=tuple(fit)))
    if not kept:
        raise first
    return kept


def _searched(search: Search, items: Sequence[Prepared], workspace: Workspace) -> Searched:
    """A search with what its trials gave. items: their runs, of the first alone where it is not done."""
    tried = []
    for trial, item in itertools.zip_longest(search.trials, items):
        record = workspace.store.read(item.run_id) if item and workspace.store.find(item.run_id) else None
        tried.append(Tried.of(trial, record))
    config = search.trials[0].config
    return Searched(search.label, search.dataset, config.profile, tuple(tried), search.stated,
                    not config.dataset.needs_path, cheaper=cheaper(config))
