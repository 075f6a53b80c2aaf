"""Figures of what beam search throws away, after those of APAO; those of BEAR are in `lost`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genrec_bench.analysis import pruning
from genrec_bench.analysis.pruning import Estimate
from genrec_bench.analysis.significance import compare_values
from genrec_bench.reporting.figures.base import plate, undiagnosed
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.diagnosed import fewer_seeds, fullest, line, looks_of
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.papers import Paper
from genrec_bench.reporting.printed import printed_value, why_not
from genrec_bench.reporting.pruning import BEAM, OWN, Diagnosed, Searched, plain, signed
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Suite, objective_of

WIDE = 100  # the beam at which the best baseline stands against APAO at BEAM (APAO, Figure 4)
COSTS = ("one pass per item", "all prefixes once", "least for an exact top list", "beam search")
GAIN = "relative gain"
APAO = {"paper": "apao", "objectives": ("apao",), "section": "pruning"}


@plate("1b", "Cost of beam search and of full sorting", whole=True, **APAO)
def cost_figure(material: ReportData, block: Block | None = None) -> Chart | str | None:
    """Decoder positions a user against the size of the catalogue, four ways to search (APAO, 1b)."""
    found = [one for one in material.searched.values() if one]
    if not found:
        return None
    points, fewer = [], []
    for one in (one for one in found if one.about["top"] == BEAM):
        rows = {f: [r] for f in one.families() if (r := one.reference(f)) is not None} or {"": one.rows[:1]}
        points += [p for same in rows.values() for row in same for p in _costs(one, row)]
        fewer.append(f"{fewer_seeds(one, rows)} on {one.block.dataset}" if fewer_seeds(one, rows) else "")
    if not points:
        return undiagnosed(f"the exact top {BEAM}")
    names = ", ".join(f"{p['at']:,.0f} {p['note']}" for p in points if p["method"] == COSTS[-1])
    text = (f"Decoder positions (prefixes read) for one user, after APAO's Figure 1b: beam {BEAM}, the least that an "
            f"exact search for the top {BEAM} reads (cross-entropy, mean with 95 % interval), all prefixes once, and "
            f"one pass per semantic ID; semantic IDs: {names}")
    return Chart("Decoder positions that beam search and full sorting read", text + "".join(dict.fromkeys(fewer)),
                 points, {"positions": Axis("Decoder positions per user", log=True)},
                 {name: look(name) for name in COSTS}, Axis("Distinct semantic IDs in the catalogue", log=True))


def _costs(found: Searched, row: Diagnosed) -> list[dict[str, Any]]:
    """One catalogue's four points."""
    ids, needed = row.catalogue("ids"), row.estimate(pruning.needed)
    values = (ids * found.about["levels"], row.catalogue("nodes"), needed.value, row.beam_positions(BEAM))
    return [point("", "positions", name, "point", ids, value, needed if value == needed.value else None,
                  note=found.block.dataset) for name, value in zip(COSTS, values, strict=True)]


@plate("1c", "Survival of the exact top 20 in the beam", **APAO)
def retention_figure(material: ReportData, block: Block) -> Chart | str | None:
    """How much of the exact top is still in the beam after each step, cross-entropy and APAO (APAO, 1c)."""
    found = material.searched[block.name]
    if found is None:
        return None
    families = {f: [r for r in (found.reference(f), *_apao(found, f)) if r] for f in found.families()}
    families = {f: rows for f, rows in families.items() if found.reference(f) and _apao(found, f)}
    if BEAM not in found.beams or not families:
        return undiagnosed("cross-entropy and APAO on one backbone", BEAM)
    steps, top = range(1, found.about["levels"] + 1), found.about["top"]
    points = [p for family, rows in families.items() for row in rows
              for p in line(family, "share", row, steps, row.estimate(pruning.retention, beam=BEAM))]
    caption = (f"{block.name}: share of the exact top {top} whose prefix is in the beam of {BEAM} after each step, "
               "after APAO's Figure 1c; mean over users and seeds with 95 % intervals")
    return Chart(f"How much of the exact top {top} the beam keeps, step by step, on {block.dataset}",
                 caption + fewer_seeds(found, families), points, {"share": Axis("Still in the beam", percent=True)},
                 looks_of(material.look, families), Axis("Decoding step", ticks={s: str(s) for s in steps}),
                 fewest=2, dodge=0.02)


