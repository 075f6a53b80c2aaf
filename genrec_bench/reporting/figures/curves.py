"""Validation by epoch, a line a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.results import MOST_ROWS, seeds_text, smaller
from genrec_bench.reporting.load import Block, Group, summarise
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.results.records import RunRecord

CURVE = "valid_ndcg@10"
MOST_CURVES = 12  # lines of a panel


@plate("curves", "Learning curves")
def curves_figure(material: ReportData, block: Block) -> Chart | None:
    """Validation NDCG@10 by epoch, a panel for the baselines and each backbone; None where nothing has a curve.

    Lines are means over seeds, shaded ± SD where there are several; a row that lacks seeds has a cross a seed and
    epoch. A second stage is drawn after all epochs of the first, from what the epoch reached whose weights it starts
    from.
    """
    known = {r.run_id: curve for g in block.groups for r in g.records if (curve := _curve(r))}
    block, left_out = smaller(block)
    curved = {family: [g for g in groups if any(r.run_id in known for r in g.records)]
              for family, groups in block.families().items()}
    drawn = {family: groups[:MOST_CURVES] for family, groups in curved.items() if groups}
    left_out += sum(map(len, curved.values())) - sum(map(len, drawn.values()))
    if not drawn:
        return None
    points = [p for family, groups in drawn.items() for g in groups for p in _points(family, block, g, known)]
    shown = [g for groups in drawn.values() for g in groups]
    return Chart(f"Validation NDCG@10 while training on {block.dataset}", _caption(block, shown, left_out), points,
                 {CURVE: Axis("Validation NDCG@10")}, {g.name: material.look[g.row.key] for g in shown},
                 Axis("Epoch", whole=True), shared=False)


def _caption(block: Block, shown: Sequence[Group], left_out: int) -> str:
    notes = [f"{block.name}: validation, item-level"]
    notes.append(f"means over {seeds_text(block)}, as far as all were trained, shaded ± SD" if len(block.seeds) > 1 else
                 seeds_text(block))
    if any(g.row.goes_on for g in shown):
        notes.append("a second stage begins after the first, from its kept epoch")
    if left_out:
        notes.append(f"{left_out} rows are not drawn: a panel has at most {MOST_CURVES}, and none of the full grid "
                     f"where a block has more than {MOST_ROWS}")
    return "; ".join(notes)


def _points(family: str, block: Block, group: Group, known: Mapping[str, dict[int, float]]) -> list[dict[str, Any]]:
    """Mean and deviation of the seeds over the epochs that all of them have, of two stages the second after the first.
    """
    curves = [known[r.run_id] for r in group.records if r.run_id in known]
    starts = [s for r in group.records if (s := _start(r, known))] if group.row.goes_on else []
    first = max((epochs for epochs, _ in starts), default=0)
    if block.missing(group):
        return [point(family, CURVE, group.name, "incomplete", first + e, v) for c in curves for e, v in c.items()]
    values = {first + e: [c[e] for c in curves] for e in sorted(set.intersection(*map(set, curves)))}
    if starts and len(starts) == len(group.records) and all(value is not None for _, value in starts):
        values = {first: [value for _, value in starts], **values}
    return [point(family, CURVE, group.name, "curve", epoch, s.mean, (s.mean - s.sd, s.mean + s.sd) if s.sd else None)
            for epoch, of in values.items() for s in [summarise(of)]]


def _start(record: RunRecord, known: Mapping[str, dict[int, float]]) -> tuple[int, float | None] | None:
    """Epochs of the first stage, and what its kept epoch reached where its run is known; None without a first stage."""
    stage = record.training.get("first_stage")
    return (stage["epochs"], known.get(stage["run_id"], {}).get(stage["best_epoch"])) if stage else None


def _curve(record: RunRecord) -> dict[int, float]:
    points = record.training.get("curve") or ()
    return {p["epoch"]: p[CURVE] for p in points if p.get(CURVE) is not None and p.get("epoch") is not None}
