"""Results by method: a dot a seed, mean and deviation, and what the paper prints."""

from __future__ import annotations

from dataclasses import replace

from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point, seed_points
from genrec_bench.reporting.figures.runs import counted
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.printed import comparable_rows
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import title_of

METRICS = ("recall@10", "ndcg@10")
MOST_ROWS = 24  # rows of a figure; of a block with more only those of the smaller grids are drawn
REFERENCE = "cross-entropy on this backbone"


@plate("results", "Results by method")
def results_figure(material: ReportData, block: Block) -> Chart:
    """Recall@10 and NDCG@10 by method: a dot a seed, mean ± SD over seeds, hollow marks for printed values.

    A panel for the baselines and each backbone, a line at each backbone's cross-entropy. Of more than MOST_ROWS rows
    those of the full grid alone are left out, which the caption says.
    """
    block, left_out = smaller(block)
    printed = [] if material.paper is None else comparable_rows(block, material.paper)
    points, looks = [], {REFERENCE: look("reference")}
    for family, groups in block.families().items():
        for metric in METRICS:
            for group in groups:
                at, name = counted(group, block), group.label
                looks[name] = material.look[group.row.key]
                points += seed_points(family, metric, name, at, group.values(metric), not block.missing(group))
                points += [point(family, metric, name, "printed", at, value) for same, _, m, value in printed
                           if same is group and m == metric]
            reference = block.cross_entropy(family)
            if reference is not None and len(groups) > 1 and not block.missing(reference):
                points.append(point(family, metric, REFERENCE, "level", counted(reference, block),
                                    reference.mean(metric)))
    return Chart(f"Recall and NDCG at 10 by method on {block.dataset}", _caption(block, points, left_out), points,
                 {m: Axis(title_of(m)) for m in METRICS}, looks, legend=False)


def _caption(block: Block, points: list[dict], left_out: int) -> str:
    notes = [f"{block.name}: test targets, item-level; {spread_text(block)}"]
    if any(p["method"] == REFERENCE for p in points):
        notes.append(f"broken line: {REFERENCE}")
    if left_out:
        notes.append(f"{left_out} rows of the full grid are not drawn; the table has them")
    return "; ".join(notes)


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


def beside_baselines(block: Block, family: str, most: int) -> tuple[list[Group], list[Group]]:
    """The baselines and a backbone's rows that have all seeds, the backbone's only where there are any.

    Baselines alone stand as rows where there is no backbone.
    """
    families = block.families()
    plain = [f for f, groups in families.items() if groups[0].row.backbone is None]
    baselines = [g for f in plain for g in principal(block, f, most)]
    if family in plain:
        return (baselines if len(plain) == len(families) else []), []
    own = principal(block, family, most)
    return (baselines, own) if own else ([], [])


def seeds_text(block: Block) -> str:
    """`3 seeds`: those that a row of the block without gaps has."""
    count = len(block.seeds)
    return f"{count} seed{'' if count == 1 else 's'}" if count else "one run, nothing being random"


def spread_text(block: Block) -> str:
    """`mean ± SD over 3 seeds`, or `1 seed`, which has no SD."""
    return f"mean ± SD over {seeds_text(block)}" if len(block.seeds) > 1 else seeds_text(block)
