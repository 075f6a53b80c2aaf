"""Validation by epoch, a line a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Chart, named, point
from genrec_bench.reporting.figures.runs import MOST_ROWS, smaller
from genrec_bench.reporting.load import Block, Group, summarise
from genrec_bench.reporting.report_data import ReportData

CURVE = "valid_ndcg@10"
MOST_CURVES = 12  # lines of a panel
Curves = Mapping[str, Mapping[int, float]]  # run_id -> epoch -> validation


@plate("curves")
def curves_figure(data: ReportData, block: Block) -> Chart | None:
    """Validation NDCG@10 by epoch, a panel for the baselines and each backbone; None where nothing has a curve.

    Lines are means over seeds, shaded ± SD where there are several; a row that lacks seeds has a cross a seed and
    epoch. A second stage is drawn after all epochs of the first, from what the epoch reached whose weights it starts
    from.
    """
    known = {r.run_id: curve for g in block.groups for r in g.records if (curve := {
        p["epoch"]: p[CURVE] for p in r.training.get("curve") or () if None not in (p.get(CURVE), p.get("epoch"))})}
    block, left_out = smaller(block)
    curved = {family: [g for g in groups if any(r.run_id in known for r in g.records)]
              for family, groups in block.families().items()}
    left_out += sum(len(groups[MOST_CURVES:]) for groups in curved.values())
    drawn = [(family, g) for family, groups in curved.items() for g in groups[:MOST_CURVES]]
    points = [p for family, g in drawn for p in _points(family, block, g, known)]
    return named("curves", data, block, points, two_stages=any(g.row.goes_on for _, g in drawn), left_out=left_out,
                 most=MOST_CURVES, most_rows=MOST_ROWS) if points else None


def _points(family: str, block: Block, group: Group, known: Curves) -> list[dict[str, Any]]:
    """Mean and deviation of the seeds over the epochs that all of them have, of two stages the second after the first.
    """
    curves = [known[r.run_id] for r in group.records if r.run_id in known]
    stages = [s for r in group.records if (s := r.training.get("first_stage"))] if group.row.goes_on else []
    first = max((s["epochs"] for s in stages), default=0)
    if not block.stands(group):
        return [point(family, CURVE, group.name, "incomplete", first + e, v) for c in curves for e, v in c.items()]
    values = {first + e: [c[e] for c in curves] for e in sorted(set.intersection(*map(set, curves)))}
    starts = [known.get(s["run_id"], {}).get(s["best_epoch"]) for s in stages]  # what the kept epoch reached
    if starts and len(starts) == len(group.records) and None not in starts:
        values = {first: starts, **values}
    return [point(family, CURVE, group.name, "curve", epoch, s.mean, (s.mean - s.sd, s.mean + s.sd) if s.sd else None)
            for epoch, of in values.items() for s in [summarise(of)]]
