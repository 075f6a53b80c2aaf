"""From records to what a report shows: runs that differ in the seed only, tables that compare."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from genrec_bench.core import registry
from genrec_bench.core.files import canonical
from genrec_bench.experiments import suite_files
from genrec_bench.experiments.grid import Overrides
from genrec_bench.reporting.matching import dataset_title, has_row, row_numbers
from genrec_bench.reporting.rows import Row, Suite, as_stated, load_suite
from genrec_bench.results import diagnoses
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.results.records import RecordStore, RunRecord


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation over seeds; sd is None for one seed, mean for none."""

    mean: float | None
    sd: float | None
    n: int


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation (n - 1) of one value a seed."""
    if not values:
        return Summary(None, None, 0)
    n, mean = len(values), statistics.fmean(values)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None
    return Summary(mean, sd, n)


@dataclass(frozen=True)
class Group:
    """Runs that are equal in everything but the seed, in order of seeds. label: unique within its block."""

    row: Row
    label: str
    records: tuple[RunRecord, ...]

    @property
    def name(self) -> str:
        """The label without the backbone that it stands under."""
        return self.label.removeprefix(f"{self.row.spelling} + ")

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds there are, in order."""
        return tuple(r.seed for r in self.records)

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings in the words of a row, from the first record; only the seed differs in the others."""
        return as_stated(self.records[0])

    def metric(self, key: str) -> Summary:
        """One metric over seeds; n counts the seeds that have it."""
        return summarise(self.metric_values(key))

    def metric_values(self, key: str) -> list[float]:
        """One metric, a value a seed."""
        return [r.metrics[key] for r in self.records if key in r.metrics]

    def timing(self, key: str) -> Summary:
        """One timing (seconds, bytes, users/s) over seeds."""
        return summarise([r.timings[key] for r in self.records if r.timings.get(key) is not None])

    def training(self, key: str) -> Summary:
        """One number about training (epochs, parameters) over seeds."""
        return summarise([r.training[key] for r in self.records if r.training.get(key) is not None])

    def first_stages(self, *keys: str) -> list[float]:
        """What one number about training was in the first stage, a value a seed; empty where there was none."""
        return [value for r in self.records if (value := _at(r.training, "first_stage", *keys)) is not None]

    def all_stages(self, *keys: str) -> list[float]:
        """One number about training summed over the stages, a value a seed; only seeds of which all is known."""
        stages = [[_at(r.training, *keys), *([_at(r.training, "first_stage", *keys)] if r.first_stage else [])]
                  for r in self.records]
        return [sum(values) for values in stages if None not in values]

    def train_seconds(self) -> list[float]:
        """Seconds of training, of all stages, a value a seed."""
        return [r.timings["train_seconds"] + r.timings.get("first_stage_seconds", 0.0) for r in self.records
                if r.timings.get("train_seconds") is not None]


def _at(data: Any, *keys: str) -> Any:
    """A number in nested tables, or None."""
    for key in keys:
        data = (data or {}).get(key)
    return data


@dataclass(frozen=True)
class Block:
    """Groups that may be compared: same data, split, evaluation and profile. name: unique within a report.

    Baselines stand first, then the backbones one after the other, each in the order of the suite.
    Runs of a method that is not seeded may have been made by another profile, which changes nothing about them.
    expected: the seeds that a whole row has, see `expected_seeds`; () = every seed that some row has. extra: runs with
    other seeds, which are in no group.
    """

    name: str
    dataset: str
    profile: str
    groups: tuple[Group, ...]
    expected: tuple[int, ...] = ()
    extra: tuple[RunRecord, ...] = ()

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that a whole row has."""
        return self.expected or tuple(sorted({s for g in self.groups if g.row.seeded for s in g.seeds}))

    def missing(self, group: Group) -> tuple[int, ...]:
        """Seeds that a whole row has and this group has not; none where nothing is random."""
        return tuple(s for s in self.seeds if s not in group.seeds) if group.row.seeded else ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """The runs that are in no group, in words."""
        return tuple(sorted(f"seed {r.seed} of {r.label}" for r in self.extra))

    def with_extra(self, group: Group) -> Group:
        """A group with all of its seeds, those too that most rows do not have."""
        first = group.records[0]
        more = [r for r in self.extra if _same_but_seed(r) == _same_but_seed(first)]
        return replace(group, records=tuple(sorted((*group.records, *more), key=lambda r: r.seed)))

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of one of its runs; dataset, split and evaluation are those of all."""
        return self.groups[0].config

    def families(self) -> dict[str, list[Group]]:
        """The groups under their headings, baselines and each backbone, in order."""
        found: dict[str | None, list[Group]] = {}
        for group in self.groups:
            found.setdefault(group.row.backbone, []).append(group)
        return {min((g.row.spelling for g in same), key=lambda s: s == backbone): same
                for backbone, same in found.items()}

    def cross_entropy(self, family: str) -> Group | None:
        """The row that a backbone's objectives are measured by: cross-entropy alone, in one stage."""
        return self._plainest(family, (("cross_entropy",),))

    def control(self, family: str) -> Group | None:
        """The row that a backbone's two-stage rows are measured by: cross-entropy after cross-entropy."""
        return self._plainest(family, (("cross_entropy",), ("cross_entropy",)))

    def _plainest(self, family: str, stages: tuple[tuple[str, ...], ...]) -> Group | None:
        """The first row with these objectives."""
        return next((g for g in self.families()[family] if g.row.stages == stages), None)


