"""The training-free row of each data set with its interval, and the best printed row."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genrec_bench.reporting.best_printed import Beside, beside_printed
from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.panels import whiskers
from genrec_bench.reporting.figures.style import PALETTE, image_bytes, own_style
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData

NAME = "beside-printed"
# (unseen, place beside the line, colour, marker, label): apart by place and marker too, without any colour
POLICIES = ((False, -0.13, PALETTE[0], "o", "training-free row, history kept (as the papers)"),
            (True, 0.13, "0.45", "s", "the same row, history taken out (unseen)"))


@plate("printed", NAME, "Beside the best printed rows", whole=True)
def beside_printed_figure(material: ReportData, block: Block | None = None) -> Picture | None:
    """NDCG@10 with 95 % intervals, a line a data set; None for suites that have no page about it."""
    found = beside_printed(material) if material.suite.page else []
    if not found:
        return None
    with own_style():
        figure = Figure(figsize=(8.6, 1.5 + 0.48 * len(found)), layout="constrained")
        axes = figure.subplots()
        for unseen, moved, color, marker, label in POLICIES:
            estimates = [one.ndcg[unseen] for one in found]
            axes.errorbar([e.value for e in estimates], [place + moved for place in range(len(found))],
                          xerr=whiskers(estimates), color=color, marker=marker, markersize=5.5, linestyle="none",
                          elinewidth=1.3, capsize=3, label=label)
        axes.scatter([one.printed.value for one in found], range(len(found)), s=52, marker="D", facecolors="none",
                     edgecolors="0.1", linewidths=1.3, zorder=5, label="best row that the paper prints (no interval)")
        axes.set_yticks(range(len(found)), [_label(one) for one in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlim(left=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.set_xlabel("NDCG@10 (fraction), with 95 % interval over users")
        axes.grid(axis="y", visible=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=1, frameon=False)
        return Picture("NDCG@10 of the training-free row that is best in validation, with 95 % interval over users, "
                       "and of the best row that the paper prints", image_bytes(figure))


def _label(one: Beside) -> str:
    return f"{one.dataset}\n{one.group.label}"
