"""The trials of `tune`: a table a row and data set, what validation chose, and that as settings of a profile."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genrec_bench.core.seeds import TUNING_SEED
from genrec_bench.experiments import identity
from genrec_bench.experiments.config import from_dict
from genrec_bench.experiments.grid import row_config
from genrec_bench.experiments.overrides import Overrides, merged
from genrec_bench.experiments.trials import LEAST, Trial, cheaper, flat, trials_of, undisturbed, words
from genrec_bench.reporting.matching import dataset_title, row_configs
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.rows import Suite
from genrec_bench.reporting.tables import pipe
from genrec_bench.results.records import RunRecord

METRIC = "valid_ndcg@10"
KEPT = "as it stands"
HEADER = "# Chosen by validation NDCG@10 alone"  # how a file of chosen settings begins


@dataclass(frozen=True)
class Tried:
    """A trial: what it changes of the row as it stands, and its validation NDCG@10, None where it is not finished.

    ended: the epoch after which it was given up as hopeless, 0 where it was not.
    """

    number: int
    changes: Overrides
    value: float | None
    ended: int = 0

    @classmethod
    def of(cls, trial: Trial, record: RunRecord | None) -> Tried:
        """A trial with its record, None where it is not finished."""
        if record is None:
            return cls(trial.number, trial.changes, None)
        ended = record.training["epochs"] if record.training.get("stopped") == "gave up" else 0
        return cls(trial.number, trial.changes, record.metrics[METRIC], ended)

    @property
    def told(self) -> str:
        """Its value as tables show it."""
        if self.value is None:
            return "not finished"
        return f"{self.value:.4f}" + (f", given up after epoch {self.ended}" if self.ended else "")


@dataclass(frozen=True)
class Searched:
    """The trials of a row on a data set, in order. stated: (part, setting) that the row itself says; named: whether a
    profile may hold settings of the data set, which it may not of a folder. size: how many the space has, where known.
    cheaper: what the profile says of trials alone.
    """

    label: str
    dataset: str
    profile: str
    trials: tuple[Tried, ...]
    stated: frozenset[tuple[str, str]] = frozenset()
    named: bool = True
    size: int = 0
    cheaper: Overrides = field(default_factory=dict)

    @property
    def best(self) -> Tried | None:
        """The trial of the best value, of equals the first; None while one is not finished."""
        if any(t.value is None for t in self.trials):
            return None
        return max(self.trials, key=lambda t: (t.value, -t.number))

    @property
    def made(self) -> str:
        """What sets trials apart from runs, as words; "" where nothing does."""
        return words(self.cheaper) if self.cheaper else ""

    def table(self) -> str:
        """A row a trial, as Markdown."""
        rows = [[str(t.number), words(t.changes), t.told, "chosen" if t is self.best else ""] for t in self.trials]
        return pipe(["Trial", "Settings that differ", "Validation NDCG@10", ""], rows, numeric_from=2)

    def options(self) -> str:
        """The chosen settings as words of a command; "" for the row as it stands."""
        return "" if self.best is None else shlex.join(
            word for part, key, value in flat(self.best.changes)
            for word in ("--set", f"{part}.{key}={value if isinstance(value, str) else json.dumps(value)}"))


def snippet(found: Sequence[Searched], command: str) -> str:
    """The chosen settings as tables of a profile, TOML. command: what made them.

    A profile holds one value of a setting for all rows of a data set, and none that a row itself states: what two rows
    chose otherwise, what a row states, and what was chosen together with such a setting stands there as a comment.
    """
    lines = [f"{HEADER}, at a seed that no result has, by:", f"#   {command}",
             "# A table holds for all rows of its data set that have the part, whether they were tried or not."]
    for dataset in dict.fromkeys(s.dataset for s in found):
        same = [s for s in found if s.dataset == dataset and s.best is not None]
        for search in same:
            lines += ["", f"# {search.label}, {dataset}, profile {search.profile}: trial {search.best.number}: "
                          f"{words(search.best.changes)} ({len(search.trials)} tried"
                          f"{', with ' * bool(search.made)}{search.made})"]
        parts, left = _held(same)
        for part, values in parts.items():
            lines += ["", f"[datasets_settings.{dataset}.{part}]", *(f"{k} = {v}" for k, v in values.items())]
        lines += [f"# not here: {text}" for text in left]
    return "\n".join(lines) + "\n"


def _chosen(found: Iterable[Searched]) -> dict[tuple[str, str], dict[str, list[Searched]]]:
    """What each setting was chosen as, by which rows; "as it stands" by a row that tried others and kept its own."""
    found = list(found)
    chosen: dict[tuple[str, str], dict[str, list[Searched]]] = {}
    for search in found:
        for part, key, value in flat(search.best.changes):
            chosen.setdefault((part, key), {}).setdefault(json.dumps(value), []).append(search)
    for search in found:
        tried, own = ({(part, key) for trial in trials for part, key, _ in flat(trial.changes)}
                      for trials in (search.trials, (search.best,)))
        for place in (tried - own) & set(chosen):
            chosen[place].setdefault(KEPT, []).append(search)
    return chosen


def _why_not(part: str, key: str, values: Mapping[str, Sequence[Searched]]) -> str:
    """Why a profile cannot hold a setting, "" where it can."""
    searches = [search for by in values.values() for search in by]
    if not all(search.named for search in searches):
        return "a profile has no settings of a folder"
    if any((part, key) in search.stated for search in searches):
        return "the row itself states it"
    if any(key in search.cheaper.get(part, ()) for search in searches):
        return "trials have a value of their own, so it says nothing of runs"
    return "rows differ, and a profile holds one value for all" if len(values) > 1 else ""


def _held(found: Sequence[Searched]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The settings that a profile can hold, by part, and lines about the others; a choice is held whole or not at all.
    """
    chosen = _chosen(found)
    why = {place: text for place, values in chosen.items() if (text := _why_not(*place, values))}
    apart: list[int] = []  # places of searches whose choice cannot be held
    while more := [n for n, search in enumerate(found) if n not in apart
                   and any((part, key) in why for part, key, _ in flat(search.best.changes))]:
        apart += more
        for n in more:
            for part, key, _ in flat(found[n].best.changes):
                why.setdefault((part, key), f"{found[n].label} chose it together with what a profile cannot hold")
    parts: dict[str, dict[str, str]] = {}
    for part, key in (place for place in chosen if place not in why):
        parts.setdefault(part, {})[key] = next(iter(chosen[part, key]))
    return parts, [f"{part}.{key} = {value} of {', '.join(s.label for s in by)}: {why[part, key]}"
                   for part, key in why for value, by in chosen[part, key].items()]


