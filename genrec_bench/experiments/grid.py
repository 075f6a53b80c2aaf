"""From a suite and a profile to the list of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from genrec_bench.core import registry, settings
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.seeds import TUNING_SEED, check_seeds
from genrec_bench.datasets.base import dataset_spec
from genrec_bench.experiments.config import (
    SECTIONS,
    DecodingConfig,
    EvaluationConfig,
    RunConfig,
    TrainingConfig,
    Uses,
    weighted,
)
from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.experiments.overrides import Overrides, check_space, merged
from genrec_bench.experiments.suite_files import (  # noqa: F401  (suite_names and profile_names for those who plan)
    FOLDERS,
    best_values,
    load_baseline,
    load_profile,
    load_suite,
    profile_names,
    suite_names,
    suite_path,
    with_preset,
)
from genrec_bench.objectives.base import check_needs

ALL = "all"  # among the objectives or baselines of a selection: every row of that kind


@dataclass(frozen=True)
class Selection:
    """What the command line asks of a suite; None = what the suite and the profile say.

    objectives, rows (labels), baselines: what runs, `ALL` being all rows of a kind, () none. Where rows of one kind are
    named, rows of the other kind run only if they are named too.
    """

    suite: str
    profile: str = "quick"
    datasets: tuple[str, ...] | None = None
    objectives: tuple[str, ...] | None = None
    baselines: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    overrides: Overrides = field(default_factory=dict)
    grid: str | None = None
    rows: tuple[str, ...] | None = None


def parts_of(name: str) -> list[str]:
    """The suites that a suite means: itself, or those it includes."""
    return list(load_suite(name)["suite"].get("includes", [name]))


def expand(selection: Selection) -> list[RunConfig]:
    """Every run of a selection, in the order of datasets, rows and seeds; a first stage comes before its users.

    A setting is taken from, in rising order: the component's default, the baseline's file, the profile (for trials
    also what it says of them), the profile's part for the dataset, the suite's row, what its paper has found best
    for it, `--set`.
    Raises: UserError for any wrong name.
    """
    return expand_rows(selected_rows(selection), selection)


def selected_rows(selection: Selection) -> list[dict[str, Any]]:
    """The rows of a selection as the suites' files hold them, each with the name of its suite's paper, and its suite.

    Raises: UserError for a wrong name, and where no row is left.
    """
    suites = {part: load_suite(part) for part in parts_of(selection.suite)}
    rows = [{**row, "paper": suite["suite"].get("paper"), "suite": part}
            for part, suite in suites.items() for row in suite.get("row", [])]
    _check_names(selection, rows)
    named = [row.get("baseline") for row in rows]
    rows += [{"baseline": name} for name in selection.baselines or () if name not in (*named, ALL)]
    grid = selection.grid or load_profile(selection.profile).get("grid", GRIDS[0])
    if selection.rows is None:  # a row that is named is run, whichever grid it is part of
        rows = [row for row in rows if GRIDS.index(row.get("grid", GRIDS[0])) <= GRIDS.index(grid)]
    rows = _selected(rows, selection)
    if not rows:
        raise UserError(f"suite {selection.suite} has no row left after --objectives, --row, --baselines and --grid.")
    return rows


def datasets_of(selection: Selection) -> tuple[str, ...]:
    """The datasets of a selection: those asked for, else the suite's own, else the profile's. Raises: UserError."""
    own = load_suite(selection.suite)["suite"].get("datasets", ())
    for name in own:
        if name not in registry.datasets.names():
            raise unknown("dataset", name, registry.datasets.names(), f"{suite_path(selection.suite)}, datasets")
    return tuple(selection.datasets or own or load_profile(selection.profile)["datasets"])


def expand_rows(rows: list[dict[str, Any]], selection: Selection, *, trials: bool = False) -> list[RunConfig]:
    """Every run of some rows, as a suite's file holds them; what a selection says of rows is not read.

    trials: at the seed of trials, whatever seeds a selection names, with what the profile says of trials.
    """
    profile = load_profile(selection.profile)
    _check_profile(selection.profile, profile)
    seeds = tuple(profile["seeds"]) if selection.seeds is None else check_seeds(selection.seeds, "seeds")
    seeds = (TUNING_SEED,) if trials else seeds
    runs: dict[RunConfig, RunConfig] = {}
    for text in datasets_of(selection):
        dataset = _dataset(text, selection.overrides)
        layers = _layers(profile, dataset.name, selection.overrides, trials)
        for row in rows:
            for config in _runs(_at_its_best(row, dataset.name), dataset, layers, seeds, selection.profile):
                for part in (*(used.run for used in config.uses), config):
                    runs.setdefault(dataclasses.replace(part, label=""), part)
    return list(runs.values())


def row_config(row: Mapping[str, Any], profile: str, dataset: str, tokenizer: str, overrides: Overrides, *,
               trials: bool = False) -> RunConfig:
    """A suite's row under a profile, at seed 0, without any data.

    dataset: a registered name. tokenizer: for a row that names none, on a folder, whose files say which it is. trials:
    with what the profile says of trials.
    Raises: UserError where the row cannot be run so.
    """
    layers = _layers(load_profile(profile), dataset, overrides, trials)
    spec = {"name": dataset}
    if registry.datasets.get(dataset).needs_path:
        spec, row = {**spec, "path": dataset}, {"tokenizer": {"name": tokenizer}, **row}
    return _runs(_at_its_best(row, dataset), registry.datasets.build(spec), layers, (0,), profile)[0]


def training_config(profile: str, dataset: str, overrides: Overrides) -> TrainingConfig:
    """How a profile trains on a registered dataset where a row says nothing of it."""
    return _section("training", _layers(load_profile(profile), dataset, overrides))


def _check_profile(name: str, profile: Mapping[str, Any]) -> None:
    """Refuse settings of a profile that no run could ever read. Raises: UserError naming the file."""
    where = str(FOLDERS["profile"] / f"{name}.toml")
    own = [n for n in registry.datasets.names() if not registry.datasets.get(n).needs_path]
    layers = {f"{where}, {part}": profile.get(part, {}) for part in ("settings", "trials")}
    for dataset, layer in profile.get("datasets_settings", {}).items():
        if dataset not in own:
            raise unknown("dataset", dataset, own, f"{where}, datasets_settings")
        layers[f"{where}, datasets_settings.{dataset}"] = layer
    for place, layer in layers.items():
        check_space(layer, place)


def _check_names(selection: Selection, rows: list[dict[str, Any]]) -> None:
    for kind, option, names in ((registry.objectives, "--objectives", selection.objectives),
                                (registry.baselines, "--baselines", selection.baselines)):
        for name in names or ():
            if name != ALL:
                kind.get(name, option)
    labels = [row["label"] for row in rows if "label" in row]
    for label in selection.rows or ():
        if label not in labels:
            raise unknown("row", label, labels, f"suite {selection.suite}")


def _selected(rows: list[dict[str, Any]], selection: Selection) -> list[dict[str, Any]]:
    """Rows that --row and --objectives (generative rows) and --baselines (baseline rows) leave.

    A kind of which nothing is said is there as a whole, or not at all where rows of the other kind are named.
    """

    def among(wanted: tuple[str, ...] | None, names: Iterable[str]) -> bool:
        return wanted is None or ALL in wanted or not set(wanted).isdisjoint(names)

    def chosen(row: dict[str, Any]) -> bool:
        generative, baselines = (selection.rows, selection.objectives), (selection.baselines,)
        own, others = (baselines, generative) if "baseline" in row else (generative, baselines)
        if own == (None,) * len(own):
            return not any(others)
        if "baseline" in row:
            return among(selection.baselines, [row["baseline"]])
        return (selection.rows is None or row["label"] in selection.rows) and among(
            selection.objectives, (objective["name"] for objective in row["objective"]))

    return [row for row in rows if chosen(row)]


def _dataset(text: str, overrides: Overrides) -> Any:
    return registry.datasets.build(dataset_spec(text, overrides))


def _layers(profile: Mapping[str, Any], dataset: str, overrides: Overrides, trials: bool = False) -> list[Overrides]:
    """dataset: the registered name, so that a folder of the user's own never takes another dataset's settings."""
    asked = {part: with_preset(part, values, "--set") for part, values in overrides.items()}
    own = profile.get("datasets_settings", {}).get(dataset, {})
    return [merged(profile.get("settings", {}), profile.get("trials", {}) if trials else {}), own, asked]


def _section(name: str, layers: list[Overrides]) -> Any:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer.get(name, {})
    return settings.build(SECTIONS[name], merged, name)


def _split(dataset: Any, layers: list[Overrides]) -> Any:
    """The split rule: the dataset's own where no layer names one; its settings are those of the part `split`.

    A layer that names another rule drops what lower ones say of settings that this rule has not.
    """
    merged: dict[str, Any] = {"name": dataset.default_split}
    for own in (layer.get("split", {}) for layer in layers):
        if own.get("name", merged["name"]) != merged["name"]:
            known = {field.name for field in dataclasses.fields(registry.splits.get(own["name"], "split.name"))}
            merged = {key: value for key, value in merged.items() if key in known}
        merged |= own
    return registry.splits.build(merged)


def _values(spec: Mapping[str, Any], layers: list[Overrides]) -> dict[str, Any]:
    """The settings of a component: profile < profile's dataset part < the row < --set; the rest has its defaults."""
    name = spec["name"]
    return {**layers[0].get(name, {}), **layers[1].get(name, {}), **spec, **layers[2].get(name, {})}


