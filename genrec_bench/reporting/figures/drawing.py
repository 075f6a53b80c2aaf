"""Draws a chart: rows of dots with labels, or panels with two axes. Everything drawn is a line of the chart's frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import TYPE_CHECKING

import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from genrec_bench.core.lazy import pandas
from genrec_bench.reporting.figures.charts import Axis, Chart
from genrec_bench.reporting.figures.style import COLUMN, Look, broken_label

if TYPE_CHECKING:
    from pandas import DataFrame

LINE = 0.125  # inches of a line of the smallest type
PANEL, TALLEST = 1.75, 8.0  # inches of a panel's height, and of all panels of a column
SMALL = {"seed": {"s": 5, "alpha": 0.55, "linewidths": 0}, "incomplete": {"s": 14, "marker": "x", "linewidths": 0.8}}
LEGEND_WIDTH = {True: 24, False: 34}  # characters of a name in the legend, at column width and else


def draw(chart: Chart, width: float) -> Figure:
    """The figure of a chart at a width in inches, in the style that is set."""
    points = pandas.DataFrame(list(chart.points)).assign(place=lambda t: t["at"])
    for column in ("low", "high", "at_low", "at_high", "value"):
        points[column] = points[column].astype(float) if column in points else float("nan")
    narrow = width <= COLUMN
    figure = _rows(chart, points, width, narrow) if chart.at is None else _panels(chart, points, width, narrow)
    figure.suptitle(broken_label(chart.title, 48 if narrow else 105), x=0.01, ha="left", fontweight="bold")
    if chart.legend:
        _legend(figure, chart, points, narrow)
    return figure


def _rows(chart: Chart, points: DataFrame, width: float, narrow: bool) -> Figure:
    """A line of panels for each `panel`, with a column for each quantity, and a label for each `at`."""
    labels = {panel: {at: broken_label(at, 22 if narrow else 34) for at in same["at"].unique()}
              for panel, same in points.groupby("panel", sort=False)}
    heights = [LINE * sum(0.75 + text.count("\n") + 1 for text in own.values()) + 0.08 for own in labels.values()]
    frames = 0.5 if not chart.shared else 0.42
    figure = Figure(figsize=(width, 0.55 + sum(heights) + frames * len(labels)), layout="constrained")
    grid = figure.subplots(len(labels), len(chart.values), squeeze=False, sharex="col" if chart.shared else False,
                           height_ratios=heights,
                           width_ratios=[0.25 if axis.hidden else 1.0 for axis in chart.values.values()])
    for line, (panel, own) in zip(grid, labels.items(), strict=True):
        edge, places = 0.0, {}
        for at, text in own.items():
            size = 0.75 + text.count("\n") + 1
            places[at], edge = edge + size / 2, edge + size
        for axes, (quantity, axis) in zip(line, chart.values.items(), strict=True):
            here = points[(points["panel"] == panel) & (points["quantity"] == quantity)]
            of = points[points["quantity"] == quantity]
            _log(axes.xaxis, axis, of[["value", "low", "high"]].stack())
            _row_marks(axes, here.assign(place=here["at"].map(places)), chart)
            axes.set_ylim(edge, 0.0)
            axes.set_yticks(list(places.values()), list(own.values()) if axes is line[0] else [])
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.tick_params(labelbottom=True)
            if axis.hidden:
                axes.axis("off")
                axes.set_xlim(-0.5, max(4.0, here["value"].max()) + 0.5)
            else:
                axes.margins(x=0.12)
                _axis(axes.xaxis, axis, 3 if narrow and len(chart.values) > 1 else 5)
        line[0].set_title(broken_label(panel, 40 if narrow else 100), loc="right" if narrow else "left")
    for axes, axis in zip(grid[-1], chart.values.values(), strict=True):
        axes.set_xlabel(broken_label(axis.label, (18 if len(chart.values) > 1 else 36) if narrow else 44))
    return figure


def _row_marks(axes: Axes, here: DataFrame, chart: Chart) -> None:
    """The points of one panel of rows; methods that share a row stand one below the other."""
    means = here[here["mark"] == "mean"].groupby("at")["method"]
    moved = 0.5 * (means.cumcount() - (means.transform("size") - 1) / 2)
    here = here.assign(moved=moved.reindex(here.index).fillna(0.0))
    for p in here.itertuples():
        color, marker, dashes = chart.looks[p.method]
        if p.mark == "level":
            axes.axvline(p.value, color=color, linewidth=0.8, dashes=dashes or (4, 2), zorder=1)
        elif p.mark in SMALL:
            shift = 0.45 if p.mark == "seed" else 0.0
            axes.scatter([p.value], [p.place + shift], color=color, zorder=3, **SMALL[p.mark])
        elif p.mark == "printed":
            axes.plot([p.value], [p.place - 0.35], marker=marker, color=color, markerfacecolor="none", zorder=4)
        elif p.mark == "mean":
            _interval(axes, p, color, upright=False, moved=p.moved)
            axes.plot([p.value], [p.place + p.moved], marker=marker, color=color, markeredgecolor="none", markersize=5,
                      zorder=4)
            if isinstance(getattr(p, "note", None), str):
                axes.annotate(p.note, (1.0, p.place), xycoords=("axes fraction", "data"), xytext=(2, 0),
                              textcoords="offset points", va="center", annotation_clip=False)
    for _, same in here[here["mark"] == "join"].groupby("value"):
        color = chart.looks[same["method"].iloc[0]][0]
        axes.plot(same["value"], same["place"], color=color, marker="o", markersize=3, linewidth=1.6)


def _interval(axes: Axes, p: tuple, color: str, upright: bool, moved: float = 0.0) -> None:
    if p.low == p.low:  # known
        ends = [[max(0.0, p.value - p.low)], [max(0.0, p.high - p.value)]]
        at = ([p.place], [p.value]) if upright else ([p.value], [p.place + moved])
        axes.errorbar(*at, **{"yerr" if upright else "xerr": ends}, fmt="none", ecolor=color, elinewidth=0.9,
                      capsize=1.8, capthick=0.9, zorder=3)


def _panels(chart: Chart, points: DataFrame, width: float, narrow: bool) -> Figure:
    """Panels beside each other where there is room, the quantities of each one below the other."""
    names, quantities = list(points["panel"].unique()), list(chart.values)
    columns = 1 if narrow else min(len(names), 2 if len(names) != 3 else 3)
    shares = [chart.heights.get(q, 1.0) for q in quantities] * ceil(len(names) / columns)
    heights = [min(PANEL, TALLEST / sum(shares)) * share for share in shares]
    figure = Figure(figsize=(width, 0.75 + sum(heights) + 0.3 * len(heights) / len(quantities)), layout="constrained")
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for number, name in enumerate(names):
        line, column = number // columns * len(quantities), number % columns
        for turn, quantity in enumerate(quantities):
            axes = grid[line + turn, column]
            here = points[(points["panel"] == name) & (points["quantity"] == quantity)]
            at = chart.at if isinstance(chart.at, Axis) else chart.at[name]
            _panel(axes, here, chart, at, chart.values[quantity])
            axes.tick_params(labelbottom=turn == len(quantities) - 1)
            if turn == len(quantities) - 1:
                axes.set_xlabel(broken_label(at.label, 50))
            if column == 0:
                axes.set_ylabel(broken_label(chart.values[quantity].label, 26))
            if turn == 0 and name:
                axes.set_title(name)
    for left in range(len(names), len(heights) // len(quantities) * columns):
        for turn in range(len(quantities)):
            grid[left // columns * len(quantities) + turn, left % columns].axis("off")
    if chart.shared:
        _same_limits(grid, quantities)
    return figure


def _same_limits(grid: Sequence[Sequence[Axes]], quantities: Sequence[str]) -> None:
    """One scale for each quantity."""
    for turn in range(len(quantities)):
        every = [axes for line in grid[turn::len(quantities)] for axes in line if axes.axison]
        low, high = (f(ends) for f, ends in zip((min, max), zip(*(a.get_ylim() for a in every), strict=True),
                                                strict=True))
        for axes in every:
            axes.set_ylim(low, high)


def _panel(axes: Axes, here: DataFrame, chart: Chart, at: Axis, value: Axis) -> None:
    if at.even:
        here = here.assign(at=here["at"].map({tick: place for place, tick in enumerate(at.ticks)}))
    here = here.assign(place=_dodged(here, chart.dodge, at))
    _log(axes.xaxis, at, here["at"])
    _log(axes.yaxis, value, here[["value", "low", "high"]].stack())
    joined = here[here["mark"].isin(["mean", "curve"])]
    if len(joined):
        shown = {m: chart.looks[m] for m in joined["method"].unique()}
        seaborn.lineplot(joined, x="place", y="value", hue="method", style="method", errorbar=None, estimator=None,
                         palette={m: color for m, (color, _, _) in shown.items()},
                         dashes={m: dashes or "" for m, (_, _, dashes) in shown.items()},
                         markers=None if (joined["mark"] == "curve").all() else
                         {m: marker for m, (_, marker, _) in shown.items()},
                         markeredgewidth=0.4, legend=False, ax=axes)
        axes.set(xlabel="", ylabel="")
    for (method, mark), same in here.groupby(["method", "mark"], sort=False):
        _marks(axes, mark, same, chart.looks[method])
    axes.margins(x=0.06, y=0.1)
    _axis(axes.xaxis, at)
    _axis(axes.yaxis, value)
    if (here["mark"] == "bar").any():
        axes.set_ylim(bottom=0.0)
    if at.ticks is not None and not at.log:
        axes.set_xlim(axes.get_xticks()[0] - 0.5, axes.get_xticks()[-1] + 0.5)
        axes.grid(axis="x", visible=False)


def _dodged(here: DataFrame, share: float, at: Axis) -> DataFrame:
    """Places moved a little, so that methods at one place do not cover each other; of points of a plane only those
    with equal places."""
    places = here["at"].astype(float)
    if not share or places.empty:
        return places
    beside = here["mark"].isin(["mean", "seed", "incomplete", "point", "printed", "best"])
    turns = here["method"].map({m: i for i, m in enumerate(here[beside]["method"].unique())}).fillna(0)
    turns -= turns.max() / 2
    if (of_plane := here["mark"] == "point").any():
        same = here[of_plane].groupby("at")["method"]
        turns = (same.cumcount() - (same.transform("size") - 1) / 2).reindex(here.index)
    turns = turns.where(beside, 0.0)
    low, high = places.min(), places.max()
    if at.log:
        return places * max(high / low, 2.0) ** (share * turns)
    return places + share * ((high - low) or 1.0) * turns


def _marks(axes: Axes, mark: str, same: DataFrame, look: Look) -> None:
    """What one method has of one mark."""
    color, marker, dashes = look
    line = (0, dashes) if dashes else "-"
    if mark == "curve":
        axes.fill_between(same["place"], same["low"], same["high"], color=color, alpha=0.08, linewidth=0)
        step = max(1, len(same) // 8)
        axes.plot(same["place"].iloc[::step], same["value"].iloc[::step], marker=marker, color=color, markersize=3.2,
                  linestyle="none")
    elif mark in SMALL:
        axes.scatter(same["place"], same["value"], color=color, zorder=3, **SMALL[mark])
    elif mark == "printed":
        axes.plot(same["place"], same["value"], marker=marker, color=color, markerfacecolor="none", markersize=6.5,
                  linestyle="none", zorder=4)
    elif mark == "best":
        axes.plot(same["place"], same["value"], marker="*", color=color, markersize=9, markeredgecolor="black",
                  markeredgewidth=0.5, linestyle="none", zorder=6)
    elif mark == "own":
        axes.plot(same["place"], [0.04] * len(same), marker="|", color=color, markersize=7, markeredgewidth=1.6,
                  linestyle="none", transform=axes.get_xaxis_transform())
    elif mark == "level":
        axes.axhline(same["value"].iloc[0], color=color, linestyle=line, linewidth=0.9, zorder=1)
    elif mark == "band":
        axes.axvspan(same["at_low"].iloc[0], same["at_high"].iloc[0], color="0.92", linewidth=0, zorder=0)
    elif mark == "front":
        axes.step(same["place"], same["value"], where="post", color="0.8", linewidth=2.5, zorder=0.9)
    elif mark == "bar":
        axes.bar(same["place"], same["value"] - same["low"].fillna(0.0), bottom=same["low"].fillna(0.0), width=0.5,
                 color=color, edgecolor="black", linewidth=0.5, hatch="//////" if dashes else "")
    if mark in ("mean", "point", "whisker"):
        for p in same.itertuples():
            _interval(axes, p, "0.1" if mark == "whisker" else color, upright=True)
            if p.at_low == p.at_low:
                axes.hlines(p.value, p.at_low + p.place - p.at, p.at_high + p.place - p.at, color=color,
                            linewidth=0.9, zorder=2)
    if mark == "point":
        axes.plot(same["place"], same["value"], marker=marker, color=color, markeredgecolor="white",
                  markeredgewidth=0.4, markersize=5.5, linestyle="none", zorder=4)


def _log(axis: XAxis | YAxis, of: Axis, values: Iterable[float]) -> None:
    """A logarithmic axis that is a little wider than what is on it."""
    known = [v for v in values if v == v]
    if of.log and known:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.axes.set(**{f"{axis.axis_name}lim": (min(known) / 1.4, max(known) * 1.4)})


def _axis(axis: XAxis | YAxis, of: Axis, bins: int = 5) -> None:
    """Ticks and their labels."""
    if of.log:
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,), numticks=7))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))
    else:
        axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10], integer=of.whole))
    if of.ticks is not None:
        axis.set_ticks(range(len(of.ticks)) if of.even else list(of.ticks), list(of.ticks.values()))
    if of.percent:
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{round(100 * v, 6):g}%"))
    axis.set_minor_locator(NullLocator())


def _legend(figure: Figure, chart: Chart, points: DataFrame, narrow: bool) -> None:
    """One legend below all panels, each method once with marker and line."""
    hidden = {"own", "band", "front", "best", "whisker"}
    marks = points.groupby("method", sort=False)["mark"].agg(set)
    handles = []
    for method, own in marks.items():
        if own <= hidden or own == {"level"} and chart.at is None:
            continue
        color, marker, dashes = chart.looks[method]
        line = "none" if not own & {"mean", "curve", "level"} or chart.at is None else (0, dashes) if dashes else "-"
        handles.append(Line2D([], [], color=color, marker="" if own == {"level"} else marker, linestyle=line,
                              markerfacecolor="none" if own == {"printed"} else color,
                              label=broken_label(method, LEGEND_WIDTH[narrow])))
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=2 if narrow else 4 if len(handles) > 3 else 3)
