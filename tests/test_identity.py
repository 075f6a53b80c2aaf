"""Names of runs: what they depend on, and what they do not."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.core import provenance, registry
from genrec_bench.core.files import canonical
from genrec_bench.core.seeds import stream_seed
from genrec_bench.core.settings import setting
from genrec_bench.experiments import identity
from genrec_bench.experiments.config import (
    DecodingConfig,
    EvaluationConfig,
    RunConfig,
    TrainingConfig,
    Uses,
    Weighted,
)
from genrec_bench.running.workspace import Workspace
from genrec_bench.splits.leave_one_out import LeaveOneOut
from tests import defaults
from tests.small_jobs import write_toy

ROOT = Path(__file__).resolve().parents[1]
PINNED_NAME = "e25c51465bd99eba"


def built(kind: registry.Registry, name: str, **values: Any) -> Any:
    return kind.build({"name": name, **values})


def generative(**changes: Any) -> RunConfig:
    """A run with all parts, some of them changed."""
    values = {"label": "TIGER", "profile": "quick", "dataset": built(registry.datasets, "ml-100k"), "seed": 0,
              "split": LeaveOneOut(),
              "tokenizer": built(registry.tokenizers, "rq_kmeans"), "backbone": built(registry.backbones, "tiger"),
              "objectives": (Weighted(built(registry.objectives, "cross_entropy")),), "training": TrainingConfig(),
              "decoding": DecodingConfig()}
    return RunConfig(**{**values, **changes})


def baseline(name: str = "item_knn", **changes: Any) -> RunConfig:
    return RunConfig(label="x", profile="quick", dataset=built(registry.datasets, "ml-100k"), seed=0,
                     split=LeaveOneOut(), baseline=built(registry.baselines, name, **changes))


def name_of(config: RunConfig, split: str = "s", ids: str | None = "i", used: Mapping[str, str] | None = None) -> str:
    return identity.run_id(identity.identity_parts(config, split, ids, used or {}))


def test_a_name_is_sixteen_hex_digits() -> None:
    assert len(name_of(generative())) == 16 and int(name_of(generative()), 16) >= 0


def test_label_and_profile_do_not_name_a_run() -> None:
    plain = name_of(generative())
    assert name_of(generative(label="another", profile="paper")) == plain


def test_key_order_and_whole_floats_do_not_name_a_run() -> None:
    plain = name_of(generative())
    backbone = registry.backbones.build(dict(reversed(registry.resolved(generative().backbone).items())))
    assert name_of(generative(backbone=backbone)) == plain
    assert name_of(generative(training=TrainingConfig(clip_norm=1))) == plain
    a = canonical({"b": 1.0, "a": [2.0, 0.5]})
    assert a == canonical({"a": (2, 0.5), "b": 1}) == '{"a":[2,0.5],"b":1}'


def test_a_number_that_is_not_finite_has_no_name() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


def test_what_has_its_default_is_not_in_the_name() -> None:
    """Only what differs is: of a component besides its name and version, of a section nothing."""
    objective = built(registry.objectives, "cross_entropy")
    assert identity.method_parts(generative(objectives=(Weighted(objective), Weighted(objective, 0.5)),
                                            backbone=built(registry.backbones, "tiger", width=64),
                                            decoding=DecodingConfig(num_beams=30))) == {
        "engine": 3, "split": {"name": "leave_one_out", "version": 1}, "tokenizer": {"name": "rq_kmeans", "version": 1},
        "backbone": {"name": "tiger", "version": 1, "width": 64},
        "objectives": [{"name": "cross_entropy", "version": 1}, {"name": "cross_entropy", "version": 1, "weight": 0.5}],
        "training": {"version": 2}, "decoding": {"num_beams": 30}}
    assert identity.method_parts(baseline(decay=0.5)) == {
        "engine": 3, "split": {"name": "leave_one_out", "version": 1},
        "baseline": {"name": "item_knn", "version": 2, "decay": 0.5}}


def other(value: Any, choices: tuple | None) -> Any:
    """A legal value that is not this one."""
    if choices:
        return next(c for c in choices if c != value)
    if isinstance(value, bool):
        return not value
    return value + "x" if isinstance(value, str) else (*value, "x") if isinstance(value, tuple) else value + 1 \
        if isinstance(value, int) else value / 2 + 0.01


def changed_settings(cls: type) -> list[tuple[str, Any]]:
    return [(f.name, other(f.default, f.metadata.get("choices"))) for f in dataclasses.fields(cls)]


@pytest.mark.parametrize(("part", "cls"), [("split", LeaveOneOut), ("training", TrainingConfig),
                                           ("decoding", DecodingConfig), ("evaluation", EvaluationConfig)])
def test_every_setting_of_a_section_names_the_run(part: str, cls: type) -> None:
    names = {name_of(generative())}
    for key, value in changed_settings(cls):
        names.add(name_of(generative(**{part: cls(**{key: value})})))
    assert len(names) == 1 + len(dataclasses.fields(cls))


@pytest.mark.parametrize(("part", "kind", "name"), [
    ("backbone", registry.backbones, "tiger"), ("tokenizer", registry.tokenizers, "rq_kmeans"),
    ("tokenizer", registry.tokenizers, "given")])
def test_every_setting_of_a_component_names_the_run(part: str, kind: registry.Registry, name: str) -> None:
    settings = changed_settings(kind.get(name))
    names = {name_of(generative(**{part: built(kind, name)}))}
    for key, value in settings:
        names.add(name_of(generative(**{part: built(kind, name, **{key: value})})))
    assert len(names) == 1 + len(settings)


def test_seed_weight_order_and_data_name_the_run() -> None:
    objective = built(registry.objectives, "cross_entropy")
    other = built(registry.objectives, "msl")
    names = [name_of(generative()), name_of(generative(seed=1)), name_of(generative(), split="other"),
             name_of(generative(), ids="other"),
             name_of(generative(dataset=built(registry.datasets, "apao_office"))),
             name_of(generative(objectives=(Weighted(objective, 0.5),))),
             name_of(generative(objectives=(Weighted(objective), Weighted(objective)))),
             name_of(generative(objectives=(Weighted(objective), Weighted(other)))),
             name_of(generative(objectives=(Weighted(other), Weighted(objective)))), name_of(baseline(), ids=None),
             name_of(baseline(decay=0.5), ids=None), name_of(baseline("popularity"), ids=None)]
    assert len(set(names)) == len(names)


def test_a_method_is_a_run_without_seed_and_data() -> None:
    plain = identity.method(generative())
    for same in ({"seed": 1}, {"dataset": built(registry.datasets, "apao_office")}, {"label": "y", "profile": "paper"}):
        assert identity.method(generative(**same)) == plain
    assert identity.method(generative(split=LeaveOneOut(max_history=5))) != plain
    assert identity.method(generative(evaluation=EvaluationConfig(max_k=10))) != plain


def test_the_runs_that_are_used_name_a_run_and_its_method() -> None:
    """What is taken counts, and from which run: by its name in a run's name, by its method in a method's."""
    before = generative(label="first stage")
    after = [generative(), *(generative(uses=(Uses(first, take),)) for take in ("weights", "reference")
                             for first in (before, generative(training=TrainingConfig(epochs=5))))]
    assert len({identity.method(config) for config in after}) == len(after)
    assert identity.method(after[1]) == identity.method(
        generative(seed=3, uses=(Uses(generative(label="z", seed=3), "weights"),)))
    names = {name_of(generative(), used=used) for used in ({}, {"weights": "a"}, {"weights": "b"}, {"reference": "a"})}
    assert len(names) == 4


def test_a_folders_path_and_label_do_not_name_a_run() -> None:
    """What the data is, is told by the split's fingerprint."""
    folders = [built(registry.datasets, "folder", path=path, label=label)
               for path, label in (("/a", "x"), ("/b", "y"))]
    assert name_of(generative(dataset=folders[0])) == name_of(generative(dataset=folders[1]))
    index = built(registry.datasets, "folder", path="/a", index="other")
    assert name_of(generative(dataset=index)) != name_of(generative(dataset=folders[0]))


