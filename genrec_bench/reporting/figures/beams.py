"""Figures of what beam search throws away, after those of APAO; those of BEAR are in `lost`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from genrec_bench.analysis import pruning
from genrec_bench.analysis.pruning import Estimate
from genrec_bench.analysis.significance import compare_values
from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.panels import (
    dodged,
    fewer_seeds,
    finished,
    fullest,
    grid,
    line,
    undiagnosed,
    whiskers,
)
from genrec_bench.reporting.figures.style import PALETTE, image_bytes, own_style
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.papers import Paper
from genrec_bench.reporting.printed import printed_value, why_not
from genrec_bench.reporting.pruning import BEAM, OWN, Diagnosed, Searched, plain, signed
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Suite, objective_of

SIZES = tuple(n * 10**e for e in range(2, 6) for n in (1, 2, 3, 5))  # that may be marked on the axis of catalogues
WIDE = 100  # the beam at which the best baseline stands against APAO at BEAM (APAO, Figure 4)
COSTS = {"one pass per item": ("s", PALETTE[7]), "all prefixes once": ("D", PALETTE[1]),
         f"least for exact top {BEAM}": ("^", PALETTE[2]), f"beam {BEAM}": ("o", PALETTE[0])}


APAO = {"paper": "apao", "objectives": ("apao",), "section": "pruning"}


@plate("1b", "cost", "APAO, Figure 1b", whole=True, **APAO)
def cost_figure(material: ReportData, block: Block | None = None) -> Picture | None:
    """Decoder positions a user against the size of the catalogue, a column of points for each block (APAO, 1b)."""
    found = [one for one in material.searched.values() if one]
    if not found:
        return None
    text = (f"Decoder positions for one user by catalogue size, after APAO's Figure 1b: beam {BEAM}, the least that an "
            f"exact search for the top {BEAM} reads (cross-entropy, mean with 95 % interval), all prefixes once, and "
            "one pass per semantic ID")
    title = "APAO, Figure 1b"
    with own_style():
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        axes = figure.subplots()
        drawn = []
        for one in found:
            rows = {f: [r] for f in one.families() if (r := one.reference(f)) is not None} or {"": one.rows[:1]}
            if _cost_column(axes, one, [row for same in rows.values() for row in same]):
                drawn.append(f"{fewer_seeds(one, rows)} on {one.block.dataset}" if fewer_seeds(one, rows) else "")
        if not drawn:
            return undiagnosed(title, f"the exact top {BEAM}")
        _names_above(axes, found)
        axes.set(xscale="log", yscale="log", xlabel="Distinct semantic IDs in the catalogue",
                 ylabel="Decoder positions per user (prefixes read)")
        sizes = [r.catalogue("ids") for one in found for r in one.rows]
        low, high = min(sizes) / 2, 2 * max(sizes)
        marks = [size for size in SIZES if low <= size <= high] or sorted({round(size) for size in sizes})
        axes.set_xticks(marks, [f"{size:,}" for size in marks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(low, high)
        axes.set_ylim(top=4 * axes.get_ylim()[1])
        figure.suptitle("Decoder positions for one user, by the size of the catalogue", fontsize=11)
        for name, (marker, color) in COSTS.items():
            axes.plot([], [], marker=marker, color=color, linestyle="none", label=name)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        return Picture(text + "".join(dict.fromkeys(drawn)), image_bytes(figure))


def _cost_column(axes: Axes, found: Searched, rows: Sequence[Diagnosed]) -> bool:
    """One catalogue's points; False where the exact top is of another size."""
    if found.about["top"] != BEAM:
        return False
    for row in rows:
        ids, needed = row.catalogue("ids"), row.estimate(pruning.needed)
        values = {"one pass per item": ids * found.about["levels"], "all prefixes once": row.catalogue("nodes"),
                  f"least for exact top {BEAM}": needed.value, f"beam {BEAM}": row.beam_positions(BEAM)}
        for name, value in values.items():
            marker, color = COSTS[name]
            axes.plot([ids], [value], marker=marker, color=color, linestyle="none", markersize=6.5)
        axes.errorbar([ids], [needed.value], yerr=whiskers([needed]), fmt="none", ecolor="0.1", capsize=3)
    return True


