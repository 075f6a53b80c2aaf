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
         line: str | None = None, bare: bool = False) -> None:
    """A row's estimates with intervals, or bare and thin; places without cases are left out."""
    color, marker = look[row.row.key]
    shown = [(p, e) for p, e in zip(places, values, strict=True) if e.n]
    axes.errorbar([p for p, _ in shown], [e.value for _, e in shown],
                  yerr=None if bare else whiskers([e for _, e in shown]), color=color, marker=marker,
                  markersize=3.5 if bare else 5, linewidth=0.8 if bare else 1.5, elinewidth=1.0, capsize=2.5,
                  linestyle=line or ("--" if row.row.goes_on else "-"), label=row.name)


def whiskers(values: Sequence[Estimate]) -> list[list[float]]:
    """Distances to both ends of the intervals."""
    return [[max(0.0, e.value - e.low) for e in values], [max(0.0, e.high - e.value) for e in values]]


def finished(found: Searched, figure: Figure, panels: np.ndarray, text: str,
             families: Mapping[str, Sequence[Diagnosed]]) -> Picture:
    """The figure of some rows with title and one legend for all panels, each name once."""
    handles: dict[str, object] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    handles.pop("beam search", None)
    figure.suptitle(found.block.name, fontsize=11)
    figure.legend(list(handles.values()), [broken_label(label, 40) for label in handles], loc="outside lower center",
                  ncols=3, frameon=False)
    return Picture(f"{found.block.name}: {text}{fewer_seeds(found, families)}", image_bytes(figure))


def fewer_seeds(found: Searched, families: Mapping[str, Sequence[Diagnosed]]) -> str:
    """The end of a caption that says of how many seeds each row is diagnosed; "" where all are of all seeds."""
    whole = len(found.block.seeds)
    counts = {len(row.seeds) for rows in families.values() for row in rows}
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


def undiagnosed(title: str, what: str, beam: int | None = None) -> Picture:
    """No picture for want of diagnoses."""
    return missing(title, f"diagnoses of {what}{'' if beam is None else f' at beam {beam}'} (`diagnose` makes them)")
