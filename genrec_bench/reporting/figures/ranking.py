"""Methods in the order of their means, with bars that join those between which no difference is detected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genrec_bench.analysis.ranking import all_pairs
from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.results import beside_baselines, seeds_text
from genrec_bench.reporting.figures.runs import lacking, needed, not_drawn
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData

MOST = 14  # methods of a panel
JOIN = "no difference detected"


@plate("ranking", "Methods in order, with what is not told apart")
def ranking_figure(material: ReportData, block: Block) -> Chart | str | None:
    """Mean NDCG@10 of the baselines and each backbone's rows, best first; after Demšar (2006), for users as units.

    Mean ranks over users say little where most users have no hit by any method and all ranks are equal; so the
    methods stand by their means, and every two are tested by the users' paired differences. None without ranks.
    """
    if not material.ranked:
        return None
    beside = {family: beside_baselines(block, family, MOST) for family in block.families()}
    panels = {family: groups for family, (baselines, own) in beside.items()
              if len(groups := [*baselines, *own[:MOST - len(baselines)]]) > 1}
    if not panels:
        rows = [row for row in material.suite.rows if row.backbone is not None and row.grid == GRIDS[0]]
        return needed(material, block, lacking(block, [[row] for row in rows]))
    if next(iter(material.values(g) for groups in panels.values() for g in groups)).shape[1] == 1:
        return "it needs more than one test user: one allows no test"
    points, looks = [], {JOIN: look("reference")}
    for family, groups in panels.items():
        pairs = all_pairs([material.values(g) for g in groups])
        title = family if len(block.families()) == 1 else f"{family} and baselines"
        order = sorted(range(len(groups)), key=lambda i: (-pairs.means[i].value, i))
        for i in order:
            looks[groups[i].label] = material.look[groups[i].row.key]
            points.append(point(title, "mean", groups[i].label, "mean", groups[i].name, pairs.means[i].value,
                                pairs.means[i], note=f"{pairs.means[i].value:.4f}"))
        for turn, members in enumerate(sorted(pairs.together(), key=lambda c: min(map(order.index, c)))):
            points += [point(title, "joined", JOIN, "join", groups[i].name, float(turn)) for i in members]
    return Chart(f"Which methods the test users tell apart on {block.dataset}", _caption(block, panels), points,
                 {"mean": Axis("NDCG@10"), "joined": Axis("", hidden=True)}, looks, legend=False)


def _caption(block: Block, panels: Mapping[str, Sequence[Group]]) -> str:
    shown = {id(g) for groups in panels.values() for g in groups}
    left_out = not_drawn([g.label for g in block.groups if block.missing(g) and id(g) not in shown])
    counts = ", ".join(f"{family} {len(groups) * (len(groups) - 1) // 2}" for family, groups in panels.items())
    return (f"{block.name}: mean NDCG@10 of test targets, item-level, with 95 % interval over {seeds_text(block)} and "
            "all users, best first; a bar joins methods (dots) of which no two were found to differ (sign flips over "
            f"users, Holm over all pairs of a panel: {counts}; and the interval of the difference). Descriptive, none "
            "of it being declared; declared comparisons are corrected otherwise and may differ. After the diagrams of "
            f"Demšar (2006), with users of one data set in the place of data sets{left_out}")
