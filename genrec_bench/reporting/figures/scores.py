"""Scores of rows: each seed with mean and deviation, and beside them paired differences to another row."""

from __future__ import annotations

from itertools import product
from typing import Any

from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Chart, entries, named, point, seed_points
from genrec_bench.reporting.figures.runs import (
    bare,
    complete,
    counted,
    group_of,
    interval,
    lacking,
    needed,
    smaller,
)
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.printed import comparable_rows
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite
from genrec_bench.reporting.tables import title_of

METRICS = ("recall@10", "ndcg@10")
REFERENCE, ZERO = "cross-entropy on this backbone", "no difference"
PLAIN = (("cross_entropy",),)


@plate("results")
def results_figure(data: ReportData, block: Block) -> Chart:
    """Recall@10 and NDCG@10 by method: a dot a seed, mean ± SD over seeds, hollow marks for printed values.

    A panel for the baselines and each backbone, a line at each backbone's cross-entropy. Of more than MOST_ROWS rows
    those of the full grid alone are left out, which the caption says.
    """
    block, left_out = smaller(block)
    printed = comparable_rows(block, data.paper) if data.paper else []
    points = []
    for (family, groups), metric in product(block.families().items(), METRICS):
        for group in groups:
            at = counted(block, group)
            points += seed_points(family, metric, group.label, at, group.values(metric), block.stands(group))
            points += [point(family, metric, group.label, "printed", at, value) for same, _, m, value in printed
                       if same is group and m == metric]
        reference = block.cross_entropy(family)
        if reference is not None and len(groups) > 1 and block.stands(reference):
            points.append(point(family, metric, REFERENCE, "level", counted(block, reference), reference.mean(metric)))
    return named("results", data, block, points, left_out=left_out)


@plate(*(key for key, own in entries().items() if "lines" in own))
def compared(key: str, data: ReportData, block: Block) -> Chart | str | None:
    """A panel for each backbone (and form) that has complete runs of a whole method and of what is compared with it: a
    line a row, on the left its score, on the right its difference to the whole method. Without ranks no right side.

    Rows with missing seeds have single seeds alone.
    """
    own, points, absent, drawn_without = entries()[key], [], [], []
    for (family, groups), form in product(block.families().items(), own["forms"]):
        wanted = lines_of(key, data.suite, block, groups[0].row.backbone, form)
        gaps = lacking(block, wanted.values())
        first, *others = wanted.values() if wanted else [()]
        others = [rows for rows in others if rows[0].stages != PLAIN]  # cross-entropy shows no part by itself
        whole = complete(block, first)
        if whole and any(complete(block, rows) for rows in others):
            found = {label: group for label, rows in wanted.items() if (group := group_of(block, rows))}
            points += [p for metric in own["metrics"] for label, group in found.items() for p in _points(
                data, block, f"{family}, {form}" if form else family,
                f"{title_of(metric)}, {label}" if len(own["metrics"]) > 1 else label, group, whole, metric)]
            drawn_without += gaps
        elif others:
            absent += gaps
    return named(key, data, block, points, absent=drawn_without + absent) if points else needed(data, block, absent)


def lines_of(key: str, suite: Suite, block: Block, backbone: str | None, form: str) -> dict[str, list[Row]]:
    """The rows of a comparison on one backbone by the names of its lines, the whole method first; {} without that one.

    form: what its labels begin with. Prefixes that are longer than the block's semantic IDs are left out.
    """
    depth = max((r.tokenizer.get("levels", 0) for g in block.groups for r in g.records), default=0)
    known = {bare(row): row for row in suite.rows if row.backbone == backbone}
    found = {line: [known[label]] for line, of in entries()[key]["lines"].items() if (label := of.format(form)) in known
             and known[label].stated["objective"][-1].get("drop_prefix", 0) <= depth}
    return found if next(iter(entries()[key]["lines"])) in found else {}


def _points(data: ReportData, block: Block, panel: str, label: str, group: Group, whole: Group,
            metric: str) -> list[dict[str, Any]]:
    """A line: the score, and the difference to the whole method, which itself has a line at 0."""
    at, missing = counted(block, group, label), not block.stands(group)
    found = seed_points(panel, "score", group.label, at, group.values(metric), not missing)
    if data.ranked and group is whole:
        return [*found, point(panel, "difference", ZERO, "level", at, 0.0)]
    gap = None if missing else interval(data, group, metric, whole) if data.ranked else None
    return found + ([] if gap is None else [point(panel, "difference", group.label, "mean", at, gap.value, gap)])
