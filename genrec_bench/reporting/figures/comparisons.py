"""Rows beside the row that they are measured by: scores, and differences paired by user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point, seed_points
from genrec_bench.reporting.figures.runs import evidence, group_of, lacking, needed, paired
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite
from genrec_bench.reporting.tables import title_of

WITH_BEAR = ("ndcg@5", "ndcg@10", "hr@5", "hr@10")
S_DPO, S_DPO_BEAR = ((("cross_entropy",), last) for last in (("s_dpo",), ("s_dpo", "bear")))
ZERO = "no difference"


@dataclass(frozen=True)
class Line:
    """One line of a comparison: a row's score, and where `against` is given its difference to that row."""

    label: str
    group: Group
    against: Group | None = None
    metric: str = "ndcg@10"


def compared(material: ReportData, block: Block, parts: Mapping[str, Sequence[Line]], title: str, caption: str,
             axes: tuple[str, str]) -> Chart:
    """Panels one below the other, a line a row: on the left its score, on the right its difference.

    parts: panel -> lines. axes: what the two show. Rows with missing seeds have single seeds alone. Without ranks there
    is no right side.
    """
    points, looks = [], {ZERO: look("reference")}
    for panel, lines in parts.items():
        for line in lines:
            at = line.label + _count(block, line)
            looks[line.group.label] = material.look[line.group.row.key]
            points += seed_points(panel, "score", line.group.label, at, line.group.values(line.metric),
                                  not block.missing(line.group))
            if material.ranked and line.against is None:
                points.append(point(panel, "difference", ZERO, "level", at, 0.0))
            elif material.ranked and not block.missing(line.group) and not block.missing(line.against):
                found = paired(material, line.group, line.against, line.metric)
                points.append(point(panel, "difference", line.group.label, "mean", at, found.value, found))
    sides = ("score", "difference") if material.ranked else ("score",)
    return Chart(title, caption, points, dict(zip(sides, map(Axis, axes), strict=False)), looks, legend=False)


def _count(block: Block, line: Line) -> str:
    """How many of the seeds a row has, where some are missing."""
    return f" ({len(line.group.seeds)} of {len(block.seeds)} seeds)" if block.missing(line.group) else ""


@plate("7", "BEAR added to S-DPO", paper="bear", objectives=("bear",))
def s_dpo_figure(material: ReportData, block: Block) -> Chart | str | None:
    """S-DPO with and without BEAR, NDCG and HR at 5 and 10, with the differences (BEAR, 7)."""
    parts, absent = {}, []
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
        return needed(material, block, absent)
    caption = (f"{block.name}: NDCG and HR (one target a user) at 5 and 10 of test targets, after BEAR's Figure 7: "
               f"{evidence(material, block)}. The paper says that BEAR adds to S-DPO on all its data; the values of "
               "its figure are not in its text, and its models write titles")
    return compared(material, block, parts, f"S-DPO with and without BEAR on {block.dataset}", caption,
                    ("Score", "S-DPO with BEAR − S-DPO"))


def _with_and_without(suite: Suite, backbone: str | None) -> list[list[Row]]:
    """The first row of each of the two, those that the suite has on a backbone."""
    found = [[r for r in suite.rows if r.backbone == backbone and r.stages == stages][:1]
             for stages in (S_DPO, S_DPO_BEAR)]
    return [same for same in found if same]
