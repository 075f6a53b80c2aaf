"""Contract checks of every kind of plug-in: what each has to keep, said in one line each.

Those of objectives are in `training.objective_checks`, those of backbones in `backbone_checks`.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import (
    NUM_SPECIAL_TOKENS,
    PAD,
    PREFIX_REMEDY,
    Baseline,
    Instances,
    Interactions,
    Job,
    Outcome,
    Rankings,
    SemanticIds,
    prefix_pair,
)
from genrec_bench.core import registry, settings
from genrec_bench.core.checks import Checks, Finding, expect, findings, is_a_component, no_global_draws, told
from genrec_bench.core.files import APART
from genrec_bench.core.progress import Quiet
from genrec_bench.core.ragged import Ragged
from genrec_bench.core.registry import Registry
from genrec_bench.datasets.base import MIN_INTERACTIONS, Dataset
from genrec_bench.experiments.config import EvaluationConfig, RunConfig
from genrec_bench.metrics.base import Metric
from genrec_bench.running.split_checks import check_split
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.tokenizers.base import Tokenizer

USERS, ITEMS = 60, 100
COMPONENT = "is a frozen dataclass with documented settings"


def check_plugin(kind: Registry, plugin: Any, data_dir: Path | None = None) -> list[Finding]:
    """Every check of a plug-in of a kind, as it is or a class at its defaults; none stops the others.

    data_dir: where datasets look for their files. Where a class does not build, that is the one finding.
    """
    if kind is registry.objectives:
        from genrec_bench.training.objective_checks import check_objective

        return check_objective(plugin)
    cls = plugin if isinstance(plugin, type) else type(plugin)
    try:
        instance = settings.build(cls, {}, cls.__name__) if isinstance(plugin, type) else plugin
    except Exception as error:  # noqa: BLE001  whatever a plug-in raises is a finding
        return [Finding("builds at its defaults", False, told(error, cls))]
    return _OF[kind](instance, data_dir)


def made_up(name: str = "made-up") -> Interactions:
    """60 users with 4 to 12 of 100 items; texts and codes of three levels, of which items 0 and 1 share theirs."""
    random, items = np.random.default_rng(0), np.arange(ITEMS)
    codes = np.stack([items // 25, items // 5 % 5, items % 5], axis=1)
    codes[1] = codes[0]
    sequences = tuple(random.integers(0, ITEMS, size=random.integers(4, 13)) for _ in range(USERS))
    return Interactions(name, tuple(f"u{n}" for n in range(USERS)), tuple(f"i{n}" for n in items), sequences,
                        tuple(f"thing number {n}\ncolour {n % 7} shape {n % 11}" for n in items), codes, "made up")


# Datasets

def _dataset(dataset: Dataset, data_dir: Path | None) -> list[Finding]:
    found = findings(PLACES, dataset, data_dir)
    if not found[-1].passed:  # nothing more can be known
        return found
    return found + findings(DATA, dataset, cache(lambda: dataset.load(data_dir)), data_dir)


def _says_where(dataset: Dataset, data_dir: Path | None) -> None:
    for what, text in (("how_to_get", dataset.how_to_get), ("location(...)", dataset.location(data_dir))):
        expect(isinstance(text, str) and text.strip(), f"{what} that people can read", repr(text))


def _finds_files(dataset: Dataset, data_dir: Path | None) -> None:
    missing = dataset.missing_files(data_dir)
    expect(isinstance(missing, list), "missing_files to be a list", type(missing).__name__)
    expect(not missing, "every file to be there (--data-dir or GENREC_BENCH_DATA says where)",
           f"missing: {', '.join(map(str, missing[:3]))}")


def _loads(dataset: Dataset, load: Callable[[], Interactions], data_dir: Path | None) -> None:
    data = load()
    expect(isinstance(data, Interactions), "Interactions", type(data).__name__)
    expect(data.name == dataset.title, f"the name {dataset.title!r}, as in tables", repr(data.name))
    expect(data.name not in APART and "/" not in data.name, "a name that a folder of records can have", data.name)
    for what, ids in (("user_ids", data.user_ids), ("item_ids", data.item_ids)):
        expect(isinstance(ids, tuple) and all(isinstance(i, str) and i for i in ids), f"{what} to be a tuple of texts",
               str(ids)[:60])
        expect(len(set(ids)) == len(ids), f"{what} without repeats", f"{len(ids) - len(set(ids))} repeats")


def _has_sequences(dataset: Dataset, load: Callable[[], Interactions], data_dir: Path | None) -> None:
    data = load()
    expect(len(data.sequences) == data.num_users, f"a sequence for each of {data.num_users} users", len(data.sequences))
    for user, items in zip(data.user_ids, data.sequences, strict=True):
        expect(isinstance(items, np.ndarray) and items.dtype == np.int64 and items.ndim == 1,
               f"user {user}: an int64 array", getattr(items, "dtype", type(items).__name__))
        expect(len(items) >= MIN_INTERACTIONS, f"user {user}: {MIN_INTERACTIONS} items or more", len(items))
        expect(0 <= items.min() and items.max() < data.num_items, f"user {user}: item numbers 0 to "
               f"{data.num_items - 1}", f"{items.min()} to {items.max()}")


def _is_whole(dataset: Dataset, load: Callable[[], Interactions], data_dir: Path | None) -> str:
    data = load()
    texts, codes, times = data.item_texts, data.given_codes, data.times
    if texts is not None:
        expect(len(texts) == data.num_items and all(isinstance(t, str) for t in texts),
               f"a text for each of {data.num_items} items", len(texts))
    if codes is not None:
        expect(codes.ndim == 2 and len(codes) == data.num_items and np.issubdtype(codes.dtype, np.integer),
               f"whole numbers, a row for each of {data.num_items} items", f"{codes.dtype} of shape {codes.shape}")
    for user, items, time in zip(data.user_ids, data.sequences, times or (), strict=times is not None):
        expect(len(time) == len(items) and np.isfinite(time).all() and (np.diff(time) >= 0).all(),
               f"user {user}: a finite time for each of {len(items)} items, oldest first", time)
    return ", ".join(f"{'no ' if part is None else ''}{name}" for name, part in (
        ("texts", texts), ("codes", codes), ("times", times)))


def _loads_again(dataset: Dataset, load: Callable[[], Interactions], data_dir: Path | None) -> None:
    one, other = load(), dataset.load(data_dir)
    unlike = [f.name for f in dataclasses.fields(Interactions)
              if not _equal(getattr(one, f.name), getattr(other, f.name))]
    expect(not unlike, "the same when it is read again", f"other {', '.join(unlike)}")


def _can_be_split(dataset: Dataset, load: Callable[[], Interactions], data_dir: Path | None) -> None:
    registry.splits.build({"name": dataset.default_split}).split(load())


def _has_a_tokenizer(dataset: Dataset, load: Callable[[], Interactions], data_dir: Path | None) -> None:
    name = dataset.preferred_tokenizer()
    registry.tokenizers.get(name, "preferred_tokenizer")
    expect(name != "given" or load().given_codes is not None, "codes, as its tokenizer is \"given\"", "none")


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, (tuple, Ragged)) and isinstance(b, (tuple, Ragged)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, Instances) and isinstance(b, Instances):
        return all(_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Instances))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


PLACES: Checks = {COMPONENT: is_a_component, "says where its files are and how to get them": _says_where,
                  "finds its files": _finds_files}
DATA: Checks = {
    "has unique users and items": _loads, "has a sequence of item numbers for each user": _has_sequences,
    "has texts, codes and times of all or of none": _is_whole, "is the same when it is read again": _loads_again,
    "can be split": _can_be_split, "names a tokenizer that works on it": _has_a_tokenizer,
}


# Tokenizers

def _tokenizer(tokenizer: Tokenizer, _: Path | None) -> list[Finding]:
    data = made_up()
    return findings(TOKENIZER, tokenizer, data, cache(lambda: tokenizer.fit(data)))


def _gives_ids(tokenizer: Tokenizer, data: Interactions, fit: Callable[[], SemanticIds]) -> None:
    ids = fit()
    expect(isinstance(ids, SemanticIds), "SemanticIds", type(ids).__name__)
    depth = len(ids.codebook_sizes)
    expect(depth and ids.tokens.shape == (ITEMS, depth), f"tokens of shape {(ITEMS, depth)}, a row an item and a "
           "column for each of codebook_sizes", ids.tokens.shape)
    expect(ids.tokens.dtype == np.int64, "int64", ids.tokens.dtype)


def _stays_in_range(tokenizer: Tokenizer, data: Interactions, fit: Callable[[], SemanticIds]) -> None:
    ids, first = fit(), NUM_SPECIAL_TOKENS
    for level, size in enumerate(ids.codebook_sizes):
        tokens, ended = ids.tokens[:, level], level and ids.tokens[:, level - 1] == PAD
        wrong = np.flatnonzero(np.where(tokens == PAD, level == 0, (tokens < first) | (tokens >= first + size) | ended))
        expect(not len(wrong), f"tokens {first} to {first + size - 1} at level {level + 1}, or PAD where a shorter ID "
               "has ended", f"{ids.tokens[wrong[:1]].tolist()} of item {wrong[:1]}")
        first += size


def _has_no_prefixes(tokenizer: Tokenizer, data: Interactions, fit: Callable[[], SemanticIds]) -> None:
    pair = prefix_pair(fit().tokens)
    expect(pair is None, f"no ID that is the beginning of another. {PREFIX_REMEDY}", pair and
           " and ".join(str(fit().tokens[row].tolist()) for row in pair))


def _fits_again(tokenizer: Tokenizer, data: Interactions, fit: Callable[[], SemanticIds]) -> None:
    before = _copied(data)
    with no_global_draws():
        again = tokenizer.fit(data)
    expect(again.fingerprint == fit().fingerprint, "the same IDs again", "others")
    unlike = [name for name, value in before.items() if not _equal(value, getattr(data, name))]
    expect(not unlike, "the data left as they were", f"changed {', '.join(unlike)}")


def _copied(data: Interactions) -> dict[str, Any]:
    return {"sequences": tuple(s.copy() for s in data.sequences), "given_codes": data.given_codes.copy()}


def _describes_itself(tokenizer: Tokenizer, data: Interactions, fit: Callable[[], SemanticIds]) -> None:
    json.dumps(dict(fit().table), allow_nan=False)
    expect(isinstance(tokenizer.depends_on(), str), "depends_on() to be a text", tokenizer.depends_on())


TOKENIZER: Checks = {
    COMPONENT: is_a_component, "gives every item a semantic ID": _gives_ids,
    "keeps codes in the range of their level": _stays_in_range, "has no ID that begins another": _has_no_prefixes,
    "gives the same IDs again and changes nothing": _fits_again, "says what a record can hold": _describes_itself,
}


# Metrics

RANKS = np.arange(40)
KS = (1, 2, 10, 20, 39)


def _metric(metric: Metric, _: Path | None) -> list[Finding]:
    return findings(METRIC, metric)


def _has_a_key(metric: Metric) -> None:
    name = getattr(metric, "name", "")
    taken = ("id_", "unseen_", "valid_")
    expect(not name.startswith(taken), f"a name that begins with none of {', '.join(taken)}, which mean something in "
           "records", name)


def _is_in_range(metric: Metric) -> None:
    low, high = metric.value_range
    for k in KS:
        values = metric.values(RANKS, k)
        expect(isinstance(values, np.ndarray) and values.dtype == np.float64 and values.shape == RANKS.shape,
               f"float64 of shape {RANKS.shape}", getattr(values, "dtype", type(values).__name__))
        expect(((values >= low) & (values <= high)).all(), f"values from {low} to {high} (value_range)",
               f"{values.min():.6g} to {values.max():.6g}")
    square = metric.values(RANKS.reshape(8, 5).astype(np.uint8), 10)
    expect(np.array_equal(square.ravel(), metric.values(RANKS, 10)), "the same for ranks of another shape and integer "
           "type", square.shape)


def _knows_best_and_worst(metric: Metric) -> None:
    worst, best = metric.value_range if metric.increasing else metric.value_range[::-1]
    for k in KS:
        values = metric.values(RANKS, k)
        expect(values[1] == best, f"{best} at rank 1", values[1])
        expect((values[0] == worst) and (values[k + 1:] == worst).all(), f"{worst} at rank 0 (not in the list) and "
               f"beyond {k}", values[[0, *range(k + 1, 40)]])


def _is_monotone(metric: Metric) -> None:
    sign = 1 if metric.increasing else -1
    for k in KS:
        values = sign * metric.values(RANKS, k)
        expect((np.diff(values[1:]) <= 0).all(), "no better value for a lower rank", values)
        expect((sign * metric.values(RANKS, k + 1) >= values).all(), "no worse value for a longer list", values)


METRIC: Checks = {
    COMPONENT: is_a_component, "has a name that keys can hold": _has_a_key, "has values in its range": _is_in_range,
    "is best at rank 1 and worst outside the list": _knows_best_and_worst,
    "falls with the rank and not with the length of the list": _is_monotone,
}


# Baselines

RANKED = ("valid", "test", "unseen")
Run = Callable[..., Outcome]  # of a seed and some data; the first one is kept


def _baseline(baseline: Baseline, _: Path | None) -> list[Finding]:
    def run(seed: int = 0, data: Interactions | None = None) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            return baseline.run(_job(baseline, data or made_up(), seed, Path(folder)))

    return findings(BASELINE, baseline, run, cache(run))


def _job(baseline: Baseline, data: Interactions, seed: int, folder: Path) -> Job:
    place = registry.datasets.build({"name": "folder", "path": str(folder), "label": data.name})
    config = RunConfig("check", "smoke", place, seed, LeaveOneOut(), EvaluationConfig(), baseline)
    split = config.split.split(data)
    baseline.check_fit(config, split)
    return Job(config, split, None, seed, folder, "cpu", 1, Quiet())


def _ranks_rows(baseline: Baseline, run: Run, first: Run) -> None:
    outcome, longest = first(), EvaluationConfig().max_k
    expect(isinstance(outcome, Outcome), "an Outcome", type(outcome).__name__)
    for part in RANKED:
        ranks = getattr(outcome, part)
        expect(isinstance(ranks, Rankings), f"{part}: Rankings", type(ranks).__name__)
        for name, low, high in (("ranks", 0, longest), ("ties", 1, ITEMS), ("id_ranks", 0, longest)):
            values = np.asarray(getattr(ranks, name))
            expect(values.shape == (USERS,) and np.issubdtype(values.dtype, np.integer),
                   f"{part}.{name}: {USERS} whole numbers, a row each", f"{values.dtype} of shape {values.shape}")
            expect(((values >= low) & (values <= high)).all(), f"{part}.{name} from {low} to {high} (ranks count from "
                   "1, 0 = not in the list)", f"{values.min()} to {values.max()}")
        expect(ranks.ranks.any(), f"{part}: some target among the first {longest}", "none")


def _fits_a_record(baseline: Baseline, run: Run, first: Run) -> None:
    outcome = first()
    json.dumps([outcome.training, outcome.timings], allow_nan=False)
    wrong = [k for k, v in outcome.timings.items() if not isinstance(v, (int, float)) or v < 0]
    expect(not wrong, "timings of 0 or more", wrong)


def _ranks_again(baseline: Baseline, run: Run, first: Run) -> None:
    expect(*_alike(first(), run(), "the same ranks again from the same seed"))


def _is_seeded(baseline: Baseline, run: Run, first: Run) -> str | None:
    if baseline.seeded:
        return "not asked: seeded is True"
    expect(*_alike(first(), run(1), "the same ranks from another seed, as seeded is False"))
    return None


def _sees_no_test_target(baseline: Baseline, run: Run, first: Run) -> None:
    data = made_up()
    other = tuple(np.append(s[:-1], (s[-1] + 1) % ITEMS) for s in data.sequences)
    changed = run(data=dataclasses.replace(data, sequences=other))
    same = np.array_equal(first().valid.ranks, changed.valid.ranks)
    expect(same, "the same ranks of validation targets whatever the test targets are", "others")


def _alike(one: Outcome, other: Outcome, expected: str) -> tuple[bool, str, str]:
    unlike = [f"{part}.{name}" for part in RANKED for name in ("ranks", "ties", "id_ranks")
              if not np.array_equal(getattr(getattr(one, part), name), getattr(getattr(other, part), name))]
    return not unlike, expected, f"other {', '.join(unlike)}"


BASELINE: Checks = {
    COMPONENT: is_a_component, "ranks the target of every row": _ranks_rows,
    "says what a record can hold": _fits_a_record,
    "gives the same ranks from the same seed": _ranks_again, "depends on the seed only where it says so": _is_seeded,
    "learns nothing from test targets": _sees_no_test_target,
}


def _backbone(backbone: Any, _: Path | None) -> list[Finding]:
    from genrec_bench.running.backbone_checks import check_backbone

    return check_backbone(backbone)


_OF: dict[Registry, Callable[[Any, Path | None], list[Finding]]] = {
    registry.datasets: _dataset, registry.splits: check_split, registry.tokenizers: _tokenizer,
    registry.backbones: _backbone, registry.metrics: _metric, registry.baselines: _baseline,
}