@plate("4", "Quality and cost by beam", **APAO)
def beams_figure(material: ReportData, block: Block) -> Chart | str | None:
    """NDCG@5 and decoder positions by beam: cross-entropy, APAO and the best other row at the widest beam (APAO, 4)."""
    found = material.searched[block.name]
    if found is None:
        return None
    beams = [b for b in found.beams if b >= 5]
    families = {f: rows for f in found.families() if len(rows := _shown(found, f)) > 1}
    if len(beams) < 2 or not families:
        return undiagnosed("two objectives on one backbone at two beams")
    points, every = [], {f: found.principal(f) for f in families}
    for family, rows in families.items():
        for row in rows:
            points += line(family, "ndcg@5", row, beams, [_ndcg(row, b) for b in beams])
        points += [point(family, "positions", COSTS[3], "mean", b, rows[0].beam_positions(b)) for b in beams]
        needed = rows[0].estimate(pruning.needed)
        points += [point(family, "positions", COSTS[2], "level", beams[0], needed.value, needed),
                   point(family, "positions", COSTS[1], "level", beams[0], rows[0].catalogue("nodes"))]
    caption = (f"{block.name}: NDCG@5 (ID-level, 95 % intervals) and decoder positions per user by beam, after APAO's "
               "Figure 4: cross-entropy, APAO, and of the others the best at the widest beam. The paper says that APAO "
               f"at beam {BEAM} is as good as the best baseline at {WIDE}, or better. {_pairs(found, every)}")
    return Chart(f"NDCG@5 and decoding cost by beam on {block.dataset}",
                 caption.rstrip(" .") + fewer_seeds(found, families), points,
                 {"ndcg@5": Axis("NDCG@5"), "positions": Axis("Decoder positions", log=True)},
                 {**looks_of(material.look, families), **{name: look(name) for name in COSTS[1:]}},
                 Axis("Beam (prefixes kept)", log=True, ticks={b: str(b) for b in beams}), fewest=2, dodge=0.015,
                 heights={"positions": 0.7})


def _ndcg(row: Diagnosed, beam: int) -> Estimate:
    return row.estimate(pruning.beam_metric, metric="ndcg", k=5, beam=beam)


def _shown(found: Searched, family: str) -> list[Diagnosed]:
    """Cross-entropy, APAO's rows, and the best of the others."""
    own = [r for r in (found.reference(family), *_apao(found, family)) if r]
    others = fullest([r for r in found.principal(family) if r not in own and not _is_apao(r)])
    return [*own, *sorted(others, key=lambda r: -_ndcg(r, max(found.beams)).value)[:1]]


def _pairs(found: Searched, families: Mapping[str, Sequence[Diagnosed]]) -> str:
    """The best APAO row at BEAM against the best other row at WIDE, both picked by these numbers."""
    texts = []
    for family, rows in families.items():
        ours, others = _apao(found, family), [r for r in rows if not _is_apao(r)]
        if not ours or not others or not {BEAM, WIDE} <= set(found.beams):
            continue
        a, b = (max(same, key=lambda r, w=w: _ndcg(r, w).value)
                for same, w in ((fullest(ours), BEAM), (fullest(others), WIDE)))
        seeds = [s for s in a.seeds if s in b.seeds]
        if not seeds:
            continue
        gap = pruning.metric_difference(a.of_seeds(seeds), b.of_seeds(seeds), OWN, metric="ndcg", k=5, beam_a=BEAM,
                                        beam_b=WIDE)
        texts.append(f"{family}: {a.name} at {BEAM} {plain(_ndcg(a, BEAM))}, {b.name} at {WIDE} "
                     f"{plain(_ndcg(b, WIDE))}, difference {signed(gap)}")
    return f"Here, each the best by the same numbers: {'; '.join(texts)}." if texts else \
        f"Here no backbone has both at {BEAM} and {WIDE}."


