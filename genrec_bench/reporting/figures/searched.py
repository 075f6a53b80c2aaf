"""Figures of diagnoses: what beam search throws away, after those of APAO and BEAR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from genrec_bench.analysis import pruning
from genrec_bench.analysis.pruning import Estimate
from genrec_bench.analysis.significance import compare_values
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Chart, estimates, named, point
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.papers import Paper
from genrec_bench.reporting.printed import printed_value, why_not
from genrec_bench.reporting.pruning import BEAM, CAUSES, OWN, Diagnosed, Searched
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Suite, objective_of

COSTS = ("one pass per item", "all prefixes once", "least for an exact top list", "beam search")
GAIN, REST = "relative gain", "another reason"
VOCABULARIES = {"flat": "whole vocabulary", "trie": "valid tokens"}
TOPS = {k: f"K = {k}" for k in CAUSES[1]}
Families = Mapping[str, Sequence[Diagnosed]]
Draw = Callable[[Searched, ReportData], Chart | str]


def diagnosed(name: str) -> Callable[[Draw], Callable]:
    """Register a figure of one block's diagnoses, which is not drawn where there are none."""
    def register(draw: Draw) -> Callable:
        return plate(name)(lambda data, block: (found := data.searched[block.name]) and draw(found, data))
    return register


def shown(name: str, found: Searched, data: ReportData, families: Families, points: Iterable[dict], needs: str, *,
          beam: int | None = BEAM, ticks: Mapping[float, str] | None = None, **facts: object) -> Chart | str:
    """The chart, whose caption says of how many seeds each row is diagnosed; needs: what it says to lack without any
    family or the beam. points: looked at only where there are."""
    if not families or beam not in (None, *found.beams):
        return f"it needs diagnoses of {needs}{f' at beam {beam}' if beam else ''} (`diagnose` makes them)"
    looks = {row.name: data.look[row.row.key] for rows in families.values() for row in rows}
    levels = {m: str(m) for m in range(1, found.about["levels"] + 1)}
    return named(name, data, found.block, list(points), looks=looks, fewer=fewer_seeds(found, families), beam=beam,
                 top=found.about["top"], ticks=ticks or levels, **facts)


def fewer_seeds(found: Searched, families: Families) -> str:
    """The end of a caption that says of how many seeds each row is diagnosed; "" where all are of all seeds."""
    whole, counts = len(found.block.seeds), {len(row.seeds) for rows in families.values() for row in rows}
    if min(counts) >= whole:
        return ""
    if len(counts) == 1:
        return f". Diagnosed: {counts.pop()} of {whole} seeds of each row"
    texts = [f"{family}: " + ", ".join(f"{row.group.name} {len(row.seeds)}" for row in rows)
             for family, rows in families.items()]
    return f". Diagnosed, of {whole} seeds: {'; '.join(texts)}"


def fullest(rows: Sequence[Diagnosed]) -> list[Diagnosed]:
    """The rows with as many seeds as the one with the most: among others the best would be picked by luck."""
    most = max((len(row.seeds) for row in rows), default=0)
    return [row for row in rows if len(row.seeds) == most]


@plate("apao-1b")
def cost_figure(data: ReportData, block: Block | None = None) -> Chart | str | None:
    """Decoder positions a user against the size of the catalogue, four ways to search (APAO, 1b)."""
    found, points, fewer = [one for one in data.searched.values() if one], [], {}
    for one in (one for one in found if one.about["top"] == BEAM):
        rows = {f: [r] for f in one.families() if (r := one.reference(f))} or {"": one.rows[:1]}
        fewer[f"{fewer_seeds(one, rows)} on {one.block.dataset}" if fewer_seeds(one, rows) else ""] = None
        for family, (row,) in rows.items():
            ids, needed = row.catalogue("ids"), row.estimate(pruning.needed)
            panel = f"{one.block.dataset}{family and f', {family}'}: {ids:,.0f} semantic IDs"
            values = (ids * one.about["levels"], row.catalogue("nodes"), needed.value, row.beam_positions(BEAM))
            points += [point(panel, "positions", name, "mean", name, value, needed if name == COSTS[2] else None,
                             note=f"{value:,.0f}") for name, value in zip(COSTS, values, strict=True)]
    return named("apao-1b", data, None, points, beam=BEAM, fewer="".join(fewer)) if points else \
        f"it needs diagnoses of the exact top {BEAM} (`diagnose` makes them)" if found else None


