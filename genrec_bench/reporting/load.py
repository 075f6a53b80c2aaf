"""From records to what a report shows: one frame of runs, and in it runs that differ in the seed only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from genrec_bench.core.files import canonical
from genrec_bench.core.lazy import pandas
from genrec_bench.core.lists import grouped
from genrec_bench.experiments import queue, suite_files
from genrec_bench.experiments.grid import Overrides
from genrec_bench.reporting.matching import data_of, dataset_title, has_row, is_seeded, row_numbers
from genrec_bench.reporting.rows import Row, Suite, as_stated, load_suite
from genrec_bench.results.frame import RUN, runs
from genrec_bench.results.records import RunRecord

if TYPE_CHECKING:
    from pandas import DataFrame


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


OTHER_COLUMNS = (*RUN, "record", "data", "seeded", "row")  # of `run_table`, beside the metrics


def run_table(records: Iterable[RunRecord]) -> DataFrame:
    """The frame that reports are made from: a line a run in order of seeds, its facts (`results.frame.RUN`), a column
    a metric under the record's name of it, and `record`, `data` (what runs must share to be compared) and `seeded`."""
    records = sorted({r.run_id: r for r in records}.values(), key=lambda r: (r.seed, r.run_id))
    known = {"record": pandas.Series(records, dtype=object), "data": [canonical(data_of(r)) for r in records],
             "seeded": pandas.Series([is_seeded(r) for r in records], dtype=bool)}
    table = runs(records).assign(**known)
    table["semantic_ids"] = table["semantic_ids"].fillna("")
    return table.join(pandas.DataFrame([r.metrics for r in records], index=table.index, dtype=float))


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that are equal in everything but the seed, in order of seeds. label: unique within its block.

    row: None where no suite has one. runs: their lines of `run_table`.
    """

    row: Row | None
    label: str
    runs: DataFrame

    @property
    def seeded(self) -> bool:
        """Whether another seed would give other numbers."""
        return bool(self.runs["seeded"].iloc[0])

    @property
    def name(self) -> str:
        """The label without the backbone that it stands under."""
        return self.label.removeprefix(f"{self.row.spelling} + ")

    @cached_property
    def records(self) -> tuple[RunRecord, ...]:
        """The records of its runs."""
        return tuple(self.runs["record"])

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds there are, in order."""
        return tuple(r.seed for r in self.records)

    def of_seeds(self, seeds: Collection[int]) -> Group:
        """The same with the runs of some seeds alone, where another seed would give other numbers."""
        return replace(self, runs=self.runs[self.runs["seed"].isin(seeds)]) if self.seeded else self

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings in the words of a row, from the first record; only the seed differs in the others."""
        return as_stated(self.records[0])

    @cached_property
    def _values(self) -> dict[str, list[Any]]:
        columns = self.runs.to_numpy(dtype=object, na_value=None).T  # all at once: pandas is slow column by column
        return {name: [v for v in of if v is not None] for name, of in zip(self.runs, columns, strict=True)}

    def values(self, column: str) -> list[Any]:
        """A metric or another fact of `run_table`, a value for each seed that has one."""
        return self._values.get(column, [])

    def summary(self, column: str) -> Summary:
        """The same over seeds; n counts the seeds that have a value."""
        return summarise(self.values(column))

    def mean(self, column: str) -> float | None:
        """The mean over the seeds that have a value, or None."""
        return self.summary(column).mean


@dataclass(frozen=True, eq=False)
class Block:
    """Groups that may be compared: same data, split, evaluation and profile. name: unique within a report.

    Baselines stand first, then the backbones one after the other, each in the order of the suite.
    Runs of a method that is not seeded may have been made by another profile, which changes nothing about them.
    expected: the seeds that a whole row has, see `expected_seeds`; () = every seed that some row has. extra: runs with
    other seeds, which are in no group, as lines of `run_table`; None = none.
    """

    name: str
    dataset: str
    profile: str
    groups: tuple[Group, ...]
    expected: tuple[int, ...] = ()
    extra: DataFrame | None = None

    @cached_property
    def runs(self) -> DataFrame:
        """The lines of all its groups, in order; `label` is the group's."""
        return pandas.concat([g.runs.assign(label=g.label) for g in self.groups], ignore_index=True)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that a whole row has."""
        return self.expected or tuple(sorted({s for g in self.groups if g.row.seeded for s in g.seeds}))

    def missing(self, group: Group) -> tuple[int, ...]:
        """Seeds that a whole row has and this group has not; none where nothing is random."""
        return tuple(s for s in self.seeds if s not in group.seeds) if group.row.seeded else ()

    def stands(self, group: Group) -> bool:
        """Whether a row has a mean and comparisons of its own: it lacks no seed, or has those that a queue declares
        for it, which may be fewer than others have."""
        if not self.missing(group):
            return True
        first = group.records[0]
        declared = queue.declared_seeds().get((self.profile, first.config["dataset"]["name"], first.method))
        return declared == {*group.seeds}

    @property
    def uneven(self) -> tuple[tuple[str, int], ...]:
        """The rows that stand with fewer seeds than others, and how many these are."""
        return tuple((g.label, len(g.seeds)) for g in self.groups if self.missing(g) and self.stands(g))

    @property
    def left_out(self) -> tuple[str, ...]:
        """The runs that are in no group, in words."""
        return () if self.extra is None else tuple(sorted(f"seed {r.seed} of {r.label}" for r in self.extra["record"]))

    def with_extra(self, group: Group) -> Group:
        """A group with all of its seeds, those too that most rows do not have."""
        same = ["method", "semantic_ids"]
        more = None if self.extra is None else self.extra[(self.extra[same] == group.runs[same].iloc[0]).all(axis=1)]
        if more is None or more.empty:
            return group
        return replace(group, runs=pandas.concat([group.runs, more]).sort_values(["seed", "run_id"]))

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of one of its runs; dataset, split and evaluation are those of all."""
        return self.groups[0].config

    def families(self) -> dict[str, list[Group]]:
        """The groups under their headings, baselines and each backbone, in order."""
        found = grouped(self.groups, lambda g: g.row.backbone)
        return {min((g.row.spelling for g in same), key=lambda s: s == backbone): same
                for backbone, same in found.items()}

    def cross_entropy(self, family: str) -> Group | None:
        """The row that a backbone's objectives are measured by: cross-entropy alone, in one stage."""
        return next((g for g in self.families()[family] if g.row.stages == (("cross_entropy",),)), None)


