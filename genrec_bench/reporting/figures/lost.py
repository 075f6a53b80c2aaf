"""Figures of BEAR drawn from diagnoses: what beam search loses under summed cross-entropy, MSL and BEAR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from genrec_bench.analysis import pruning
from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.panels import dodged, fewer_seeds, finished, grid, line, undiagnosed, whiskers
from genrec_bench.reporting.figures.style import PALETTE, broken_label, image_bytes, own_style
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.pruning import CAUSES, Diagnosed, Searched
from genrec_bench.reporting.report_data import ReportData

# What BEAR says of a language model that writes titles, B = 10: the lost shares stand in the text to Figure 4, without
# their K; the share with a violation in the text to Figure 4; the average change of the lost share, of which it is not
# said whether it is relative, in the text to Figure 6.
PRINTED_LOST = {"Book": 0.8828, "Toy": 0.8439}
PRINTED_CAUSE = 0.70
PRINTED_CHANGE = "-24.86 %"
BEAR = {"paper": "bear", "objectives": ("bear",), "section": "pruning"}


def _sft_and_bear(found: Searched, *between: str) -> dict[str, list[Diagnosed]]:
    """Each backbone's cross-entropy, rows with other objectives where there are any, and BEAR in its forms."""
    rows = {f: [r for r in (found.reference(f), *found.named(f, *between), *found.named(f, "bear")) if r]
            for f in found.families()}
    return {f: same for f, same in rows.items() if found.reference(f) and found.named(f, "bear")}


@plate("3", "bear-accuracy", "BEAR, Figure 3", **BEAR)
def accuracy_figure(material: ReportData, block: Block) -> Picture | None:
    """NDCG@10 and the lost share at beam 10, SFT and BEAR (BEAR, 3)."""
    found, look, title = material.searched[block.name], material.look, "BEAR, Figure 3"
    if found is None:
        return None
    beam = CAUSES[0]
    families = _sft_and_bear(found)
    if beam not in found.beams or not families:
        return undiagnosed(title, "SFT and BEAR on one backbone", beam)
    with own_style():
        figure = Figure(figsize=(8.6, 1.1 + sum(0.45 * len(rows) + 0.5 for rows in families.values())),
                        layout="constrained")
        panels = figure.subplots(len(families), 2, squeeze=False, sharex="col",
                                 height_ratios=[len(rows) + 0.5 for rows in families.values()])
        for line, (family, rows) in zip(panels, families.items(), strict=True):
            for place, row in enumerate(rows):
                color, marker = look[row.row.key]
                for axes, e in zip(line, (row.estimate(pruning.beam_metric, metric="ndcg", k=10, beam=beam),
                                          row.estimate(pruning.pruning_rate, k=10, beam=beam)), strict=True):
                    if e.n:
                        axes.errorbar([e.value], [place], xerr=whiskers([e]), color=color, marker=marker, capsize=3)
            line[0].set_yticks(range(len(rows)), [broken_label(r.name) for r in rows])
            line[1].set_yticks(range(len(rows)), [])
            line[0].set_title(family, loc="left", fontweight="bold")
            for axes in line:
                axes.set_ylim(len(rows) - 0.5, -0.5)
        for axes in panels[-1]:
            axes.set_xlim(-0.02 * axes.get_xlim()[1], 1.04 * axes.get_xlim()[1])
            axes.xaxis.set_major_locator(MaxNLocator(5))
        for axes in panels[:-1].flat:
            axes.tick_params(labelbottom=True)
        panels[-1][0].set_xlabel("NDCG@10 (fraction, ID-level)")
        panels[-1][1].set_xlabel("Lost of the exact top 10 (PR@10)")
        panels[-1][1].xaxis.set_major_formatter(PercentFormatter(1.0))
        figure.suptitle(f"{found.block.name}: beam {beam}", fontsize=11)
        text = (f"{found.block.name}: NDCG@10 and the lost share at beam {beam}, after {title}; 95 % intervals. The "
                "values of the paper's figure are not in its text")
        return Picture(text + fewer_seeds(found, families), image_bytes(figure))


@plate("4", "bear-causes", "BEAR, Figure 4", **BEAR)
def causes_figure(material: ReportData, block: Block) -> Picture | None:
    """The lost share of SFT split by cause, and the share with a violation (BEAR, 4)."""
    found, title = material.searched[block.name], "BEAR, Figure 4"
    if found is None:
        return None
    beam, tops = CAUSES
    families = {f: [row] for f in found.families() if (row := found.reference(f))}
    if beam not in found.beams or not families:
        return undiagnosed(title, "SFT", beam)
    with own_style():
        figure, panels = grid(found, families, [2.9, 2.3])
        for (above, below), (row,) in zip(zip(*panels, strict=True), families.values(), strict=True):
            for place, k in enumerate(tops):
                for turn, (vocabulary, color) in enumerate((("flat", PALETTE[3]), ("trie", PALETTE[0]))):
                    _cause_bars(above, below, row, k, place + 0.34 * turn - 0.32, vocabulary, color)
            for turn, value in enumerate(PRINTED_LOST.values()):
                above.plot([len(tops) - 0.25], [value], marker="Ds"[turn], color="0.2", markerfacecolor="none",
                           linestyle="none", clip_on=False)
            below.axhline(PRINTED_CAUSE, color="0.2", linestyle="--", linewidth=1.0)
            for axes in (above, below):
                axes.set(ylim=(-0.03, 1.05), xlim=(-0.6, len(tops) + 0.15))
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
                axes.grid(axis="x", visible=False)
            below.set_xticks([*(p - 0.15 for p in range(len(tops))), len(tops) - 0.25],
                             [*(f"K = {k}" for k in tops), "printed"])
        _cause_legend(panels[0][0])
        panels[0][0].set_ylabel(f"Lost of the exact\ntop K, beam {beam}")
        panels[1][0].set_ylabel("Of these: with\nsuch a token")
        return finished(found, figure, panels, f"targets of the exact top K that beam {beam} loses under "
                         f"cross-entropy, split by whether some token is not among the {beam} likeliest at its own "
                         f"prefix, after {title}; 95 % intervals. Printed: a language model that writes titles, lost "
                         "88.28 % (Book) and 84.39 % (Toy) in the text, where K is not said, and over 70 % with such a "
                         "token in all settings", families)


