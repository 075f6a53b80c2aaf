"""Scores against one setting that a suite varies, one at a time, from the row that all have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from genrec_bench.core.files import canonical
from genrec_bench.reporting.figures.base import Picture, missing, plate
from genrec_bench.reporting.figures.panels import whiskers
from genrec_bench.reporting.figures.runs import (
    INTERVAL,
    SPREAD,
    complete,
    dots,
    evidence,
    group_of,
    lacking,
    needed,
    not_drawn,
    paired,
    path_of,
)
from genrec_bench.reporting.figures.style import image_bytes, own_style
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite, effective
from genrec_bench.reporting.tables import title_of

WIDE = 20.0  # largest value over smallest from which on an axis is logarithmic
LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Sweep:
    """Rows of one backbone that differ in one setting. base: the first of them, with its value `own`.

    rows: value -> the equal rows that have it, in the order of values.
    """

    base: Row
    setting: str
    own: float
    rows: Mapping[float, Sequence[Row]]

    def points(self, block: Block) -> dict[float, Group]:
        """The values that have runs."""
        return {value: found for value, rows in self.rows.items() if (found := group_of(block, rows))}

    def drawable(self, block: Block) -> bool:
        """Whether two values have complete runs."""
        return sum(complete(block, rows) is not None for rows in self.rows.values()) > 1


def sweeps(suite: Suite, setting: str, dataset: str) -> list[Sweep]:
    """The rows of a suite that differ in a setting alone, as their values are on a dataset; see `runs.path_of`.

    A row whose other settings a paper has found better ones for on this dataset is no point of a sweep there.
    """
    classes: dict[str, list[Row]] = {}
    for row in suite.rows:
        path = path_of(row, setting)
        if path and isinstance(row.wanted[path], (int, float)) and not isinstance(row.wanted[path], bool):
            classes.setdefault(_rest(row.wanted, path), []).append(row)
    found = []
    for rest, same in classes.items():
        path, points = path_of(same[0], setting), {}
        if len({row.wanted[path] for row in same}) > 1:
            for row in same:
                settings = effective(row, dataset)
                if _rest(settings, path) == rest:
                    points.setdefault(float(settings[path]), []).append(row)
            found.append(Sweep(same[0], setting, float(same[0].wanted[path]), dict(sorted(points.items()))))
    return found


def _rest(settings: Mapping, path: str) -> str:
    return canonical({k: v for k, v in settings.items() if k != path})


@dataclass(frozen=True)
class Plan:
    """What a figure of sweeps shows. settings: setting -> label of its axis. metrics: a line of panels each; the first
    chooses the best value where `star`. printed(sweep, dataset): the value that the paper gives as best, or None.
    """

    title: str
    settings: Mapping[str, str]
    metrics: Sequence[str] = ("ndcg@10",)
    star: bool = False
    printed: Callable[[Sweep, str], float | None] = lambda sweep, dataset: None


def swept(material: ReportData, block: Block, plan: Plan, text: str) -> Picture | None:
    """Scores by setting with differences to the base row: a column a setting, for each backbone a line of panels a
    metric and one of differences. None where the block's backbones have no such rows.
    """
    found = {setting: sweeps(material.suite, setting, block.dataset) for setting in plan.settings}
    if not any(found.values()):
        what = " or ".join(plan.settings)
        return missing(plan.title, f"rows that differ in {what} alone; suite {material.suite.name} has none")
    families = {family: {setting: [s for s in of if s.base.backbone == groups[0].row.backbone]
                         for setting, of in found.items()} for family, groups in block.families().items()}
    absent = [label for columns in families.values() for of in columns.values() for sweep in of
              for label in lacking(block, sweep.rows.values())]
    drawn = {family: columns for family, columns in families.items()
             if any(sweep.drawable(block) for of in columns.values() for sweep in of)}
    if not drawn:
        return needed(material, block, plan.title, list(dict.fromkeys(absent)))
    return Picture(f"{block.name}: {text}. Here: {evidence(material, block)}{not_drawn(list(dict.fromkeys(absent)))}",
                   _draw(material, block, plan, drawn))


def _draw(material: ReportData, block: Block, plan: Plan, drawn: Mapping[str, Mapping[str, list[Sweep]]]) -> dict:
    kinds = [*plan.metrics, *([] if not material.ranked else [None])]  # None: differences
    with own_style():
        figure = Figure(figsize=(8.6, 1.6 + len(drawn) * (0.5 + 1.9 * len(kinds))), layout="constrained")
        panels = figure.subplots(len(kinds) * len(drawn), len(plan.settings), squeeze=False, sharey="row")
        lines = iter(panels)
        for family, columns in drawn.items():
            for kind in kinds:
                line = next(lines)
                for axes, of in zip(line, columns.values(), strict=True):
                    _panel(axes, material, block, plan, family, kind, [s for s in of if s.drawable(block)])
                line[0].set_ylabel(_score(kind) if kind else "Difference to\nthe row's own value")
                if kind == kinds[0]:
                    line[0].set_title(family, loc="left", fontweight="bold")
            for axes, setting in zip(line, columns, strict=True):
                axes.set_xlabel(plan.settings[setting])
        figure.get_layout_engine().set(wspace=0.04)
        figure.suptitle(f"{block.name}\none setting varied at a time, item-level", fontsize=11)
        handles = {label: handle for axes in panels.flat
                   for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        notes = f"{SPREAD}; hollow dots: seeds of an incomplete row" + (f"\n{INTERVAL}" if None in kinds else "")
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False,
                      title=notes, title_fontsize=8)
        return image_bytes(figure)


def _panel(axes: Axes, material: ReportData, block: Block, plan: Plan, family: str, kind: str | None,
           of: Sequence[Sweep]) -> None:
    """One panel: a line a sweep, of scores or of differences."""
    values = sorted({value for sweep in of for value in sweep.points(block)})
    if not values:
        axes.text(0.5, 0.5, "no complete runs", transform=axes.transAxes, ha="center", color="0.35")
        axes.set_xticks([])
        return
    for turn, sweep in enumerate(of):
        rows = [sweep.base, *(group.row for group in sweep.points(block).values())]
        look = next(material.look[row.key] for row in rows if row.key in material.look)
        places = _places(values, turn, len(of))
        if kind is None:
            _differences(axes, material, block, plan, sweep, look, places)
        else:
            _scores(axes, block, sweep, kind, look, places, LINES[turn % len(LINES)])
            if plan.star:
                _star(axes, block, sweep, kind, plan.metrics[0], look[0], places)
        _own_and_printed(axes, sweep, plan.printed(sweep, block.dataset), look, places)
    reference = block.cross_entropy(family)
    if kind is None:
        axes.axhline(0.0, color="0.4", linewidth=0.9, linestyle=":", zorder=1)
    elif reference is not None and not block.missing(reference) and reference.values(kind):
        axes.axhline(reference.mean(kind), color="0.35", linewidth=1.1, linestyle=(0, (5, 3)), zorder=1,
                     label=f"mean of {reference.name}")
    axes.margins(y=0.2)
    _ticks(axes, values)


def _score(metric: str) -> str:
    plain = metric.removeprefix("valid_")
    return f"{title_of(plain)}, {'test' if plain == metric else 'validation'}\n(fraction)"


def _wide(values: Sequence[float]) -> bool:
    return values[0] > 0 and values[-1] / values[0] >= WIDE


def _places(values: Sequence[float], turn: int, count: int) -> dict[float, float]:
    """Where the values are drawn: moved a little, so that intervals of several sweeps do not cover each other."""
    shift = 0.022 * (turn - (count - 1) / 2)
    if _wide(values):
        return {v: v * (values[-1] / values[0]) ** shift for v in values}
    return {v: v + (values[-1] - values[0]) * shift for v in values}


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """The values as ticks, on a logarithmic axis where they reach far."""
    if _wide(values):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(values, [f"{v:g}" for v in values], rotation=40, ha="right", rotation_mode="anchor")
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _name(sweep: Sweep) -> str:
    return (sweep.base.label or "").removeprefix(f"{sweep.base.spelling} + ")


def _scores(axes: Axes, block: Block, sweep: Sweep, metric: str, look: tuple[str, str], places: Mapping[float, float],
            line: str) -> None:
    whole = {}
    for value, group in sweep.points(block).items():
        values = group.values(metric)
        dots(axes, places[value], values, look, not block.missing(group), upright=True)
        if not block.missing(group) and values:
            whole[places[value]] = fmean(values)
    axes.plot(list(whole), list(whole.values()), color=look[0], linestyle=line, marker=look[1], markersize=6.0,
              linewidth=1.2, label=_name(sweep))


def _star(axes: Axes, block: Block, sweep: Sweep, metric: str, chooser: str, color: str,
          places: Mapping[float, float]) -> None:
    """A star at the value with the highest mean of the metric that chooses."""
    whole = {v: g for v, g in sweep.points(block).items() if not block.missing(g) and g.values(chooser)}
    best = max(whole, key=lambda v: whole[v].mean(chooser), default=None)
    if best is not None and whole[best].values(metric):
        axes.plot([places[best]], [whole[best].mean(metric)], marker="*", markersize=14, color=color,
                  markeredgecolor="0.1", linestyle="none", zorder=6, label="best by validation")


def _differences(axes: Axes, material: ReportData, block: Block, plan: Plan, sweep: Sweep, look: tuple[str, str],
                 places: Mapping[float, float]) -> None:
    """Each value against the row's own one; nothing where that one has no complete runs."""
    own = complete(block, sweep.rows.get(sweep.own, ()))
    metric = next(m for m in plan.metrics if not m.startswith("valid_"))
    for value, rows in sweep.rows.items() if own else ():
        group = complete(block, rows)
        if value != sweep.own and group is not None:
            found = paired(material, group, own, metric)
            axes.errorbar([places[value]], [found.value], yerr=whiskers([found]), color=look[0], marker=look[1],
                          capsize=3.0, linestyle="none")