def _names_above(axes: Axes, found: Sequence[Searched]) -> None:
    """Each data set's name over its points; neighbours at two heights."""
    tops = {one.block.dataset: max((r.catalogue("ids"), r.catalogue("ids") * one.about["levels"]) for r in one.rows)
            for one in found}
    for turn, (name, place) in enumerate(sorted(tops.items(), key=lambda kv: (kv[1], kv[0]))):
        axes.annotate(name, place, xytext=(0, 8 + 12 * (turn % 2)), textcoords="offset points", ha="center", fontsize=8)


@plate("1c", "retention", "APAO, Figure 1c", **APAO)
def retention_figure(material: ReportData, block: Block) -> Picture | None:
    """How much of the exact top is still in the beam after each step, cross-entropy and APAO (APAO, 1c)."""
    found, look, title = material.searched[block.name], material.look, "APAO, Figure 1c"
    if found is None:
        return None
    families = {f: [r for r in (found.reference(f), *_apao(found, f)) if r] for f in found.families()}
    families = {f: rows for f, rows in families.items() if found.reference(f) and _apao(found, f)}
    if BEAM not in found.beams or not families:
        return undiagnosed(title, "cross-entropy and APAO on one backbone", BEAM)
    steps = range(1, found.about["levels"] + 1)
    with own_style():
        figure, panels = grid(found, families, [2.9])
        for axes, rows in zip(panels[0], families.values(), strict=True):
            for turn, row in enumerate(rows):
                line(axes, dodged(steps, turn, len(rows)), row.estimate(pruning.retention, beam=BEAM), row, look)
            axes.set(xlabel="Decoding step (token)", xticks=list(steps), ylim=(0.0, 1.03))
        panels[0][0].set_ylabel(f"Exact top {found.about['top']} still in beam {BEAM}")
        panels[0][0].yaxis.set_major_formatter(PercentFormatter(1.0))
        text = (f"share of the exact top {found.about['top']} whose prefix is in the beam of {BEAM} after each step, "
                f"after {title}; mean over users and seeds with 95 % intervals")
        return finished(found, figure, panels, text, families)


@plate("4", "beams", "APAO, Figure 4", **APAO)
def beams_figure(material: ReportData, block: Block) -> Picture | None:
    """NDCG@5 and decoder positions by beam, all objectives (APAO, 4)."""
    found, look, title = material.searched[block.name], material.look, "APAO, Figure 4"
    if found is None:
        return None
    beams = [b for b in found.beams if b >= 5]
    families = {f: rows for f in found.families() if len(rows := found.principal(f)) > 1}
    if len(beams) < 2 or not families:
        return undiagnosed(title, "two objectives on one backbone at two beams")
    with own_style():
        figure, panels = grid(found, families, [3.2, 2.0])
        for (above, below), (family, rows) in zip(zip(*panels, strict=True), families.items(), strict=True):
            own = [r for r in rows if _is_apao(r) or r is found.reference(family)]
            for row in sorted(rows, key=lambda r: r in own):
                values = [row.estimate(pruning.beam_metric, metric="ndcg", k=5, beam=b) for b in beams]
                turn = own.index(row) - (len(own) - 1) / 2 if row in own else 0.0
                line(above, [b * 1.03**turn for b in beams], values, row, look, bare=row not in own)
            below.set(xscale="log", yscale="log", xlabel="Beam (prefixes kept)")
            _positions(below, beams, rows[0])
            below.set_xticks(beams, [str(b) for b in beams])
            below.xaxis.set_minor_locator(NullLocator())
        panels[0][0].set_ylabel("NDCG@5 (fraction, ID-level)")
        panels[1][0].set_ylabel("Decoder positions\nper user")
        text = (f"NDCG@5 and decoder positions by beam, after {title}; 95 % intervals of cross-entropy and APAO; those "
                "of the others, the thin lines, are left out to keep it legible. The paper says that APAO at beam "
                f"{BEAM} is as good as the best baseline at {WIDE}, or better. {_pairs(found, families)}")
        return finished(found, figure, panels, text.rstrip(" ."), families)


def _positions(axes: Axes, beams: Sequence[int], row: Diagnosed) -> None:
    """What a beam reads, and beside it what exact search and full sorting read."""
    axes.plot(beams, [row.beam_positions(b) for b in beams], color="0.1", marker=".", label="beam search")
    needed = row.estimate(pruning.needed)
    axes.axhspan(needed.low, needed.high, color=PALETTE[2], alpha=0.25, linewidth=0)
    for value, dashes, color, text in (
            (needed.value, "--", PALETTE[2], f"least for exact top {row.runs[0].about['top']}"),
            (row.catalogue("nodes"), ":", PALETTE[1], "all prefixes once")):
        axes.axhline(value, color=color, linestyle=dashes)
        axes.annotate(text, (0.0, value), xycoords=("axes fraction", "data"), xytext=(4, 2), fontsize=7.5,
                      textcoords="offset points", ha="left", va="bottom")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.3, 1.8 * high)


