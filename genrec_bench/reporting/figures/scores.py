"""Scores of rows: each seed with mean and deviation, and beside them paired differences to another row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product

from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Chart, named, point, seed_points
from genrec_bench.reporting.figures.runs import (
    complete,
    counted,
    group_of,
    interval,
    lacking,
    needed,
    path_of,
    smaller,
)
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.printed import comparable_rows
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite, effective
from genrec_bench.reporting.tables import title_of

METRICS = ("recall@10", "ndcg@10")
REFERENCE, ZERO = "cross-entropy on this backbone", "no difference"
FORMS = {"pointwise": "APAO-Pointwise", "pairwise": "APAO-Pairwise"}
WHOLE = {"name", "form", "weight", "eta"}  # settings of APAO as the paper has it
DROPPED = {"drop_prefix", "renormalise"}
BOTH, PLAIN = (("cross_entropy", "apao"),), (("cross_entropy",),)
WITH_BEAR = ("ndcg@5", "ndcg@10", "hr@5", "hr@10")
S_DPO = [(("cross_entropy",), last) for last in (("s_dpo",), ("s_dpo", "bear"))]
Wanted = Mapping[str, Sequence[Row]]  # what a line is called -> the equal rows that it may be drawn of
Line = tuple[str, Group, Group | None, str]  # name, row, what it is measured by, metric


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
            points += seed_points(family, metric, group.label, at, group.values(metric), not block.missing(group))
            points += [point(family, metric, group.label, "printed", at, value) for same, _, m, value in printed
                       if same is group and m == metric]
        reference = block.cross_entropy(family)
        if reference is not None and len(groups) > 1 and not block.missing(reference):
            points.append(point(family, metric, REFERENCE, "level", reference.name, reference.mean(metric)))
    return named("results", data, block, points, left_out=left_out)


def compared(key: str, data: ReportData, block: Block, parts: Mapping[str, Sequence[Line]],
             absent: Sequence[str] = ()) -> Chart:
    """Panels one below the other, a line a row: on the left its score, on the right its difference.

    Rows with missing seeds have single seeds alone. Without ranks there is no right side.
    """
    points = []
    for panel, (name, group, against, metric) in ((panel, line) for panel, lines in parts.items() for line in lines):
        at, whole = counted(block, group, name), not block.missing(group)
        points += seed_points(panel, "score", group.label, at, group.values(metric), whole)
        if data.ranked and against is None:
            points.append(point(panel, "difference", ZERO, "level", at, 0.0))
        elif data.ranked and whole and not block.missing(against):
            gap = interval(data, group, metric, against)
            points.append(point(panel, "difference", group.label, "mean", at, gap.value, gap))
    return named(key, data, block, points, absent=absent)


@plate("bear-7")
def s_dpo_figure(data: ReportData, block: Block) -> Chart | str | None:
    """S-DPO with and without BEAR, NDCG and HR at 5 and 10, with the differences (BEAR, 7)."""
    parts, absent = {}, []
    for family, groups in block.families().items():
        rows = [same for stages in S_DPO if (same := _on(data.suite, groups[0].row.backbone, stages)[:1])]
        gaps = lacking(block, rows)
        absent += gaps
        if len(rows) == 2 and not gaps:
            plain, ours = (group_of(block, same) for same in rows)
            parts[family] = [(f"{title_of(metric)}, {group.name}", group, against, metric) for metric in WITH_BEAR
                             for group, against in ((plain, None), (ours, plain))]
    return compared("bear-7", data, block, parts) if parts else needed(data, block, absent)


def ablation(key: str, data: ReportData, block: Block) -> Chart | str | None:
    """A panel for each backbone and form that has complete runs of the whole method and of a part that is left out."""
    parts, absent, drawn_without = {}, [], []
    for (family, groups), (form, name) in product(block.families().items(), FORMS.items()):
        wanted = ABLATIONS[key](data.suite, block, groups[0].row.backbone, form)
        gaps = lacking(block, wanted.values())
        whole, *others = wanted.values() if wanted else [()]
        left_out = [rows for rows in others if rows[0].stages != PLAIN]  # cross-entropy shows no part by itself
        if complete(block, whole) and any(complete(block, rows) for rows in left_out):
            found = {label: group for label, rows in wanted.items() if (group := group_of(block, rows))}
            first = next(iter(found.values()))
            parts[f"{family}, {name}"] = [(label, group, None if group is first else first, "ndcg@10")
                                          for label, group in found.items()]
            drawn_without += gaps
        elif left_out:
            absent += gaps
    return compared(key, data, block, parts, drawn_without + absent) if parts else needed(data, block, absent)


def modules(suite: Suite, block: Block, backbone: str | None, form: str) -> dict[str, list[Row]]:
    """Rows of Figure 2a on one backbone, the whole method first; {} without it."""
    rows = _on(suite, backbone)
    whole = _like(rows, BOTH, form, WHOLE)
    uniform = [row for row in _like(rows, BOTH, form, WHOLE | {"weights"})
               if row.stated["objective"][-1].get("weights") == "uniform"]
    wanted = {"Whole method": whole, "Without adaptive weights": uniform,
              "Without cross-entropy": _like(rows, (("apao",),), form, WHOLE),
              "Without prefix loss (cross-entropy)": _like(rows, PLAIN, None, {"name"})}
    return {label: same[:1] for label, same in wanted.items() if same} if whole else {}


def prefixes(suite: Suite, block: Block, backbone: str | None, form: str) -> dict[str, list[Row]]:
    """Rows of Figure 2b on one backbone, the whole method with the same weight and eta first; {} without both.

    Prefixes that are longer than the block's semantic IDs are left out.
    """
    rows = _on(suite, backbone)
    depth = max((r.tokenizer.get("levels", 0) for g in block.groups for r in g.records), default=0)
    dropped = {length: row for row in _like(rows, BOTH, form, WHOLE | DROPPED)
               if 0 < (length := row.stated["objective"][-1].get("drop_prefix", 0)) <= depth}
    values = [weights(row, block.dataset) for row in dropped.values()]
    whole = [row for row in _like(rows, BOTH, form, WHOLE) if weights(row, block.dataset) in values]
    parts = {f"Without prefixes of length {length}": [row] for length, row in sorted(dropped.items())}
    return {"Whole method": whole, **parts} if whole else {}


def _on(suite: Suite, backbone: str | None, stages: tuple | None = None) -> list[Row]:
    """The rows of a backbone, or those of some stages."""
    return [row for row in suite.rows if row.backbone == backbone and stages in (None, row.stages)]


def _like(rows: Iterable[Row], stages: tuple, form: str | None, settings: set[str]) -> list[Row]:
    """Rows of these stages that state nothing of their last objective but these settings, and nothing of the rest."""
    return [row for row in rows if row.stages == stages and set(row.stated) == {"backbone", "objective"}
            and row.stated["objective"][-1].get("form") == form and set(row.stated["objective"][-1]) <= settings
            and all(set(spec) == {"name"} for spec in row.stated["objective"][:-1])]


def weights(row: Row, dataset: str) -> list[float]:
    """Weight and eta of a row on a dataset; an ablation has those of its whole method."""
    settings = effective(row, dataset)
    return [settings[path] for key in ("weight", "eta") if (path := path_of(row, f"apao.{key}"))]


ABLATIONS = {"apao-2a": modules, "apao-2b": prefixes}
for _key in ABLATIONS:
    plate(_key)(partial(ablation, _key))