def searched(name: str, suite: Suite, records: Sequence[RunRecord], overrides: Overrides) -> list[Searched]:
    """What was tried of a suite's rows, from the records of trials. name: of the suite, or its file."""
    found, told = [], set()
    trials = {(r.profile, dataset_title(r), _method(r)): r for r in records if r.is_trial}
    places: dict[tuple[str, str, str, str], set[tuple[str, ...]]] = {}
    for r in trials.values():
        tokenizer = (r.config.get("tokenizer") or {}).get("name", "")
        places.setdefault((r.profile, dataset_title(r), r.config["dataset"]["name"], tokenizer),
                          set()).add(_components(r.config))
    for (profile, title, dataset, tokenizer), made_of in sorted(places.items()):
        for row, first in zip(suite.rows, row_configs(suite.rows, profile, dataset, tokenizer, overrides), strict=True):
            if first is None or _components(first.to_dict()) not in made_of:
                continue

            def make(changes: Overrides, row: dict = row.source, where: tuple = (profile, dataset, tokenizer)):
                return row_config(row, *where, merged(overrides, changes), trials=True)

            if (profile, title, identity.method(make({}))) not in trials:
                continue  # every search begins with its row; so a space of thousands is expanded only where it was tried
            every = trials_of([name], make, overrides)
            places_of = {(profile, title, identity.method(t.config)): t for t in every}
            tried = [Tried.of(t, trials[place]) for place, t in places_of.items() if place in trials]
            # Rows that differ in what is tuned share trials, and one trial is no choice.
            if len(tried) > 1 and not told.issuperset(set(places_of) & set(trials)):
                told |= set(places_of)
                found.append(Searched(first.label, title, profile, tuple(tried), size=len(every),
                                      cheaper=cheaper(every[0].config)))
    return found


def _components(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what is tuned: baseline, backbone and objectives."""
    parts = [config.get("baseline"), config.get("backbone"), *(config.get("objectives") or ())]
    return tuple(part["name"] for part in parts if part)


def _method(record: RunRecord) -> str:
    """The method of a trial's record, whether or not it could have been given up."""
    given_up = record.training.get("stopped") == "gave up" or "give_up" in json.dumps(record.identity)
    return identity.method(undisturbed(from_dict(record.config))) if given_up else record.method


def page(name: str, suite: Suite, records: Sequence[RunRecord], overrides: Overrides) -> str:
    """The trials of a suite's rows as a page, "" where there are none."""
    found = searched(name, suite, records, overrides)
    return render("trials", title=suite.title, seed=TUNING_SEED, least=LEAST, found=found) + "\n" if found else ""
