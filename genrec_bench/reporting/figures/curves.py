"""Validation by epoch, a line a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.results import MOST_ROWS, seeds_text, smaller, wrapped
from genrec_bench.reporting.figures.style import image_bytes, own_style
from genrec_bench.reporting.load import Block, Group, summarise
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.results.records import RunRecord

CURVE = "valid_ndcg@10"
LINES = ("-", ":", "-.")  # of a row's variants; a second stage is dashed
MOST_CURVES = 16  # lines of a panel
SHADE = 0.6  # opacity of all shades of a panel together


@plate("curves", "curves", "Learning curves")
def curves_figure(material: ReportData, block: Block) -> Picture | None:
    """Validation NDCG@10 by epoch, a panel for the baselines and each backbone; None where nothing has a curve.

    Lines are means over seeds, shaded ± SD where there are several; a row that lacks seeds has a thin line a seed and
    no mean. A second stage is dashed and drawn after all epochs of the first, from what the epoch reached whose weights
    it starts from.
    """
    known = {r.run_id: curve for g in block.groups for r in g.records if (curve := _curve(r))}
    block, left_out = smaller(block)
    curved = {family: [g for g in groups if any(r.run_id in known for r in g.records)]
              for family, groups in block.families().items()}
    drawn = {family: groups[:MOST_CURVES] for family, groups in curved.items() if groups}
    left_out += sum(len(groups) for groups in curved.values()) - sum(len(groups) for groups in drawn.values())
    if not drawn:
        return None
    with own_style():
        labels = {family: [wrapped(g, block, 32) for g in groups] for family, groups in drawn.items()}
        lines = {family: sum(0.15 * (t.count("\n") + 1) + 0.06 for t in texts) for family, texts in labels.items()}
        heights = [max(2.4, 0.3 + height) for height in lines.values()]
        figure = Figure(figsize=(8.6, 0.9 + sum(heights) + 0.45 * len(drawn)), layout="constrained")
        panels = figure.subplots(len(drawn), 1, sharey=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (family, groups) in zip(panels, drawn.items(), strict=True):
            for place, (label, group) in enumerate(zip(labels[family], groups, strict=True)):
                variant = sum(g.row is group.row for g in groups[:place])
                line = "--" if group.row.goes_on else LINES[variant % len(LINES)]
                parts = [[r] for r in group.records] if block.missing(group) else [group.records]
                for turn, records in enumerate(parts):
                    _line(axes, label if turn == 0 else None, block, group, records, known,
                          material.look[group.row.key], line, min(0.15, SHADE / len(groups)))
            axes.set_title(family, loc="left", fontweight="bold")
            axes.set(xlabel="Epoch", ylabel="Validation NDCG@10")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0.0, frameon=False,
                        handlelength=3.0, labelspacing=0.35)
        panels[0].set_ylim(bottom=0.0)
        figure.suptitle(f"{block.name}: validation, item-level", fontsize=11)
        shown = [g for groups in drawn.values() for g in groups]
        figure.supxlabel(_note(block, shown, left_out), fontsize=8, color="0.35")
        return Picture(f"{block.name}: validation NDCG@10 by epoch", image_bytes(figure))


def _note(block: Block, shown: Sequence[Group], left_out: int) -> str:
    notes = [f"means over {seeds_text(block)}, as far as all were trained, shaded ± SD" if len(block.seeds) > 1 else
             seeds_text(block)]
    if any(block.missing(g) for g in shown):
        notes[0] += "; thin: single seeds of a row that lacks others"
    if any(g.row.goes_on for g in shown):
        notes[0] += "; dashed: a second stage, from the kept epoch of the first"
    if left_out:
        notes.append(f"{left_out} rows are not drawn: a panel has at most {MOST_CURVES}, and none of the full grid "
                     f"where a block has more than {MOST_ROWS}")
    return "\n".join(notes)


def _line(axes: Axes, label: str | None, block: Block, group: Group, records: Sequence[RunRecord],
          known: Mapping[str, dict[int, float]], look: tuple[str, str], line: str, shade: float) -> None:
    """Mean and deviation of some seeds over the epochs that all of them have, thin where the row lacks seeds.

    Of two stages the second, after the first.
    """
    color, marker = look
    curves = [known[r.run_id] for r in records if r.run_id in known]
    epochs = [e for e in sorted(set().union(*curves)) if all(e in c for c in curves)]
    values = [summarise([c[e] for c in curves]) for e in epochs]
    if not epochs:
        return
    if group.row.goes_on:
        starts = [_start(r, known) for r in records]
        after = [s for s in starts if s is not None]
        first = max((epochs for epochs, _ in after), default=0)
        epochs = [first + e for e in epochs]
        if len(after) == len(starts) and all(value is not None for _, value in after):
            epochs, values = [first, *epochs], [summarise([value for _, value in after]), *values]
    means = [v.mean for v in values]
    whole = not block.missing(group)
    axes.plot(epochs, means, color=color, linestyle=line, label=label, marker=marker if whole else None, markersize=4.5,
              markevery=max(1, len(epochs) // 10), linewidth=1.4 if whole else 0.8)
    if len(curves) > 1:
        axes.fill_between(epochs, [v.mean - v.sd for v in values], [v.mean + v.sd for v in values], color=color,
                          alpha=shade, linewidth=0)


def _start(record: RunRecord, known: Mapping[str, dict[int, float]]) -> tuple[int, float | None] | None:
    """Epochs of the first stage, and what its kept epoch reached where its run is known; None without a first stage."""
    stage = record.training.get("first_stage")
    return (stage["epochs"], known.get(stage["run_id"], {}).get(stage["best_epoch"])) if stage else None


def _curve(record: RunRecord) -> dict[int, float]:
    points = record.training.get("curve") or ()
    return {p["epoch"]: p[CURVE] for p in points if p.get(CURVE) is not None and p.get("epoch") is not None}