@pytest.mark.parametrize(("cls", "config"), [
    (registry.backbones.get("tiger"), generative), (registry.tokenizers.get("rq_kmeans"), generative),
    (registry.objectives.get("cross_entropy"), generative), (registry.datasets.get("ml-100k"), generative),
    (registry.baselines.get("item_knn"), baseline)])
def test_a_components_version_names_the_run(cls: type, config: Callable[[], RunConfig],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_of(config())
    monkeypatch.setattr(cls, "version", getattr(cls, "version", 1) + 1, raising=False)
    assert name_of(config()) != before


def test_the_engines_version_names_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_of(generative())
    monkeypatch.setattr(identity, "ENGINE_VERSION", identity.ENGINE_VERSION + 1)
    assert name_of(generative()) != before


# --- defaults --------------------------------------------------------------------------------------------------------

def test_a_default_changes_only_with_its_version() -> None:
    """A name holds no defaults: a changed one without a new version would give an old run's name to another run."""
    stored, now = json.loads(defaults.STORED.read_text(encoding="utf-8")), defaults.current()
    assert defaults.changed_alone(stored, now) == []
    assert now == stored, "write the new state: python -m tests.defaults"


@pytest.mark.parametrize(("now", "found"), [
    ({"version": 1, "defaults": {"a": 1, "b": "x"}}, []),
    ({"version": 1, "defaults": {"a": 1, "b": "x", "new": None}}, []),
    ({"version": 1, "defaults": {"a": 1, "b": "y"}}, ["kind.part.b"]),
    ({"version": 1, "defaults": {"b": "x"}}, ["kind.part.a"]),
    ({"version": 2, "defaults": {"a": 0}}, [])])
def test_what_counts_as_a_changed_default(now: dict, found: list[str]) -> None:
    """A new setting does not; one that is gone does."""
    before = {"version": 1, "defaults": {"a": 1, "b": "x"}}
    assert defaults.changed_alone({"kind": {"part": before}}, {"kind": {"part": now}}) == found
    assert defaults.changed_alone({"kind": {"gone": before}}, {"kind": {"part": now}}) == []


def grown(cls: type) -> type:
    """The class with one more setting, as a later release may have it."""
    return dataclasses.make_dataclass(cls.__name__, [("newer", int, setting(3, "a setting that came later"))],
                                      bases=(cls,), frozen=True)


@pytest.mark.parametrize(("part", "cls", "config"), [
    ("baseline", registry.baselines.get("sasrec"), lambda **parts: baseline("sasrec", **parts)),
    ("backbone", registry.backbones.get("tiger"), generative),
    ("backbone", registry.backbones.get("llama"), generative),
    ("tokenizer", registry.tokenizers.get("rq_kmeans"), generative), ("training", TrainingConfig, generative),
    ("decoding", DecodingConfig, generative), ("split", LeaveOneOut, generative),
    ("evaluation", EvaluationConfig, generative)])
def test_a_new_setting_renames_nothing(part: str, cls: type, config: Callable[..., RunConfig]) -> None:
    more = grown(cls)
    before, after, other = (dataclasses.replace(config(), **{part: value}) for value in (cls(), more(), more(newer=4)))
    assert (name_of(after), identity.method(after)) == (name_of(before), identity.method(before))
    assert name_of(other) != name_of(before) and identity.method(other) != identity.method(before)


# --- fingerprints and seeds ------------------------------------------------------------------------------------------

def test_fingerprints_follow_the_data(toy_interactions: Interactions) -> None:
    plain = LeaveOneOut().split(toy_interactions).fingerprint
    assert LeaveOneOut().split(toy_interactions).fingerprint == plain
    renamed = dataclasses.replace(toy_interactions, name="other", source="elsewhere")
    assert LeaveOneOut().split(renamed).fingerprint == plain
    sequences = [s.copy() for s in toy_interactions.sequences]
    sequences[17][2] = (sequences[17][2] + 1) % 30
    touched = dataclasses.replace(toy_interactions, sequences=tuple(sequences))
    assert LeaveOneOut().split(touched).fingerprint != plain
    codes = toy_interactions.given_codes.copy()
    first = SemanticIds.from_codes(codes, (4, 4, 2)).fingerprint
    codes[3, 1] = (codes[3, 1] + 1) % 4
    assert SemanticIds.from_codes(codes, (4, 4, 2)).fingerprint != first


HASHED = """
import json
from genrec_bench.experiments import identity
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.core.seeds import stream_seed
names = [identity.run_id(identity.identity_parts(c, "s", "i", {u.take: identity.method(u.run) for u in c.uses}))
         for c in expand(Selection("all", "quick"))]
print(json.dumps([names, stream_seed(3, "batches", 7)]))
"""


def test_nothing_depends_on_pythons_hash_seed() -> None:
    printed = []
    for seed in ("0", "1", "123"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", HASHED], cwd=ROOT, env=environment, capture_output=True, text=True,
                              check=True)
        printed.append(json.loads(done.stdout))
    assert printed[0] == printed[1] == printed[2]
    assert len(set(printed[0][0])) == len(printed[0][0])
    assert printed[0][1] == stream_seed(3, "batches", 7)


def test_a_new_file_among_the_code_makes_it_dirty(tmp_path: Path) -> None:
    """A plug-in that git does not know may have made the numbers; files elsewhere, or ignored ones, have not."""
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y.z", *words], check=True,
                       capture_output=True)

    assert provenance._commit(tmp_path) == {}, "no checkout"
    plugins = tmp_path / "genrec_bench" / "objectives"
    plugins.mkdir(parents=True)
    (plugins / "base.py").write_text("base = 1\n")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    (tmp_path / "results.json").write_text("{}")
    (plugins / "base.pyc").write_text("")
    assert provenance._commit(tmp_path)["dirty"] is False and len(provenance._commit(tmp_path)["commit"]) == 40
    (plugins / "mine.py").write_text("mine = 1\n")
    assert provenance._commit(tmp_path)["dirty"] is True
    (plugins / "mine.py").unlink()
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "mine.toml").write_text("")
    assert provenance._commit(tmp_path)["dirty"] is True
    (tmp_path / "baselines" / "mine.toml").unlink()
    (plugins / "base.py").write_text("base = 2\n")
    assert provenance._commit(tmp_path)["dirty"] is True