@diagnosed("apao-1c")
def retention_figure(found: Searched, data: ReportData) -> Chart | str:
    """How much of the exact top is still in the beam after each step, cross-entropy and APAO (APAO, 1c)."""
    families = {f: [found.reference(f), *_apao(found, f)] for f in found.families()
                if found.reference(f) and _apao(found, f)}
    points = (p for f, rows in families.items() for row in rows for p in estimates(
        f, "share", row.name, dict(enumerate(row.estimate(pruning.retention, beam=BEAM), 1))))
    return shown("apao-1c", found, data, families, points, "cross-entropy and APAO on one backbone")


@diagnosed("apao-4")
def beams_figure(found: Searched, data: ReportData) -> Chart | str:
    """NDCG@5 and decoder positions by beam: cross-entropy, APAO and the best other row at the widest beam (APAO, 4)."""
    beams, points = {b: str(b) for b in found.beams if b >= 5}, []
    families = {f: rows for f in found.families() if len(beams) > 1 and len(rows := _at_beams(found, f)) > 1}
    for family, rows in families.items():
        for row in rows:
            points += estimates(family, "ndcg@5", row.name, {b: _ndcg(row, b) for b in beams})
        points += [point(family, "positions", COSTS[3], "mean", b, rows[0].beam_positions(b)) for b in beams]
        needed, first = rows[0].estimate(pruning.needed), min(beams)
        points += [point(family, "positions", COSTS[2], "level", first, needed.value, needed),
                   point(family, "positions", COSTS[1], "level", first, rows[0].catalogue("nodes"))]
    return shown("apao-4", found, data, families, points, "two objectives on one backbone at two beams",
                 ticks=beams, beam=None)


def _ndcg(row: Diagnosed, beam: int) -> Estimate:
    return row.estimate(pruning.beam_metric, metric="ndcg", k=5, beam=beam)


def _at_beams(found: Searched, family: str) -> list[Diagnosed]:
    """Cross-entropy, APAO's rows, and the best of the others."""
    own = [r for r in (found.reference(family), *_apao(found, family)) if r]
    others = fullest([r for r in found.principal(family) if r not in own and not _is_apao(r)])
    return [*own, *sorted(others, key=lambda r: -_ndcg(r, max(found.beams)).value)[:1]]


@diagnosed("apao-5")
def prefixes_figure(found: Searched, data: ReportData) -> Chart | str:
    """Prefix Recall@20 by prefix, the best APAO row and the best other one, and the relative gain (APAO, 5)."""
    families = {f: pair for f in found.families() if BEAM in found.beams and (pair := best_pair(found, f))}
    last, points = found.about["levels"], []
    for family, pair in families.items():
        for row, is_apao in zip(pair, (True, False), strict=True):
            points += estimates(family, "recall", row.name, dict(enumerate(_survival(row), 1)))
            value = printed_recall(found, data.suite, family, is_apao, data.paper)
            points += [point(family, "recall", row.name, "printed", last, value)] * (value is not None)
        points += estimates(family, "gain", GAIN, {m: relative_gain(pair, m) for m in range(1, last + 1)})
    return shown("apao-5", found, data, families, points, "an APAO row and another row on one backbone, with a common "
                 "seed", unlike=data.paper and why_not(found.block, data.paper))


def _survival(row: Diagnosed) -> list[Estimate]:
    return row.estimate(pruning.prefix_recall, reading="survival", beam=BEAM)


def best_pair(found: Searched, family: str) -> tuple[Diagnosed, Diagnosed] | None:
    """The best APAO row and the best other one by Recall@BEAM, or None where one is not there."""
    kinds = _apao(found, family), [r for r in found.principal(family) if not _is_apao(r)]
    pair = tuple(max(fullest(rows), key=lambda r: _survival(r)[-1].value) for rows in kinds if rows)
    return pair if len(pair) == 2 and _common(pair) else None


def relative_gain(pair: Sequence[Diagnosed], level: int) -> Estimate:
    """The relative gain of the first row in prefix recall, over the seeds that both have."""
    index = pair[0].runs[0].beam(BEAM)
    ours, theirs = (np.stack([run.of(OWN, "survived")[:, index] >= level for run in row.of_seeds(_common(pair))])
                    for row in pair)
    gap, base = compare_values(ours, theirs, num_permutations=1, num_resamples=2_000), max(theirs.mean(), 1e-12)
    return Estimate(gap.difference / base, gap.interval[0] / base, gap.interval[1] / base, ours.size)