def _own_and_printed(axes: Axes, sweep: Sweep, printed: float | None, look: tuple[str, str],
                     places: Mapping[float, float]) -> None:
    """Above the edge of the panel: a bar at the row's own value, hollow at what the paper found best."""
    common = {"transform": axes.get_xaxis_transform(), "color": look[0], "linestyle": "none", "zorder": 6}
    axes.plot([places.get(sweep.own, sweep.own)], [0.07], marker="|", markersize=9, markeredgewidth=2.2,
              label=f"own value of {_name(sweep)}", **common)
    if printed is not None and min(sweep.rows) <= printed <= max(sweep.rows):
        axes.plot([places.get(printed, printed)], [0.07], marker=look[1], markersize=10, markerfacecolor="none",
                  markeredgewidth=1.3, label=f"printed, {_name(sweep)}", **common)


def _table_5(sweep: Sweep, dataset: str) -> float | None:
    return sweep.base.best.get(dataset, {}).get(path_of(sweep.base, sweep.setting))


@plate("3", "sensitivity", "APAO, Figure 3", paper="apao", objectives=("apao",))
def apao_figure(material: ReportData, block: Block) -> Picture | None:
    """NDCG@10 against weight and eta of the prefix loss, both forms (APAO, 3)."""
    plan = Plan("APAO, Figure 3", {"apao.weight": "Weight of the prefix loss (the paper's β)",
                                   "apao.eta": "Step of the adaptive weights, η"}, printed=_table_5)
    known = any(_table_5(s, block.dataset) is not None for s in sweeps(material.suite, "apao.weight", block.dataset))
    return swept(material, block, plan, "NDCG@10 by weight and η, after APAO's Figure 3 (there Beauty; metric and what "
                 "is held fixed are not said, here Table 5's best for Beauty), values of which are not in its text. "
                 f"{'Hollow markers on the axis: the best of its Table 5. ' if known else ''}"
                 "The paper says that 0.1 to 0.4 does well and η matters little")


@plate("8", "bear-sensitivity", "BEAR, Figure 8", paper="bear", objectives=("bear",))
def bear_figure(material: ReportData, block: Block) -> Picture | None:
    """NDCG@10 of validation and test against weight and temperature of BEAR (BEAR, 8)."""
    plan = Plan("BEAR, Figure 8", {"bear.weight": "Weight of the regulariser, λ", "bear.xi": "Temperature, ξ"},
                ("valid_ndcg@10", "ndcg@10"), star=True)
    return swept(material, block, plan, "NDCG@10 by λ and ξ, after BEAR's Figure 8, of which metric, data, grid and "
                 "the fixed other value are not said; star: best mean on validation; dashed line: SFT. The paper says "
                 "that each has one clear peak")
