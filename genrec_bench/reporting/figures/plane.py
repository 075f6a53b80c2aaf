"""Quality against what training costs: positions that the decoder computes, and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.results import principal, spread_text
from genrec_bench.reporting.figures.runs import lacking, needed, not_drawn
from genrec_bench.reporting.figures.style import broken_label, image_bytes, own_style
from genrec_bench.reporting.load import Block, Group, Summary, summarise
from genrec_bench.reporting.report_data import ReportData

MOST = 14  # rows of a panel
METRIC = "ndcg@10"
TITLE = "Cost and quality"
PASSES = ("positions_with_gradient", "positions_without_gradient")
LABELS = {"positions": "Decoder positions in training (cross-entropy = 1)", "seconds": "Training (s)"}


@dataclass(frozen=True)
class Point:
    """A row with its score and its cost; least: the part of the cost that has a gradient, or the cost."""

    group: Group
    score: Summary
    cost: Summary
    least: float


@plate("plane", "plane", TITLE)
def plane_figure(material: ReportData, block: Block) -> Picture | None:
    """NDCG@10 against the cost of training, a line of panels a backbone; None where no backbone has rows.

    Positions are counted, so that they are the same on every machine; seconds are those of the machine that ran.
    """
    families = {f: groups for f, groups in block.families().items() if groups[0].row.backbone is not None}
    if not families:
        return None
    baselines = [g for f in block.families() if f not in families for g in principal(block, f, MOST)]
    found = {f: {"positions": positions(block, f), "seconds": seconds([*baselines, *principal(block, f, MOST)])}
             for f in families}
    found = {f: by for f, by in found.items() if any(p.group.row.backbone for points in by.values() for p in points)}
    if not found:
        rows = [row for row in material.suite.rows if row.backbone is not None and row.grid == GRIDS[0]]
        return needed(material, block, TITLE, lacking(block, [[row] for row in rows]))
    shown = [kind for kind in LABELS if any(by[kind] for by in found.values())]
    free = [g for g in baselines if not _trained(g)]
    with own_style():
        figure = Figure(figsize=(3.0 + 3.2 * len(shown), 0.9 + 3.5 * len(found)), layout="constrained")
        grid = figure.subplots(len(found), len(shown), squeeze=False, sharex="col", sharey=True)
        for line, (family, by) in zip(grid, found.items(), strict=True):
            for axes, kind in zip(line, shown, strict=True):
                _panel(axes, by[kind], free, material.look)
                axes.tick_params(labelbottom=True)
            line[0].set(ylabel="NDCG@10 (fraction)")
            line[0].set_title(family, loc="left", fontweight="bold")
            _legend(line)
        for axes, kind in zip(grid[-1], shown, strict=True):
            axes.set_xlabel(LABELS[kind])
            _log_axis(axes)
        grid[0, 0].set_ylim(bottom=0.0)
        figure.suptitle(f"{block.name}: test targets, item-level", fontsize=11)
        return Picture(_caption(block, found, bool(free)), image_bytes(figure))


def positions(block: Block, family: str) -> list[Point]:
    """The rows of a backbone by the decoder positions of all stages, in those of its cross-entropy; [] without it."""
    reference = block.cross_entropy(family)
    unit = _counted(reference) if reference is not None and not block.missing(reference) else None
    points = []
    for group in principal(block, family, MOST):
        counted = _counted(group)
        if unit and counted:
            base = summarise([a + b for a, b in unit]).mean
            points.append(Point(group, group.summary(METRIC), summarise([(a + b) / base for a, b in counted]),
                                summarise([a / base for a, _ in counted]).mean))
    return [p for p in points if p.score.mean is not None]


def seconds(groups: Sequence[Group]) -> list[Point]:
    """The trained rows by the seconds of all stages."""
    costs = [(g, g.summary("train_seconds")) for g in groups if _trained(g)]
    return [Point(g, g.summary(METRIC), cost, cost.mean) for g, cost in costs
            if cost.n == len(g.records) and cost.mean and g.mean(METRIC) is not None]


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other equals or beats in one of mean cost and mean score without being worse in the other."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost.mean, -p.score.mean)):
        if not best or point.score.mean > best[-1].score.mean:
            best.append(point)
    return best


def _trained(group: Group) -> bool:
    return len(list(filter(None, group.values("epochs")))) == len(group.seeds)


def _counted(group: Group) -> list[tuple[float, float]] | None:
    """(with, without gradient) of each seed, or None where some seed did not count or counted nothing."""
    parts = [group.values(name) for name in PASSES]
    counted = list(zip(*parts, strict=True)) if len({len(p) for p in parts}) == 1 else []
    return counted if len(counted) == len(group.records) and all(map(sum, counted)) else None


def _panel(axes: Axes, points: Sequence[Point], free: Sequence[Group], look: Mapping[str, tuple[str, str]]) -> None:
    for group, line in zip(free, ("--", ":", "-."), strict=False):
        mean = group.mean(METRIC)
        if mean is not None:
            axes.axhline(mean, color=look[group.row.key][0], linestyle=line, linewidth=1.2, zorder=1,
                         label=f"{broken_label(group.name, 26)}, not trained")
    best = front(points)
    if best:
        places = [p.cost.mean for p in best], [p.score.mean for p in best]
        axes.step(*places, where="post", color="0.8", linewidth=3.0, marker="o", markersize=12, zorder=1,
                  label="best for the cost")
    colors = [look[p.group.row.key][0] for p in points]
    places = [p.cost.mean for p in points], [p.score.mean for p in points]
    axes.hlines(places[1], [p.least for p in points], places[0], colors=colors, linewidth=0.8, zorder=2)
    axes.errorbar(*places, xerr=[p.cost.sd or 0.0 for p in points], yerr=[p.score.sd or 0.0 for p in points],
                  ecolor=colors, elinewidth=1.1, fmt="none", zorder=2)
    for point, color in zip(points, colors, strict=True):
        axes.plot([point.cost.mean], [point.score.mean], color=color, marker=look[point.group.row.key][1],
                  markersize=6.5, linestyle="none", markeredgecolor="white", markeredgewidth=0.5, zorder=3,
                  label=broken_label(point.group.name, 26))
    axes.set_xscale("log")


def _log_axis(axes: Axes) -> None:
    """Plain numbers as ticks, more of a decade where there are few decades, and room for two octaves."""
    low, high = axes.get_xlim()
    if high < 4 * low:
        low, high = low / 1.5, high * 1.5
    axes.set_xlim(low, high)
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high < 8 * low else (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _legend(line: Sequence[Axes]) -> None:
    """One legend at the right for the panels of a backbone, each name once."""
    handles: dict[str, object] = {}
    for axes in line:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    line[-1].legend(list(handles.values()), list(handles), loc="upper left", bbox_to_anchor=(1.01, 1.02),
                    borderaxespad=0.0, frameon=False, labelspacing=0.4)


def _caption(block: Block, found: Mapping[str, Mapping[str, Sequence[Point]]], free: bool) -> str:
    parts = [f"{block.name}: NDCG@10 ({spread_text(block)}) against the cost of training"]
    if any(by["positions"] for by in found.values()):
        parts.append("left: decoder positions, with and without gradient, of all stages, in those of cross-entropy on "
                     "the same backbone, the same on every machine; a thin line reaches down to those with gradient")
    places = {f"{r.provenance.get('device', 'unknown device')}, {r.provenance.get('threads', 'unknown number of')} "
              f"thread{'' if r.provenance.get('threads') == 1 else 's'}"
              for by in found.values() for p in by["seconds"] for r in p.group.records}
    if places:
        parts.append(f"seconds of processor time, on a GPU by the clock ({'; '.join(sorted(places))}), which "
                     "depend on the machine and on what else it did")
    parts.append("grey: what no trained row beats at its cost, by means" +
                 ("; broken lines: baselines without training" if free else ""))
    drawn = {id(p.group) for by in found.values() for points in by.values() for p in points}
    return "; ".join(parts) + not_drawn([g.label for g in block.groups if block.missing(g) and id(g) not in drawn])
