"""THE place that names a run: by what it is, never by when or where it ran."""

from __future__ import annotations

import hashlib
from typing import Any

from genrec_bench.core import registry, settings
from genrec_bench.core.files import canonical
from genrec_bench.experiments.config import FirstStage, RunConfig

ENGINE_VERSION = 1  # raise it when numbers of unchanged settings move: split, training, decoding, evaluation






def identity_parts(config: RunConfig, split_fingerprint: str, semantic_ids_fingerprint: str | None,
                   history_fingerprint: str | None = None) -> dict[str, Any]:
    """Everything a run's numbers depend on, as plain data; stored in the record.

    The dataset counts by its processed split and the tokenizer by the IDs it made, besides their settings. Whole
    histories, beyond what the split's rows hold, matter only where they are taken out of the ranking.
    """
    parts: dict[str, Any] = {
        "engine": ENGINE_VERSION,
        "seed": config.seed,
        "dataset": registry.datasets.identity(config.dataset),
        "split": settings.identity_dict(config.split),
        "split_fingerprint": split_fingerprint,
        "evaluation": settings.identity_dict(config.evaluation),
    }
    if config.evaluation.exclude_history:
        parts["history_fingerprint"] = history_fingerprint
    if config.baseline is not None:
        system = registry.systems.get(config.baseline["system"])
        parts["baseline"] = {**config.baseline, "version": getattr(system, "version", 1)}
        return parts
    parts["tokenizer"] = registry.tokenizers.identity(config.tokenizer)
    parts["semantic_ids_fingerprint"] = semantic_ids_fingerprint
    parts["backbone"] = registry.backbones.identity(config.backbone)
    parts |= _stage(config)
    parts["decoding"] = settings.identity_dict(config.decoding)
    if config.first_stage is not None:
        parts["first_stage"] = {**_stage(config.first_stage), "continues": config.first_stage.continues}
    return parts


def _stage(config: RunConfig | FirstStage) -> dict[str, Any]:
    parts = {"objective": [{**registry.objectives.identity(_without_weight(o)), "weight": o.get("weight", 1.0)}
                           for o in config.objective],
             "training": settings.identity_dict(config.training)}
    if config.negatives is not None:
        parts["negatives"] = settings.identity_dict(config.negatives)
    return parts


def _without_weight(spec: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in spec.items() if k != "weight"}


def run_id(parts: dict[str, Any]) -> str:
    """The first 16 hex digits of sha256 over the identity parts."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:16]
