"""Quality against what training costs: positions that the decoder computes, and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.results import principal, spread_text
from genrec_bench.reporting.figures.runs import lacking, needed, not_drawn
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block, Group, Summary, summarise
from genrec_bench.reporting.report_data import ReportData

MOST = 14  # rows of a panel
METRIC = "ndcg@10"
FRONT = "best for the cost"
PASSES = ("positions_with_gradient", "positions_without_gradient")
KINDS = {"positions": "Decoder positions in training\n(cross-entropy = 1)", "seconds": "Training time (s)"}


@dataclass(frozen=True)
class Point:
    """A row with its score and its cost."""

    group: Group
    score: Summary
    cost: Summary


@plate("plane", "Cost and quality")
def plane_figure(material: ReportData, block: Block) -> Chart | str | None:
    """NDCG@10 against the cost of training, panels for each backbone; None where no backbone has rows.

    Positions are counted, so that they are the same on every machine; seconds are those of the machine that ran.
    """
    families = [f for f, groups in block.families().items() if groups[0].row.backbone is not None]
    if not families:
        return None
    baselines = [g for f in block.families() if f not in families for g in principal(block, f, MOST)]
    found = {f: {"positions": positions(block, f), "seconds": seconds([*baselines, *principal(block, f, MOST)])}
             for f in families}
    found = {f: by for f, by in found.items() if any(p.group.row.backbone for points in by.values() for p in points)}
    if not found:
        rows = [row for row in material.suite.rows if row.backbone is not None and row.grid == GRIDS[0]]
        return needed(material, block, lacking(block, [[row] for row in rows]))
    free = [g for g in baselines if not _trained(g) and g.mean(METRIC) is not None]
    points, at, looks = [], {}, {FRONT: look("reference")}
    for family, by in found.items():
        for kind, of in by.items():
            if of:
                panel = f"{family}, {kind}"
                at[panel] = Axis(KINDS[kind], log=True)
                points += [*_points(panel, of), *(point(panel, METRIC, g.name, "level", of[0].cost.mean, g.mean(METRIC))
                                                  for g in free)]
                looks |= {g.name: material.look[g.row.key] for g in (*(p.group for p in of), *free)}
    return Chart(f"NDCG@10 for the cost of training on {block.dataset}", _caption(block, found, bool(free)), points,
                 {METRIC: Axis("NDCG@10")}, looks, at, dodge=0.025)


def _points(panel: str, of: Sequence[Point]) -> list[dict[str, Any]]:
    """The rows of a panel and the line of those that are best for their cost."""
    found = [point(panel, METRIC, FRONT, "front", p.cost.mean, p.score.mean) for p in front(of)]
    for p in of:
        sd, spread = p.score.sd, p.cost.sd
        around = None if sd is None else (p.score.mean - sd, p.score.mean + sd)
        wide = {"at_low": p.cost.mean - spread, "at_high": p.cost.mean + spread} if spread else {}
        found.append(point(panel, METRIC, p.group.name, "point", p.cost.mean, p.score.mean, around, **wide))
    return found


def positions(block: Block, family: str) -> list[Point]:
    """The rows of a backbone by the decoder positions of all stages, in those of its cross-entropy; [] without it."""
    reference = block.cross_entropy(family)
    unit = _counted(reference) if reference is not None and not block.missing(reference) else None
    points = []
    for group in principal(block, family, MOST):
        counted = _counted(group)
        if unit and counted:
            base = summarise([a + b for a, b in unit]).mean
            points.append(Point(group, group.summary(METRIC), summarise([(a + b) / base for a, b in counted])))
    return [p for p in points if p.score.mean is not None]


def seconds(groups: Sequence[Group]) -> list[Point]:
    """The trained rows by the seconds of all stages."""
    costs = [(g, g.summary("train_seconds")) for g in groups if _trained(g)]
    return [Point(g, g.summary(METRIC), cost) for g, cost in costs
            if cost.n == len(g.records) and cost.mean and g.mean(METRIC) is not None]


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other equals or beats in one of mean cost and mean score without being worse in the other."""
    best: list[Point] = []
    for one in sorted(points, key=lambda p: (p.cost.mean, -p.score.mean)):
        if not best or one.score.mean > best[-1].score.mean:
            best.append(one)
    return best


def _trained(group: Group) -> bool:
    return len(list(filter(None, group.values("epochs")))) == len(group.seeds)


def _counted(group: Group) -> list[tuple[float, float]] | None:
    """(with, without gradient) of each seed, or None where some seed did not count or counted nothing."""
    parts = [group.values(name) for name in PASSES]
    counted = list(zip(*parts, strict=True)) if len({len(p) for p in parts}) == 1 else []
    return counted if len(counted) == len(group.records) and all(map(sum, counted)) else None


def _caption(block: Block, found: Mapping[str, Mapping[str, Sequence[Point]]], free: bool) -> str:
    parts = [f"{block.name}: NDCG@10 of test targets, item-level ({spread_text(block)})"]
    if any(by["positions"] for by in found.values()):
        parts.append("decoder positions, with and without gradient, of all stages, in those of cross-entropy on the "
                     "same backbone, the same on every machine; points of equal cost are drawn side by side")
    places = {f"{r.provenance.get('device', 'unknown device')}, {r.provenance.get('threads', 'unknown number of')} "
              f"thread{'' if r.provenance.get('threads') == 1 else 's'}"
              for by in found.values() for p in by["seconds"] for r in p.group.records}
    if places:
        parts.append(f"seconds of processor time, on a GPU by the clock ({'; '.join(sorted(places))}), which "
                     "depend on the machine and on what else it did")
    parts += ["lines across: baselines without training"] * free
    drawn = {id(p.group) for by in found.values() for points in by.values() for p in points}
    return "; ".join(parts) + not_drawn([g.label for g in block.groups if block.missing(g) and id(g) not in drawn])
