"""Figures as PNG and SVG bytes, equal for equal records; drawn without a display."""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle

import matplotlib
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genrec_bench.declared import GRIDS
from genrec_bench.records import RunRecord
from genrec_bench.reporting.load import Block, Group, summarise
from genrec_bench.reporting.papers import Paper
from genrec_bench.reporting.printed import comparable_rows
from genrec_bench.reporting.rows import Row
from genrec_bench.reporting.tables import title_of

DPI = 150
ROW = 0.42  # inches of a method with a label of one or two lines
METRICS = ("recall@10", "ndcg@10")
CURVE = "valid_ndcg@10"
STYLE = {"svg.hashsalt": "genrec-bench", "font.family": "DejaVu Sans", "font.size": 9.0, "axes.titlesize": 10.0,
         "axes.labelsize": 9.0, "legend.fontsize": 8.5, "figure.facecolor": "white", "savefig.facecolor": "white"}
PALETTE = seaborn.color_palette("colorblind", 10).as_hex()  # colour-blind-safe, as are the colours below
# An objective has the same colour on every backbone; baselines are grey, and markers tell rows of one colour apart.
GREYS = ("0.2", "0.45", "0.6")
COLORS = {"cross_entropy": PALETTE[0], "msl": PALETTE[1], "s_dpo": PALETTE[2], "apao pairwise": PALETTE[3],
          "apao pointwise": PALETTE[4], "dpo": PALETTE[5], "dmpo": PALETTE[9], "bear": "#332288",
          "bear_beam": "#999933"}
OTHER_COLORS = ("#882255", "#44aa99", PALETTE[7])
MARKERS = "osD^vPX<>*"
LINES = ("-", ":", "-.")  # of a row's variants; a second stage is dashed
MOST_ROWS = 60  # rows of a figure; of a block with more only those of the smaller grids are drawn
MOST_CURVES = 16  # lines of a panel


@contextmanager
def own_style() -> Iterator[None]:
    """Our own style whatever the user's matplotlib settings are; they are as before afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**seaborn.axes_style("whitegrid"), **STYLE})
        yield


def looks(blocks: Sequence[Block]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every method of a report, by row key: the objective's colour, a marker of its own."""
    rows = {g.row.key: g.row for b in blocks for g in b.groups}
    others = sorted({objective_of(row) for row in rows.values() if row.backbone} - set(COLORS))
    colors = {**COLORS, **dict(zip(others, cycle(OTHER_COLORS)))}
    turns: Counter[tuple[str | None, str]] = Counter()
    result = {}
    for key, row in rows.items():
        name = objective_of(row)
        turn = turns[row.backbone, name]
        turns[row.backbone, name] += 1
        result[key] = colors[name] if row.backbone else GREYS[turn % len(GREYS)], MARKERS[turn % len(MARKERS)]
    return result


def objective_of(row: Row) -> str:
    """What names a row's colour: the objectives of its last stage beside cross-entropy, with the form of APAO."""
    names = [f"{o['name']} {o['form']}" if o["name"] == "apao" and "form" in o else o["name"]
             for o in row.stated.get("objective", ())]
    return " ".join([n for n in names if n != "cross_entropy"] or names[:1])