def arrange(suite: Suite, records: Sequence[RunRecord], overrides: Overrides | None = None) -> list[Block]:
    """The suite's records as comparable blocks, sorted by dataset and profile; rows in the suite's order.

    A record belongs to a row where the row, under a profile, gives its method; nothing is guessed. A run that a profile
    has in common with another one appears in the blocks of both, if the block's data have runs of that profile.
    Trials of `tune` belong to no block.
    overrides: what `--set` changes of the rows.
    """
    table = run_table(r for r in records if not r.is_trial)
    every = (suite, *map(load_suite, load_suite("all").includes))
    expected = expected_seeds(table[table["record"].map(lambda r: has_row(r, every, overrides)).astype(bool)])
    blocks = []
    for data, same in table.groupby("data"):
        for profile in sorted(set(same["profile"][same["seeded"]])) or [same["profile"].min()]:
            numbers = [row_numbers(suite, profile, r, overrides).get(r.method) for r in same["record"]]
            own = same.assign(row=pandas.array(numbers, dtype="Int64")).dropna(subset="row")
            if len(own):
                blocks.append(_block(profile, suite, own, expected.get((data, profile), ())))
    titles = [block.name for block in blocks]
    named = [block if titles.count(block.name) == 1 else
             replace(block, name=f"{block.name}, split {block.groups[0].runs['split'].iloc[0][:8]}")
             for block in blocks]
    return sorted(named, key=lambda block: (block.dataset, block.profile, block.name))


def expected_seeds(table: DataFrame) -> dict[tuple[str, str], tuple[int, ...]]:
    """Which seeds a row has to have, by data and profile, whatever suite it belongs to.

    Those of the profile's file that any seeded run has, and those that half of the methods have: so no suite calls a
    row whole which another calls incomplete, and a row with more seeds makes no other incomplete. Where no seed is such
    a one, every seed there is. table: `run_table` of the records that a suite has a row for.
    """
    expected = {}
    for (data, profile), same in table[table["seeded"]].groupby(["data", "profile"]):
        methods, having = same["method"].nunique(), same.groupby("seed")["method"].nunique()
        own = suite_files.load_profile(profile)["seeds"]
        common = having[having.index.isin(own) | (2 * having >= methods)]
        expected[data, profile] = tuple((having if common.empty else common).index.tolist())
    return expected


def _block(profile: str, suite: Suite, own: DataFrame, expected: tuple[int, ...]) -> Block:
    """The block of one profile on some data. Runs of a row that have other semantic IDs, as another machine may make
    them, are groups of their own. own: lines of the runs, with the number of the `row` of each."""
    extra = own["seeded"] & ~own["seed"].isin(expected)
    kept = own[~extra]
    backbones = list(dict.fromkeys([None, *(suite.rows[n].backbone for n in sorted(set(kept["row"])))]))
    several, groups = kept.groupby("row")["semantic_ids"].nunique() > 1, []
    for (number, ids), same in sorted(kept.groupby(["row", "semantic_ids"]),
                                      key=lambda item: backbones.index(suite.rows[item[0][0]].backbone)):
        row = suite.rows[number]
        label = row.label or same["label"].iloc[0]
        groups.append(Group(row, f"{label} (semantic IDs {ids[:8]})" if several[number] else label, same))
    dataset = dataset_title(groups[0].records[0])
    return Block(f"{dataset}, profile {profile}", dataset, profile, tuple(groups), expected, own[extra])


def unique_runs(blocks: Sequence[Block]) -> DataFrame:
    """The lines of all runs that a report shows, each once."""
    return pandas.concat([b.runs for b in blocks], ignore_index=True).drop_duplicates("run_id", ignore_index=True)
