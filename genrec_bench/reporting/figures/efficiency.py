"""What objectives cost beside SFT, and what they gain for it: time and decoder positions as ratios."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from genrec_bench.core.files import canonical
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.runs import (
    alone,
    complete,
    geometric,
    lacking,
    needed,
    not_drawn,
    ratios,
    seeds_of,
)
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite

BEAR = {"paper": "bear", "objectives": ("bear",)}
# What BEAR prints of run times, for a language model that writes titles: the text to Figure 5, with B = 10, and the
# text to Figure 9 on CFT, S-DPO and SPRec, in units of BEAR's time, which is printed as about SFT's.
PRINTED_BEAM = 4.45
PRINTED_RANGE = (2.0, 10.0)
SFT, WITH_BEAR, WITH_BEAM = ((("cross_entropy", *more),) for more in ((), ("bear",), ("bear_beam",)))
COSTS = {"Seconds per epoch": "seconds", "Decoder positions per epoch": "positions"}
SAME, BAND = "as SFT", "2 to 10 times BEAR's time"
ONE_SEED = ("seconds are not drawn: those of one seed may be stretched by whatever else ran; positions depend on no "
            "machine")
SPREAD = "geometric mean, divided and multiplied by the geometric SD over seeds, of ratios to SFT at its seed"


def per_epoch(group: Group, what: str) -> dict[int, float]:
    """Seed -> "seconds" or decoder "positions", with and without gradient, of an epoch of the last stage."""
    if what == "seconds":
        return {r.seed: s for r in group.records if (s := r.timings.get("seconds_per_epoch"))}
    found = {}
    for r in group.records:
        passes = r.training.get("passes") or {}
        both = [passes.get(f"positions_{side}_gradient") for side in ("with", "without")]
        if None not in both and r.training.get("epochs"):
            found[r.seed] = sum(both) / r.training["epochs"]
    return found


def costs(block: Block) -> dict[str, str]:
    """The costs that a block's runs tell: seconds only where several seeds show how much they scatter."""
    return {text: what for text, what in COSTS.items() if what != "seconds" or len(block.seeds) > 1}


def _known(block: Block, group: Group) -> bool:
    return any(per_epoch(group, what) for what in costs(block).values())


def _first(suite: Suite, backbone: str | None, stages: tuple) -> list[Row]:
    return [row for row in suite.rows if row.backbone == backbone and row.stages == stages][:1]


@plate("5", "Cost of an epoch under each objective", **BEAR)
def time_figure(material: ReportData, block: Block) -> Chart | str | None:
    """Seconds and decoder positions of an epoch in units of SFT's: SFT, BEAR and objective (3.1) (BEAR, 5)."""
    parts, absent = {}, []
    for family, groups in block.families().items():
        wanted = [same for stages in (SFT, WITH_BEAR, WITH_BEAM)
                  if (same := _first(material.suite, groups[0].row.backbone, stages))]
        found = [group for same in wanted if (group := complete(block, same)) and _known(block, group)]
        if len(wanted) == 3:
            absent += lacking(block, wanted)
            if len(found) > 1 and found[0].row.stages == SFT:
                parts[family] = found
    if not parts:
        return needed(material, block, absent)
    beams = sorted({o["num_beams"] for groups in parts.values() for g in groups for o in g.config["objective"]
                    if "num_beams" in o})
    timed = len(costs(block)) > 1
    text = (f"{block.name}: {'seconds and ' if timed else ''}decoder positions of an epoch in units of SFT's, after "
            f"BEAR's Figure 5, {_spread(block)}{seeds_of(block)}. Printed for B = 10 and a language model "
            f"that writes titles: (3.1) takes over {PRINTED_BEAM} times as long as SFT, and BEAR about as long; here "
            f"B = {', '.join(map(str, beams)) or 'not stated'}. {_clock(block, parts.values())}{not_drawn(absent)}")
    looks = {g.name: material.look[g.row.key] for groups in parts.values() for g in groups}
    points = [p for family, groups in parts.items() for label, what in costs(block).items()
              for p in _ratios(family, label, groups, what)]
    return Chart(f"What an epoch costs beside SFT on {block.dataset}", text, points,
                 {label: Axis(f"{label} (SFT = 1)", log=True) for label in costs(block)},
                 {SAME: look("reference"), **looks}, legend=False, fewest=2)