def _runs(row: Mapping[str, Any], dataset: Any, layers: list[Overrides], seeds: tuple[int, ...],
          profile: str) -> list[RunConfig]:
    shared = {"profile": profile, "dataset": dataset, "split": _split(dataset, layers),
              "evaluation": _section("evaluation", layers)}
    if "baseline" in row:
        return _baseline_runs(row["baseline"], layers, seeds, shared)
    tokenizer = row.get("tokenizer") or {"name": dataset.preferred_tokenizer()}
    decoding = _section("decoding", [*layers[:2], {"decoding": row.get("decoding", {})}, layers[2]])
    _check_beam(decoding, shared["evaluation"])
    stage = row.get("first_stage")
    row_says = {"training": row.get("training", {})}
    training = _section("training", [*layers[:2], row_says, layers[2]])
    if row_says["training"].get("epochs") == 0:  # nothing is trained, so that nothing else of it counts
        training = _section("training", [row_says])
    elif stage and stage.get("continues", True):  # what second_stage says overrides all that training says
        second = [{"training": layer.get("second_stage", {})} for layer in layers]
        training = _section("training", [*layers, *second[:2], row_says, second[2]])
    shared |= {"tokenizer": registry.tokenizers.build(_values(tokenizer, layers)),
               "backbone": registry.backbones.build(_values(row["backbone"], layers)), "decoding": decoding}
    own_parts = {**_objectives(row["objective"], layers), "training": training}
    before = {**_objectives(stage["objective"], layers), "training": _section("training", layers)} if stage else {}
    if stage and "decoding" in stage:
        before["decoding"] = _section("decoding", [*layers[:2], {"decoding": stage["decoding"]}, layers[2]])
    starts = bool(stage) and stage.get("continues", True)
    _check_epochs(row["label"], training if not starts else before["training"])
    runs = []
    for seed in seeds:
        run = RunConfig(label=row["label"], seed=seed, **shared, **own_parts)
        first = RunConfig(label=f"{row['label']}: first stage", seed=seed, **{**shared, **before}) if stage else None
        runs.append(dataclasses.replace(run, uses=_uses(run, first, continues=(stage or {}).get("continues", True))))
    runs[0].backbone.check()
    return runs


