"""Contracts of everything that is registered and of every file that declares runs; none escapes by being forgotten."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec_bench.backbones.settings import BackboneSettings
from genrec_bench.contracts import Baseline
from genrec_bench.core import registry, settings
from genrec_bench.core.checks import Finding
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical
from genrec_bench.datasets.base import Dataset
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import SECTIONS, RunConfig, from_dict
from genrec_bench.experiments.file_forms import BaselineFile, ProfileFile, SuiteHead, SuiteRow
from genrec_bench.experiments.identity import identity_parts, method, run_id
from genrec_bench.experiments.overrides import parse_overrides
from genrec_bench.experiments.suite_files import FOLDERS, load_baseline, load_presets, preset_names
from genrec_bench.metrics.base import Metric
from genrec_bench.objectives.base import Objective
from genrec_bench.running.plugin_checks import check_plugin
from genrec_bench.splits.base import SplitRule
from genrec_bench.tokenizers.base import Tokenizer
from genrec_bench.training.objective_checks import check_objective

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

KINDS = {kind.kind: kind for kind in registry.KINDS}
BASES = {"dataset": Dataset, "split": SplitRule, "tokenizer": Tokenizer,
         "backbone": BackboneSettings, "objective": Objective, "metric": Metric, "baseline": Baseline}
# Values for settings that have no default.
REQUIRED: dict[str, Any] = {"path": "somewhere"}


def registered() -> list[Any]:
    return [pytest.param(kind, name, id=f"{kind}-{name}") for kind in KINDS for name in names(kind)]


def spec(kind: str, name: str) -> dict[str, Any]:
    """The shortest spec that builds."""
    fields = dataclasses.fields(KINDS[kind].get(name))
    return {"name": name, **{f.name: REQUIRED[f.name] for f in fields if f.default is dataclasses.MISSING}}


def names(kind: str) -> list[str]:
    return KINDS[kind].names()


@pytest.mark.parametrize(("kind", "name"), registered())
def test_every_component_is_a_documented_frozen_dataclass(kind: str, name: str) -> None:
    cls = KINDS[kind].get(name)
    assert issubclass(cls, BASES[kind]) and cls.name == name
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert "__doc__" in vars(cls) and not cls.__doc__.startswith(f"{cls.__name__}("), "a docstring of its own"
    for field in dataclasses.fields(cls):
        assert field.metadata.get("doc", "").strip(), f"setting {field.name} says nothing about itself"
    assert isinstance(getattr(cls, "version", 1), int)


@pytest.mark.parametrize(("kind", "name"), registered())
def test_every_component_builds_and_round_trips(kind: str, name: str) -> None:
    kind_registry = KINDS[kind]
    instance = kind_registry.build(spec(kind, name))
    again = registry.resolved(instance)
    assert kind_registry.build(again) == instance
    assert kind_registry.build(json.loads(json.dumps(again))) == instance  # as a record holds it
    assert hash(instance) == hash(kind_registry.build(again))
    assert set(registry.identity(instance)) - set(spec(kind, name)) == {"version"}, "a default is part of the name"
    canonical(registry.identity(instance))


@pytest.mark.parametrize(("kind", "name"), registered())
def test_every_component_refuses_a_setting_it_has_not(kind: str, name: str) -> None:
    with pytest.raises(UserError, match="unknown setting 'no_such_setting'"):
        KINDS[kind].build({**spec(kind, name), "no_such_setting": 1})


@pytest.mark.parametrize(("kind", "name"), registered())
def test_a_component_is_in_a_file_of_its_name(kind: str, name: str) -> None:
    """A plug-in is found by its file; the models of RecBole share one."""
    module = KINDS[kind].get(name).__module__.rpartition(".")[2]
    assert module == name.replace("-", "_") or (kind, module) == ("baseline", "recbole_models")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_of_a_section_is_documented_and_legal(section: str) -> None:
    cls = SECTIONS[section]
    assert cls.__doc__ and cls.__dataclass_params__.frozen
    assert all(f.metadata.get("doc") for f in dataclasses.fields(cls))
    assert settings.build(cls, settings.to_dict(cls()), section) == cls()


# Objectives

# What a choice asks for besides.
TOGETHER = {("apao", "weights", "static"): {"static_weights": [0.5, 0.3, 0.2]}}


def objective_specs() -> list[Any]:
    """Every objective at its defaults, with every preset, and with every choice of every setting that has choices."""
    found: dict[str, dict[str, Any]] = {}
    for name in names("objective"):
        found[name] = spec("objective", name)
        for preset, values in load_presets(name).items():
            found[f"{name}-{preset}"] = {"name": name, **values}
        for field in dataclasses.fields(registry.objectives.get(name)):
            for choice in field.metadata.get("choices") or ((False, True) if isinstance(field.default, bool) else ()):
                found[f"{name}-{field.name}-{choice}"] = {"name": name, field.name: choice,
                                                          **TOGETHER.get((name, field.name, choice), {})}
    return [pytest.param(values, id=key) for key, values in found.items()]


@pytest.mark.parametrize("name", sorted({*names("objective"), *preset_names()}))
def test_the_paper_preset_is_the_defaults_and_undoes_every_other(name: str) -> None:
    presets = load_presets(name)
    cls = SECTIONS[name] if name in SECTIONS else registry.objectives.get(name)
    assert settings.build(cls, presets["paper"], name) == cls()
    assert all(settings.build(cls, values, name) for values in presets.values())
    assert set().union(*presets.values()) == set(presets["paper"])


# Checks that a reading cannot pass by its definition, each with the reason.
KNOWN = {
    "released_numerics": {"stays finite at log-probabilities of -300"},  # the released code divides 0 by 1e-12
    "hard_max": {"has a finite gradient for every row",  # only the worst level counts: a shorter ID may lack it
                 "falls when the targets' logits rise"},
}


@pytest.mark.parametrize("values", objective_specs())
def test_every_objective_keeps_its_contract(values: dict[str, Any]) -> None:
    objective = registry.objectives.build(values)
    excused = set().union(*(KNOWN[k] for k in KNOWN if values.get(k) is True or k in values.values()))
    failed = [f"{f.name}: {f.detail}" for f in check_objective(objective) if not f.passed and f.name not in excused]
    assert not failed, "\n".join(failed)


# The other kinds

def findings(kind: str, plugin: Any, data_dir: Path | None = None) -> list[Finding]:
    return check_plugin(KINDS[kind], plugin, data_dir)


def broken(found: list[Finding]) -> str:
    return "\n".join(f"{f.name}: {f.detail}" for f in found if not f.passed)


@pytest.mark.parametrize("name", names("backbone"))
def test_every_backbone_keeps_its_contract(name: str) -> None:
    """A network of the default settings, small where the settings are known."""
    small = {"width": 16, "num_layers": 2, "num_heads": 2, "head_width": 8, "feed_forward_width": 32, "dropout": 0.1}
    fields = {f.name for f in dataclasses.fields(registry.backbones.get(name))}
    values = {key: value for key, value in small.items() if key in fields}
    assert not broken(findings("backbone", registry.backbones.build({**spec("backbone", name), **values})))


@pytest.mark.parametrize("name", names("split"))
def test_every_split_keeps_its_contract(name: str) -> None:
    assert not broken(findings("split", registry.splits.get(name)))


@pytest.mark.parametrize("name", names("metric"))
def test_every_metric_keeps_its_contract(name: str) -> None:
    assert not broken(findings("metric", registry.metrics.get(name)))


@pytest.mark.parametrize("name", names("tokenizer"))
def test_every_tokenizer_keeps_its_contract(name: str) -> None:
    assert not broken(findings("tokenizer", registry.tokenizers.get(name)))


@pytest.mark.parametrize("name", [n for n in names("baseline") if not registry.baselines.get(n).seeded])
def test_every_baseline_without_training_keeps_its_contract(name: str) -> None:
    """Those of RecBole take a child process and minutes; `check sasrec` asks them the same."""
    assert not broken(findings("baseline", registry.baselines.get(name)))


@pytest.mark.parametrize("name", ["ml-100k", "folder"])
def test_every_dataset_without_a_data_folder_keeps_its_contract(name: str, toy_folder: Path) -> None:
    dataset = registry.datasets.build({"name": name, **({"path": str(toy_folder)} if name == "folder" else {})})
    found = findings("dataset", dataset)
    assert len(found) == 9 and not broken(found)


@pytest.mark.parametrize("name", names("dataset"))
def test_every_dataset_says_where_it_is_and_how_to_get_it(name: str, tmp_path: Path) -> None:
    dataset = registry.datasets.build(spec("dataset", name))
    assert dataset.preferred_tokenizer() in registry.tokenizers.names()
    if dataset.missing_files(tmp_path):
        *said, finds = findings("dataset", dataset, tmp_path)
        assert not broken(said) and "saw missing: " in finds.detail
        with pytest.raises(UserError):
            dataset.load(tmp_path)


# Files that declare runs

def test_there_are_suites_profiles_and_baselines() -> None:
    assert {"apao", "all"} <= set(grid.suite_names())
    assert {"smoke", "quick", "paper"} <= set(grid.profile_names())
    assert {"popularity", "item_knn", "sasrec", "bert4rec"} <= set(registry.baselines.names())


@pytest.mark.parametrize("profile", grid.profile_names())
@pytest.mark.parametrize("suite", grid.suite_names())
def test_every_suite_expands_for_every_profile_without_data(suite: str, profile: str,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    for name in registry.datasets.names():
        monkeypatch.setattr(registry.datasets.get(name), "load", None)
    configs = grid.expand(grid.Selection(suite, profile))
    seeds = {c.seed for c in configs if c.baseline is None or c.baseline.seeded}
    assert configs and len(seeds) in (0, len(grid.load_profile(profile)["seeds"]))
    ids = [run_id(identity_parts(c, "split", "ids", {u.take: method(u.run) for u in c.uses})) for c in configs]
    assert len(set(ids)) == len(ids), "two runs of one name"
    for config in configs:
        assert isinstance(config, RunConfig) and config.profile == profile and config.label
        assert from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config
        assert (config.baseline is None) == bool(config.backbone and config.tokenizer and config.objectives)
    assert configs == grid.expand(grid.Selection(suite, profile))


@pytest.mark.parametrize("suite", grid.suite_names())
def test_every_suite_file(suite: str) -> None:
    data = grid.load_suite(suite)
    assert data["suite"]["name"] == suite and data["suite"]["title"]
    for part in grid.parts_of(suite):
        rows = grid.load_suite(part)["row"]
        assert rows and set(data["suite"]) <= {f.name for f in dataclasses.fields(SuiteHead)}
        for row in rows:
            assert set(row) <= {f.name for f in dataclasses.fields(SuiteRow)}
            assert ("baseline" in row) != ("backbone" in row)


def test_all_or_the_queue_includes_every_suite() -> None:
    parts = {*grid.parts_of("all"), *grid.parts_of("evidence")}
    assert sorted(parts) == [name for name in grid.suite_names() if name not in ("all", "evidence")]


@pytest.mark.parametrize("profile", grid.profile_names())
def test_every_profile_file_names_what_exists(profile: str) -> None:
    data = grid.load_profile(profile)
    assert set(data) <= {f.name for f in dataclasses.fields(ProfileFile)} and data["title"]
    assert len(set(data["seeds"])) == len(data["seeds"]) > 0
    assert set(data["datasets"]) <= set(registry.datasets.names())
    for layer in (data.get("settings", {}), *data.get("datasets_settings", {}).values()):
        pairs = [f"{part}.{key}={json.dumps(value)}" for part, values in layer.items() for key, value in values.items()]
        assert parse_overrides(pairs) == layer


def test_the_paper_profile_is_the_defaults() -> None:
    assert "settings" not in grid.load_profile("paper") and "datasets_settings" not in grid.load_profile("paper")


def test_profile_smoke_needs_no_data_folder() -> None:
    for name in grid.load_profile("smoke")["datasets"]:
        dataset = registry.datasets.build({"name": name})
        assert dataset.missing_files(None) == [] or name == "ml-100k"


@pytest.mark.parametrize("name", registry.baselines.names())
def test_every_baseline_file(name: str) -> None:
    data = load_baseline(name)
    assert set(data) <= {f.name for f in dataclasses.fields(BaselineFile)}
    fields = {f.name for f in dataclasses.fields(registry.baselines.get(name))}
    for source in data.get("sources", {}):  # of a setting, of `<profile>.<setting>` or of a whole profile
        assert source.rpartition(".")[2] in fields or source in grid.profile_names(), source
    for values in ({}, *data.get("profiles", {}).values()):
        baseline = registry.baselines.build({"name": name, **data.get("settings", {}), **values})
        assert isinstance(baseline, Baseline) and baseline.label


def test_every_baseline_file_is_of_a_registered_baseline() -> None:
    assert {path.stem for path in FOLDERS["baseline"].iterdir()} <= set(registry.baselines.names())
