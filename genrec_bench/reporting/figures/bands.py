"""Where methods are good: by the popularity of the target, and by the length of the user's history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec_bench.analysis.ranking import mean_interval
from genrec_bench.metrics.base import averaged
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.results import beside_baselines, seeds_text
from genrec_bench.reporting.groups import CHOSEN_BY, FEW, check_rows
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData

MOST = 8  # methods of a panel
ROWS = 14  # of a backbone, among which the best are looked for
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


@plate("popularity", "By popularity of the target")
def popularity_figure(material: ReportData, block: Block) -> Chart | str | None:
    """NDCG@10 by how often the target occurs in the training sequences; targets that never do stand apart."""
    return _figure(material, block, "Quality by popularity of the target", "target_count",
                   "Interactions of the target in training")


@plate("history", "By length of history")
def history_figure(material: ReportData, block: Block) -> Chart | str | None:
    """NDCG@10 by how many interactions of the user training has, of which a method may read the last ones alone."""
    longest = block.config.get("split", {}).get("max_history")
    reads = f", of which a method reads the last {longest} at most" if longest else ""
    return _figure(material, block, "Quality by length of the history", "user_count",
                   f"Interactions of the user in training{reads}")


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
    found = [_band(0, 0, counts == 0, users)]
    for below, high in zip(edges[:-1], edges[1:], strict=True):
        rows = (counts > below) & (counts <= high)
        if rows.any():
            found.append(_band(int(counts[rows].min()), high, rows, users))
    return [band for band in found if band.users]


def _band(low: int, high: int, rows: np.ndarray, users: np.ndarray) -> Band:
    return Band(low, high, rows, len(np.unique(users[rows])))


def _figure(material: ReportData, block: Block, title: str, fact: str, xlabel: str) -> Chart | str | None:
    panels = {family: groups for family in block.families() if (groups := compared(block, family))}
    if not material.ranked or not panels:
        return None
    facts = material.users(block)
    if facts is None:
        return ("it needs facts about the test users; a run on this split writes them, also where all is found done: "
                f"`python benchmark.py --suite {material.suite.name} --profile {block.profile} --datasets "
                f"{block.config['dataset']['name']}`")
    found = bands(getattr(facts, fact), facts.user)
    enough = {place: band for place, band in enumerate(found) if band.users >= FEW}
    if not enough:
        return f"every group has fewer than {FEW} users"
    points, looks = [], {}
    for family, groups in panels.items():
        for group in groups:
            looks[group.name] = material.look[group.row.key]
            values = material.row_values(group)
            check_rows(block, values, len(found[0].rows))
            points += [_point(family, group, place, values[:, band.rows], facts.user[band.rows])
                       for place, band in enough.items()]
    ticks = {float(place): band.label for place, band in enumerate(found)}
    return Chart(f"{title} on {block.dataset}", _caption(block, xlabel, found), points, {"ndcg@10": Axis("NDCG@10")},
                 looks, Axis(xlabel, ticks=ticks), dodge=0.018)


def _point(family: str, group: Group, place: int, values: np.ndarray, users: np.ndarray) -> dict:
    """The mean of a band with its interval; without one where nothing of the band is found."""
    e = mean_interval(averaged(values, users))
    return point(family, "ndcg@10", group.name, "mean", float(place), e.value, e if e.value else None)


def compared(block: Block, family: str) -> list[Group]:
    """The baselines, a backbone's cross-entropy and its best rows in validation; [] where a backbone has no whole row.

    Baselines alone are shown where there is no backbone.
    """
    baselines, own = beside_baselines(block, family, ROWS)
    reference = block.cross_entropy(family) if own else None
    best = sorted((g for g in own if g is not reference), key=lambda g: -(g.mean(CHOSEN_BY) or 0.0))
    chosen = [*(g for g in own if g is reference), *best][:max(1, MOST - len(baselines))]
    return [*baselines[:MOST], *(g for g in own if g in chosen)]


def _caption(block: Block, xlabel: str, found: Sequence[Band]) -> str:
    few = f"; bands of fewer than {FEW} users have no point" * any(band.users < FEW for band in found)
    some = "; those of count 0 stand apart" if found[0].high == 0 else ""
    return (f"{block.name}: NDCG@10 of test targets, item-level, with 95 % interval over {seeds_text(block)} and the "
            f"users of each band, by {xlabel[0].lower()}{xlabel[1:]}; bands are quarters of the test rows, joined "
            f"where counts coincide{some}{few}; the baselines, cross-entropy, and of the other rows those that are "
            "best in validation; a point without an interval is a method that finds no target of the band. "
            "Descriptive: no test")
