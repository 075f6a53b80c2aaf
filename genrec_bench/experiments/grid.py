"""From a suite and a profile to the list of runs."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from genrec_bench.core import registry, settings
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.seeds import check_seeds
from genrec_bench.datasets.base import dataset_label, dataset_spec
from genrec_bench.experiments.config import SECTIONS, DecodingConfig, EvaluationConfig, FirstStage, RunConfig
from genrec_bench.experiments.suite_files import (  # noqa: F401  (suite_names and profile_names for those who plan)
    FOLDERS,
    GRIDS,
    baseline_label,
    baseline_names,
    best_values,
    load_baseline,
    load_profile,
    load_suite,
    profile_names,
    suite_names,
    with_preset,
)

Overrides = dict[str, dict[str, Any]]  # {section, component or baseline: {setting: value}}


@dataclass(frozen=True)
class Selection:
    """What the command line asks of a suite; None = what the suite and the profile say."""

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
    """The suites a suite stands for: itself, or those it includes."""
    return list(load_suite(name)["suite"].get("includes", [name]))


def expand(selection: Selection) -> list[RunConfig]:
    """Every run of a selection, in the order of datasets, rows and seeds; a first stage stands before what follows it.

    A setting is taken from, in rising order: the component's default, the baseline's file, the profile, the profile's
    part for the dataset, the suite's row, `--set`. Raises: UserError for any wrong name.
    """
    rows = [{**row, "paper": file["suite"].get("paper")} for file in map(load_suite, parts_of(selection.suite))
            for row in file.get("row", [])]
    _check_names(selection, rows)
    grid = selection.grid or load_profile(selection.profile).get("grid", GRIDS[0])
    if selection.rows is None:  # a row that is named is run, whichever grid it is part of
        rows = [row for row in rows if GRIDS.index(row.get("grid", GRIDS[0])) <= GRIDS.index(grid)]
    runs = expand_rows(_selected(rows, selection), selection)
    if not runs:
        raise UserError(f"suite {selection.suite} has no row left after --objectives, --row, --baselines and --grid.")
    return runs


def expand_rows(rows: list[dict[str, Any]], selection: Selection) -> list[RunConfig]:
    """Every run of some rows, as a suite's file holds them; what a selection says of suite and rows is not read."""
    profile = load_profile(selection.profile)
    _check_profile(selection.profile, profile)
    seeds = tuple(profile["seeds"]) if selection.seeds is None else check_seeds(selection.seeds, "seeds")
    runs: dict[str, RunConfig] = {}
    for text in selection.datasets or profile["datasets"]:
        spec = _dataset(text, selection.overrides)
        layers = _layers(profile, spec["name"], selection.overrides)
        for row in rows:
            for config in _runs(row, spec, layers, seeds, selection.profile):
                for part in filter(None, (config.first(), config)):
                    _check(part)
                    runs.setdefault(str(dataclasses.replace(part, label="")), part)
    return list(runs.values())


def check_overrides(overrides: Overrides, configs: Iterable[RunConfig]) -> None:
    """Refuse a `--set` that no run reads. Raises: UserError."""
    used = set(SECTIONS) - {"second_stage", "negatives"}
    for config in configs:
        parts = {"negatives": config.negatives, "second_stage": config.first_stage}
        used |= {name for name, part in parts.items() if part}
        specs = [config.dataset, config.tokenizer, config.backbone, config.baseline, *config.objective]
        used |= {spec["name"] for spec in specs if spec}
    for target in overrides:
        if target not in used:
            raise UserError(f"--set {target}...: no run of this selection uses {target}. "
                            f"Used: {', '.join(sorted(used))}.")


def parse_overrides(pairs: Iterable[str]) -> Overrides:
    """`["training.epochs=5", ...]` as overrides; values are read as TOML, else as text. Raises: UserError."""
    result: Overrides = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        target, dot, key = path.strip().rpartition(".")
        if not (equals and dot and target and key):
            raise UserError(f"--set takes PART.SETTING=VALUE such as training.epochs=5, got {pair!r}.")
        check_fields(target, [key], f"--set {path.strip()}")
        result.setdefault(target, {})[key] = _value(value.strip())
    return result


