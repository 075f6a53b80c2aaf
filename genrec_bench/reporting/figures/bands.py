"""Where methods are good: by the popularity of the target, and by the length of the user's history."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from genrec_bench.analysis.ranking import mean_interval
from genrec_bench.metrics.base import averaged
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Chart, named, point
from genrec_bench.reporting.figures.runs import beside_baselines
from genrec_bench.reporting.groups import CHOSEN_BY, FEW, check_rows
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData

MOST = 8  # methods of a panel
ROWS = 14  # of a backbone, among which the best are looked for
FACTS = {"popularity": "target_count", "history": "user_count"}  # figure -> what test rows are counted by
QUARTERS = (0.25, 0.5, 0.75)


@dataclass(frozen=True, eq=False)
class Band:
    """Test rows whose count lies within low to high, both inside. rows: (N,) bool. users: how many have such rows."""

    low: int
    high: int
    rows: np.ndarray
    users: int

    @property
    def label(self) -> str:
        """Its range and its number of users."""
        span = f"{self.low:,}" if self.low == self.high else f"{self.low:,}–{self.high:,}"
        return f"{span}\nn = {self.users:,}" + "\n(too few)" * (self.users < FEW)


def bands(counts: np.ndarray, users: np.ndarray | None = None) -> list[Band]:
    """Rows in the quarters of their counts, with those of count 0 apart; fewer bands where quartiles coincide.

    counts: (N,) integers from 0; users: (N,) whose row it is, None = each another's. Edges depend on the counts alone.
    """
    counts = np.asarray(counts)
    users = np.arange(len(counts)) if users is None else users
    some, most = counts[counts > 0], int(counts.max(initial=0))
    cuts = np.quantile(some, QUARTERS, method="inverted_cdf") if len(some) else []
    below_most = some[some < most].max(initial=0)  # a quartile that is the maximum leaves nothing above it
    edges = [0, *sorted({int(min(c, below_most)) for c in cuts} - {0}), most]
    parts = [counts == 0, *((counts > below) & (counts <= high) for below, high in pairwise(edges))]
    return [Band(int(counts[rows].min()), int(counts[rows].max()), rows, len(np.unique(users[rows])))
            for rows in parts if rows.any()]


@plate(*FACTS)
def bands_figure(key: str, data: ReportData, block: Block) -> Chart | str | None:
    """NDCG@10 by how often the target occurs in training, those that never do apart, or by how many interactions of the
    user training has, of which a method may read the last ones alone."""
    panels = {family: groups for family in block.families() if (groups := compared(block, family))}
    if not data.ranked or not panels:
        return None
    facts = data.users(block)
    if facts is None:
        return ("it needs facts about the test users; a run on this split writes them, also where all is found done: "
                f"`python benchmark.py --suite {data.suite.name} --profile {block.profile} --datasets "
                f"{block.config['dataset']['name']}`")
    found, points = bands(getattr(facts, FACTS[key]), facts.user), []
    enough = {float(place): band.rows for place, band in enumerate(found) if band.users >= FEW}
    if not enough:
        return f"every group has fewer than {FEW} users"
    for family, group in ((family, group) for family, groups in panels.items() for group in groups):
        values = data.row_values(group)
        check_rows(block, values, len(found[0].rows))
        for place, rows in enough.items():
            e = mean_interval(averaged(values[:, rows], facts.user[rows]))
            points.append(point(family, "ndcg@10", group.name, "mean", place, e.value, e if e.value else None))
    return named(key, data, block, points, ticks={float(place): band.label for place, band in enumerate(found)},
                 longest=block.config.get("split", {}).get("max_history"), apart=found[0].high == 0,
                 few=FEW if len(enough) < len(found) else 0)


def compared(block: Block, family: str) -> list[Group]:
    """The baselines, a backbone's cross-entropy and its best rows in validation; [] where a backbone has no whole row.

    Baselines alone are shown where there is no backbone.
    """
    baselines, own = beside_baselines(block, family, ROWS)
    reference = block.cross_entropy(family) if own else None
    best = sorted(own, key=lambda g: (g is not reference, -(g.mean(CHOSEN_BY) or 0.0)))
    return [*baselines[:MOST], *(g for g in own if g in best[:max(1, MOST - len(baselines))])]
