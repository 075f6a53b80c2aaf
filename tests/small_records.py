"""Records with made-up numbers, for the tests of reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import Rankings, digest
from genrec_bench.core import registry, settings
from genrec_bench.core.files import canonical
from genrec_bench.experiments import identity
from genrec_bench.experiments.config import RunConfig, weighted
from genrec_bench.experiments.grid import Overrides, row_config
from genrec_bench.experiments.suite_files import profile_names
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.rows import Suite, load_suite
from genrec_bench.results.records import RecordStore, RunRecord

SEEDS = (0, 1, 2)
# NDCG@10 of seed 0, dataset by method; seed s has 0.001 * s more, so the SD over seeds 0, 1, 2 is 0.001.
NDCG = {("ml-100k", "popularity"): 0.02, ("ml-100k", "item_knn"): 0.04, ("ml-100k", "sasrec"): 0.06,
        ("ml-100k", "tiger"): 0.05, ("apao_office", "popularity"): 0.01, ("apao_office", "item_knn"): 0.037,
        ("apao_office", "sasrec"): 0.046, ("apao_office", "tiger"): 0.029}
PAPER_PROFILE = {"apao_office": "paper", "ml-100k": "quick"}
ROWS = {method: {"baseline": method} for method in ("popularity", "item_knn", "sasrec")} | {
    "tiger": {"label": "TIGER + cross-entropy", "backbone": {"name": "tiger"},
              "objective": [{"name": "cross_entropy"}]}}


def config_of(dataset: str, method: str, seed: int, *, profile: str | None = None, row: Any = None,
              overrides: Overrides | None = None, **changes: Any) -> RunConfig:
    """A row as its profile gives it, with what `--set` overrides.

    changes: parts that are other ones; specs of components, or whole sections.
    """
    profile = profile or PAPER_PROFILE[dataset]
    known = profile if profile in profile_names() else PAPER_PROFILE[dataset]
    config = row_config(row or ROWS[method], known, dataset, "", overrides or {})
    if "objective" in changes:
        changes["objectives"] = tuple(weighted(spec) for spec in changes.pop("objective"))
    for kind, known in (("backbone", registry.backbones), ("tokenizer", registry.tokenizers),
                        ("baseline", registry.baselines)):
        if isinstance(changes.get(kind), dict):
            before = registry.resolved(getattr(config, kind))
            same = before["name"] == changes[kind]["name"]
            changes[kind] = known.build({**(before if same else {}), **changes[kind]})
    uses = tuple(replace(used, run=replace(used.run, seed=seed)) for used in config.uses)
    return replace(config, seed=seed, profile=profile, uses=uses, **changes)


def record_of(dataset: str, method: str, seed: int, **changes) -> RunRecord:
    config = config_of(dataset, method, seed, **changes)
    split = digest(dataset, canonical(settings.to_dict(config.split)))
    used = {taken.take: digest(taken.take, str(taken.run))[:16] for taken in config.uses}
    parts = identity.identity_parts(config, split, "ids" if config.tokenizer else None, used)
    value = NDCG.get((dataset, method), 0.05) + 0.001 * seed
    metrics = {}
    for k in (1, 5, 10, 20):
        for name, scale in (("recall", 2.0), ("hr", 2.0), ("ndcg", 1.0), ("mrr", 0.8)):
            number = value * scale * (k / 10) ** 0.5
            metrics[f"{name}@{k}"] = number
            metrics[f"id_{name}@{k}"] = number + (0.0005 if method == "tiger" else 0.0)
            metrics[f"valid_{name}@{k}"] = 1.1 * number
    trained = method in ("sasrec", "tiger")
    curve = [{"epoch": e, "loss": 5 / e, "valid_ndcg@10": value * e / 12} for e in range(1, 13)] if trained else []
    tokenizer = {"name": config.tokenizer.name, "levels": 3, "codebook_sizes": [64, 64, 64],
                 "utilisation": [1.0, 0.984375, 0.5], "prefixes": [64, 900, 1600]} if method == "tiger" else {}
    data = {"name": dataset, "users": 943, "items": 1682, "interactions": 100000, "train": 18860, "valid": 943,
            "test": 943, "distinct_semantic_ids": 1600 if tokenizer else None}
    return RunRecord(identity.run_id(parts), identity.method(config), config.label, config.profile, config.to_dict(),
                     parts, metrics, data, tokenizer,
                     {"epochs": 12, "best_epoch": 12 - seed, "curve": curve, "parameters": 250000} if trained else {},
                     {"seconds_per_epoch": 2.5, "train_seconds": 30.0, "decode_users_per_second": 512.0,
                      "peak_memory_bytes": 512 * 2**20} if trained else {"peak_memory_bytes": 2**28},
                     {"python": "3.11.7", "torch": "2.13.0", "cpu": "a CPU", "device": "cpu", "threads": 1,
                      "commit": "0123456789abcdef", "dirty": False})


def all_records() -> list[RunRecord]:
    return [record_of(d, m, s) for d, m in NDCG for s in (SEEDS if m in ("sasrec", "tiger") else (0,))]


def stored(folder: Path, records: list[RunRecord]) -> RecordStore:
    store = RecordStore(folder)
    ranks = Rankings(*(np.array([1, 0, 3]) for _ in range(3)))
    for record in records:
        store.write(record, ranks, ranks)
    return store


def unseeded_elsewhere() -> list[RunRecord]:
    """apao_office: trained runs of two profiles, with Popularity and Item-kNN stored by `quick` alone."""
    trained = [record_of("apao_office", m, s, profile=p)
               for m in ("sasrec", "tiger") for s in SEEDS for p in ("paper", "quick")]
    return trained + [record_of("apao_office", m, 0, profile="quick") for m in ("popularity", "item_knn")]


def contents(blocks: Sequence[Block]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """What stands where: blocks, their groups, their runs."""
    return [(b.name, [(g.label, [r.run_id for r in g.records]) for g in b.groups]) for b in blocks]


def table_rows(text: str, heading: str) -> dict[str, list[str]]:
    """The first pipe table after a heading: method -> cells."""
    lines = text.split(f"{heading}\n", 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = {}
    for line in lines[start + 2:]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[name] = cells
    return rows


@cache
def apao() -> Suite:
    return load_suite("apao")


def suite_record(label: str, seed: int, value: float, *, dataset: str = "ml-100k", steps: int = 300,
                 positions: tuple[int, int] = (100, 0), after: RunRecord | None = None, **changes) -> RunRecord:
    """A run of a generative row as suite apao states it, with one value for all metrics.

    positions: with and without gradient. after: the run of its first stage.
    """
    row = next(row for row in apao().rows if row.label == label)
    record = record_of(dataset, "tiger", seed, row=row.source, **changes)
    passes = dict(zip(("positions_with_gradient", "positions_without_gradient"), positions, strict=True))
    training = {**record.training, "steps": steps, "passes": passes,
                "curve": [{"epoch": e, "valid_ndcg@10": value} for e in range(1, 13)]}
    timings = record.timings
    if after is not None:
        training["first_stage"] = {"run_id": after.run_id} | {
            k: after.training[k] for k in ("epochs", "best_epoch", "steps", "passes")}
        timings = {**timings, "first_stage_seconds": after.timings["train_seconds"]}
    return replace(record, metrics={k: value for k in record.metrics}, training=training, timings=timings)
