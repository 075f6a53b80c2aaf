"""What rows cost in training, beside what they gain for it: a line a row, the cheapest first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Chart, named, point, seed_points
from genrec_bench.reporting.figures.runs import (
    bare,
    complete,
    incomplete,
    interval,
    lacking,
    needed,
    principal,
    undrawn,
)
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.results.frame import PASSES, SAME_TIME

MOST = 14  # rows of a panel
PLANE = METRIC, *_ = "ndcg@10", "positions", "seconds"
PRINTED_BEAM = 4.45  # times SFT's time for objective (3.1), BEAR's text to Figure 5, B = 10, a model that writes titles
PRINTED_RANGE = (2.0, 10.0)  # times BEAR's for CFT, S-DPO and SPRec, text to Figure 9; BEAR's is printed as about SFT's
THREE = SFT, BEAR, SEARCHING = "SFT (summed cross-entropy)", "BEAR", "objective (3.1)"
SECONDS, POSITIONS = "Seconds per epoch", "Decoder positions per epoch"
SAME, BAND = "as SFT", "2 to 10 times BEAR's time"


@plate("plane")
def plane_figure(data: ReportData, block: Block) -> Chart | str | None:
    """NDCG@10, decoder positions and seconds of the baselines and each backbone's rows; None without a backbone.

    Positions, of all stages, are counted in those of cross-entropy, so that they are the same on every machine;
    seconds are those of the machine that ran.
    """
    shown = {family: principal(block, family, MOST) for family in block.families()}
    generative = [g for groups in shown.values() for g in groups if g.row.backbone]
    if not generative:
        return needed(data, block) if any(g.row.backbone for g in block.groups) else None
    points, groups = [], [g for of in shown.values() for g in of]
    for family, own in shown.items():
        reference = block.cross_entropy(family)
        unit = fmean(positions(reference) or [0]) if reference in own else 0
        costs = {g: ([p / unit for p in positions(g)] if unit else [], seconds(g)) for g in own}
        for group in sorted(own, key=lambda g: [*(fmean(c) if c else 0.0 for c in costs[g])]):
            for quantity, values in zip(PLANE, (group.values(METRIC), *costs[group]), strict=True):
                found = seed_points(family, quantity, group.label, group.name, values, True)
                points += found[-1:]  # the mean
    places = {f"{r.provenance.get('device', 'unknown device')}, {r.provenance.get('threads', 'unknown number of')} "
              f"thread{'s' * (r.provenance.get('threads') != 1)}" for g in groups if seconds(g) for r in g.records}
    return named("plane", data, block, points, counted=any(p["quantity"] == "positions" for p in points),
                 places=sorted(places), untrained=not all(map(seconds, groups)), absent=incomplete(block, groups),
                 left_out=undrawn(block, groups))


def positions(group: Group) -> list[float]:
    """Decoder positions of each seed, with and without gradient; [] where some seed did not count or counted none."""
    parts = [group.values(name) for name in PASSES[2:]]
    found = [sum(of) for of in zip(*parts, strict=False)]
    return found if all(len(of) == len(group.records) for of in parts) and all(found) else []


def seconds(group: Group) -> list[float]:
    """Seconds of all stages of each seed; [] where some seed was not timed or nothing was trained."""
    found = group.values("train_seconds")
    trained = len(list(filter(None, group.values("epochs")))) == len(found) == len(group.records)
    return found if trained and sum(found) else []


@plate("bear-5", "bear-9")
def epoch_figure(key: str, data: ReportData, block: Block) -> Chart | str | None:
    """What an epoch costs in units of SFT's, the cheapest rows first: seconds, and decoder positions, of SFT, BEAR and
    objective (3.1) (BEAR, 5); or NDCG@10 and the first of these costs of all methods (BEAR, 9)."""
    parts, absent, points, costs = {}, [], [], drawn_costs(key, block)
    for family, groups in block.families().items():
        rows = [row for row in data.suite.rows if row.backbone and row.backbone == groups[0].row.backbone and (
            bare(row) in THREE if key == "bear-5" else " = " not in row.label)]  # no mere point of a sweep
        absent += lacking(block, [[row] for row in rows])
        found = [g for row in rows if (g := complete(block, [row])) and any(per_epoch(g, c) for c in costs)]
        if {SFT, BEAR} <= {bare(g.row) for g in found}:
            parts[family] = found
    for family, groups in parts.items():
        unit = next(g for g in groups if bare(g.row) == SFT)
        cost = {g: {c: times for c in costs if (times := ratios(per_epoch(g, c), per_epoch(unit, c)))} for g in groups}
        for group in sorted(groups, key=lambda g: [geometric(times)[0] for times in cost[g].values()] or [math.inf]):
            if key == "bear-9":
                around = interval(data, group, METRIC) if data.ranked else None
                points.append(point(family, METRIC, group.name, "mean", group.name, group.mean(METRIC), around))
            for what, times in cost[group].items():
                points += _ratio_points(family, what, group, times)
        points += [point(family, c, SAME, "level", unit.name, 1.0) for c in costs]
        points += [point(family, SECONDS, BAND, "level", unit.name, v) for v in PRINTED_RANGE * (SECONDS in costs)
                   if key == "bear-9"]
    shown = [g for groups in parts.values() for g in groups]
    beams = {o["num_beams"] for g in shown for o in g.config["objective"] if "num_beams" in o}
    places = sorted({", ".join(str(r.provenance.get(k, "unknown")) for k in ("cpu", "device"))
                     for g in shown for r in g.records})
    return named(key, data, block, points, absent=absent, timed=SECONDS in costs, places=places, beams=sorted(beams),
                 beam_time=PRINTED_BEAM, cost=costs[0]) if parts else needed(data, block, absent)


def _ratio_points(family: str, what: str, group: Group, values: Sequence[float]) -> list[dict[str, Any]]:
    """The seeds of a row in units of SFT's, with their geometric mean."""
    mean, *ends = geometric(values)
    found = [point(family, what, group.name, "seed", group.name, v) for v in values if len(values) > 1]
    found.append(point(family, what, group.name, "mean", group.name, mean, ends if len(values) > 1 else None,
                       note=f"{mean:.2f}"))
    if what == SECONDS and bare(group.row) == SEARCHING:
        found.append(point(family, what, group.name, "printed", group.name, PRINTED_BEAM))
    return found


