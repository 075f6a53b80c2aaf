"""The trials of a row: which of the settings that its suite declares are tried, and in which order.

The first trial is the row as it stands. The others are all combinations of the values that the suite's `[tune.<part>]`
tables list for the parts the row uses, in the order of a hash of the seed of trials and their values: it looks drawn,
is the same for everyone and on all data, and a value that is added moves no trial before another. Combinations that
make the same method are one trial.

The row as it stands is tried first. Another trial ends after a third of its epochs where it has not reached three
quarters of what the row as it stands had reached after a third of its own (`hopeless`): one rule for every row.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError
from genrec_bench.core.seeds import TUNING_SEED
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import GivesUp, RunConfig
from genrec_bench.experiments.grid import Overrides, Selection
from genrec_bench.experiments.identity import method, short_hash
from genrec_bench.experiments.overrides import check_space, merged, parts_used
from genrec_bench.experiments.suite_files import check_form, load_profile, load_suite, suite_path

# Trials are compared on the same validation rows, ranked in the same way.
FIXED = ("split", "evaluation")
THIRD, LEAST = 3, 0.75  # a hopeless trial ends after 1 / THIRD of its epochs, below LEAST of the first trial's value
Make = Callable[[Overrides], RunConfig]  # a row with what `--set` would change of it


@dataclass(frozen=True)
class Trial:
    """changes: the settings that the row as it stands has otherwise, by part; {} for the row itself."""

    number: int
    changes: Overrides
    config: RunConfig


@dataclass(frozen=True)
class Search:
    """All trials of a row on a dataset, in order. stated: (part, setting) that the row itself says, so no profile."""

    label: str
    dataset: str
    trials: tuple[Trial, ...]
    stated: frozenset[tuple[str, str]] = frozenset()


def searches(selection: Selection) -> list[Search]:
    """The trials of every row and dataset of a selection; a row whose suite declares nothing for it has one.

    Raises: UserError for a wrong name in a suite's search space, and where no row has one.
    """
    found: dict[tuple[str, str], Search] = {}
    for text, row in itertools.product(grid.datasets_of(selection), grid.selected_rows(selection)):
        only = dataclasses.replace(selection, datasets=(text,))

        def make(changes: Overrides, row: Any = row, only: Selection = only) -> RunConfig:
            overrides = merged(only.overrides, changes)
            return grid.expand_rows([row], dataclasses.replace(only, overrides=overrides), trials=True)[-1]

        every = trials_of([row["suite"]], make, selection.overrides)
        first = every[0].config
        key = method(first), first.dataset.title
        if key not in found or len(found[key].trials) == 1:  # a baseline may be a row of several suites
            found[key] = Search(first.label, first.dataset.title, tuple(every), stated(row))
    if all(len(search.trials) == 1 for search in found.values()):
        labels = ", ".join(dict.fromkeys(search.label for search in found.values()))
        left = ", or --set fixes what it declares" if selection.overrides else ""
        raise UserError(f"{suite_path(selection.suite)} declares no search space for {labels}{left}. Give it a table "
                        "[tune.<part>], or choose other rows.")
    return list(found.values())


def trials_of(suites: Sequence[str], make: Make, fixed: Overrides) -> list[Trial]:
    """Every trial of a row, in order: what the suites list for the parts it uses, and what its objectives do.

    suites: of several that list a part the first counts. fixed: what `--set` says, which is no longer varied; of values
    that go together those that agree with it are left.
    Raises: UserError for a wrong name or value in a search space, naming its place, and where none of such agrees.
    """
    first = make({})
    spaces = [("search_space of the objective", {w.objective.name: w.objective.search_space
                                                 for w in first.objectives if w.objective.search_space})]
    spaces += [(f"{suite_path(suite)}, tune", load_suite(suite).get("tune", {})) for suite in reversed(suites)]
    space: Overrides = {}
    places: dict[str, str] = {}
    for where, values in spaces:
        check_form(values, where)
        check_tuned(values, where)
        space |= values
        places |= dict.fromkeys(values, where)
    found = {method(first): Trial(1, {}, first)}
    used = parts_used(first)
    varied = [free for part, values in space.items() if part in used for key, tried in values.items()
              if (free := _free(part, key, tried, fixed.get(part, {}), places[part]))]
    for chosen in sorted(itertools.product(*varied), key=lambda chosen: short_hash([TUNING_SEED, sorted(chosen)])):
        changes = _changes(chosen, first)
        try:
            config = make(changes)
        except UserError as error:
            where = " and ".join(dict.fromkeys(places[part] for part in changes))
            raise UserError(f"{where}: {words(changes)}: {error}") from None
        label = f"{first.label} ({words(changes)})"
        found.setdefault(method(config), Trial(len(found) + 1, changes,
                                               dataclasses.replace(config, label=label)))
    return list(found.values())


def _free(part: str, key: str, tried: Sequence[Any], fixed: Mapping[str, Any],
          where: str) -> list[tuple[str, list[str], list[Any]]]:
    """The values of one line of a search space that `--set` leaves to be tried. Raises: UserError where that is none.
    """
    names = key.split("+")
    if {*names} <= {*fixed}:
        return []
    rows = [value if "+" in key else [value] for value in tried]
    left = [(part, names, row) for row in rows if all(fixed.get(n, v) == v for n, v in zip(names, row, strict=True))]
    if not left:
        held = {n: fixed[n] for n in names if n in fixed}
        raise UserError(f"{where}: of the values of {part} that go together, {key}, none has {words({part: held})}. "
                        f"Take one of {', '.join(map(str, rows))}, or --set all of {', '.join(names)}.")
    return left


def hopeless(trial: Trial, first: RunConfig, training: Mapping[str, Any]) -> Trial:
    """The trial with the point at which it ends where it is hopeless.

    first: the row as it stands; training: what its record says of its training. A run without epochs never ends early.
    """
    ours, theirs = budget(trial.config), budget(first)
    if ours is None or theirs is None or not theirs.epochs:
        return trial
    third = math.ceil(training["epochs"] / THIRD)
    after = math.ceil(ours.epochs * training["epochs"] / theirs.epochs / THIRD)  # the first may have ended by patience
    best = max((entry.get("valid_ndcg@10", 0.0) for entry in training["curve"][:third]), default=0.0)
    return dataclasses.replace(trial, config=_with_budget(trial.config, dataclasses.replace(
        ours, give_up_after=after, give_up_below=round(LEAST * best, 6))))


def cheaper(first: RunConfig) -> Overrides:
    """What the trials of a search have because their profile makes trials cheaper than runs, from the first of them."""
    used = parts_used(first)
    held = {part: {key: value for key, value in values.items() if _settings_of(first, part).get(key) == value}
            for part, values in load_profile(first.profile).get("trials", {}).items() if part in used}
    return {part: values for part, values in held.items() if values}


def undisturbed(config: RunConfig) -> RunConfig:
    """The run of a trial without the point at which it ends where it is hopeless."""
    own = budget(config)
    return config if own is None else _with_budget(config, dataclasses.replace(
        own, give_up_after=GivesUp.give_up_after, give_up_below=GivesUp.give_up_below))


def budget(config: RunConfig) -> GivesUp | None:
    """The settings of a run that say how long it trains, None where it does not train by epochs."""
    own = config.training or config.baseline
    return own if isinstance(own, GivesUp) else None


def _with_budget(config: RunConfig, own: GivesUp) -> RunConfig:
    return dataclasses.replace(config, **{"baseline" if config.training is None else "training": own})


def check_tuned(space: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse parts and settings that there are not, and those that trials must share. Raises: UserError."""
    for part in space:
        if part in FIXED:
            raise UserError(f"{where}: {part} cannot be tuned: trials are compared on the same rows, ranked alike.")
    check_space(space, where)