def _same_but_seed(record: RunRecord) -> tuple[str, str]:
    return record.method, record.identity.get("semantic_ids_fingerprint", "")


def arrange(suite: Suite, records: Sequence[RunRecord], overrides: Overrides | None = None) -> list[Block]:
    """The suite's records as comparable blocks, sorted by dataset and profile; rows in the suite's order.

    A record belongs to a row where the row, under a profile, gives its method; nothing is guessed. A run that a profile
    has in common with another one appears in the blocks of both, if the block's data have runs of that profile.
    Trials of `tune` belong to no block.
    overrides: what `--set` changes of the rows.
    """
    records = list({r.run_id: r for r in records if not r.is_trial}.values())
    every = (suite, *map(load_suite, load_suite("all").includes))
    expected = expected_seeds(r for r in records if has_row(r, every, overrides))
    blocks = []
    for data in sorted({canonical(data_of(r)) for r in records}):
        same = [r for r in records if canonical(data_of(r)) == data]
        profiles = {r.profile for r in same if is_seeded(r)} or {min(r.profile for r in same)}
        for profile in sorted(profiles):
            placed = [(number, r) for r in same
                      if (number := row_numbers(suite, profile, r, overrides).get(r.method)) is not None]
            if placed:
                blocks.append(_block(data, profile, suite, placed, expected.get((data, profile), ())))
    titles = [f"{block.dataset}, profile {block.profile}" for block in blocks]
    named = [replace(block, name=title if titles.count(title) == 1 else
                     f"{title}, split {block.groups[0].records[0].split_fingerprint[:8]}")
             for block, title in zip(blocks, titles, strict=True)]
    return sorted(named, key=lambda block: (block.dataset, block.profile, block.name))


def expected_seeds(records: Iterable[RunRecord]) -> dict[tuple[str, str], tuple[int, ...]]:
    """Which seeds a row has to have, by data and profile, whatever suite it belongs to.

    Those of the profile's file that any seeded run has, and those that half of the methods have: so no suite calls a
    row whole which another calls incomplete, and a row with more seeds makes no other incomplete. Where no seed is such
    a one, every seed there is. records: those that a suite has a row for.
    """
    found: dict[tuple[str, str], dict[int, set[str]]] = {}
    for record in records:
        if is_seeded(record):
            seeds = found.setdefault((canonical(data_of(record)), record.profile), {})
            seeds.setdefault(record.seed, set()).add(record.method)
    expected = {}
    for (data, profile), seeds in found.items():
        own, methods = suite_files.load_profile(profile)["seeds"], len(set().union(*seeds.values()))
        common = [s for s, having in seeds.items() if s in own or 2 * len(having) >= methods]
        expected[data, profile] = tuple(sorted(common or seeds))
    return expected


def is_seeded(record: RunRecord) -> bool:
    """Whether another seed would give a run other numbers."""
    name = (record.config.get("baseline") or {}).get("name")
    return name not in registry.baselines.names() or registry.baselines.get(name).seeded


def data_of(record: RunRecord) -> dict[str, Any]:
    """What every run of a block has in common: the data, and the rows made of them."""
    names = ("engine", "dataset", "split_fingerprint")
    return {name: record.identity[name] for name in names if name in record.identity}


def _block(data: str, profile: str, suite: Suite, placed: Sequence[tuple[int, RunRecord]],
           expected: tuple[int, ...]) -> Block:
    """The block of one profile on some data. Runs of a row that have other semantic IDs, as another machine may make
    them, are groups of their own."""
    extra = [r for number, r in placed if suite.rows[number].seeded and r.seed not in expected]
    sets: dict[tuple[int, str], list[RunRecord]] = {}
    for number, record in placed:
        if record not in extra:
            sets.setdefault((number, record.identity.get("semantic_ids_fingerprint", "")), []).append(record)
    backbones = list(dict.fromkeys([None, *(suite.rows[number].backbone for number, _ in sorted(sets))]))
    groups = []
    for number, ids in sorted(sets, key=lambda key: (backbones.index(suite.rows[key[0]].backbone), key)):
        row, runs = suite.rows[number], sorted(sets[number, ids], key=lambda r: (r.seed, r.run_id))
        several = sum(n == number for n, _ in sets) > 1
        label = row.label or runs[0].label
        groups.append(Group(row, f"{label} (semantic IDs {ids[:8]})" if several else label, tuple(runs)))
    return Block(data, dataset_title(groups[0].records[0]), profile, tuple(groups), expected, tuple(extra))


def diagnoses_of(blocks: Sequence[Block], results: Path) -> dict[str, Diagnosis]:
    """The diagnoses beside the records of some blocks below `results`, by run_id. Raises: UserError for a damaged one.
    """
    store = RecordStore(results)
    records = {r.run_id: r for b in blocks for g in b.groups for r in g.records}
    found = {run_id: diagnoses.find(store, record) for run_id, record in records.items()}
    return {run_id: diagnosis for run_id, diagnosis in found.items() if diagnosis is not None}