def results_figure(block: Block, look: dict[str, tuple[str, str]], paper: Paper | None) -> dict[str, bytes]:
    """Recall@10 and NDCG@10 by method: a dot a seed, mean ± SD over seeds, hollow diamonds for printed values.

    One row of panels for the baselines and each backbone; a line marks each backbone's cross-entropy. Of more than
    MOST_ROWS rows those of the full grid alone are left out, which the figure says.
    """
    block, left_out = _drawn(block)
    printed = {} if paper is None else {(g.label, m): c.value for g, m, c in comparable_rows(block, paper)}
    families = block.families()
    with own_style():
        labels = {family: [_wrapped(g, block) for g in groups] for family, groups in families.items()}
        heights = {family: [0.55 + 0.25 * (label.count("\n") + 1) for label in texts]  # in ROW: no label meets the next
                   for family, texts in labels.items()}
        total = ROW * sum(sum(h) + 0.2 for h in heights.values())
        figure = Figure(figsize=(8.6, 1.2 + total + 0.4 * len(families)), layout="constrained")
        panels = figure.subplots(len(families), len(METRICS), sharex="col", squeeze=False,
                                 height_ratios=[sum(h) + 0.2 for h in heights.values()])
        for line, (family, groups) in zip(panels, families.items(), strict=True):
            places = [sum(heights[family][:i]) + h / 2 for i, h in enumerate(heights[family])]
            for axes, metric in zip(line, METRICS, strict=True):
                for place, group in zip(places, groups, strict=True):
                    _dots(axes, place, group, metric, look[group.row.key], printed.get((group.label, metric)))
                reference = block.cross_entropy(family)
                if reference is not None and len(groups) > 1 and reference.metric_values(metric):
                    axes.axvline(reference.metric(metric).mean, color="0.5", linewidth=0.9, linestyle=":", zorder=1)
                axes.grid(axis="y", visible=False)
                axes.set_yticks(places, labels[family] if axes is line[0] else [])
                axes.set_ylim(sum(heights[family]) + 0.1, -0.1)
            line[0].set_title(family, loc="left", fontweight="bold")
        for axes, metric in zip(panels[-1], METRICS, strict=True):
            axes.set_xlabel(f"{title_of(metric)} (fraction)")
            axes.set_xlim(left=0.0, right=1.06 * axes.get_xlim()[1])
            axes.xaxis.set_major_locator(MaxNLocator(5, prune="upper"))
        for axes in panels[:-1].flat:
            axes.tick_params(labelbottom=True)
        figure.suptitle(f"{block.name}: test targets, item-level", fontsize=11)
        figure.get_layout_engine().set(wspace=0.06, hspace=0.02)
        figure.supxlabel(_note(block, bool(printed), left_out), fontsize=8, color="0.35")
        return image_bytes(figure)


def _drawn(block: Block) -> tuple[Block, int]:
    """The block with the rows that a figure has room for, and how many are left out."""
    groups = tuple(g for g in block.groups if g.row.grid != GRIDS[-1])
    if len(block.groups) <= MOST_ROWS or not groups:
        return block, 0
    return replace(block, groups=groups), len(block.groups) - len(groups)


def _note(block: Block, printed: bool, left_out: int) -> str:
    notes = ["small dots: one seed each; large: mean, black bar ± 1 SD over seeds"]
    if any(block.cross_entropy(family) and len(groups) > 1 for family, groups in block.families().items()):
        notes[0] += "; dotted line: cross-entropy on this backbone"
    if printed:
        notes.append("hollow diamond: printed by the paper (ID-level)")
    if left_out:
        notes.append(f"{left_out} rows of the full grid are not drawn; the table has them")
    return "\n".join(notes)


def _dots(axes: Axes, place: float, group: Group, metric: str, look: tuple[str, str], printed: float | None) -> None:
    color, marker = look
    values = group.metric_values(metric)
    summary = summarise(values)
    if summary.mean is None:
        return
    if summary.n > 1:
        axes.scatter(values, [place + 0.22] * len(values), s=9, color=color, alpha=0.75, linewidths=0,
                     clip_on=False, zorder=3)
    axes.plot([summary.mean], [place], color=color, marker=marker, markersize=6.5, linestyle="none",
              clip_on=False, zorder=4)
    if summary.sd is not None:
        # Above the marker and dark, so that a small deviation is still seen.
        axes.errorbar([summary.mean], [place], xerr=[summary.sd], fmt="none", ecolor="0.1", elinewidth=1.0, capsize=3.5,
                      capthick=1.0, zorder=5)
    if printed is not None:
        axes.scatter([printed], [place - 0.22], s=34, marker="D", facecolors="none", edgecolors=color, linewidths=1.2,
                     zorder=6)


def _wrapped(group: Group, block: Block) -> str:
    """A label of short lines, with the number of seeds where some are missing."""
    count = f"\n({len(group.seeds)} of {len(block.seeds)} seeds)" if block.missing(group) else ""
    return broken_label(group.name, 36) + count


def broken_label(label: str, width: int = 32) -> str:
    """A label in lines of about `width` characters; brackets that do not fit into a line start a new one."""
    lines = [""]
    for part in label.replace(" (", "\n(").split("\n"):
        joined = f"{lines[-1]} {part}".strip()
        lines[-1:] = [joined] if len(joined) <= width else [*lines[-1:], part] if lines[-1] else [part]
    return "\n".join(short for line in lines for short in textwrap.wrap(line, width, break_on_hyphens=False))