def drawn_costs(key: str, block: Block) -> list[str]:
    """The costs that a block's runs tell: seconds only where several seeds show how much they scatter."""
    return [SECONDS, POSITIONS][len(block.seeds) < 2:][:1 if key == "bear-9" else 2]


def per_epoch(group: Group, what: str) -> dict[tuple[Any, ...], float]:
    """Seconds or decoder positions, with and without gradient, of an epoch of the last stage, by seed; seconds by seed
    and SAME_TIME, as those of other commits and machines are not compared."""
    if what == SECONDS:
        return {(r.seed, *map(str, map(r.provenance.get, SAME_TIME))): s for r in group.records
                if (s := r.timings.get("seconds_per_epoch"))}
    found = [(r, [(r.training.get("passes") or {}).get(name) for name in PASSES[2:]]) for r in group.records]
    return {(r.seed,): sum(of) / r.training["epochs"] for r, of in found if None not in of and r.training.get("epochs")}


def ratios(values: Mapping[tuple[Any, ...], float], unit: Mapping[tuple[Any, ...], float]) -> list[float]:
    """What each seed has in units of the same seed of another row; what both have (`per_epoch`), in order of seeds."""
    return [values[s] / unit[s] for s in sorted(values) if unit.get(s)]


def geometric(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of positive numbers, and that mean divided and multiplied by the geometric SD (1 for one)."""
    logs = [math.log(v) for v in values]
    mean, spread = fmean(logs), stdev(logs) if len(logs) > 1 else 0.0
    return math.exp(mean), math.exp(mean - spread), math.exp(mean + spread)