def words(changes: Overrides) -> str:
    """Changes in a line for people."""
    return ", ".join(f"{part}.{key} = {value}" for part, key, value in flat(changes)) or "as it stands"


def flat(changes: Overrides) -> Iterator[tuple[str, str, Any]]:
    """Each change: part, setting, value."""
    return ((part, key, value) for part, values in changes.items() for key, value in values.items())


def stated(row: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """(part, setting) that a row of a suite says itself, which wins over any profile; so do all weights."""
    specs = [spec for spec in (row.get("backbone"), row.get("tokenizer"), *row.get("objective", ())) if spec]
    parts = [(spec["name"], {**spec, "weight": 1.0}) for spec in specs]
    parts += [(section, row[section]) for section in ("training", "decoding") if section in row]
    return frozenset((part, key) for part, values in parts for key in values)


def _changes(chosen: tuple[tuple[str, list[str], list[Any]], ...], first: RunConfig) -> Overrides:
    """What a combination changes of the row as it stands."""
    changes: Overrides = {}
    for part, names, values in chosen:
        now = _settings_of(first, part)
        different = {k: v for k, v in zip(names, values, strict=True) if now.get(k) != v}
        if different:
            changes.setdefault(part, {}).update(different)
    return changes


def _settings_of(config: RunConfig, part: str) -> dict[str, Any]:
    """The settings of one part of a run, as plain data."""
    if part in ("training", "second_stage"):  # `training` is that of the first stage where there is one
        stage = config.uses[0].run if config.uses and part == "training" else config
        return settings.to_dict(stage.training)
    if part in ("decoding", "negatives"):
        return settings.to_dict(getattr(config, part))
    weights = {w.objective.name: {**settings.to_dict(w.objective), "weight": w.weight} for w in config.objectives}
    components = {c.name: c for c in (config.baseline, config.tokenizer, config.backbone) if c is not None}
    return weights[part] if part in weights else settings.to_dict(components[part])
