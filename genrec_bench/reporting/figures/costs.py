"""What rows cost in training, beside what they gain for it: a line a row, the cheapest first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from genrec_bench.core.files import canonical
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Chart, named, point, seed_points
from genrec_bench.reporting.figures.runs import complete, incomplete, interval, lacking, needed, principal
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite
from genrec_bench.results.frame import PASSES

MOST = 14  # rows of a panel
METRIC = "ndcg@10"
PRINTED_BEAM = 4.45  # times SFT's time for objective (3.1), BEAR's text to Figure 5, B = 10, a model that writes titles
PRINTED_RANGE = (2.0, 10.0)  # times BEAR's for CFT, S-DPO and SPRec, text to Figure 9; BEAR's is printed as about SFT's
SFT, WITH_BEAR, WITH_BEAM = ((("cross_entropy", *more),) for more in ((), ("bear",), ("bear_beam",)))
SECONDS, POSITIONS = "Seconds per epoch", "Decoder positions per epoch"
SAME, BAND = "as SFT", "2 to 10 times BEAR's time"
ONE_SEED = ("Seconds are not drawn: those of one seed may be stretched by whatever else ran; positions depend on no "
            "machine")
RATIOS = "geometric mean, divided and multiplied by the geometric SD over seeds, of ratios to SFT at its seed, "


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
            for quantity, values in zip((METRIC, "positions", "seconds"), (group.values(METRIC), *costs[group]),
                                        strict=True):
                points += [p for p in seed_points(family, quantity, group.label, group.name, values, True)
                           if p["mark"] == "mean"]
    places = {f"{r.provenance.get('device', 'unknown device')}, {r.provenance.get('threads', 'unknown number of')} "
              f"thread{'s' * (r.provenance.get('threads') != 1)}" for g in groups if seconds(g) for r in g.records}
    return named("plane", data, block, points, counted=any(p["quantity"] == "positions" for p in points),
                 places=sorted(places), untrained=not all(map(seconds, groups)), absent=incomplete(block, groups))


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


@plate("bear-5")
def time_figure(data: ReportData, block: Block) -> Chart | str | None:
    """Seconds and decoder positions of an epoch in units of SFT's: SFT, BEAR and objective (3.1) (BEAR, 5)."""
    parts, absent = {}, []
    for family, groups in block.families().items():
        rows = [row for row in data.suite.rows if row.backbone == groups[0].row.backbone]
        every = ([row for row in rows if row.stages == stages][:1] for stages in (SFT, WITH_BEAR, WITH_BEAM))
        wanted = [same for same in every if same]
        found = _known(block, wanted)
        if len(wanted) == 3:
            absent += lacking(block, wanted)
            if len(found) > 1 and found[0].row.stages == SFT:
                parts[family] = found
    if not parts:
        return needed(data, block, absent)
    points = [p for family, groups in parts.items() for what in drawn_costs(block)
              for p in _ratio_points(family, groups, what, groups)]
    searching = [g for groups in parts.values() for g in groups if g.row.stages == WITH_BEAM]
    beams = {o["num_beams"] for g in searching for o in g.config["objective"] if "num_beams" in o}
    return named("bear-5", data, block, points, beams=sorted(beams), beam_time=PRINTED_BEAM, absent=absent,
                 **_facts(block, parts))


@plate("bear-9")
def epoch_figure(data: ReportData, block: Block) -> Chart | str | None:
    """NDCG@10 beside seconds per epoch in units of SFT's, or positions of one seed, a row a method (BEAR, 9)."""
    parts, absent = {}, []
    for family, groups in block.families().items():
        rows = [[row] for row in own_methods(data.suite, groups[0].row.backbone)]
        absent += lacking(block, rows)
        found = _known(block, rows)
        if {SFT, WITH_BEAR} <= {g.row.stages for g in found}:
            parts[family] = found
    if not parts:
        return needed(data, block, absent)
    what, points = drawn_costs(block)[0], []
    for family, groups in parts.items():
        first = next(g for g in groups if g.row.stages == SFT)
        cost = {g: times for g in groups if (times := ratios(per_epoch(g, what), per_epoch(first, what)))}
        ordered = sorted((g for g in cost if g.mean(METRIC) is not None), key=lambda g: geometric(cost[g])[0])
        points += [point(family, METRIC, g.name, "mean", g.name, g.mean(METRIC), data.ranked and
                         interval(data, g, METRIC) or None) for g in ordered]
        points += _ratio_points(family, ordered, what, groups=[first])
        points += [point(family, what, BAND, "level", first.name, v) for v in PRINTED_RANGE if what == SECONDS]
    return named("bear-9", data, block, points, cost=f"{what[0].lower()}{what[1:]}", absent=absent,
                 **_facts(block, parts))