def check_fields(target: str, keys: Iterable[str], where: str) -> None:
    """Refuse settings that a part has not. Raises: UserError."""
    fields = _fields_of(target)
    if target in registry.objectives.names():
        fields += ["weight", "preset"]
    for key in keys:
        if key not in fields:
            raise unknown("setting", key, fields, where)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fields_of(target: str) -> list[str]:
    """Settings of a section, component or baseline. Raises: UserError with the nearest name."""
    known = {**_parts(), **{name: registry.datasets.get(name) for name in registry.datasets.names()}}
    if target not in known:
        raise unknown("part", target, known, "--set")
    return [f.name for f in dataclasses.fields(known[target])]


def _parts() -> dict[str, type]:
    """Everything but datasets that has settings: sections, components and baselines."""
    kinds = (registry.tokenizers, registry.backbones, registry.objectives)
    return {**SECTIONS, **{name: kind.get(name) for kind in kinds for name in kind.names()},
            **{name: registry.systems.get(load_baseline(name)["system"]) for name in baseline_names()}}


def _check_profile(name: str, profile: Mapping[str, Any]) -> None:
    """Refuse settings of a profile that no run could ever read. Raises: UserError naming the file."""
    where = str(FOLDERS["profile"] / f"{name}.toml")
    own = [n for n in registry.datasets.names() if not registry.datasets.get(n).needs_path]
    layers = {f"{where}, settings": profile.get("settings", {})}
    for dataset, layer in profile.get("datasets_settings", {}).items():
        if dataset not in own:
            raise unknown("dataset", dataset, own, f"{where}, datasets_settings")
        layers[f"{where}, datasets_settings.{dataset}"] = layer
    parts = _parts()
    for place, layer in layers.items():
        for part, values in layer.items():
            if part not in parts:
                raise unknown("part", part, parts, place)
            fields = [f.name for f in dataclasses.fields(parts[part])]
            for key in values:
                if key not in fields:
                    raise unknown("setting", key, fields, f"{place}.{part}")


def _check_names(selection: Selection, rows: list[dict[str, Any]]) -> None:
    for name in selection.objectives or ():
        registry.objectives.get(name, "--objectives")
    available = [row["baseline"] for row in rows if "baseline" in row]
    for name in selection.baselines or ():
        if name not in available:
            raise unknown("baseline", name, available, f"suite {selection.suite}")
    labels = [row["label"] for row in rows if "label" in row]
    for label in selection.rows or ():
        if label not in labels:
            raise unknown("row", label, labels, f"suite {selection.suite}")


def _selected(rows: list[dict[str, Any]], selection: Selection) -> list[dict[str, Any]]:
    """Rows that --row and --objectives (generative rows) and --baselines (baseline rows) leave."""

    def wanted(row: dict[str, Any]) -> bool:
        if "baseline" in row:
            return selection.baselines is None or row["baseline"] in selection.baselines
        if selection.rows is not None and row["label"] not in selection.rows:
            return False
        return selection.objectives is None or any(o["name"] in selection.objectives for o in row["objective"])

    return [row for row in rows if wanted(row)]


def _dataset(text: str, overrides: Overrides) -> dict[str, Any]:
    spec = dataset_spec(text, overrides)
    if spec["name"] == "folder":
        spec["label"] = dataset_label(spec)
    return registry.datasets.resolved(registry.datasets.build(spec))


def _layers(profile: Mapping[str, Any], dataset: str, overrides: Overrides) -> list[Overrides]:
    """dataset: the registered name, so that a folder of the user's own never takes another dataset's settings."""
    return [profile.get("settings", {}), profile.get("datasets_settings", {}).get(dataset, {}), overrides]


def _section(name: str, layers: list[Overrides]) -> Any:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer.get(name, {})
    return settings.build(SECTIONS[name], merged, name)


def _component(kind: registry.Registry, spec: Mapping[str, Any], layers: list[Overrides]) -> dict[str, Any]:
    """A spec with all settings: default < profile < profile's dataset part < the row < --set."""
    name = spec["name"]
    values = {**layers[0].get(name, {}), **layers[1].get(name, {}), **spec,
              **with_preset({"name": name, **layers[2].get(name, {})}, "--set")}
    weight = {"weight": _weight(values.pop("weight"), name)} if "weight" in values else {}
    return {**kind.resolved(kind.build(values)), **weight}


