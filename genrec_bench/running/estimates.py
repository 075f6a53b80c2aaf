"""How long a run takes: as finished runs of its kind did, as a probe finds, or as a baseline says of itself."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genrec_bench.core.files import canonical
from genrec_bench.core.progress import Quiet
from genrec_bench.core.provenance import device_name
from genrec_bench.datasets.parsed import Parsed
from genrec_bench.experiments.config import RunConfig
from genrec_bench.results.records import Damaged
from genrec_bench.running.runner import run_one
from genrec_bench.running.workspace import Prepared, Workspace

LONG = 3600.0  # seconds of a run that are worth a line before it begins
PROBE_USERS = 50
COSTLY = ("num_negatives", "num_beams")  # numbers of objectives that decide how long a step takes


def estimates(items: Sequence[Prepared], workspace: Workspace, *, probe: bool,
              damaged: Callable[[Damaged], object] | None = None) -> dict[str, float | None]:
    """Seconds of a run of each kind: of finished runs, else of a probe in a temporary folder, else None.

    damaged: see `RecordStore.read_all`.
    """
    finished: dict[str, list[float]] = {}
    for record in workspace.store.read_all(damaged):
        made = record.provenance
        if made.get("threads") == workspace.threads and made.get("device") == device_name(workspace.device):
            finished.setdefault(kind_of(record.identity), []).append(record.timings["total_seconds"])
    seconds: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        probes = dataclasses.replace(workspace, results=Path(folder), track=(), _splits={},
                                     _parsed={key: Parsed(of.data) for key, of in workspace._parsed.items()})
        for item in items:
            kind = kind_of(item.identity)
            if kind not in seconds:
                known = finished.get(kind)
                seconds[kind] = statistics.median(known) if known else _probe(item, probes) if probe else None
    return seconds


def long_rows(items: Sequence[Prepared], workspace: Workspace,
              known: Mapping[str, float | None] | None = None) -> list[str]:
    """A line for each kind of run that takes more than an hour, as finished runs or the baseline itself say; equal
    lines, as of the trials of a row, once. known: what `estimates` gives, where the caller has it."""
    if known is None:
        known = estimates(items, workspace, probe=False, damaged=lambda _: None) if items else {}
    lines = []
    for kind, item in {kind_of(item.identity): item for item in items}.items():
        seconds, costs = known.get(kind), _costs(item, workspace)
        takes = "" if seconds is None else f"about {duration(seconds)} of processor time a run"
        if seconds is None and costs.get(""):
            epochs = getattr(item.config.baseline, "epochs", 1)
            seconds = epochs * costs[""]
            takes = f"an epoch takes about {duration(costs[''])} of processor time, and there are at most {epochs}"
        if seconds is not None and seconds > LONG:
            most = costs.get("", 0.0) / 2
            less = [f"{change} ({duration(cost)})" for change, cost in costs.items() if change and cost < most]
            lines.append(f"{item.config.label}, {item.dataset}: {takes}."
                         + (f" An epoch takes less with {', '.join(less)}." if less else ""))
    return list(dict.fromkeys(lines))


def _costs(item: Prepared, workspace: Workspace) -> dict[str, float]:
    """What a baseline says of itself, which is of processors."""
    return {} if item.config.baseline is None or workspace.device != "cpu" else \
        item.config.baseline.epoch_seconds(item.split)


def duration(seconds: float) -> str:
    """12 s, 3 min, 2.5 h"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def kind_of(identity: dict[str, Any]) -> str:
    """Runs that differ in the seed, in what they use, and in weights and other numbers of their objectives alone take
    the same time."""
    objectives = [{k: v for k, v in spec.items() if k in COSTLY or isinstance(v, (str, bool))}
                  for spec in identity.get("objectives", ())]
    return canonical({**identity, "objectives": objectives, "seed": None, "uses": None})


def _probe(item: Prepared, workspace: Workspace) -> float:
    """Seconds of a whole run, from one epoch of each stage on the first users, scaled to all rows and epochs.

    An upper bound: early stopping may end the run sooner. The first stage is a run of its own and not counted here.
    """
    split = dataclasses.replace(item.config.split, max_users=min(PROBE_USERS, len(item.split.test)))
    record = run_one(workspace.prepare(_one_epoch(item.config, split), keep=True), workspace, Quiet())
    users = len(item.split.valid) / record.data["valid"]
    rows = len(item.split.train) / record.data["train"]
    epochs = getattr(item.config.training or item.config.baseline, "epochs", 0)
    epoch = record.timings.get("seconds_per_epoch", 0.0) * rows + record.timings.get("validation_seconds", 0.0) * users
    return record.timings["total_seconds"] + epoch * epochs


def _one_epoch(config: RunConfig, split: Any) -> RunConfig:
    uses = tuple(dataclasses.replace(used, run=_one_epoch(used.run, split)) for used in config.uses)
    config = dataclasses.replace(config, split=split, uses=uses)
    if config.baseline is not None:
        once = {"epochs": 1} if hasattr(config.baseline, "epochs") else {}
        return dataclasses.replace(config, baseline=dataclasses.replace(config.baseline, **once))
    return dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=1))
