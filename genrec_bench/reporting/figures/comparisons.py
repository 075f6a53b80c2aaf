"""Rows beside the row that they are measured by: scores, and differences paired by user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.panels import whiskers
from genrec_bench.reporting.figures.runs import INTERVAL, SPREAD, dots, evidence, group_of, lacking, needed, paired
from genrec_bench.reporting.figures.style import ROW, broken_label, image_bytes, own_style
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite
from genrec_bench.reporting.tables import title_of

WITH_BEAR = ("ndcg@5", "ndcg@10", "hr@5", "hr@10")
S_DPO, S_DPO_BEAR = ((("cross_entropy",), last) for last in (("s_dpo",), ("s_dpo", "bear")))


@dataclass(frozen=True)
class Line:
    """One line of a comparison: a row's score, and where `against` is given its difference to that row."""

    label: str
    group: Group
    against: Group | None = None
    metric: str = "ndcg@10"


def compared(material: ReportData, block: Block, parts: Mapping[str, Sequence[Line]], score: str,
             gap: str) -> dict[str, bytes]:
    """Panels one below the other, a line a row: on the left its score, on the right its difference.

    parts: title -> lines. score, gap: what the two axes show. Rows with missing seeds have hollow dots alone. Without
    ranks there is no right side.
    """
    sides = 1 if not material.ranked else 2
    with own_style():
        labels = {title: [broken_label(line.label + _count(block, line), 34) for line in lines]
                  for title, lines in parts.items()}
        heights = [ROW * (0.2 + sum(0.55 + 0.3 * (text.count("\n") + 1) for text in texts))
                   for texts in labels.values()]
        figure = Figure(figsize=(8.6, 1.2 + sum(heights) + 0.35 * len(parts)), layout="constrained")
        panels = figure.subplots(len(parts), sides, sharex="col", squeeze=False, height_ratios=heights)
        for axes, (title, lines) in zip(panels, parts.items(), strict=True):
            for place, line in enumerate(lines):
                look = material.look[line.group.row.key]
                dots(axes[0], place, line.group.values(line.metric), look, not block.missing(line.group))
                if sides > 1:
                    _difference(axes[1], place, line, material, block)
            axes[0].set_title(title, loc="left", fontweight="bold")
            axes[0].set_yticks(range(len(lines)), labels[title])
            for one in axes:
                one.set_ylim(len(lines) - 0.4, -0.6)
                one.grid(axis="y", visible=False)
                one.tick_params(labelbottom=True)
            if sides > 1:
                axes[1].set_yticks(range(len(lines)), [])
                axes[1].axvline(0.0, color="0.4", linewidth=0.9, linestyle=":", zorder=1)
        for one, text in zip(panels[-1], (score, gap), strict=False):
            one.set_xlabel(text)
            one.xaxis.set_major_locator(MaxNLocator(5, prune="both"))
        figure.get_layout_engine().set(wspace=0.05)
        figure.suptitle(f"{block.name}: test targets, item-level", fontsize=11)
        figure.supxlabel(SPREAD + (f"\n{INTERVAL}" if sides > 1 else ""), fontsize=8, color="0.35")
        return image_bytes(figure)


def _count(block: Block, line: Line) -> str:
    """How many of the seeds a row has, where some are missing."""
    return f" ({len(line.group.seeds)} of {len(block.seeds)} seeds)" if block.missing(line.group) else ""


def _difference(axes: Axes, place: int, line: Line, material: ReportData, block: Block) -> None:
    if line.against is None:
        axes.plot([0.0], [place], marker="|", markersize=11, color="0.1", linestyle="none")
    elif not block.missing(line.group) and not block.missing(line.against):
        color, marker = material.look[line.group.row.key]
        found = paired(material, line.group, line.against, line.metric)
        axes.errorbar([found.value], [place], xerr=whiskers([found]), color=color, marker=marker, ecolor="0.1",
                      capsize=3.0, linestyle="none")


@plate("7", "bear-s-dpo", "BEAR, Figure 7", paper="bear", objectives=("bear",))
def s_dpo_figure(material: ReportData, block: Block) -> Picture | None:
    """S-DPO with and without BEAR, NDCG and HR at 5 and 10, with the differences (BEAR, 7)."""
    title, parts, absent = "BEAR, Figure 7", {}, []
    for family, groups in block.families().items():
        rows = _with_and_without(material.suite, groups[0].row.backbone)
        gaps = lacking(block, rows)
        absent += gaps
        if len(rows) == 2 and not gaps:
            plain, ours = (group_of(block, same) for same in rows)
            parts[family] = [line for metric in WITH_BEAR for line in (
                Line(f"{title_of(metric)}, {plain.name}", plain, metric=metric),
                Line(f"{title_of(metric)}, {ours.name}", ours, plain, metric))]
    if not parts:
        return needed(material, block, title, absent)
    text = (f"{block.name}: S-DPO with and without BEAR, NDCG and HR (one target a user) at 5 and 10, after {title}: "
            f"{evidence(material, block)}. The paper says that BEAR adds to S-DPO on all its data; the values of its "
            "figure are not in its text, and its models write titles")
    return Picture(text, compared(material, block, parts, "Score (fraction)", "S-DPO with BEAR − S-DPO"))


def _with_and_without(suite: Suite, backbone: str | None) -> list[list[Row]]:
    """The first row of each of the two, those that the suite has on a backbone."""
    found = [[r for r in suite.rows if r.backbone == backbone and r.stages == stages][:1]
             for stages in (S_DPO, S_DPO_BEAR)]
    return [same for same in found if same]