def _weight(value: Any, name: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(f"objective {name}: weight must be a number, got {value!r}.")
    return float(value)


def _runs(row: Mapping[str, Any], dataset: dict[str, Any], layers: list[Overrides], seeds: tuple[int, ...],
          profile: str) -> list[RunConfig]:
    shared = {"profile": profile, "dataset": dataset, "split": _section("split", layers),
              "evaluation": _section("evaluation", layers)}
    if "baseline" in row:
        return _baseline_runs(row, layers, seeds, shared)
    preferred = registry.datasets.build(dataset).preferred_tokenizer()
    decoding = _section("decoding", [*layers[:2], {"decoding": row.get("decoding", {})}, layers[2]])
    _check_beam(decoding, shared["evaluation"])
    stage = row.get("first_stage")
    own = [*layers[:2], {"training": row.get("training", {})}, layers[2]]
    training = _section("training", own)
    if stage and stage.get("continues", True):  # what second_stage says stands above all that training says
        training = _section("training", [*own, *({"training": layer.get("second_stage", {})} for layer in layers)])
    parts = {"tokenizer": _component(registry.tokenizers, row.get("tokenizer", {"name": preferred}), layers),
             "backbone": _component(registry.backbones, row["backbone"], layers),
             **_objectives(_best(row, dataset["name"]), layers), "training": training, "decoding": decoding}
    if stage:
        before = _objectives(stage["objective"], layers)
        parts["first_stage"] = FirstStage(**before, training=_section("training", layers),
                                          continues=stage.get("continues", True))
    return [RunConfig(label=row["label"], seed=seed, **shared, **parts) for seed in seeds]


def _objectives(specs: Iterable[Mapping[str, Any]], layers: list[Overrides]) -> dict[str, Any]:
    """The resolved objectives of a stage, and the settings of negatives where one of them needs any."""
    from genrec_bench.objectives.base import check_needs_type  # with torch, which not every plan needs

    resolved = tuple(_component(registry.objectives, spec, layers) for spec in specs)
    built = [registry.objectives.build({k: v for k, v in spec.items() if k != "weight"}) for spec in resolved]
    for objective in built:
        check_needs_type(objective)
    sampled = any("negatives" in objective.needs for objective in built)
    return {"objective": resolved, "negatives": _section("negatives", layers) if sampled else None}


def _best(row: Mapping[str, Any], dataset: str) -> list[dict[str, Any]]:
    """The row's objectives; where the paper says which settings are best for a dataset, the last one has them."""
    specs = list(row["objective"])
    if row.get("best") and row.get("paper"):
        found = best_values(row["paper"], row["best"], dataset, row["best_row"])
        specs[-1] = {**specs[-1], **{"weight" if k == "beta" else k: v for k, v in found.items()}}
    return specs


def _check_beam(decoding: DecodingConfig, evaluation: EvaluationConfig) -> None:
    """A beam holds the whole list that is scored. Raises: UserError."""
    beams, length = decoding.num_beams, evaluation.max_k
    if beams < length:
        raise UserError(f"decoding.num_beams = {beams} is less than evaluation.max_k = {length}: a list cannot be "
                        "longer than the beam. Set both.")
    if evaluation.exclude_history and beams < 2 * length:
        raise UserError(f"decoding.num_beams = {beams} is too narrow for evaluation.exclude_history: what is taken out "
                        f"leaves the beam's list, so it takes twice evaluation.max_k = {length}. Add --set "
                        f"decoding.num_beams={2 * length}.")


def _check(config: RunConfig) -> None:
    """What a run needs beyond settings that are each legal. Raises: UserError."""
    if config.baseline is not None:
        spec = {k: v for k, v in config.baseline.items() if k != "system"}
        check = getattr(registry.systems.build({**spec, "name": config.baseline["system"]}), "check", None)
        if check is not None:
            check(config)
        return
    registry.backbones.build(config.backbone).check()


def _baseline_runs(row: Mapping[str, Any], layers: list[Overrides], seeds: tuple[int, ...],
                   shared: dict[str, Any]) -> list[RunConfig]:
    file = load_baseline(row["baseline"])
    values = {**file["settings"], **file.get("profiles", {}).get(shared["profile"], {})}
    for layer in layers:
        values |= layer.get(file["name"], {})
    system = registry.systems.build({"name": file["system"], **values})
    resolved = {**registry.systems.resolved(system), "system": file["system"], "name": file["name"]}
    # a method without randomness gives the same numbers at every seed: one run says it all
    return [RunConfig(label=baseline_label(file, resolved), seed=seed, baseline=resolved, **shared)
            for seed in (seeds if file["seeded"] else (0,))]