def _known(block: Block, wanted: Iterable[Sequence[Row]]) -> list[Group]:
    """The rows with complete runs that tell a cost."""
    return [g for rows in wanted if (g := complete(block, rows)) and any(per_epoch(g, c) for c in drawn_costs(block))]


def drawn_costs(block: Block) -> list[str]:
    """The costs that a block's runs tell: seconds only where several seeds show how much they scatter."""
    return [SECONDS, POSITIONS] if len(block.seeds) > 1 else [POSITIONS]


def per_epoch(group: Group, what: str) -> dict[int, float]:
    """Seed -> seconds or decoder positions, with and without gradient, of an epoch of the last stage."""
    if what == SECONDS:
        return {r.seed: s for r in group.records if (s := r.timings.get("seconds_per_epoch"))}
    found = {r.seed: [(r.training.get("passes") or {}).get(name) for name in PASSES[2:]] for r in group.records}
    epochs = {r.seed: r.training.get("epochs") for r in group.records}
    return {seed: sum(of) / epochs[seed] for seed, of in found.items() if None not in of and epochs[seed]}


def ratios(values: Mapping[int, float], unit: Mapping[int, float]) -> list[float]:
    """What each seed has in units of the same seed of another row; seeds that both have, in order."""
    return [values[s] / unit[s] for s in sorted(values) if unit.get(s)]


def geometric(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of positive numbers, and that mean divided and multiplied by the geometric SD (1 for one)."""
    logs = [math.log(v) for v in values]
    mean, spread = fmean(logs), stdev(logs) if len(logs) > 1 else 0.0
    return math.exp(mean), math.exp(mean - spread), math.exp(mean + spread)


def _ratio_points(family: str, shown: Sequence[Group], what: str, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The seeds of each row in units of those of the first of `groups`, with their geometric mean."""
    unit = per_epoch(groups[0], what)
    found = [point(family, what, SAME, "level", groups[0].name, 1.0)]
    for group in shown:
        if values := ratios(per_epoch(group, what), unit):
            mean, *ends = geometric(values)
            found += [point(family, what, group.name, "seed", group.name, v) for v in values if len(values) > 1]
            found.append(point(family, what, group.name, "mean", group.name, mean, ends if len(values) > 1 else None,
                               note=f"{mean:.2f}"))
            if what == SECONDS and group.row.stages == WITH_BEAM:
                found.append(point(family, what, group.name, "printed", group.name, PRINTED_BEAM))
    return found


def _facts(block: Block, parts: Mapping[str, Sequence[Group]]) -> dict[str, Any]:
    """What both captions say: how ratios are averaged, and where the runs were timed or why seconds are not drawn."""
    if len(block.seeds) < 2:
        return {"timed": False, "ratios": "", "clock": ONE_SEED}
    places = sorted({", ".join(str(r.provenance.get(k, "unknown")) for k in ("cpu", "device"))
                     for groups in parts.values() for g in groups for r in g.records})
    machines = "several machines and no fair comparison" if len(places) > 1 else "one machine"
    return {"timed": True, "ratios": RATIOS, "clock": f"Seconds are those of {machines} ({'; '.join(places)}) under "
                                                      "whatever else ran; positions depend on no machine"}


def own_methods(suite: Suite, backbone: str | None) -> list[Row]:
    """The rows of a backbone that are no mere point of a sweep: none differs from an earlier one in numbers alone."""
    found: dict[str, Row] = {}
    for row in suite.rows:
        if row.backbone is not None and row.backbone == backbone:
            words = {k: None if isinstance(v, (int, float)) and not isinstance(v, bool) else v
                     for k, v in row.wanted.items()}
            found.setdefault(canonical(words), row)
    return list(found.values())
