"""Contracts of everything that is registered and of every file that declares runs; none escapes by being forgotten."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec_bench.backbones.base import Backbone, PrefixState
from genrec_bench.backbones.folding import prefix_tree
from genrec_bench.backbones.settings import BackboneSettings
from genrec_bench.contracts import PAD, SemanticIds
from genrec_bench.core import registry, settings
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical
from genrec_bench.datasets.base import Dataset
from genrec_bench.experiments import grid
from genrec_bench.experiments.config import SECTIONS, RunConfig
from genrec_bench.experiments.identity import identity_parts, run_id
from genrec_bench.experiments.suite_files import ProfileFile, SuiteRow, load_presets
from genrec_bench.metrics.base import Metric
from genrec_bench.objectives.base import Objective
from genrec_bench.search.beam import beam_search
from genrec_bench.tokenizers.base import Tokenizer
from genrec_bench.training.contract_checks import check_objective
from genrec_bench.trie import Trie

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

KINDS = {"dataset": registry.datasets, "tokenizer": registry.tokenizers, "backbone": registry.backbones,
         "objective": registry.objectives, "metric": registry.metrics, "system": registry.systems}
BASES = {"dataset": Dataset, "tokenizer": Tokenizer, "backbone": BackboneSettings, "objective": Objective,
         "metric": Metric, "system": object}
# Values for settings that have no default.
REQUIRED: dict[str, Any] = {"path": "somewhere", "model": "SASRec"}
VOCAB, USERS, DEPTH = 30, 6, 3


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
    again = kind_registry.resolved(instance)
    assert kind_registry.build(again) == instance
    assert kind_registry.build(json.loads(json.dumps(again))) == instance  # as a record holds it
    canonical(kind_registry.identity(again))


@pytest.mark.parametrize(("kind", "name"), registered())
def test_every_component_refuses_a_setting_it_has_not(kind: str, name: str) -> None:
    with pytest.raises(UserError, match="unknown setting 'no_such_setting'"):
        KINDS[kind].build({**spec(kind, name), "no_such_setting": 1})


@pytest.mark.parametrize(("kind", "name"), registered())
def test_a_component_stands_in_a_file_of_its_name(kind: str, name: str) -> None:
    """A plug-in is found by its file; `recbole` is a system whose file says what it does."""
    module = KINDS[kind].get(name).__module__.rpartition(".")[2]
    assert module in (name.replace("-", "_"), f"{name}_adapter")


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


@pytest.mark.parametrize("name", names("objective"))
def test_the_paper_preset_is_the_defaults_and_undoes_every_other(name: str) -> None:
    presets = load_presets(name)
    assert registry.objectives.build({"name": name, **presets["paper"]}) == registry.objectives.build({"name": name})
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


# Backbones

def backbone(name: str) -> Backbone:
    """A network of the default settings, small where the settings are known."""
    small = {"width": 16, "num_layers": 2, "num_heads": 2, "head_width": 8, "feed_forward_width": 32, "dropout": 0.1}
    fields = {f.name for f in dataclasses.fields(registry.backbones.get(name))}
    values = {key: value for key, value in small.items() if key in fields}
    return registry.backbones.build({**spec("backbone", name), **values}).build(VOCAB, 0).eval()


def history(model: Backbone) -> torch.Tensor:
    random = np.random.default_rng(0)
    rows = [[*random.integers(2, VOCAB, size=2 + 3 * n), *model.history_suffix] for n in range(USERS)]
    return torch.tensor([[*row, *[PAD] * (20 - len(row))] for row in rows])


@pytest.mark.parametrize("name", names("backbone"))
@torch.no_grad()
def test_every_backbones_token_logits(name: str) -> None:
    model = backbone(name)
    codes = torch.randint(2, VOCAB, (USERS, 4, DEPTH), generator=torch.Generator().manual_seed(0))
    logits = model.token_logits(history(model), codes)
    assert logits.shape == (USERS, 4, DEPTH, VOCAB) and logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, model.token_logits(history(model), codes)), "evaluation draws random numbers"
    for level in range(DEPTH):
        changed = codes.clone()
        changed[:, :, level:] = 2
        other = model.token_logits(history(model), changed)
        torch.testing.assert_close(other[:, :, :level + 1], logits[:, :, :level + 1], atol=1e-5, rtol=0)
    shorter = model.token_logits(history(model), codes[:, :, :1])
    torch.testing.assert_close(shorter, logits[:, :, :1], atol=1e-5, rtol=0)
    padded = torch.nn.functional.pad(history(model), (0, 5))
    torch.testing.assert_close(model.token_logits(padded, codes), logits, atol=1e-5, rtol=0)
    order = torch.randperm(USERS)
    shuffled = model.token_logits(history(model)[order], codes[order])
    torch.testing.assert_close(shuffled, logits[order], atol=1e-5, rtol=0)


def candidates(seed: int) -> torch.Tensor:
    """(USERS, 6, DEPTH): shared prefixes, duplicates, one user with equal candidates, shorter IDs."""
    codes = torch.randint(2, 5, (USERS, 6, DEPTH), generator=torch.Generator().manual_seed(seed))
    codes[:, 5], codes[1], codes[2, :3, 1:], codes[3, 0, 2:] = codes[:, 4], codes[1, 0], PAD, PAD
    return codes


@pytest.mark.parametrize("name", names("backbone"))
@torch.no_grad()
def test_every_backbones_folded_candidates_equal_single_ones(name: str) -> None:
    model, codes = backbone(name), candidates(0)
    whole = model.token_logits(history(model), codes)
    for c in range(codes.shape[1]):
        alone = model.token_logits(history(model), codes[:, c:c + 1])
        torch.testing.assert_close(whole[:, c:c + 1], alone, atol=1e-5, rtol=0)
    for b in range(USERS):
        alone = model.token_logits(history(model)[b:b + 1], codes[b:b + 1])
        torch.testing.assert_close(whole[b:b + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", names("backbone"))
def test_every_backbones_node_logits(name: str) -> None:
    """Rows along each candidate are those of `token_logits`, and so are the gradients."""
    model, codes = backbone(name), candidates(1)
    if type(model).node_logits is Backbone.node_logits:
        pytest.skip(f"{name} does not fold candidates")
    tree, real = prefix_tree(codes), codes != PAD
    nodes = model.node_logits(history(model), tree)
    assert nodes.shape == (*tree.tokens.shape, VOCAB) and nodes.dtype == torch.float32 and nodes.isfinite().all()
    columns = [model.token_logits(history(model), one) for one in codes.split(1, dim=1)]
    folded, whole = tree.gather(nodes)[real], torch.cat(columns, dim=1)[real]
    torch.testing.assert_close(folded, whole, atol=1e-5, rtol=0)
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1))
    parameters = list(model.parameters())
    wanted = torch.autograd.grad((whole * weights).sum(), parameters)
    for found, expected in zip(torch.autograd.grad((folded * weights).sum(), parameters), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


@pytest.mark.parametrize("name", names("backbone"))
@torch.no_grad()
def test_every_backbone_that_packs_users(name: str) -> None:
    """Instances of one user out of one pass, next to a user with a single instance."""
    model = backbone(name)
    if not model.packs_users:
        with pytest.raises(TypeError, match="no packed_logits"):
            model.packed_logits(history(model), torch.zeros(1).long(), torch.ones(1).long(), DEPTH)
        return
    assert model.history_suffix == (), "a suffix would stand between a history and its target"
    sequences = torch.randint(2, VOCAB, (2, 4 * DEPTH), generator=torch.Generator().manual_seed(0))
    sequences[1, 2 * DEPTH:] = PAD
    sequence, length = torch.tensor([0, 1, 0, 0]), torch.tensor([1, 1, 3, 2]) * DEPTH
    packed = model.packed_logits(sequences, sequence, length, DEPTH)
    for row, (group, end) in enumerate(zip(sequence.tolist(), length.tolist(), strict=True)):
        target = sequences[group, end:end + DEPTH]
        alone = model.token_logits(sequences[group, :end][None], target[None, None])[0, 0]
        torch.testing.assert_close(packed[row], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", names("backbone"))
def test_every_backbones_start_equals_whole_prefixes(name: str) -> None:
    model = backbone(name)
    codes = np.random.default_rng(1).integers(0, 4, size=(40, DEPTH)) + 2 + 4 * np.arange(DEPTH)
    trie = Trie.from_codes(codes)

    class Slow:
        def start(self, histories: torch.Tensor) -> PrefixState:
            return PrefixState(model, histories)

    for width in (1, 5, 50):
        fast = beam_search(model, history(model), trie, num_beams=width)
        slow = beam_search(Slow(), history(model), trie, num_beams=width)
        torch.testing.assert_close(fast.scores, slow.scores, atol=1e-5, rtol=0)
        assert torch.equal(fast.ids, slow.ids)


@pytest.mark.parametrize("name", names("backbone"))
def test_every_backbone_learns_and_is_seeded(name: str) -> None:
    model = backbone(name).train()
    codes = torch.randint(2, VOCAB, (USERS, 1, DEPTH), generator=torch.Generator().manual_seed(0))
    model.token_logits(history(model), codes).log_softmax(-1)[..., 2].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in model.parameters())
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    torch.manual_seed(5)
    again = backbone(name).state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in model.state_dict().items())


# Metrics and tokenizers

@pytest.mark.parametrize("name", names("metric"))
def test_every_metric_is_in_range_and_monotone(name: str) -> None:
    metric = registry.metrics.build({"name": name})
    low, high = metric.value_range
    ranks = np.arange(0, 40)
    for k in (1, 2, 10, 20, 39):
        values = metric.values(ranks, k)
        assert values.dtype == np.float64 and values.shape == ranks.shape
        assert (values >= low).all() and (values <= high).all()
        assert values[0] == 0 and not values[k + 1:].any(), "beyond the list"
        gains = values[1:] if metric.increasing else -values[1:]
        assert (np.diff(gains) <= 0).all(), "a better place must not be worth less"
        assert (metric.values(ranks, k + 1) >= values).all(), "a longer list must not be worth less"
    assert metric.values(np.array([1]), 5)[0] == high


@pytest.mark.parametrize("name", names("tokenizer"))
def test_every_tokenizer_on_the_toy(name: str, toy_interactions: Any) -> None:
    small = {"levels": 2, "codebook_size": 6, "dimensions": 4} if name == "rq_kmeans" else {}
    tokenizer = registry.tokenizers.build({**spec("tokenizer", name), **small})
    ids = tokenizer.fit(toy_interactions)
    assert isinstance(ids, SemanticIds) and len(ids.tokens) == toy_interactions.num_items
    assert ids.tokens.dtype == np.int64 and ids.tokens.max() < ids.vocab_size
    Trie.from_codes(ids.tokens)
    json.dumps(dict(ids.table), allow_nan=False)
    assert tokenizer.fit(toy_interactions).fingerprint == ids.fingerprint


@pytest.mark.parametrize("name", names("dataset"))
def test_every_dataset_says_where_it_is_and_how_to_get_it(name: str, tmp_path: Path) -> None:
    dataset = registry.datasets.build(spec("dataset", name))
    assert dataset.how_to_get and dataset.location(tmp_path)
    assert dataset.preferred_tokenizer() in registry.tokenizers.names()
    if dataset.missing_files(tmp_path):
        with pytest.raises(UserError):
            dataset.load(tmp_path)


# Files that declare runs

def test_there_are_suites_profiles_and_baselines() -> None:
    assert {"apao", "all"} <= set(grid.suite_names())
    assert {"smoke", "quick", "paper"} <= set(grid.profile_names())
    assert {"popularity", "item_knn", "sasrec", "bert4rec"} <= set(grid.baseline_names())


@pytest.mark.parametrize("profile", grid.profile_names())
@pytest.mark.parametrize("suite", grid.suite_names())
def test_every_suite_expands_for_every_profile_without_data(suite: str, profile: str,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    for name in registry.datasets.names():
        monkeypatch.setattr(registry.datasets.get(name), "load", None)
    configs = grid.expand(grid.Selection(suite, profile))
    assert configs and len({c.seed for c in configs}) == len(grid.load_profile(profile)["seeds"])
    ids = [run_id(identity_parts(c, "split", "ids")) for c in configs]
    assert len(set(ids)) == len(ids), "two runs of one name"
    for config in configs:
        assert isinstance(config, RunConfig) and config.profile == profile and config.label
        json.dumps(config.to_dict(), allow_nan=False)
        assert (config.baseline is None) == bool(config.backbone and config.tokenizer and config.objective)
    assert configs == grid.expand(grid.Selection(suite, profile))


@pytest.mark.parametrize("suite", grid.suite_names())
def test_every_suite_file(suite: str) -> None:
    data = grid.load_suite(suite)
    assert data["suite"]["name"] == suite and data["suite"]["title"]
    for part in grid.parts_of(suite):
        rows = grid.load_suite(part)["row"]
        assert rows and set(data["suite"]) <= {"name", "title", "paper", "includes"}
        for row in rows:
            assert set(row) <= {f.name for f in dataclasses.fields(SuiteRow)}
            assert ("baseline" in row) != ("backbone" in row)


def test_suite_all_includes_every_other_suite() -> None:
    assert sorted(grid.parts_of("all")) == [name for name in grid.suite_names() if name != "all"]


@pytest.mark.parametrize("profile", grid.profile_names())
def test_every_profile_file_names_what_exists(profile: str) -> None:
    data = grid.load_profile(profile)
    assert set(data) <= {f.name for f in dataclasses.fields(ProfileFile)} and data["title"]
    assert len(set(data["seeds"])) == len(data["seeds"]) > 0
    assert set(data["datasets"]) <= set(registry.datasets.names())
    for layer in (data.get("settings", {}), *data.get("datasets_settings", {}).values()):
        pairs = [f"{part}.{key}={json.dumps(value)}" for part, values in layer.items() for key, value in values.items()]
        assert grid.parse_overrides(pairs) == layer


def test_the_paper_profile_is_the_defaults() -> None:
    assert "settings" not in grid.load_profile("paper") and "datasets_settings" not in grid.load_profile("paper")


def test_profile_smoke_needs_no_data_folder() -> None:
    for name in grid.load_profile("smoke")["datasets"]:
        dataset = registry.datasets.build({"name": name})
        assert dataset.missing_files(None) == [] or name == "ml-100k"


@pytest.mark.parametrize("name", grid.baseline_names())
def test_every_baseline_file(name: str) -> None:
    data = grid.load_baseline(name)
    assert data["name"] == name and data["label"] and isinstance(data["seeded"], bool)
    assert set(data) <= {"name", "label", "system", "seeded", "settings", "profiles", "sources"}
    assert set(data.get("profiles", {})) <= set(grid.profile_names())
    fields = {f.name for f in dataclasses.fields(registry.systems.get(data["system"]))}
    for source in data.get("sources", {}):  # of a setting, of `<profile>.<setting>` or of a whole profile
        assert source.rpartition(".")[2] in fields or source in grid.profile_names(), source
    for values in ({}, *data.get("profiles", {}).values()):
        system = registry.systems.build({"name": data["system"], **data["settings"], **values})
        assert registry.systems.build(registry.systems.resolved(system)) == system
        assert callable(system.run)