@plate("5", "Recall of prefixes in the beam", **APAO)
def prefixes_figure(material: ReportData, block: Block) -> Chart | str | None:
    """Prefix Recall@20 by prefix, the best APAO row and the best other one, and the relative gain (APAO, 5)."""
    found = material.searched[block.name]
    if found is None:
        return None
    paper = material.paper
    families = {f: pair for f in found.families() if BEAM in found.beams and (pair := _best_pair(found, f))}
    if not families:
        return undiagnosed("an APAO row and another row on one backbone, with a common seed", BEAM)
    levels, points = range(1, found.about["levels"] + 1), []
    for family, pair in families.items():
        for row, is_apao in zip(pair, (True, False), strict=True):
            points += line(family, "recall", row, levels, _survival(row))
            value = _printed_recall(found, material.suite, family, is_apao, paper)
            if value is not None:
                points.append(point(family, "recall", row.name, "printed", levels[-1], value))
        points += [point(family, "gain", GAIN, "mean", m, e.value, e) for m in levels for e in [_relative(pair, m)]]
    caption = (f"{block.name}: share of users whose target's prefix is in the beam of {BEAM}, of the best APAO row and "
               f"the best other row, picked by Recall@{BEAM} here, and the relative gain, after APAO's Figure 5; 95 % "
               "intervals, of the gain those of the difference over the other's mean")
    if any(p["mark"] == "printed" for p in points) and paper and why_not(found.block, paper):
        caption += (". Printed values (Table 1, the best of each kind) are not to be compared with: "
                    f"{why_not(found.block, paper)}")
    return Chart(f"How far down the target's prefixes stay in the beam on {block.dataset}",
                 caption + fewer_seeds(found, families), points,
                 {"recall": Axis(f"Prefix Recall@{BEAM}"), "gain": Axis("Gain over the other", percent=True)},
                 {**looks_of(material.look, families), GAIN: look(GAIN)},
                 Axis("Prefix length (tokens)", ticks={m: str(m) for m in levels}), fewest=2, dodge=0.03,
                 heights={"gain": 0.7})


def _survival(row: Diagnosed) -> list[Estimate]:
    return row.estimate(pruning.prefix_recall, reading="survival", beam=BEAM)


def _best_pair(found: Searched, family: str) -> tuple[Diagnosed, Diagnosed] | None:
    """The best APAO row and the best other one by Recall@BEAM, or None where one is not there."""
    kinds = _apao(found, family), [r for r in found.principal(family) if not _is_apao(r)]
    if not all(kinds):
        return None
    ours, other = (max(rows, key=lambda r: _survival(r)[-1].value) for rows in map(fullest, kinds))
    return (ours, other) if set(ours.seeds) & set(other.seeds) else None


def _relative(pair: tuple[Diagnosed, Diagnosed], level: int) -> Estimate:
    """The relative gain of the first row in prefix recall, over the seeds that both have."""
    seeds = [s for s in pair[0].seeds if s in pair[1].seeds]
    index = pair[0].runs[0].beam(BEAM)
    ours, theirs = (np.stack([run.of(OWN, "survived")[:, index] >= level for run in row.of_seeds(seeds)])
                    for row in pair)
    gap, base = compare_values(ours, theirs, num_permutations=1, num_resamples=2_000), max(theirs.mean(), 1e-12)
    return Estimate(gap.difference / base, gap.interval[0] / base, gap.interval[1] / base, ours.size)


def _printed_recall(found: Searched, suite: Suite, family: str, apao: bool, paper: Paper | None) -> float | None:
    """The best Recall@20 in the paper's Table 1 for this data set and backbone, of APAO's rows or of the others."""
    rows = [row for row in suite.rows if row.spelling == family and row.table == "1" and row.paper_row]
    values = [printed_value(found.block.dataset, row, f"recall@{BEAM}", paper) for row in rows
             if ("apao" in objective_of(row)) == apao] if paper else []
    return max((value for value in values if value is not None), default=None)


def _is_apao(row: Diagnosed) -> bool:
    return "apao" in objective_of(row.row)


def _apao(found: Searched, family: str) -> list[Diagnosed]:
    """A backbone's APAO rows of one stage, one for each form."""
    return found.named(family, "apao pointwise", "apao pairwise")
