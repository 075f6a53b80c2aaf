"""Figures as PNG and SVG bytes, equal for equal records; drawn without a display."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genrec_bench.records import RunRecord
from genrec_bench.reporting.load import Block, Group, summarise
from genrec_bench.reporting.papers import Paper
from genrec_bench.reporting.printed import comparable_rows
from genrec_bench.reporting.tables import title_of

DPI = 150
ROW = 0.42  # inches of a method with a label of one or two lines
METRICS = ("recall@10", "ndcg@10")
CURVE = "valid_ndcg@10"
STYLE = {"svg.hashsalt": "genrec-bench", "font.family": "DejaVu Sans", "font.size": 9.0, "axes.titlesize": 10.0,
         "axes.labelsize": 9.0, "legend.fontsize": 8.5, "figure.facecolor": "white", "savefig.facecolor": "white"}
# A colour-blind-safe palette; a method has the same colour and marker in every figure.
PALETTE = seaborn.color_palette("colorblind", 10).as_hex()
FIXED = {"popularity": 7, "item_knn": 1, "sasrec": 0, "bert4rec": 2, "tiger+cross_entropy": 3}
MARKERS = "osD^vPX<>*"
LINES = ("-", "--", ":", "-.")


@contextmanager
def _style() -> Iterator[None]:
    """Our own style whatever the user's matplotlib settings are; they are as before afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**seaborn.axes_style("whitegrid"), **STYLE})
        yield


