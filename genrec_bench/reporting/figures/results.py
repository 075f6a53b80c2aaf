"""Results by method: a dot a seed, mean and deviation, and what the paper prints."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.style import ROW, broken_label, image_bytes, own_style
from genrec_bench.reporting.load import Block, Group, summarise
from genrec_bench.reporting.printed import comparable_rows
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import title_of

METRICS = ("recall@10", "ndcg@10")
MOST_ROWS = 24  # rows of a figure; of a block with more only those of the smaller grids are drawn


@plate("results", "results", "Results by method")
def results_figure(material: ReportData, block: Block) -> Picture:
    """Recall@10 and NDCG@10 by method: a dot a seed, mean ± SD over seeds, hollow diamonds for printed values.

    One row of panels for the baselines and each backbone; a line marks each backbone's cross-entropy. Of more than
    MOST_ROWS rows those of the full grid alone are left out, which the figure says.
    """
    block, left_out = smaller(block)
    paper, look = material.paper, material.look
    printed = {} if paper is None else {(g.label, m): value for g, _, m, value in comparable_rows(block, paper)}
    families = block.families()
    with own_style():
        labels = {family: [wrapped(g, block, 36) for g in groups] for family, groups in families.items()}
        heights = {family: [0.55 + 0.25 * (label.count("\n") + 1) for label in texts]  # in ROW: no label meets the next
                   for family, texts in labels.items()}
        total = ROW * sum(sum(h) + 0.2 for h in heights.values())
        figure = Figure(figsize=(8.6, 1.2 + total + 0.4 * len(families)), layout="constrained")
        panels = figure.subplots(len(families), len(METRICS), sharex="col", squeeze=False,
                                 height_ratios=[sum(h) + 0.2 for h in heights.values()])
        for line, (family, groups) in zip(panels, families.items(), strict=True):
            places = [sum(heights[family][:i]) + h / 2 for i, h in enumerate(heights[family])]
            for axes, metric in zip(line, METRICS, strict=True):
                for place, group in zip(places, groups, strict=True):
                    _dots(axes, place, group, metric, look[group.row.key], bool(block.missing(group)))
                    _printed(axes, place, printed.get((group.label, metric)), look[group.row.key])
                reference = block.cross_entropy(family)
                if reference is not None and len(groups) > 1 and reference.values(metric):
                    axes.axvline(reference.mean(metric), color="0.5", linewidth=0.9, linestyle=":", zorder=1)
                axes.grid(axis="y", visible=False)
                axes.set_yticks(places, labels[family] if axes is line[0] else [])
                axes.set_ylim(sum(heights[family]) + 0.1, -0.1)
            line[0].set_title(family, loc="left", fontweight="bold")
        for axes, metric in zip(panels[-1], METRICS, strict=True):
            axes.set_xlabel(f"{title_of(metric)} (fraction)")
            axes.set_xlim(left=0.0, right=1.06 * axes.get_xlim()[1])
            axes.xaxis.set_major_locator(MaxNLocator(5, prune="upper"))
        for axes in panels[:-1].flat:
            axes.tick_params(labelbottom=True)
        figure.suptitle(f"{block.name}: test targets, item-level", fontsize=11)
        figure.get_layout_engine().set(wspace=0.06, hspace=0.02)
        figure.supxlabel(_note(block, bool(printed), left_out), fontsize=8, color="0.35")
        return Picture(f"{block.name}: Recall@10 and NDCG@10 by method", image_bytes(figure))


def smaller(block: Block) -> tuple[Block, int]:
    """The block with the rows that a figure has room for, and how many are left out."""
    groups = tuple(g for g in block.groups if g.row.grid != GRIDS[-1])
    if len(block.groups) <= MOST_ROWS or not groups:
        return block, 0
    return replace(block, groups=groups), len(block.groups) - len(groups)


def principal(block: Block, family: str, most: int) -> list[Group]:
    """At most `most` rows of a family for a figure that compares methods: those with all seeds, one group a row.

    Of a row's variants it is the plainest; rows of the full grid are left out where there is no room for all.
    """
    plainest: dict[str, Group] = {}
    for group in sorted(block.families()[family], key=lambda g: g.label != g.row.label):
        plainest.setdefault(group.row.key, group)
    chosen = {id(g) for g in plainest.values() if not block.missing(g)}
    groups = [g for g in block.families()[family] if id(g) in chosen]
    if len(groups) > most:
        groups = [g for g in groups if g.row.grid != GRIDS[-1]] or groups
    return groups[:most]


def seeds_text(block: Block) -> str:
    """`3 seeds`: those that a row of the block without gaps has."""
    count = len(block.seeds)
    return f"{count} seed{'' if count == 1 else 's'}" if count else "one run, nothing being random"


def spread_text(block: Block) -> str:
    """`mean ± SD over 3 seeds`, or `1 seed`, which has no SD."""
    return f"mean ± SD over {seeds_text(block)}" if len(block.seeds) > 1 else seeds_text(block)


def _note(block: Block, printed: bool, left_out: int) -> str:
    notes = [f"small dots: one seed each; large: mean, black bar ± 1 SD over {seeds_text(block)}"
             if len(block.seeds) > 1 else f"{seeds_text(block)}: no deviation is known"]
    if any(block.missing(g) for g in block.groups):
        notes.append("hollow dots: the seeds of a row that lacks some, which has no mean")
    if any(block.cross_entropy(family) and len(groups) > 1 for family, groups in block.families().items()):
        notes[0] += "; dotted line: cross-entropy on this backbone"
    if printed:
        notes.append("hollow diamond: printed by the paper (ID-level)")
    if left_out:
        notes.append(f"{left_out} rows of the full grid are not drawn; the table has them")
    return "\n".join(notes)


def _dots(axes: Axes, place: float, group: Group, metric: str, look: tuple[str, str], incomplete: bool) -> None:
    """A row's seeds, mean and deviation; of a row that lacks seeds those that there are, hollow, and no mean."""
    color, marker = look
    values = group.values(metric)
    if incomplete:
        axes.scatter(values, [place] * len(values), s=26, marker=marker, facecolors="none", edgecolors=color,
                     linewidths=1.0, clip_on=False, zorder=3)
        return
    summary = summarise(values)
    if summary.mean is None:
        return
    if summary.n > 1:
        axes.scatter(values, [place + 0.22] * len(values), s=9, color=color, alpha=0.75, linewidths=0,
                     clip_on=False, zorder=3)
    axes.plot([summary.mean], [place], color=color, marker=marker, markersize=6.5, linestyle="none",
              clip_on=False, zorder=4)
    if summary.sd is not None:
        # Above the marker and dark, so that a small deviation is still seen.
        axes.errorbar([summary.mean], [place], xerr=[summary.sd], fmt="none", ecolor="0.1", elinewidth=1.0, capsize=3.5,
                      capthick=1.0, zorder=5)


def _printed(axes: Axes, place: float, value: float | None, look: tuple[str, str]) -> None:
    if value is not None:
        axes.scatter([value], [place - 0.22], s=34, marker="D", facecolors="none", edgecolors=look[0], linewidths=1.2,
                     zorder=6)


def wrapped(group: Group, block: Block, width: int) -> str:
    """A label of short lines, with the number of seeds where some are missing."""
    count = f"\n({len(group.seeds)} of {len(block.seeds)} seeds)" if block.missing(group) else ""
    return broken_label(group.name, width) + count
