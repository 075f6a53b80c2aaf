"""What more seeds and more users would show: the minimum detectable difference against both."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.style import PALETTE, image_bytes, own_style
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.power import SEEDS, TIMES, Curve, curves
from genrec_bench.reporting.report_data import ReportData

TICKS = [n for n in SEEDS if n < math.inf]
LOOKS = tuple(zip(PALETTE, "osD", strict=False))  # of the numbers of users


@plate("power", "power", "Detectable differences by seeds and users", section="power")
def power_figure(material: ReportData, block: Block) -> Picture | None:
    """The minimum detectable difference against seeds, a line a number of users; None without enough seeds."""
    found = curves(material, block)
    if not found:
        return None
    with own_style():
        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
        for axes, one in zip(panels, found, strict=True):
            _panel(axes, one)
        panels[0].set_ylabel("Minimum detectable difference,\n% of cross-entropy's NDCG@10")
        panels[0].set_ylim(bottom=0.0)
        figure.suptitle(f"{block.name}: what seeds and users can show", fontsize=11)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        text = (f"{block.name}: the true difference from cross-entropy that a two-sided 5 % test finds in 80 % of "
                "cases, by seeds and users, from the parts of the variance of the declared comparisons; dashed: what "
                "is left with any number of seeds")
        gains = "; dotted: the gains that the paper prints for these comparisons" * any(c.gains for c in found)
        return Picture(text + gains, image_bytes(figure))


def _panel(axes: Axes, one: Curve) -> None:
    seeds = np.geomspace(TICKS[0], TICKS[-1], 60)
    for times, (color, marker) in zip(TIMES, LOOKS, strict=False):
        label = f"{round(times * one.users):,} users" + f" ({times:g}×)" * (times != 1)
        axes.plot(TICKS, [one.percent(n, times) for n in TICKS], color=color, marker=marker, markersize=5,
                  linestyle="none", label=label)
        axes.plot(seeds, [one.percent(n, times) for n in seeds], color=color, linewidth=1.3)
        axes.axhline(one.percent(math.inf, times), color=color, linewidth=0.9, linestyle="--")
    for turn, gain in enumerate(sorted({abs(gain) for gain in one.gains})):
        axes.axhline(100.0 * gain, color="0.45", linewidth=1.0, linestyle=":",
                     label="" if turn else "gains that the paper prints")
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [str(n) for n in TICKS])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Seeds of each method")
    axes.set_title(one.family, loc="left", fontweight="bold")
