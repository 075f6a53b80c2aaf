"""THE place that names a run: by what it is, never by when or where it ran.

A name covers the settings that differ from their defaults, versions, fingerprints, the seed, the runs that it uses and
the engine. So an optional setting that is added later renames nothing; whoever changes a default raises the version of
its component.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from genrec_bench.core import registry, settings
from genrec_bench.core.files import canonical
from genrec_bench.experiments.config import RunConfig

ENGINE_VERSION = 3  # raise it when numbers of unchanged settings move: split, decoding, evaluation
TRAINING_VERSION = 2  # and this when only what our own loop and networks learn moves


def short_hash(data: Any) -> str:
    """The first 16 hex digits of sha256 over the canonical JSON."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:16]


def method_parts(config: RunConfig) -> dict[str, Any]:
    """What a method is, as plain data: a run without its seed, its data, and the runs that it uses."""
    parts = {"engine": ENGINE_VERSION, "split": registry.identity(config.split),
             "evaluation": settings.differing(config.evaluation)}
    if config.baseline is not None:
        parts["baseline"] = registry.identity(config.baseline)
    else:
        parts |= {"tokenizer": registry.identity(config.tokenizer), "backbone": registry.identity(config.backbone),
                  "objectives": [{**registry.identity(w.objective), **({} if w.weight == 1 else {"weight": w.weight})}
                                 for w in config.objectives]}
        sections = {"training": config.training, "decoding": config.decoding, "negatives": config.negatives}
        parts |= {name: settings.differing(section) for name, section in sections.items() if section is not None}
        parts["training"]["version"] = TRAINING_VERSION
    return {name: part for name, part in parts.items() if part}


def method(config: RunConfig) -> str:
    """The name of a method: equal for the runs of one row under one profile on all seeds."""
    uses = [{"take": used.take, "method": method(used.run)} for used in config.uses]
    return short_hash({**method_parts(config), **({"uses": uses} if uses else {})})


def identity_parts(config: RunConfig, split_fingerprint: str, semantic_ids_fingerprint: str | None,
                   used: Mapping[str, str], texts_fingerprint: str | None = None) -> dict[str, Any]:
    """Everything a run's numbers depend on, as plain data; stored in the record.

    The dataset counts by its processed split and the tokenizer by the IDs that it made, besides their settings.
    texts_fingerprint: of the item texts, where a baseline reads them and the data are the user's own (those of the
    suite's data sets are known: their `version` is raised when the files would say something else).
    used: what is taken -> name of the run that it is taken from.
    """
    parts = {"seed": config.seed, "dataset": registry.identity(config.dataset), "split_fingerprint": split_fingerprint,
             **method_parts(config)}
    more = {"semantic_ids_fingerprint": semantic_ids_fingerprint, "texts_fingerprint": texts_fingerprint,
            "uses": dict(used)}
    return parts | {name: value for name, value in more.items() if value}


def run_id(parts: Mapping[str, Any]) -> str:
    """The name of the run that has these identity parts."""
    return short_hash(parts)
