"""Results by group of test rows: how a target can be reached, whether training has it, and its day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genrec_bench.analysis.ranking import against
from genrec_bench.core.errors import UserError
from genrec_bench.core.lazy import pandas
from genrec_bench.core.lists import grouped
from genrec_bench.metrics.base import averaged
from genrec_bench.reporting import tables
from genrec_bench.reporting.families import Test, paired
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.pages import Pages
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import DASH
from genrec_bench.results.test_users import REACHES, UserFacts

if TYPE_CHECKING:
    from pandas import DataFrame

FEW = 20  # a group of fewer users says nothing
MOST_FEW = 0.5  # share of such groups in a block that is shown
CHOSEN_BY = "valid_ndcg@10"
WARM = ("target in training", "target not in training")
DAYS = {1: "same day as the item before", 0: "another day", -1: "day not known"}
HEADER = ("dataset", "profile", "block", "method", "seeds", "kind", "group", "rows", "users", "few", "ndcg@10", "low",
          "high", "reference", "difference", "difference_low", "difference_high")


@dataclass(frozen=True, eq=False)
class Part:
    """A group of test rows. kind: "reach", "target" or "day", whose groups share all rows out. rows: (N,) bool. users:
    how many have such rows."""

    kind: str
    name: str
    rows: np.ndarray
    users: int

    @property
    def count(self) -> int:
        """How many rows it has."""
        return int(self.rows.sum())

    @property
    def few(self) -> bool:
        """Whether it is too small to say anything."""
        return self.users < FEW


def parts(facts: UserFacts) -> list[Part]:
    """The groups of a split that have any row."""
    found = [("reach", name, facts.reach == place) for place, name in enumerate(REACHES)]
    found += [("target", WARM[0], facts.target_count > 0), ("target", WARM[1], facts.target_count == 0)]
    found += [("day", name, facts.same_day == day) for day, name in DAYS.items()]
    return [Part(kind, name, rows, len(np.unique(facts.user[rows]))) for kind, name, rows in found if rows.any()]


def check_rows(block: Block, values: np.ndarray, rows: int) -> None:
    """Raises: UserError where ranks and facts are of different numbers of test rows."""
    if values.shape[-1] != rows:
        raise UserError(f"{block.name}: the ranks are of {values.shape[-1]:,} test rows, and the facts about them of "
                        f"{rows:,}. Delete the file `.users.npz` of this split; a run writes it again.")


def by_group(data: ReportData, block: Block) -> DataFrame | None:
    """NDCG@10 of every row of a block that stands, in every group, with the difference from its reference, both of the
    same users and of the seeds that both have (see `against`): columns HEADER, method by method; None without ranks or
    facts about the test rows."""
    facts, groups = data.users(block), [g for g in block.groups if block.stands(g)]
    lines = []
    for own, rows, references in together(block, groups):
        ranked, of = [data.row_values(g) for g in rows], {g.label: g.seeds for g in rows}
        if facts is None or any(values is None for values in ranked):
            return None
        check_rows(block, ranked[0], facts.num_rows)
        for part in parts(facts):
            values = [averaged(of[:, part.rows], facts.user[part.rows]) for of in ranked]
            for group, r, (mean, gap) in zip(own, references, against(values, references), strict=False):
                ends = (None,) * 3 if gap is None else (gap.value, gap.low, gap.high)
                lines.append((block.dataset, block.profile, block.name, group.label, len(of[group.label]), part.kind,
                              part.name, part.count, part.users, int(part.few), mean.value, mean.low, mean.high,
                              rows[r].label, *ends))
    order = [g.label for g in groups]
    return pandas.DataFrame(sorted(lines, key=lambda line: order.index(line[3])), columns=HEADER) if lines else None


def reference(block: Block, group: Group, among: Sequence[Group]) -> Group:
    """What a row is measured by: cross-entropy on its backbone, else on the first that has it, else the baseline that
    is best in validation, or without one itself."""
    families = block.families()
    own = sorted(families, key=lambda family: group not in families[family])
    plain = [p for p in map(block.cross_entropy, own) if p in among]
    baselines = [g for g in among if g.row.baseline]
    return (plain or sorted(baselines, key=lambda g: -(g.mean(CHOSEN_BY) or 0.0)) or [group])[0]


def together(block: Block, groups: Sequence[Group]) -> Iterator[tuple[list[Group], list[Group], list[int]]]:
    """Rows in parts that `against` can draw together: those with the same seeds in common with their reference; without
    one in common a row stands by itself.

    Of each part the rows, then these and references from elsewhere with those seeds alone, and for each of these the
    place of its reference.
    """
    pairs = {g: paired(g, reference(block, g, groups)) or Test(g, g) for g in groups}
    measured = {g: pair.against for g, pair in pairs.items()}
    parts = grouped(groups, lambda g: pairs[g].seeds or block.seeds)
    for seeds, own in parts.items():
        rows = list(dict.fromkeys([*own, *(measured[g] for g in own)]))
        yield own, [g.of_seeds(seeds) for g in rows], [rows.index(measured[g] if g in own else g) for g in rows]


def section(data: ReportData, wanted: Sequence[Block], pages: Pages, folder: str) -> str:
    """A table of each wanted block that has enough users and methods, and all blocks with intervals as a CSV; "" where
    none has ranks and facts."""
    found = {block: table for block in data.blocks if (table := by_group(data, block)) is not None}
    if not found:
        return ""
    pages.text(f"{folder}/tables/groups.csv", pandas.concat(found.values()).to_csv(index=False, lineterminator="\n"))
    blocks = [(block.name, _markdown(block, table)) for block, table in found.items()
              if block in wanted and table["method"].nunique() > 1 and table["few"].mean() <= MOST_FEW]
    return render("groups", blocks=blocks, few=FEW,
                  left_out=[b.name for b in wanted if b.name not in dict(blocks)],
                  others=len(wanted) < len(data.blocks))


def _markdown(block: Block, table: DataFrame) -> str:
    known = table.drop_duplicates("group")
    shown = table[(table["rows"] < known.groupby("kind")["rows"].sum().iloc[0]) & (table["few"] == 0)]
    titles = {f"{p.group} ({p.rows:,})": p.group for p in shown.drop_duplicates("group").itertuples()}
    cells = shown.pivot(index="method", columns="group", values="ndcg@10").map("{:.4f}".format)
    groups = [g for g in block.groups if g.label in cells.index]
    seeds = dict(zip(table["method"], map(str, table["seeds"]), strict=True))
    return tables.by_family(block, groups, lambda some: tables.pipe(["Method", "n", *titles], [
        [g.label, seeds[g.label], *cells.loc[g.label, list(titles.values())]] for g in some])) if titles else DASH