def _uses(run: RunConfig, first: RunConfig | None, *, continues: bool) -> tuple[Uses, ...]:
    """What a run takes from its first stage. Raises: UserError where it has none and its reference should be that."""
    if first is None and run.reference == "first_stage":
        raise UserError(f"{run.label}: reference = \"first_stage\", but the run has no first stage. Give its row a "
                        "first_stage, or set the reference to \"initial\" or \"none\".")
    if first is None:
        return ()
    taken = ("weights",) * continues + ("reference",) * (run.reference == "first_stage")
    return tuple(Uses(first, take) for take in taken)


def _objectives(specs: Iterable[Mapping[str, Any]], layers: list[Overrides]) -> dict[str, Any]:
    """The objectives of a stage, and the settings of negatives where one of them needs any. Raises: UserError."""
    pairs = tuple(weighted(_values(spec, layers)) for spec in specs)
    check_needs(w.objective for w in pairs)
    sampled = any("negatives" in w.objective.needs for w in pairs)
    return {"objectives": pairs, "negatives": _section("negatives", layers) if sampled else None}


def _at_its_best(row: Mapping[str, Any], dataset: str) -> Mapping[str, Any]:
    """The row with the settings that its paper has found best for a dataset."""
    if "baseline" in row or not row.get("paper"):
        return row
    *before, last = row["objective"]
    return {**row, "objective": [*before, {**last, **best_values(row["paper"], dataset, row)}]}


def _check_epochs(label: str, training: TrainingConfig) -> None:
    """What starts from random weights is trained. Raises: UserError."""
    if training.epochs == 0:
        raise UserError(f"{label}: training.epochs must be at least 1, got 0, which ranks the weights of a first stage "
                        "as they are; this run starts from random ones.")


def _check_beam(decoding: DecodingConfig, evaluation: EvaluationConfig) -> None:
    """A beam holds the whole list that is scored. Raises: UserError."""
    beams, length = decoding.num_beams, evaluation.max_k
    if beams < length:
        raise UserError(f"decoding.num_beams = {beams} is less than evaluation.max_k = {length}: a list cannot be "
                        "longer than the beam. Set both.")


def _baseline_runs(name: str, layers: list[Overrides], seeds: tuple[int, ...],
                   shared: dict[str, Any]) -> list[RunConfig]:
    """A setting comes from the baseline's file, its part for the profile, the profile, `--set`."""
    file = load_baseline(name)
    values = {**file.get("settings", {}), **file.get("profiles", {}).get(shared["profile"], {})}
    for layer in layers:
        values |= layer.get(name, {})
    baseline = registry.baselines.build({"name": name, **values})
    # a method without randomness gives the same numbers at every seed: one run says it all, and a trial is told apart
    return [RunConfig(label=baseline.label, seed=seed, baseline=baseline, **shared)
            for seed in (seeds if baseline.seeded or seeds == (TUNING_SEED,) else (0,))]
