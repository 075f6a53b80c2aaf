"""What the figures of diagnoses have in common: panels by backbone, rows with intervals, one legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.reporting.figures.base import Picture, missing
from genrec_bench.reporting.figures.style import broken_label, image_bytes
from genrec_bench.reporting.pruning import Diagnosed, Searched

Look = Mapping[str, tuple[str, str]]  # colour and marker by row key


def grid(found: Searched, families: Mapping[str, Sequence[Diagnosed]],
          heights: Sequence[float]) -> tuple[Figure, np.ndarray]:
    """Panels with a column for each backbone."""
    figure = Figure(figsize=(8.6, sum(heights) + 1.5), layout="constrained")
    panels = figure.subplots(len(heights), len(families), squeeze=False, sharex="col", sharey="row",
                             height_ratios=heights)
    for axes, family in zip(panels[0], families, strict=True):
        axes.set_title(family, loc="left", fontweight="bold")
    return figure, panels


def dodged(places: Sequence[int], turn: int, count: int, step: float = 0.07) -> list[float]:
    """Places moved a little, so that intervals of several rows do not cover each other."""
    return [place + step * (turn - (count - 1) / 2) for place in places]


def line(axes: Axes, places: Sequence[float], values: Sequence[Estimate], row: Diagnosed, look: Look,
          line: str | None = None) -> None:
    """A row's estimates with intervals; places without cases are left out."""
    color, marker = look[row.row.key]
    shown = [(p, e) for p, e in zip(places, values, strict=True) if e.n]
    axes.errorbar([p for p, _ in shown], [e.value for _, e in shown], yerr=whiskers([e for _, e in shown]),
                  color=color, marker=marker, markersize=5, linewidth=1.3, elinewidth=1.0, capsize=2.5,
                  linestyle=line or ("--" if row.row.goes_on else "-"), label=row.name)


def whiskers(values: Sequence[Estimate]) -> list[list[float]]:
    """Distances to both ends of the intervals."""
    return [[max(0.0, e.value - e.low) for e in values], [max(0.0, e.high - e.value) for e in values]]


def finished(found: Searched, figure: Figure, panels: np.ndarray, text: str) -> Picture:
    """The figure with title and one legend for all panels, each name once."""
    handles: dict[str, object] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    handles.pop("beam search", None)
    figure.suptitle(found.block.name, fontsize=11)
    figure.legend(list(handles.values()), [broken_label(label, 40) for label in handles], loc="outside lower center",
                  ncols=3, frameon=False)
    return Picture(f"{found.block.name}: {text}", image_bytes(figure))


def undiagnosed(title: str, what: str, beam: int | None = None) -> Picture:
    """No picture for want of diagnoses."""
    return missing(title, f"diagnoses of {what}{'' if beam is None else f' at beam {beam}'} (`diagnose` makes them)")
