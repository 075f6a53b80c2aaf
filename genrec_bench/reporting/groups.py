"""Results by group of test rows: how a target can be reached, whether training has it, and its day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.analysis.ranking import against
from genrec_bench.core.errors import UserError
from genrec_bench.metrics.base import averaged
from genrec_bench.reporting import tables
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.pages import Pages
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import DASH, MARK
from genrec_bench.results.test_users import REACHES, UserFacts

FEW = 20  # a group of fewer users says nothing
CHOSEN_BY = "valid_ndcg@10"
WARM = ("target in training", "target not in training")
DAYS = {1: "same day as the item before", 0: "another day", -1: "day not known"}
CSV_HEADER = ("dataset", "profile", "block", "method", "kind", "group", "rows", "users", "few", "ndcg@10", "low",
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


@dataclass(frozen=True, eq=False)
class Line:
    """NDCG@10 of a method in a group, and its difference from the reference, both of the same users; see `against`."""

    group: Group
    part: Part
    mean: Estimate
    reference: Group
    difference: Estimate | None


def lines(material: ReportData, block: Block) -> list[Line]:
    """Every whole row of a block in every group, method by method; [] without ranks or facts about the test rows."""
    facts, groups = material.users(block), [g for g in block.groups if not block.missing(g)]
    ranked = [material.row_values(g) for g in groups]
    if facts is None or not groups or any(values is None for values in ranked):
        return []
    check_rows(block, ranked[0], facts.num_rows)
    found = []
    references = [groups.index(reference(block, g, groups)) for g in groups]
    for part in parts(facts):
        values = [averaged(of[:, part.rows], facts.user[part.rows]) for of in ranked]
        found += [Line(g, part, mean, groups[r], difference) for g, r, (mean, difference)
                  in zip(groups, references, against(values, references), strict=True)]
    return sorted(found, key=lambda line: groups.index(line.group))


def reference(block: Block, group: Group, among: Sequence[Group]) -> Group:
    """What a row is measured by: cross-entropy on its backbone, else on the first that has it, else the baseline that
    is best in validation, or without one itself."""
    families = block.families()
    own = sorted(families, key=lambda family: group not in families[family])
    plain = [p for p in map(block.cross_entropy, own) if p in among]
    baselines = [g for g in among if g.row.baseline]
    return (plain or sorted(baselines, key=lambda g: -(g.mean(CHOSEN_BY) or 0.0)) or [group])[0]


def section(material: ReportData, pages: Pages, folder: str) -> list[str]:
    """A table a block, and all of it with intervals as a CSV; [] where no block has ranks and facts."""
    found = {block.name: of for block in material.blocks if (of := lines(material, block))}
    if not found:
        return []
    pages.table(f"{folder}/tables/groups.csv", CSV_HEADER, [
        _csv(block, line) for block in material.blocks for line in found.get(block.name, ())])
    text = ("NDCG@10 of the test rows of a group, the history kept; of a user with several such rows their mean "
            "counts. The first groups say how the target can be reached from what the user had before; a row is in the "
            f"first that holds. {MARK}: fewer than {FEW} users. Groups that hold all rows are left out here. With 95 % "
            "intervals, and differences from cross-entropy on the same backbone (or the baseline that is best in "
            "validation): [tables/groups.csv](tables/groups.csv). Descriptive: no test.")
    shown = [(b.name, _table(b, found[b.name])) for b in material.blocks if b.name in found]
    return ["## Results by group", text, *(part for name, table in shown for part in (f"### {name}: by group", table))]


def _table(block: Block, found: Sequence[Line]) -> str:
    total = found[0].part.rows.size
    shown = [p for p in dict.fromkeys(line.part for line in found) if p.count < total]
    means = {(line.group.label, line.part): line.mean.value for line in found}
    header = ["Method", *(f"{p.name} ({p.count:,}{f' {MARK}' if p.few else ''})" for p in shown)]
    whole = [g for g in block.groups if not block.missing(g)]
    return tables.by_family(block, whole, lambda groups: tables.pipe(
        header, [[g.label, *(f"{means[g.label, p]:.4f}" for p in shown)] for g in groups])) if shown else DASH


def _csv(block: Block, line: Line) -> list:
    difference = line.difference
    return [block.dataset, block.profile, block.name, line.group.label, line.part.kind, line.part.name, line.part.count,
            line.part.users, int(line.part.few), line.mean.value, line.mean.low, line.mean.high,
            line.reference.label, *((difference.value, difference.low, difference.high) if difference else (None,) * 3)]