def _pairs(found: Searched, families: Mapping[str, Sequence[Diagnosed]]) -> str:
    """The best APAO row at BEAM against the best other row at WIDE, both picked by these numbers."""
    texts = []
    for family, rows in families.items():
        ours, others = _apao(found, family), [r for r in rows if not _is_apao(r)]
        if not ours or not others or not {BEAM, WIDE} <= set(found.beams):
            continue
        a, b = (max(same, key=lambda r, w=w: r.estimate(pruning.beam_metric, metric="ndcg", k=5, beam=w).value)
                for same, w in ((fullest(ours), BEAM), (fullest(others), WIDE)))
        seeds = [s for s in a.seeds if s in b.seeds]
        if not seeds:
            continue
        gap = pruning.metric_difference(a.of_seeds(seeds), b.of_seeds(seeds), OWN, metric="ndcg", k=5, beam_a=BEAM,
                                        beam_b=WIDE)
        values = [plain(r.estimate(pruning.beam_metric, metric="ndcg", k=5, beam=w)) for r, w in ((a, BEAM), (b, WIDE))]
        texts.append(f"{family}: {a.name} at {BEAM} {values[0]}, {b.name} at {WIDE} {values[1]}, "
                     f"difference {signed(gap)}")
    return f"Here, each the best by the same numbers: {'; '.join(texts)}." if texts else \
        f"Here no backbone has both at {BEAM} and {WIDE}."


@plate("5", "prefixes", "APAO, Figure 5", **APAO)
def prefixes_figure(material: ReportData, block: Block) -> Picture | None:
    """Prefix Recall@20 by prefix, the best APAO row and the best other one, and the relative gain (APAO, 5)."""
    found, look, title = material.searched[block.name], material.look, "APAO, Figure 5"
    if found is None:
        return None
    suite, paper = material.suite, material.paper
    families = {f: pair for f in found.families() if BEAM in found.beams and (pair := _best_pair(found, f))}
    if not families:
        return undiagnosed(title, "an APAO row and another row on one backbone, with a common seed", BEAM)
    levels = range(1, found.about["levels"] + 1)
    with own_style():
        figure, panels = grid(found, families, [2.8, 1.9])
        printed = False
        for (above, below), (family, pair) in zip(zip(*panels, strict=True), families.items(), strict=True):
            for turn, row in enumerate(pair):
                line(above, dodged(levels, turn, 2), _survival(row), row, look)
                value = _printed_recall(found, suite, family, turn == 0, paper)
                if value is not None:
                    printed = True
                    above.plot([levels[-1] + (0.25, 0.42)[turn]], [value], marker="D", markersize=6, linestyle="none",
                               markerfacecolor="none", markeredgecolor=look[row.row.key][0])
            gains = [_relative(pair, m) for m in levels]
            below.errorbar(list(levels), [e.value for e in gains], yerr=whiskers(gains), color="0.2", marker="o",
                           markersize=4.5, capsize=3)
            below.axhline(0.0, color="0.5", linewidth=0.9)
            below.set(xlabel="Prefix length (tokens)", xticks=list(levels))
            below.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            above.set_xlim(levels[0] - 0.3, levels[-1] + (0.6 if printed else 0.3))
        panels[0][0].set_ylim(bottom=0.0)
        if printed:
            panels[0][0].plot([], [], marker="D", color="0.3", markerfacecolor="none", linestyle="none",
                              label="printed (Table 1): best of each kind")
        panels[0][0].set_ylabel(f"Prefix Recall@{BEAM}\n(in the beam, fraction)")
        panels[1][0].set_ylabel("APAO's gain over\nthe other (relative)")
        text = (f"prefix Recall@{BEAM} of the best APAO row and the best other row, picked by Recall@{BEAM} here, and "
                f"the relative gain, after {title}; 95 % intervals, of the gain those of the difference over the "
                "other's mean")
        if printed and paper and why_not(found.block, paper):
            text += f". Printed values are not to be compared with: {why_not(found.block, paper)}"
        return finished(found, figure, panels, text, families)


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