def _cause_bars(above: Axes, below: Axes, row: Diagnosed, k: int, place: float, vocabulary: str, color: str) -> None:
    """A bar of the lost share in two parts with its number, and the share of one part below it."""
    beam = CAUSES[0]
    lost = row.estimate(pruning.pruning_rate, k=k, beam=beam)
    cause = row.estimate(pruning.violation_share, k=k, beam=beam, vocabulary=vocabulary)
    if not lost.n:
        return
    part = lost.value * cause.value if cause.n else 0.0
    above.bar([place], [part], width=0.3, color=color, linewidth=0)
    above.bar([place], [lost.value - part], bottom=[part], width=0.3, color="0.75", linewidth=0)
    above.errorbar([place], [lost.value], yerr=whiskers([lost]), fmt="none", ecolor="0.1", capsize=3)
    if vocabulary == "flat":
        above.annotate(f"{100 * lost.value:.1f} %\nof {lost.n:,}", (place + 0.17, lost.high), xytext=(0, 5),
                       textcoords="offset points", ha="center", va="bottom", fontsize=7.5,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    if cause.n:
        below.errorbar([place], [cause.value], yerr=whiskers([cause]), color=color, capsize=3,
                       marker="o" if vocabulary == "flat" else "^")


def _cause_legend(axes: Axes) -> None:
    axes.bar([0], [0], color=PALETTE[3], label=f"token outside {CAUSES[0]}, whole vocabulary")
    axes.bar([0], [0], color=PALETTE[0], label=f"token outside {CAUSES[0]}, valid tokens")
    axes.bar([0], [0], color="0.75", label="the rest")
    for marker, name in zip("Ds", PRINTED_LOST, strict=True):
        axes.plot([], [], marker=marker, color="0.2", markerfacecolor="none", linestyle="none",
                  label=f"printed ({name})")
    axes.plot([], [], color="0.2", linestyle="--", label="printed: over 70 % (Book, Toy)")


@plate("6", "bear-rates", "BEAR, Figure 6", **BEAR)
def rates_figure(material: ReportData, block: Block) -> Picture | None:
    """The lost share at beam 10 for K = 5 and 10: SFT, MSL and BEAR (BEAR, 6)."""
    found, look, title = material.searched[block.name], material.look, "BEAR, Figure 6"
    if found is None:
        return None
    beam, tops = CAUSES
    families = _sft_and_bear(found, "msl")
    if beam not in found.beams or not families:
        return undiagnosed(title, "SFT and BEAR on one backbone", beam)
    with own_style():
        figure, panels = grid(found, families, [3.0])
        for axes, rows in zip(panels[0], families.values(), strict=True):
            for turn, row in enumerate(rows):
                rates = [row.estimate(pruning.pruning_rate, k=k, beam=beam) for k in tops]
                places = dodged(range(len(tops)), turn, len(rows), 0.13)
                line(axes, places, rates, row, look, line="none")
            axes.set_xticks(range(len(tops)), [f"K = {k}" for k in tops])
            axes.set(xlim=(-0.5, len(tops) - 0.5))
            axes.grid(axis="x", visible=False)
        panels[0][0].set_ylabel(f"Lost of the exact top K\nat beam {beam} (PR@K)")
        panels[0][0].set_ylim(bottom=-0.02 * panels[0][0].get_ylim()[1])
        panels[0][0].yaxis.set_major_formatter(PercentFormatter(1.0))
        text = (f"lost share at beam {beam}, after {title}; 95 % intervals. Printed: {PRINTED_CHANGE} on average from "
                f"SFT to BEAR, relative or in points is not said. {_changes(found, families, tops, beam)}")
        absent = [f for f in families if not found.named(f, "msl")]
        if absent:
            text += f" MSL has no diagnosis on {' and '.join(absent)}."
        return finished(found, figure, panels, text.rstrip(" ."), families)


def _changes(found: Searched, families: Mapping[str, Sequence[Diagnosed]], tops: Sequence[int], beam: int) -> str:
    """The mean change of the lost share from SFT to each form of BEAR, over backbones and K, with its range."""
    changes: dict[str, list[tuple[float, float]]] = {}
    for family in families:
        for row in found.named(family, "bear"):
            for k in tops:
                before, after = (r.estimate(pruning.pruning_rate, k=k, beam=beam)
                                 for r in (found.reference(family), row))
                if before.n and after.n and before.value:
                    gap = after.value - before.value
                    changes.setdefault(row.name, []).append((gap / before.value, gap))
    texts = [f"{name} {100 * fmean(r for r, _ in c):+.1f} % relative and {100 * fmean(p for _, p in c):+.1f} points, "
             f"mean of {len(c)} cells between {100 * min(r for r, _ in c):+.1f} and {100 * max(r for r, _ in c):+.1f} %"
             for name, c in changes.items()]
    return (f"Here, over backbones and K: {'; '.join(texts)}. The means have no interval; those of the cells "
            "are in the figure.") if texts else "Here SFT loses nothing."
