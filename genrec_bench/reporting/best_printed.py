"""The best row that a paper prints on a data set, and our training-free row beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.analysis.ranking import mean_interval
from genrec_bench.core import registry
from genrec_bench.reporting.groups import CHOSEN_BY
from genrec_bench.reporting.load import Block, Group, data_of
from genrec_bench.reporting.papers import Paper, Reported, load_paper, paper_names
from genrec_bench.reporting.report_data import ReportData

APART = "not told apart"
METRIC, HITS = "ndcg@10", "recall@10"
PROFILES = ("standard", "paper")  # whose runs are taken first


@dataclass(frozen=True)
class Best:
    """A printed row. cell: its NDCG@10. recall: its Recall@10, which is HR@10; None where it is not printed."""

    paper: Paper
    cell: Reported
    recall: float | None

    @property
    def value(self) -> float:
        """The printed NDCG@10."""
        return self.cell.value

    @property
    def place(self) -> str:
        """Paper, table and row."""
        return f"{self.paper.short}, Table {self.cell.table}, {self.cell.backbone}, {self.cell.method}"


def best_printed(dataset: str, table: str | None = None) -> Best | None:
    """The printed row with the highest NDCG@10 on a data set of ours, of equal ones that with the higher Recall@10.

    All tables of scores count, or one; printed improvements do not. None where no paper prints one.
    """
    found = [Best(paper, cell, paper.cell(table=cell.table, dataset=dataset, backbone=cell.backbone, method=cell.method,
                                          metric=HITS))
             for paper in map(load_paper, paper_names()) if dataset in paper.datasets for cell in paper.reported
             if cell.dataset == paper.datasets[dataset] and cell.metric == METRIC and cell.score
             and table in (None, cell.table)]
    return max(found, key=lambda best: (best.value, best.recall or 0.0), default=None)


def main_table(best: Best) -> str:
    """The number of the first table of scores of a best row's paper."""
    return next(number for number, layout in best.paper.layouts.items() if layout.kind == "scores")


@dataclass(frozen=True, eq=False)
class Beside:
    """A data set: the best printed row, and the training-free row that is best in validation.

    ndcg, recall: of that row at 10 with 95 % interval over users, the history kept and taken out; means of test rows,
    as papers print them. users_first: the same of NDCG@10 where a user's rows are averaged first, as in other reports.
    """

    block: Block
    group: Group
    printed: Best
    ndcg: tuple[Estimate, Estimate]
    recall: tuple[Estimate, Estimate]
    users_first: tuple[Estimate, Estimate]

    @property
    def dataset(self) -> str:
        """Our name of the data set."""
        return self.block.dataset

    def printed_of(self, group: Group) -> Reported | None:
        """The NDCG@10 that the same paper prints of the model of a row on this data set, None where it prints none."""
        paper, name = self.printed.paper, (group.row.baseline or "").lower()
        return next((cell for cell in paper.reported if cell.dataset == paper.datasets[self.dataset]
                     and cell.metric == METRIC and cell.score and cell.method.lower() == name), None)

    def change(self, unseen: bool = False) -> float:
        """The difference of NDCG@10 to the printed one, as a part of it."""
        return self.ndcg[unseen].value / self.printed.value - 1.0

    def outcome(self, unseen: bool = False) -> str:
        """Where the interval lies: "above" or "below" the printed value, or "not told apart"."""
        return self._outcome(self.ndcg[unseen])

    @property
    def outcome_users_first(self) -> str:
        """The same of `users_first`, the history kept."""
        return self._outcome(self.users_first[0])

    def _outcome(self, one: Estimate) -> str:
        return "above" if one.low > self.printed.value else "below" if one.high < self.printed.value else APART


def training_free(block: Block) -> list[Group]:
    """The rows of a block in which nothing is learned by chance: baselines without a seed."""
    return [g for g in block.groups if g.row.baseline and not g.row.seeded and g.values(CHOSEN_BY)]


def beside_printed(material: ReportData) -> list[Beside]:
    """A line for each data set with a printed row, whole data and ranks at hand, in the papers' order."""
    found: dict[str, Beside] = {}
    for block in sorted(material.blocks, key=_rank):
        printed = best_printed(block.dataset)
        if printed is not None and block.dataset not in found and not _thinned(block):
            one = _beside(material, block, printed)
            found |= {block.dataset: one} if one else {}
    return [found[name] for name in papers_data() if name in found]


def papers_data() -> list[str]:
    """Our names of the data sets that papers print rows on, in their order."""
    return [name for paper in map(load_paper, paper_names()) for name in paper.datasets]


def _rank(block: Block) -> int:
    return PROFILES.index(block.profile) if block.profile in PROFILES else len(PROFILES)


def _thinned(block: Block) -> bool:
    """Whether a block is not split as its data set is by default, or not whole."""
    split, dataset = block.config.get("split", {}), block.config["dataset"]["name"]
    return bool(split.get("name") != registry.datasets.get(dataset).default_split or split.get("train_targets_per_user")
                or split.get("max_users"))


def _beside(material: ReportData, block: Block, printed: Best) -> Beside | None:
    """None without a training-free row or its ranks."""
    rows = training_free(block)
    if not rows:
        return None
    group = max(rows, key=lambda g: g.mean(CHOSEN_BY))
    if material.row_values(group) is None:
        return None
    ndcg, recall = (row_means(material, group, metric) for metric in ("ndcg", "recall"))
    first = ndcg if material.row_users(group) is None else tuple(
        mean_interval(material.values(group, unseen=unseen)) for unseen in (False, True))
    return Beside(block, group, printed, ndcg, recall, first)


def row_means(material: ReportData, group: Group, metric: str) -> tuple[Estimate, Estimate]:
    """A metric of a row at 10 with interval over users, the history kept and taken out; its ranks are at hand."""
    kept, unseen = (np.concatenate([shares(values[None], material.row_users(group)) for values in
                                    material.row_values(group, metric, unseen=unseen)]) for unseen in (False, True))
    return mean_interval(kept), mean_interval(unseen)


def trained_beside(one: Beside, others: Sequence[ReportData]) -> list[tuple[ReportData, Group]]:
    """The baselines whose training draws random numbers, on the same data and rows, from whatever suite, with ranks at
    hand."""
    data, found = data_of(one.group.records[0]), {}
    for material, block in ((m, b) for m in others for b in m.blocks if b.profile == one.block.profile):
        for group in (g for g in block.groups if g.row.baseline and g.row.seeded):
            first = group.records[0]
            if data_of(first) == data and material.row_values(group) is not None:
                found.setdefault(first.method, (material, group))  # several suites may have the row
    return list(found.values())


def shares(values: np.ndarray, users: np.ndarray | None) -> np.ndarray:
    """(1, N) values of rows -> (1, U), a value a user, whose mean is that of the rows.

    Resampling users then gives the interval of the mean of rows in which users with more rows count more (the
    linearised ratio of two means). users: (N,) the user of each row; None = every row is another's.
    """
    if users is None:
        return values
    _, user, count = np.unique(users, return_inverse=True, return_counts=True)
    mean = values.mean()
    return (mean + (np.bincount(user, weights=values[0]) - mean * count) / count.mean())[None]
