"""Methods in the order of their means, with bars that join those between which no difference is detected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genrec_bench.analysis.ranking import AllPairs, all_pairs
from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.reporting.figures.base import Picture, missing, plate
from genrec_bench.reporting.figures.results import principal, seeds_text
from genrec_bench.reporting.figures.runs import lacking, needed, not_drawn
from genrec_bench.reporting.figures.style import ROW, broken_label, image_bytes, own_style
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData

MOST = 14  # methods of a panel
TITLE = "Ranking with critical differences"


@plate("ranking", "ranking", TITLE)
def ranking_figure(material: ReportData, block: Block) -> Picture | None:
    """Mean NDCG@10 of the baselines and each backbone's rows, best first; after Demšar (2006), for users as units.

    Mean ranks over users say little where most users have no hit by any method and all ranks are equal; so the
    methods stand by their means, and every two are tested by the users' paired differences. None without ranks.
    """
    if not material.ranked:
        return None
    panels = {family: groups for family in block.families() if (groups := _compared(block, family))}
    if not panels:
        rows = [row for row in material.suite.rows if row.backbone is not None and row.grid == GRIDS[0]]
        return needed(material, block, TITLE, lacking(block, [[row] for row in rows]))
    pairs = {family: all_pairs([material.values(g) for g in groups]) for family, groups in panels.items()}
    if next(iter(pairs.values())).means[0].n == 1:
        return missing(TITLE, "more than one test user: one allows no test")
    with own_style():
        heights = [1.0 + sum(_lines(g) for g in groups) for groups in panels.values()]
        figure = Figure(figsize=(8.6, 0.9 + ROW * sum(heights) + 0.5 * len(panels)), layout="constrained")
        grid = figure.subplots(len(panels), 2, squeeze=False, sharex="col", height_ratios=heights,
                               width_ratios=(1.0, 0.26))
        for (axes, bars), (family, groups) in zip(grid, panels.items(), strict=True):
            _panel(axes, bars, groups, pairs[family], material.look)
            axes.set_title(family if len(block.families()) == 1 else f"{family} and baselines", loc="left",
                           fontweight="bold")
        grid[-1, 0].set_xlabel("NDCG@10 (fraction), with 95 % interval")
        grid[0, 0].set_xlim(left=0.0)
        grid[0, 0].xaxis.set_major_locator(MaxNLocator(6))
        most = max(len(p.together()) for p in pairs.values())
        grid[0, 1].set_xlim(-0.6, max(most, 4) - 0.4)
        figure.suptitle(f"{block.name}: test targets, item-level", fontsize=11)
        figure.supxlabel("a bar joins methods (dots) of which no two were found to differ, corrected over all pairs;\n"
                         "declared comparisons are corrected otherwise and may differ", fontsize=8, color="0.35")
        return Picture(_caption(block, panels), image_bytes(figure))


def _compared(block: Block, family: str) -> list[Group]:
    """The baselines and a backbone's rows that have all seeds; [] where there are no two, or a backbone has none."""
    families = list(block.families())
    own = principal(block, family, MOST)
    if block.families()[family][0].row.backbone is None:
        return own if len(families) == 1 and len(own) > 1 else []
    baselines = [g for f in families if block.families()[f][0].row.backbone is None for g in principal(block, f, MOST)]
    found = [*baselines, *principal(block, family, MOST - len(baselines))]
    return found if own and len(found) > 1 else []


def _lines(group: Group) -> float:
    """Height of a method, in ROW."""
    return 0.3 + 0.4 * (_label(group).count("\n") + 1)


def _label(group: Group) -> str:
    return broken_label(group.name, 40)


def _panel(axes: Axes, bars: Axes, groups: Sequence[Group], pairs: AllPairs,
           look: Mapping[str, tuple[str, str]]) -> None:
    order = sorted(range(len(groups)), key=lambda i: (-pairs.means[i].value, i))
    place, edge = {}, 0.0
    for i in order:
        place[i] = edge + _lines(groups[i]) / 2
        edge += _lines(groups[i])
    for i in order:
        (color, marker), mean = look[groups[i].row.key], pairs.means[i]
        axes.plot([mean.low, mean.high], [place[i]] * 2, color=color, linewidth=1.6, solid_capstyle="butt",
                  clip_on=False)
        axes.plot([mean.value], [place[i]], color=color, marker=marker, markersize=6.5, linestyle="none",
                  clip_on=False)
        axes.annotate(f"{mean.value:.4f}", (1.01, place[i]), fontsize=8, va="center",
                      xycoords=("axes fraction", "data"), annotation_clip=False)
    for turn, members in enumerate(sorted(pairs.together(), key=lambda c: min(map(order.index, c)))):
        heights = sorted(place[i] for i in members)
        bars.plot([turn, turn], [heights[0], heights[-1]], color="0.25", linewidth=2.2, solid_capstyle="round")
        bars.plot([turn] * len(heights), heights, color="0.25", marker="o", markersize=5, linestyle="none")
    axes.set_yticks([place[i] for i in order], [_label(groups[i]) for i in order])
    axes.tick_params(labelbottom=True)
    axes.grid(axis="y", visible=False)
    bars.axis("off")
    for one in (axes, bars):
        one.set_ylim(edge + 0.1, -0.1)


def _caption(block: Block, panels: Mapping[str, Sequence[Group]]) -> str:
    shown = {id(g) for groups in panels.values() for g in groups}
    left_out = not_drawn([g.label for g in block.groups if block.missing(g) and id(g) not in shown])
    counts = ", ".join(f"{family} {len(groups) * (len(groups) - 1) // 2}" for family, groups in panels.items())
    return (f"{block.name}: mean NDCG@10 with 95 % interval over {seeds_text(block)} and all users, best first; bars "
            "join methods between which no difference is detected (sign flips over users, Holm over all pairs of a "
            f"panel: {counts}; and the interval of the difference). Descriptive, none of it being declared. After the "
            f"diagrams of Demšar (2006), with users of one data set in the place of data sets{left_out}")