def looks(blocks: Sequence[Block]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every method of a report, by row key: fixed for the known ones, then in order."""
    keys = list(dict.fromkeys(g.row.key for b in blocks for g in b.groups))
    free = [i for i in range(len(PALETTE)) if i not in FIXED.values()]
    result = {k: (PALETTE[FIXED[k]], MARKERS[FIXED[k]]) for k in keys if k in FIXED}
    for i, key in enumerate(k for k in keys if k not in FIXED):
        number, turn = free[i % len(free)], i // len(free)  # a colour's second method gets another marker
        result[key] = PALETTE[number], MARKERS[(number + turn) % len(MARKERS)]
    return result


def results_figure(block: Block, look: dict[str, tuple[str, str]], paper: Paper | None) -> dict[str, bytes]:
    """Recall@10 and NDCG@10 by method: a dot a seed, mean ± SD over seeds, hollow diamonds for printed values."""
    printed = {} if paper is None else {(g.label, m): c.value for g, m, c in comparable_rows(block, paper)}
    with _style():
        labels = [_wrapped(g, block) for g in block.groups]
        heights = [max(1.0, 0.42 * (label.count("\n") + 1)) for label in labels]  # in ROW: no label meets the next
        places = [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
        figure = Figure(figsize=(8.6, 1.55 + ROW * sum(heights)), layout="constrained")
        panels = figure.subplots(1, len(METRICS), sharey=True)
        for axes, metric in zip(panels, METRICS, strict=True):
            for place, group in zip(places, block.groups, strict=True):
                _dots(axes, place, group, metric, look[group.row.key], printed.get((group.label, metric)))
            axes.set_xlabel(f"{title_of(metric)} (fraction)")
            axes.set_xlim(left=0.0, right=1.06 * axes.get_xlim()[1])
            axes.xaxis.set_major_locator(MaxNLocator(5, prune="upper"))
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(places, labels)
        panels[0].set_ylim(sum(heights) + 0.1, -0.1)
        figure.suptitle(f"{block.name}: test targets, item-level", fontsize=11)
        figure.get_layout_engine().set(wspace=0.06)
        note = "small dots: one seed each; large: mean, black bar ± 1 SD over seeds"
        note += "; hollow diamond: printed by the paper (ID-level)" if printed else ""
        figure.supxlabel(note, fontsize=8, color="0.35")
        return _bytes(figure)


def _dots(axes: Axes, place: int, group: Group, metric: str, look: tuple[str, str], printed: float | None) -> None:
    color, marker = look
    values = group.metric_values(metric)
    summary = summarise(values)
    if summary.mean is None:
        return
    if summary.n > 1:
        axes.scatter(values, [place + 0.24] * len(values), s=11, color=color, alpha=0.75, linewidths=0,
                     clip_on=False, zorder=3)
    axes.plot([summary.mean], [place], color=color, marker=marker, markersize=7, linestyle="none",
              clip_on=False, zorder=4)
    if summary.sd is not None:
        # Above the marker and dark, so that a small deviation is still seen.
        axes.errorbar([summary.mean], [place], xerr=[summary.sd], fmt="none", ecolor="0.1", elinewidth=1.1, capsize=4.5,
                      capthick=1.1, zorder=5)
    if printed is not None:
        axes.scatter([printed], [place - 0.24], s=42, marker="D", facecolors="none", edgecolors=color, linewidths=1.3,
                     zorder=6)


def _wrapped(group: Group, block: Block) -> str:
    """A label of short lines, with the number of seeds where some are missing."""
    count = f"\n({len(group.seeds)} of {len(block.seeds)} seeds)" if block.missing(group) else ""
    return _broken(group.label) + count


def _broken(label: str, width: int = 32) -> str:
    """A label in lines of about `width` characters; brackets that do not fit into a line start a new one."""
    lines = [""]
    for part in label.replace(" (", "\n(").split("\n"):
        joined = f"{lines[-1]} {part}".strip()
        lines[-1:] = [joined] if len(joined) <= width else [*lines[-1:], part] if lines[-1] else [part]
    return "\n".join(short for line in lines for short in textwrap.wrap(line, width, break_on_hyphens=False))


def curves_figure(block: Block, look: dict[str, tuple[str, str]]) -> dict[str, bytes] | None:
    """Validation NDCG@10 by epoch: thin lines are seeds, the thick one their mean; None where nothing has a curve."""
    drawn = [(g, curves) for g in block.groups if (curves := [c for c in map(_curve, g.records) if c])]
    if not drawn:
        return None
    with _style():
        labels = [_broken(g.label) for g, _ in drawn]
        lines = sum(label.count("\n") + 1 for label in labels)
        figure = Figure(figsize=(8.6, max(4.0, 0.5 + 0.15 * lines + 0.07 * len(labels))), layout="constrained")
        axes = figure.subplots()
        for place, (group, curves) in enumerate(drawn):
            variant = sum(g.row.key == group.row.key for g, _ in drawn[:place])
            _curves(axes, labels[place], curves, look[group.row.key], LINES[variant % len(LINES)])
        axes.set(xlabel="Epoch", ylabel="Validation NDCG@10 (fraction, item-level)", title=block.name)
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside right upper", frameon=False, handlelength=3.4)
        figure.supxlabel("thin lines: one seed each; thick: their mean, as far as all seeds were trained", fontsize=8,
                         color="0.35")
        return _bytes(figure)


def _curves(axes: Axes, label: str, curves: list[dict[int, float]], look: tuple[str, str], line: str) -> None:
    """Every seed's curve, and their mean over the epochs that all of them have."""
    color, marker = look
    if len(curves) > 1:
        for curve in curves:
            axes.plot(*zip(*sorted(curve.items()), strict=True), color=color, linewidth=0.8, alpha=0.4)
    epochs = [e for e in sorted(set().union(*curves)) if all(e in c for c in curves)]
    if epochs:
        axes.plot(epochs, [summarise([c[e] for c in curves]).mean for e in epochs], color=color, marker=marker,
                  linestyle=line, markersize=4, markevery=max(1, len(epochs) // 10), linewidth=1.8, label=label)


def _curve(record: RunRecord) -> dict[int, float]:
    points = record.training.get("curve") or ()
    return {p["epoch"]: p[CURVE] for p in points if p.get(CURVE) is not None and p.get("epoch") is not None}


def _bytes(figure: Figure) -> dict[str, bytes]:
    """The figure as "png" and "svg", without date, creator or version in the files."""
    FigureCanvasAgg(figure)
    result = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
        result[kind] = buffer.getvalue()
    return result