def test_seed_streams_are_apart_and_fixed() -> None:
    streams = [stream_seed(s, *name) for s in (0, 1) for name in (("init",), ("batches", 1), ("batches", 2),
                                                                  ("dropout", 1), ("negatives",), ("tokenizer",))]
    assert len(set(streams)) == len(streams) and all(0 <= s < 2**63 for s in streams)
    assert stream_seed(0, "init") == 1519069808562059438


def test_a_pinned_name(tmp_path: Path, toy_interactions: Interactions) -> None:
    """Another default or version, or another form of the name, renames every run: no stored record is found then."""
    folder = tmp_path / "toy"
    write_toy(folder, toy_interactions)
    config = RunConfig(
        label="pinned", profile="smoke", dataset=built(registry.datasets, "folder", path=str(folder)), seed=0,
        split=LeaveOneOut(max_history=8, train_targets_per_user=5), tokenizer=built(registry.tokenizers, "given"),
        backbone=built(registry.backbones, "tiger", width=16, num_layers=1, num_heads=2, head_width=8,
                       feed_forward_width=32, dropout=0.0),
        objectives=(Weighted(built(registry.objectives, "cross_entropy")),),
        training=TrainingConfig(epochs=2, batch_size=16, accumulation=2, learning_rate=1e-2, warmup_ratio=0.1),
        decoding=DecodingConfig(num_beams=20))
    assert Workspace(tmp_path / "results").prepare(config, keep=False).run_id == PINNED_NAME
