"""Which row of a suite a record belongs to: the one that gives the record's method, exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from genrec_bench.core import registry, settings
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical
from genrec_bench.experiments.config import COMPONENTS, RunConfig
from genrec_bench.experiments.grid import Overrides, row_config, training_config
from genrec_bench.experiments.identity import method
from genrec_bench.experiments.suite_files import profile_names
from genrec_bench.reporting.rows import Row, Suite, flatten, load_suite
from genrec_bench.results.records import RunRecord

BUDGET = ("epochs", "patience", "valid_every", "batch_size", "accumulation")  # settings of training


def row_numbers(suite: Suite, profile: str, record: RunRecord,
                overrides: Overrides | None = None) -> Mapping[str, int]:
    """Method -> number of the suite's row that gives it, under a profile, on the record's dataset.

    A row that cannot run there, such as one that `overrides` do not fit, gives none; of equal rows the first counts.
    """
    dataset, tokenizer = ((record.config.get(kind) or {}).get("name", "") for kind in ("dataset", "tokenizer"))
    if dataset not in registry.datasets.names():  # a plug-in that may be loaded later
        return {}
    return _numbers(suite, profile, dataset, tokenizer, canonical(overrides or {}))


@cache
def _numbers(suite: Suite, profile: str, dataset: str, tokenizer: str, overrides: str) -> Mapping[str, int]:
    configs = row_configs(suite.rows, profile, dataset, tokenizer, json.loads(overrides))
    found: dict[str, int] = {}
    for number, config in enumerate(configs):
        if config is not None:
            found.setdefault(method(config), number)
    return found


def planned(row: Row, profile: str, record: RunRecord, overrides: Overrides | None = None) -> RunConfig | None:
    """What a row is under a profile on a record's data; None where it cannot run there."""
    tokenizer = (record.config.get("tokenizer") or {}).get("name", "")
    return next(iter(row_configs([row], profile, record.config["dataset"]["name"], tokenizer, overrides or {})))


def row_configs(rows: Sequence[Row], profile: str, dataset: str, tokenizer: str,
                overrides: Overrides) -> Iterable[RunConfig | None]:
    """What each row is under a profile on a dataset; None where it cannot run there."""
    known = profile in profile_names()
    for row in rows:
        try:
            yield row_config(row.source, profile, dataset, tokenizer, overrides) if known else None
        except UserError:
            yield None


def has_row(record: RunRecord, suites: Iterable[Suite], overrides: Overrides | None = None) -> bool:
    """Whether a row of the suites gives a record's method under the record's own profile."""
    return any(record.method in row_numbers(suite, record.profile, record, overrides) for suite in suites)


@dataclass(frozen=True)
class Rows:
    """The rows that carry verdicts: of a suite or those it includes, with what `--set` changes of them."""

    suite: str = "all"
    overrides: Overrides = field(default_factory=dict)

    def of(self, record: RunRecord, profile: str) -> Row | None:
        """The row that gives a record's method under a profile; of several the one of the smallest grid."""
        found = [suite.rows[number] for suite in map(load_suite, load_suite(self.suite).includes or (self.suite,))
                 if (number := row_numbers(suite, profile, record, self.overrides).get(record.method)) is not None]
        return min(found, key=lambda row: row.grid == "full", default=None)


EVERY = Rows()


def unequal_budget(record: RunRecord, overrides: Overrides | None = None) -> str:
    """What a trained method was given otherwise than the methods of its profile, or ""."""
    own = (record.first_stage or record.config).get("training")
    if own is None or record.profile not in profile_names():
        return ""
    usual = settings.to_dict(training_config(record.profile, record.config["dataset"]["name"], overrides or {}))
    return ", ".join(f"{name} {own[name]} instead of {usual[name]}" for name in BUDGET if own[name] != usual[name])


def dataset_title(record: RunRecord) -> str:
    """The dataset's registered name; for a custom folder its label, marked so that it is no other's."""
    spec = record.config["dataset"]
    if spec["name"] != "folder":
        return spec["name"]
    name = spec.get("label") or Path(spec.get("path") or "").name
    return f"{name} (folder)" if name else "folder"


def is_seeded(record: RunRecord) -> bool:
    """Whether another seed would give a run other numbers."""
    name = (record.config.get("baseline") or {}).get("name")
    return name not in registry.baselines.names() or registry.baselines.get(name).seeded


def data_of(record: RunRecord) -> dict[str, Any]:
    """What runs must have in common to be compared: the data, and the rows made of them."""
    names = ("engine", "dataset", "split_fingerprint")
    return {name: record.identity[name] for name in names if name in record.identity}


def of_suite(name: str) -> Callable[[RunRecord], bool]:
    """Whether a record is a run of a suite, or of one that it includes. Raises: UserError for an unknown suite."""
    parts = [load_suite(part) for part in load_suite(name).includes or (name,)]
    return lambda record: has_row(record, parts)


def unregistered(records: Iterable[RunRecord]) -> list[str]:
    """The parts of records that are not registered, as of a user's plug-in that is not loaded: `dataset clicks`."""
    found = {(kind, record.config[kind]["name"]) for record in records for kind in COMPONENTS
             if record.config.get(kind)}
    return sorted(f"{kind} {name}" for kind, name in found if name not in COMPONENTS[kind].names())


def other_runs(records: Iterable[RunRecord], suites: Sequence[Suite]) -> list[tuple[RunRecord, str]]:
    """The records that no suite has a row for, each with what differs from the row of its label."""
    return [(record, _difference(record, suites)) for record in records if not has_row(record, suites)]


def _difference(record: RunRecord, suites: Sequence[Suite]) -> str:
    """Settings that the row of the record's label has otherwise, as `training.epochs = 1 (row: 15)`."""
    name = (record.config.get("baseline") or {}).get("name")
    rows = [row for suite in suites for row in suite.rows
            if (row.baseline == name if name else row.label == record.label)]
    if record.profile not in profile_names():
        return f"there is no profile {record.profile}"
    if absent := unregistered([record]):
        return f"{', '.join(absent)}: not registered; --plugin FILE.py loads it"
    config = planned(rows[0], record.profile, record) if rows else None
    if config is None:
        return "no row of a suite has this label"
    parts = [f"{key} = {'none' if own is None else own} (row: {'none' if other is None else other})"
             for key, own, other in differing(record.config, config.to_dict())]
    return ", ".join(parts) or "versions of components, or of the engine"


def differing(config: Mapping[str, Any], other: Mapping[str, Any],
              apart: Sequence[str] = ("label", "profile", "seed", "dataset")) -> list[tuple[str, Any, Any]]:
    """The settings that two runs have otherwise, flat, but for some parts: name, and what both have, None = nothing."""
    own, theirs = (flatten({k: v for k, v in of.items() if k not in apart}) for of in (config, other))
    return [(key, own.get(key), theirs.get(key)) for key in sorted({*own, *theirs}) if own.get(key) != theirs.get(key)]
