"""Names of runs: what they depend on, and what they do not."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.core import provenance, registry
from genrec_bench.core.seeds import stream_seed
from genrec_bench.experiments import identity
from genrec_bench.experiments.config import DecodingConfig, EvaluationConfig, RunConfig, SplitConfig, TrainingConfig
from genrec_bench.running.runner import Workspace
from genrec_bench.splits.leave_one_out import leave_one_out
from tests.small_jobs import write_toy

ROOT = Path(__file__).resolve().parents[1]
PINNED_NAME = "eefe5cc117235564"


def resolved(kind: registry.Registry, name: str, **values: Any) -> dict[str, Any]:
    return kind.resolved(kind.build({"name": name, **values}))


def generative(**changes: Any) -> RunConfig:
    """A run with all parts, some of them changed."""
    values = {"label": "TIGER", "profile": "quick", "dataset": resolved(registry.datasets, "ml-100k"), "seed": 0,
              "tokenizer": resolved(registry.tokenizers, "rq_kmeans"),
              "backbone": resolved(registry.backbones, "tiger"),
              "objective": (resolved(registry.objectives, "cross_entropy"),), "training": TrainingConfig(),
              "decoding": DecodingConfig()}
    return RunConfig(**{**values, **changes})


def baseline(name: str = "item_knn", **changes: Any) -> RunConfig:
    system = {**resolved(registry.systems, name), **changes}
    return RunConfig(label="x", profile="quick", dataset=resolved(registry.datasets, "ml-100k"), seed=0,
                     baseline={**system, "system": name, "name": name})


def name_of(config: RunConfig, split: str = "s", ids: str | None = "i") -> str:
    return identity.run_id(identity.identity_parts(config, split, ids))


def test_a_name_is_sixteen_hex_digits() -> None:
    assert len(name_of(generative())) == 16 and int(name_of(generative()), 16) >= 0


def test_label_and_profile_do_not_name_a_run() -> None:
    plain = name_of(generative())
    assert name_of(generative(label="another", profile="paper")) == plain


def test_key_order_and_whole_floats_do_not_name_a_run() -> None:
    plain = name_of(generative())
    backbone = dict(reversed(resolved(registry.backbones, "tiger").items()))
    assert name_of(generative(backbone=backbone)) == plain
    objective = ({**resolved(registry.objectives, "cross_entropy"), "weight": 1},)
    assert name_of(generative(objective=objective)) == plain
    assert name_of(generative(training=TrainingConfig(clip_norm=1))) == plain
    a = identity.canonical({"b": 1.0, "a": [2.0, 0.5]})
    assert a == identity.canonical({"a": (2, 0.5), "b": 1}) == '{"a":[2,0.5],"b":1}'


def test_a_number_that_is_not_finite_has_no_name() -> None:
    with pytest.raises(ValueError, match="JSON"):
        identity.canonical({"a": float("nan")})


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


@pytest.mark.parametrize(("part", "cls"), [("split", SplitConfig), ("training", TrainingConfig),
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
    names = {name_of(generative(**{part: resolved(kind, name)}))}
    for key, value in settings:
        names.add(name_of(generative(**{part: resolved(kind, name, **{key: value})})))
    assert len(names) == 1 + len(settings)


def test_seed_weight_order_and_data_name_the_run() -> None:
    objective = resolved(registry.objectives, "cross_entropy")
    names = [name_of(generative()), name_of(generative(seed=1)), name_of(generative(), split="other"),
             name_of(generative(), ids="other"),
             name_of(generative(dataset=resolved(registry.datasets, "apao_office"))),
             name_of(generative(objective=({**objective, "weight": 0.5},))),
             name_of(generative(objective=(objective, objective))), name_of(baseline(), ids=None),
             name_of(baseline(decay=0.5), ids=None), name_of(baseline("popularity"), ids=None)]
    assert len(set(names)) == len(names)


def test_a_folders_path_and_label_do_not_name_a_run() -> None:
    """What the data is, is told by the split's fingerprint."""
    folders = [resolved(registry.datasets, "folder", path=path, label=label)
               for path, label in (("/a", "x"), ("/b", "y"))]
    assert name_of(generative(dataset=folders[0])) == name_of(generative(dataset=folders[1]))
    index = resolved(registry.datasets, "folder", path="/a", index="other")
    assert name_of(generative(dataset=index)) != name_of(generative(dataset=folders[0]))


@pytest.mark.parametrize(("cls", "config"), [
    (registry.backbones.get("tiger"), generative), (registry.tokenizers.get("rq_kmeans"), generative),
    (registry.objectives.get("cross_entropy"), generative), (registry.datasets.get("ml-100k"), generative),
    (registry.systems.get("item_knn"), baseline)])
def test_a_components_version_names_the_run(cls: type, config: Callable[[], RunConfig],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_of(config())
    monkeypatch.setattr(cls, "version", getattr(cls, "version", 1) + 1, raising=False)
    assert name_of(config()) != before


def test_the_engines_version_names_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_of(generative())
    monkeypatch.setattr(identity, "ENGINE_VERSION", identity.ENGINE_VERSION + 1)
    assert name_of(generative()) != before


def test_fingerprints_follow_the_data(toy_interactions: Interactions) -> None:
    plain = leave_one_out(toy_interactions, SplitConfig()).fingerprint
    assert leave_one_out(toy_interactions, SplitConfig()).fingerprint == plain
    renamed = dataclasses.replace(toy_interactions, name="other", source="elsewhere")
    assert leave_one_out(renamed, SplitConfig()).fingerprint == plain
    sequences = [s.copy() for s in toy_interactions.sequences]
    sequences[17][2] = (sequences[17][2] + 1) % 30
    touched = dataclasses.replace(toy_interactions, sequences=tuple(sequences))
    assert leave_one_out(touched, SplitConfig()).fingerprint != plain
    codes = toy_interactions.given_codes.copy()
    first = SemanticIds.from_codes(codes, (4, 4, 2)).fingerprint
    codes[3, 1] = (codes[3, 1] + 1) % 4
    assert SemanticIds.from_codes(codes, (4, 4, 2)).fingerprint != first


HASHED = """
import json
from genrec_bench import identity
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.core.seeds import stream_seed
names = [identity.run_id(identity.identity_parts(c, "s", "i")) for c in expand(Selection("all", "quick"))]
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
    """A new setting, another default or version renames every run, so that no stored record is found any more."""
    folder = tmp_path / "toy"
    write_toy(folder, toy_interactions)
    config = RunConfig(
        label="pinned", profile="smoke", dataset=resolved(registry.datasets, "folder", path=str(folder)), seed=0,
        split=SplitConfig(max_history=8, train_targets_per_user=5), tokenizer=resolved(registry.tokenizers, "given"),
        backbone=resolved(registry.backbones, "tiger", width=16, num_layers=1, num_heads=2, head_width=8,
                          feed_forward_width=32, dropout=0.0),
        objective=(resolved(registry.objectives, "cross_entropy"),),
        training=TrainingConfig(epochs=2, batch_size=16, accumulation=2, learning_rate=1e-2, warmup_ratio=0.1),
        decoding=DecodingConfig(num_beams=20))
    assert Workspace(tmp_path / "results").prepare(config, keep=False).run_id == PINNED_NAME