def printed_recall(found: Searched, suite: Suite, family: str, apao: bool, paper: Paper | None) -> float | None:
    """The best Recall@20 in the paper's Table 1 for this data set and backbone, of APAO's rows or of the others."""
    rows = [row for row in suite.rows if row.spelling == family and row.table == "1" and row.paper_row]
    values = [printed_value(found.block.dataset, row, f"recall@{BEAM}", paper) for row in rows
              if ("apao" in objective_of(row)) == apao] if paper else []
    return max((value for value in values if value is not None), default=None)


def _common(rows: Sequence[Diagnosed]) -> list[int]:
    """The seeds that all have."""
    return [s for s in rows[0].seeds if all(s in row.seeds for row in rows)] if rows else []


def _is_apao(row: Diagnosed) -> bool:
    return "apao" in objective_of(row.row)


def _apao(found: Searched, family: str) -> list[Diagnosed]:
    """A backbone's APAO rows of one stage, one for each form."""
    return found.named(family, "apao pointwise", "apao pairwise")


def _sft_and_bear(found: Searched) -> dict[str, list[Diagnosed]]:
    """Each backbone's cross-entropy, MSL where there is any, and BEAR in its forms."""
    rows = {f: [found.reference(f), *found.named(f, "msl"), *found.named(f, "bear")] for f in found.families()}
    return {f: same for f, same in rows.items() if found.reference(f) and found.named(f, "bear")}


@diagnosed("bear-3")
def accuracy_figure(found: Searched, data: ReportData) -> Chart | str:
    """NDCG@10 and the lost share at beam 10: SFT, MSL and BEAR (BEAR, 3)."""
    beam, families = CAUSES[0], _sft_and_bear(found)
    points = (p for family, rows in families.items() for row in rows for quantity, e in (
        ("ndcg@10", row.estimate(pruning.beam_metric, metric="ndcg", k=10, beam=beam)),
        ("lost", row.estimate(pruning.pruning_rate, k=10, beam=beam)))
        for p in estimates(family, quantity, row.name, {row.name: e}))
    return shown("bear-3", found, data, families, points, "SFT and BEAR on one backbone", beam=beam)


@diagnosed("bear-4")
def causes_figure(found: Searched, data: ReportData) -> Chart | str:
    """The lost share of SFT split by cause, a bar of two parts, and below the share of the causes (BEAR, 4)."""
    families = {f: [row] for f in found.families() if (row := found.reference(f))}
    points = (p for f, (row,) in families.items() for k in CAUSES[1] for p in _causes(f, row, k, CAUSES[0]))
    return shown("bear-4", found, data, families, points, "SFT", beam=CAUSES[0], ticks=TOPS)


def _causes(family: str, row: Diagnosed, k: int, beam: int) -> Iterator[dict]:
    lost, first = row.estimate(pruning.pruning_rate, k=k, beam=beam), VOCABULARIES["flat"]
    causes = {name: row.estimate(pruning.violation_share, k=k, beam=beam, vocabulary=vocabulary)
              for vocabulary, name in VOCABULARIES.items()}
    if lost.n:
        part = lost.value * causes[first].value if causes[first].n else 0.0
        yield point(family, "lost", first, "bar", k, part, (0.0, None))
        yield point(family, "lost", REST, "bar", k, lost.value, (part, None))
        yield point(family, "lost", REST, "whisker", k, lost.value, lost, note=f"of {lost.n}")
        for name, e in causes.items():
            yield from estimates(family, "cause", name, {k: e})


@diagnosed("bear-6")
def rates_figure(found: Searched, data: ReportData) -> Chart | str:
    """The lost share at beam 10 for K = 5 and 10: SFT, MSL and BEAR (BEAR, 6)."""
    beam, families = CAUSES[0], _sft_and_bear(found)
    points = (p for f, rows in families.items() for row in rows for p in estimates(
        f, "lost", row.name, {k: row.estimate(pruning.pruning_rate, k=k, beam=beam) for k in CAUSES[1]}))
    return shown("bear-6", found, data, families, points, "SFT and BEAR on one backbone", beam=beam, ticks=TOPS,
                 without=[f for f in families if not found.named(f, "msl")])
