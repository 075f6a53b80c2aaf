"""Where methods are good: by the popularity of the target, and by the length of the user's history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.analysis.ranking import mean_interval
from genrec_bench.metrics.base import averaged
from genrec_bench.reporting.figures.base import Picture, missing, plate
from genrec_bench.reporting.figures.panels import dodged, whiskers
from genrec_bench.reporting.figures.results import principal, seeds_text
from genrec_bench.reporting.figures.style import broken_label, image_bytes, own_style
from genrec_bench.reporting.groups import CHOSEN_BY, FEW, check_rows
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData

MOST = 8  # methods of a panel
ROWS = 14  # of a backbone, among which the best are looked for
QUARTERS = (0.25, 0.5, 0.75)
PALE = 0.3  # opacity of an interval of nothing found


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
        return f"{span}\n{self.users:,} user{'' if self.users == 1 else 's'}" + "\n(too few)" * (self.users < FEW)


@plate("popularity", "popularity", "By popularity of the target")
def popularity_figure(material: ReportData, block: Block) -> Picture | None:
    """NDCG@10 by how often the target occurs in the training sequences; targets that never do stand apart."""
    return _figure(material, block, "By popularity of the target", "target_count",
                   "Interactions of the target in training")


@plate("history", "history", "By length of history")
def history_figure(material: ReportData, block: Block) -> Picture | None:
    """NDCG@10 by how many interactions of the user training has, of which a method may read the last ones alone."""
    longest = block.config.get("split", {}).get("max_history")
    reads = f", of which a method reads the last {longest} at most" if longest else ""
    return _figure(material, block, "By length of history", "user_count",
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


def _figure(material: ReportData, block: Block, title: str, fact: str, xlabel: str) -> Picture | None:
    panels = {family: groups for family in block.families() if (groups := _compared(block, family))}
    if not material.ranked or not panels:
        return None
    facts = material.users(block)
    if facts is None:
        return missing(title, "facts about the test users; a run on this split writes them, also "
                       f"where all is found done: `python benchmark.py --suite {material.suite.name} --profile "
                       f"{block.profile} --datasets {block.config['dataset']['name']}`")
    found = bands(getattr(facts, fact), facts.user)
    shown = {id(g): _estimates(material.row_values(g), facts.user, found, block)
             for groups in panels.values() for g in groups}
    with own_style():
        figure = Figure(figsize=(8.6, 0.9 + 3.2 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        for one, (family, groups) in zip(axes, panels.items(), strict=True):
            for turn, group in enumerate(groups):
                _line(one, group, shown[id(group)], turn, len(groups), material.look)
            one.set_title(family, loc="left", fontweight="bold")
            one.set(ylabel="NDCG@10 (fraction)")
            one.set_xticks(range(len(found)), [band.label for band in found])
            one.tick_params(labelbottom=True)
            one.grid(axis="x", visible=False)
            one.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0.0, frameon=False)
        axes[0].set_ylim(bottom=0.0)
        axes[0].set_xlim(-0.5, len(found) - 0.5)
        axes[-1].set_xlabel(xlabel)
        figure.suptitle(f"{block.name}: test targets, item-level", fontsize=11)
        nothing = any(e is not None and e.value == 0.0 for estimates in shown.values() for e in estimates)
        return Picture(_caption(block, xlabel, found, nothing), image_bytes(figure))


def _compared(block: Block, family: str) -> list[Group]:
    """The baselines, a backbone's cross-entropy and its best rows in validation; [] where a backbone has no whole row.

    Baselines alone are shown where there is no backbone.
    """
    families = block.families()
    plain = [f for f, groups in families.items() if groups[0].row.backbone is None]
    baselines = [g for f in plain for g in principal(block, f, ROWS)][:MOST]
    if family in plain:
        return baselines if len(plain) == len(families) else []
    own = principal(block, family, ROWS)
    reference = block.cross_entropy(family)
    best = sorted((g for g in own if g is not reference), key=lambda g: -(g.mean(CHOSEN_BY) or 0.0))
    chosen = [*(g for g in own if g is reference), *best][:max(1, MOST - len(baselines))]
    return [*baselines, *(g for g in own if g in chosen)] if own else []


def _estimates(values: np.ndarray, users: np.ndarray, found: Sequence[Band], block: Block) -> list[Estimate | None]:
    """The mean of each band with its interval; None where there are too few users."""
    check_rows(block, values, len(found[0].rows))
    return [mean_interval(averaged(values[:, band.rows], users[band.rows])) if band.users >= FEW else None
            for band in found]


def _line(axes: Axes, group: Group, estimates: Sequence[Estimate | None], turn: int, count: int,
          look: Mapping[str, tuple[str, str]]) -> None:
    color, marker = look[group.row.key]
    places = [i for i, e in enumerate(estimates) if e is not None]
    values = [e for e in estimates if e is not None]
    moved = dodged(places, turn, count)
    means = [e.value for e in values]
    for place, one in zip(moved, values, strict=True):
        axes.errorbar([place], [one.value], yerr=whiskers([one]), color=color, fmt="none", elinewidth=1.0, capsize=2.5,
                      clip_on=False, alpha=None if one.value else PALE)
    axes.plot(moved, means, color=color, marker=marker, markersize=5.5, linewidth=0.7, clip_on=False,
              label=broken_label(group.name, 26))


def _caption(block: Block, xlabel: str, found: Sequence[Band], nothing: bool) -> str:
    """nothing: whether some method finds no target of some band."""
    few = [band for band in found if band.users < FEW]
    note = f"; bands of fewer than {FEW} users have no point" if few else ""
    some = "; those of count 0 stand apart" if found[0].high == 0 else ""
    pale = ("; pale: no target of the band is found, and the interval is Wilson's for a share of none of its users"
            if nothing else "")
    return (f"{block.name}: NDCG@10 with 95 % interval over {seeds_text(block)} and the users of each band, by "
            f"{xlabel[0].lower()}{xlabel[1:]}; bands are quarters of the test rows, joined where counts coincide"
            f"{some}{note}{pale}; the baselines, cross-entropy, and of the other rows those that are best in "
            "validation. Descriptive: no test")
