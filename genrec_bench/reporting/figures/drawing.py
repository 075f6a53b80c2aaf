"""Draws a chart: rows of dots with labels, or panels with two axes. Everything drawn is a line of the chart's frame."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from genrec_bench.reporting.figures.charts import Axis, Chart
from genrec_bench.reporting.figures.style import COLUMN, broken_label

if TYPE_CHECKING:
    from pandas import DataFrame

LINE = 0.125  # inches of a line of the smallest type
PANEL, TALLEST = 1.75, 8.0  # inches of a panel's height, and of all panels of a column
# Mark -> how its points are drawn, beside the colour and marker of their method.
POINTS = {"mean": {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.4, "zorder": 4},
          "seed": {"marker": "o", "markersize": 2.2, "alpha": 0.55, "markeredgewidth": 0, "zorder": 3},
          "incomplete": {"marker": "x", "markersize": 3.7, "markeredgewidth": 0.8, "zorder": 3},
          "printed": {"markerfacecolor": "none", "markersize": 6, "zorder": 4},
          "best": {"marker": "*", "markersize": 9, "markeredgecolor": "black", "markeredgewidth": 0.5, "zorder": 6}}
BESIDE = {"seed": 0.45, "printed": -0.35}  # mark -> how far from the middle of its row
ROOM = 17  # characters on the axis of a narrow panel
LEGEND_WIDTH = {True: 24, False: 34}  # characters of a name in the legend, at column width and else


def draw(chart: Chart, width: float) -> Figure:
    """The figure of a chart at a width in inches, in the style that is set."""
    points = chart.frame.assign(place=chart.frame["at"]).astype(dict.fromkeys(("value", "low", "high"), float))
    narrow = width <= COLUMN
    figure = (_rows if chart.at is None else _panels)(chart, points, width, narrow)
    figure.suptitle(broken_label(chart.title, 48 if narrow else 105), x=0.01, ha="left", fontweight="bold")
    if chart.legend:
        _legend(figure, chart, points, narrow)
    return figure


def _rows(chart: Chart, points: DataFrame, width: float, narrow: bool) -> Figure:
    """A line of panels for each `panel`, with a column for each quantity, and a label for each `at`."""
    several = narrow and len(chart.values) > 1
    labels = {panel: {at: broken_label(at, 22 if narrow else 34) for at in same["at"].unique()}
              for panel, same in points.groupby("panel", sort=False)}
    edges = {panel: np.cumsum([0.0, *(1.75 + text.count("\n") for text in own.values())])
             for panel, own in labels.items()}
    heights = [LINE * edge[-1] + 0.08 for edge in edges.values()]
    figure = Figure(figsize=(width, 0.55 + sum(heights) + 0.42 * len(labels)), layout="constrained")
    grid = figure.subplots(len(labels), len(chart.values), squeeze=False, sharex="col" if chart.shared else False,
                           height_ratios=heights,
                           width_ratios=[0.25 if axis.hidden else 1.0 for axis in chart.values.values()])
    for line, (panel, own) in zip(grid, labels.items(), strict=True):
        middle = (edges[panel][:-1] + edges[panel][1:]) / 2
        for axes, (quantity, axis) in zip(line, chart.values.items(), strict=True):
            here = points[(points["panel"] == panel) & (points["quantity"] == quantity)]
            _log(axes.xaxis, axis, points[points["quantity"] == quantity])
            places = dict(zip(own, middle, strict=True))
            _row_marks(axes, here.assign(place=here["at"].map(places).astype(float)), chart)
            axes.set_ylim(edges[panel][-1], 0.0)
            axes.set_yticks(middle, own.values() if axes is line[0] else [])
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.tick_params(labelbottom=True)
            if axis.hidden:
                axes.axis("off")
                axes.set_xlim(-0.5, max(4.0, here["value"].max()) + 0.5)
            else:
                axes.margins(x=0.12)
                _axis(axes.xaxis, axis, 3 if several else 5)
        line[0].set_title(broken_label(panel, 40 if narrow else 100), loc="right" if narrow else "left")
    for axes in grid.flat if several else ():
        _thin(axes)
    for axes, axis in zip(grid[-1], chart.values.values(), strict=True):
        axes.set_xlabel(broken_label(axis.label, (36 if narrow else 80) // len(chart.values)))
    return figure


def _row_marks(axes: Axes, here: DataFrame, chart: Chart) -> None:
    """The points of one panel of rows; methods that share a row stand one below the other."""
    means = here[here["mark"] == "mean"].groupby("at")["method"]
    turns = 0.5 * (means.cumcount() - (means.transform("size") - 1) / 2)
    aside = here["mark"].map(BESIDE).astype(float).fillna(0.0)
    here = here.assign(place=here["place"] + aside + turns.reindex(here.index).fillna(0.0))
    _marks(axes, here, chart, upright=False)
    for p in here.dropna(subset="note").itertuples():
        axes.annotate(p.note, (1.0, p.place), xycoords=("axes fraction", "data"), xytext=(2, 0),
                      textcoords="offset points", va="center", annotation_clip=False)
    for _, same in here[here["mark"] == "join"].groupby("value"):
        axes.plot(same["value"], same["place"], color=chart.looks[same["method"].iloc[0]][0], marker="o", markersize=3,
                  linewidth=1.6)


def _panels(chart: Chart, points: DataFrame, width: float, narrow: bool) -> Figure:
    """Panels beside each other where there is room, the quantities of each one below the other."""
    names, quantities, first = list(points["panel"].unique()), list(chart.values), {}
    columns = 1 if narrow else min(len(names), 2 if len(names) != 3 else 3)
    lines = ceil(len(names) / columns)
    height = min(PANEL, TALLEST / lines / len(quantities)) * len(quantities) + 0.3
    figure = Figure(figsize=(width, 0.75 + height * lines), layout="constrained")
    grid = figure.subplots(lines * len(quantities), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for number, name in enumerate(names):
        at = chart.at if isinstance(chart.at, Axis) else chart.at[name]
        for turn, (quantity, value) in enumerate(chart.values.items()):
            axes = grid[number // columns * len(quantities) + turn, number % columns]
            axes.axis("on")
            if chart.shared and first.setdefault(quantity, axes) is not axes:
                axes.sharey(first[quantity])
            _log(axes.yaxis, value, points[points["quantity"] == quantity])
            _panel(axes, points[(points["panel"] == name) & (points["quantity"] == quantity)], chart, at, value)
            axes.tick_params(labelbottom=quantity == quantities[-1])
            axes.set(xlabel=broken_label(at.label, 50) if quantity == quantities[-1] else "",
                     ylabel=broken_label(value.label, 26) if number % columns == 0 else "",
                     title=name if turn == 0 else "")
    return figure


def _panel(axes: Axes, here: DataFrame, chart: Chart, at: Axis, value: Axis) -> None:
    if at.ticks is not None:
        here = here.assign(place=_at_ticks(here, list(at.ticks)))
    joined = here[here["mark"].isin(["mean", "curve"])]
    if len(joined):
        shown = {m: chart.looks[m] for m in joined["method"].unique()}
        seaborn.lineplot(joined, x="place", y="value", hue="method", style="method", errorbar=None, estimator=None,
                         palette={m: color for m, (color, _, _) in shown.items()},
                         dashes={m: dashes or "" for m, (_, _, dashes) in shown.items()}, legend=False, ax=axes)
    _marks(axes, here, chart, upright=True)
    axes.margins(x=0.06, y=0.1)
    _axis(axes.xaxis, at)
    _axis(axes.yaxis, value)
    if (here["mark"] == "bar").any():
        axes.set_ylim(bottom=0.0)
    if at.ticks is not None:
        axes.set_xlim(-0.5, len(at.ticks) - 0.5)
        axes.grid(axis="x", visible=False)


def _at_ticks(here: DataFrame, ticks: list[float]) -> Any:
    """Places at the ticks, methods at one tick beside each other, so that they do not cover each other."""
    beside = here["mark"].isin(["mean", "seed", "incomplete", "printed", "best"])
    turns = here["method"].map({m: i for i, m in enumerate(here[beside]["method"].unique())}).where(beside)
    return here["at"].map({tick: place for place, tick in enumerate(ticks)}) + \
        (min(0.06, 0.5 / (1 + turns.max())) * (turns - turns.max() / 2)).fillna(0.0).astype(float)


def _marks(axes: Axes, here: DataFrame, chart: Chart, upright: bool) -> None:
    """What each method has of each mark; upright: values along y, else along x."""
    for (method, mark), same in here.groupby(["method", "mark"], sort=False):
        color, marker, dashes = chart.looks[method]
        at = (same["place"], same["value"]) if upright else (same["value"], same["place"])
        if mark in POINTS:
            axes.plot(*at, **{"color": color, "marker": marker, "linestyle": "none", **POINTS[mark]})
        if mark in ("mean", "whisker"):
            ends = np.stack([same["value"] - same["low"], same["high"] - same["value"]]).clip(0.0)
            axes.errorbar(*at, **{"yerr" if upright else "xerr": ends}, fmt="none", elinewidth=0.9, capsize=1.8,
                          ecolor="0.1" if mark == "whisker" else color, capthick=0.9, zorder=3)
        elif mark == "curve":
            axes.fill_between(same["place"].astype(float), same["low"], same["high"], color=color, alpha=0.08,
                              linewidth=0)
            some = same.iloc[::max(1, len(same) // 8)]
            axes.plot(some["place"], some["value"], marker=marker, color=color, markersize=3.2, linestyle="none")
        elif mark == "own":
            axes.plot(same["place"], [0.04] * len(same), marker="|", color=color, markersize=7, markeredgewidth=1.6,
                      linestyle="none", transform=axes.get_xaxis_transform())
        elif mark == "level":
            for value in same["value"].unique():
                (axes.axhline if upright else axes.axvline)(value, color=color, linestyle=(0, dashes or (1, 0)),
                                                            linewidth=0.9, zorder=1)
        elif mark == "bar":
            low = same["low"].fillna(0.0)
            axes.bar(same["place"], same["value"] - low, bottom=low, width=0.5, color=color, edgecolor="black",
                     linewidth=0.5, hatch="//////" if dashes else "")


def _log(axis: XAxis | YAxis, of: Axis, points: DataFrame) -> None:
    """A logarithmic axis that is a little wider than what is on it, also where all of it is equal."""
    if of.log:
        known = points[["value", "low", "high"]].stack()
        known = known[known > 0]
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.axes.set(**{f"{axis.axis_name}lim": (known.min() / 1.4, known.max() * 1.4)})


def _axis(axis: XAxis | YAxis, of: Axis, bins: int = 5) -> None:
    """Ticks and their labels."""
    part, end = (100, "%") if of.percent else (1, "")
    if of.log:
        low, high = axis.get_view_interval()
        subs = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0) if bins > 3 else (1.0, 3.0)
        axis.set_major_locator(LogLocator(subs=subs, numticks=7))
    else:
        axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 5, 10], integer=of.whole))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{round(part * v, 9):,g}{end}"))
    if of.ticks is not None:
        axis.set_ticks(range(len(of.ticks)), list(of.ticks.values()))
    axis.set_minor_locator(NullLocator())


def _thin(axes: Axes) -> None:
    """Every other tick of a narrow panel until their labels have room."""
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    while len(ticks) > 2 and sum(len(text) + 2 for text in axes.xaxis.get_major_formatter().format_ticks(ticks)) > ROOM:
        ticks = ticks[::2]
    axes.xaxis.set_major_locator(FixedLocator(ticks))


def _legend(figure: Figure, chart: Chart, points: DataFrame, narrow: bool) -> None:
    """One legend below all panels, each method once with marker and line, in as many columns as there is room for."""
    handles = []
    for method, marks in points.groupby("method", sort=False)["mark"].agg(set).items():
        if not marks - {"own", "best", "whisker"} or (marks == {"level"} and chart.at is None):
            continue
        color, marker, dashes = chart.looks[method]
        lined = chart.at is not None and marks & {"mean", "curve", "level"}
        handles.append(Line2D([], [], color=color, marker="" if marks == {"level"} else marker,
                              linestyle=(0, dashes or (1, 0)) if lined else "none",
                              markerfacecolor="none" if marks == {"printed"} else color,
                              label=broken_label(method, LEGEND_WIDTH[narrow])))
    for columns in range(2 if narrow else 4 if len(handles) > 3 else 3, 0, -1) if handles else ():
        legend = figure.legend(handles=handles, loc="outside lower left", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()