def _ratios(family: str, label: str, groups: Sequence[Group], what: str) -> list[dict[str, Any]]:
    """The seeds of each row in units of the first row's, with their geometric mean."""
    unit = per_epoch(groups[0], what)
    found = [point(family, label, SAME, "level", groups[0].name, 1.0)]
    for group in groups:
        if values := ratios(per_epoch(group, what), unit):
            mean, low, high = geometric(values)
            found += [point(family, label, group.name, "seed", group.name, v) for v in values if len(values) > 1]
            found.append(point(family, label, group.name, "mean", group.name, mean,
                               (low, high) if len(values) > 1 else None, note=f"{mean:.2f}"))
            if what == "seconds" and group.row.stages == WITH_BEAM:
                found.append(point(family, label, group.name, "printed", group.name, PRINTED_BEAM))
    return found


def _spread(block: Block) -> str:
    return f"{SPREAD}, " if len(block.seeds) > 1 else ""


def _clock(block: Block, parts: Collection[Sequence[Group]]) -> str:
    """Where the runs of a figure were timed, or why their seconds are not drawn; a sentence without its full stop."""
    if len(costs(block)) == 1:
        return f"{ONE_SEED[0].upper()}{ONE_SEED[1:]}"
    places = sorted({", ".join(str(r.provenance.get(k, "unknown")) for k in ("cpu", "device")) for groups in parts
                     for g in groups for r in g.records})
    return (f"Seconds are those of {'several machines and no fair comparison' if len(places) > 1 else 'one machine'} "
            f"({'; '.join(places)}) under whatever else ran; positions depend on no machine")


@plate("9", "Quality and cost of an epoch", **BEAR)
def plane_figure(material: ReportData, block: Block) -> Chart | str | None:
    """NDCG@10 against seconds per epoch in units of SFT's, or positions of one seed, a point a method (BEAR, 9)."""
    parts, absent = {}, []
    for family, groups in block.families().items():
        rows = own_methods(material.suite, groups[0].row.backbone)
        absent += lacking(block, [[row] for row in rows])
        found = [g for row in rows if (g := complete(block, [row])) and _known(block, g)]
        trained = {g.row.stages for g in found}
        if SFT in trained and WITH_BEAR in trained:
            parts[family] = found
    if not parts:
        return needed(material, block, absent)
    around = "95 % intervals over seeds and users; paired differences, as in the tests, are known better than that" \
        if material.results else "without ranks no intervals"
    label, what = next(iter(costs(block).items()))
    band = ("Grey band: 2 to 10 times BEAR's time, printed for CFT, S-DPO and SPRec, from SFT's as the paper's BEAR "
            "is about as fast; other" if what == "seconds" else "The")
    text = (f"{block.name}: item-level NDCG@10 of test targets by {label[0].lower()}{label[1:]} in units of SFT's, "
            f"after BEAR's Figure 9, {seeds_of(block)}; cost: {_spread(block)}of the last stage where there are two; "
            f"NDCG@10: {around}; points of equal cost are drawn side by side. "
            f"{band} values of the paper's figure are not in its text. {_clock(block, parts.values())}"
            f"{not_drawn(absent)}")
    looks = {g.name: material.look[g.row.key] for groups in parts.values() for g in groups}
    points = [p for family, groups in parts.items() for p in _plane(material, family, groups, what)]
    return Chart(f"NDCG@10 for the cost of an epoch on {block.dataset}", text, points, {"ndcg@10": Axis("NDCG@10")},
                 {BAND: look("reference"), **looks}, Axis(f"{label} (SFT = 1)", log=True), fewest=2, dodge=0.025)


def _plane(material: ReportData, family: str, groups: Sequence[Group], what: str) -> list[dict[str, Any]]:
    """A row by its cost and score."""
    unit = per_epoch(next(g for g in groups if g.row.stages == SFT), what)
    low, high = PRINTED_RANGE
    found = [point(family, "ndcg@10", BAND, "band", low, None, at_low=low, at_high=high)] if what == "seconds" else []
    for group in groups:
        score, times = group.mean("ndcg@10"), ratios(per_epoch(group, what), unit)
        if times and score is not None:
            mean, low, high = geometric(times)
            found.append(point(family, "ndcg@10", group.name, "point", mean, score, alone(material, group, "ndcg@10"),
                               **({"at_low": low, "at_high": high} if len(times) > 1 else {})))
    return found


def own_methods(suite: Suite, backbone: str | None) -> list[Row]:
    """The rows of a backbone that are no mere point of a sweep: none differs from an earlier one in numbers alone."""
    found: dict[str, Row] = {}
    for row in suite.rows:
        if row.backbone is not None and row.backbone == backbone:
            words = {k: None if isinstance(v, (int, float)) and not isinstance(v, bool) else v
                     for k, v in row.wanted.items()}
            found.setdefault(canonical(words), row)
    return list(found.values())