def curves_figure(block: Block, look: dict[str, tuple[str, str]]) -> dict[str, bytes] | None:
    """Validation NDCG@10 by epoch, a panel for the baselines and each backbone; None where nothing has a curve.

    Lines are means over seeds. A second stage is dashed and drawn after all epochs of the first, from what the epoch
    reached whose weights it starts from.
    """
    known = {r.run_id: curve for g in block.groups for r in g.records if (curve := _curve(r))}
    block, left_out = _drawn(block)
    curved = {family: [g for g in groups if any(r.run_id in known for r in g.records)]
              for family, groups in block.families().items()}
    drawn = {family: groups[:MOST_CURVES] for family, groups in curved.items() if groups}
    left_out += sum(len(groups) for groups in curved.values()) - sum(len(groups) for groups in drawn.values())
    if not drawn:
        return None
    with own_style():
        labels = {family: [broken_label(g.name) for g in groups] for family, groups in drawn.items()}
        lines = {family: sum(0.15 * (t.count("\n") + 1) + 0.06 for t in texts) for family, texts in labels.items()}
        heights = [max(2.4, 0.3 + height) for height in lines.values()]
        figure = Figure(figsize=(8.6, 0.9 + sum(heights) + 0.45 * len(drawn)), layout="constrained")
        panels = figure.subplots(len(drawn), 1, sharey=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (family, groups) in zip(panels, drawn.items(), strict=True):
            for place, (label, group) in enumerate(zip(labels[family], groups, strict=True)):
                variant = sum(g.row is group.row for g in groups[:place])
                line = "--" if group.row.goes_on else LINES[variant % len(LINES)]
                _curves(axes, label, group, known, look[group.row.key], line)
            axes.set_title(family, loc="left", fontweight="bold")
            axes.set(xlabel="Epoch", ylabel="Validation NDCG@10")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0.0, frameon=False,
                        handlelength=3.0, labelspacing=0.35)
        panels[0].set_ylim(bottom=0.0)
        figure.suptitle(f"{block.name}: validation, item-level", fontsize=11)
        notes = ["means over seeds, as far as all were trained"]
        if any(g.row.goes_on for groups in drawn.values() for g in groups):
            notes[0] += "; dashed: a second stage, from the kept epoch of the first"
        if left_out:
            notes.append(f"{left_out} rows are not drawn: a panel has at most {MOST_CURVES}, and none of the full grid "
                         f"where a block has more than {MOST_ROWS}")
        figure.supxlabel("\n".join(notes), fontsize=8, color="0.35")
        return image_bytes(figure)


def _curves(axes: Axes, label: str, group: Group, known: Mapping[str, dict[int, float]],
            look: tuple[str, str], line: str) -> None:
    """The mean of a row's seeds over the epochs that all of them have; of two stages the second, after the first."""
    color, marker = look
    curves = [known[r.run_id] for r in group.records if r.run_id in known]
    epochs = [e for e in sorted(set().union(*curves)) if all(e in c for c in curves)]
    values = [summarise([c[e] for c in curves]).mean for e in epochs]
    if not epochs:
        return
    if group.row.goes_on:
        starts = [_start(r, known) for r in group.records]
        after = [s for s in starts if s is not None]
        first = max((epochs for epochs, _ in after), default=0)
        epochs = [first + e for e in epochs]
        if len(after) == len(starts) and all(value is not None for _, value in after):
            epochs, values = [first, *epochs], [summarise([value for _, value in after]).mean, *values]
    axes.plot(epochs, values, color=color, marker=marker, linestyle=line, markersize=4.5,
              markevery=max(1, len(epochs) // 10), linewidth=1.4, label=label)


def _start(record: RunRecord, known: Mapping[str, dict[int, float]]) -> tuple[int, float | None] | None:
    """Epochs of the first stage, and what its kept epoch reached where its run is known; None without a first stage."""
    stage = record.training.get("first_stage")
    return (stage["epochs"], known.get(stage["run_id"], {}).get(stage["best_epoch"])) if stage else None


def _curve(record: RunRecord) -> dict[int, float]:
    points = record.training.get("curve") or ()
    return {p["epoch"]: p[CURVE] for p in points if p.get(CURVE) is not None and p.get("epoch") is not None}


def image_bytes(figure: Figure) -> dict[str, bytes]:
    """The figure as "png" and "svg", without date, creator or version in the files."""
    FigureCanvasAgg(figure)
    # the layout's solver differs in the last bits from process to process, and SVG names clips by a hash of them
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position([round(float(edge), 5) for edge in axes.get_position().bounds])
    result = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
        result[kind] = buffer.getvalue()
    return result
