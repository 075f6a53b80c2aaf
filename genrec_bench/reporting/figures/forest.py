"""Forest plot: every comparison that a suite declares, with its interval and verdict."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genrec_bench.reporting.comparison import LOOKS
from genrec_bench.reporting.families import Test, Tested
from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.style import broken_label, image_bytes, own_style
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import title_of
from genrec_bench.reporting.verdicts import p_text

LINE = 0.24  # inches of a test or a heading
WORDS = {"better": "better", "worse": "worse", None: "no difference detected"}


@plate("forest", "forest", "Differences with intervals", section="tests", whole=True)
def forest_figure(material: ReportData, block: Block | None = None) -> Picture | None:
    """The differences of all declared tests with 95 % intervals, a panel a family; None where nothing was tested."""
    shown = [one for one in material.families if one.tests]
    if not shown:
        return None
    metrics = list(dict.fromkeys(title_of(one.family.metric) for one in shown))
    with own_style():
        heights = [len(_lines(one)) + 0.6 for one in shown]
        figure = Figure(figsize=(8.6, 1.1 + LINE * sum(heights) + 0.62 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, one in zip(panels, shown, strict=True):
            _panel(axes, one)
        panels[-1].set_xlabel(f"Difference in {' or '.join(metrics)} (fraction), with 95 % interval")
        panels[0].xaxis.set_major_locator(MaxNLocator(7))
        figure.suptitle("Declared comparisons: difference, interval and verdict", fontsize=11)
        for outcome, (color, marker) in LOOKS.items():
            panels[0].plot([], [], color=color, marker=marker, linewidth=1.8, markersize=6, label=WORDS[outcome])
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        return Picture(_caption(shown, metrics), image_bytes(figure))


def _caption(shown: list[Tested], metrics: list[str]) -> str:
    tests = [t for one in shown for t in one.tests]
    seeds = sorted({t.comparison.n_seeds for t in tests})
    span = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (f"Difference in {' or '.join(metrics)} of each declared comparison ({len(tests)} tests in {len(shown)} "
            f"families, {span} seed{'s' * (seeds[-1] > 1)}): mean and 95 % interval over seeds and users, at the right "
            "difference and p after Holm's correction within the family; better or worse where both p and interval "
            "say so")


def _lines(one: Tested) -> list[str | Test]:
    """The tests in order, under a heading for each block and backbone."""
    lines: list[str | Test] = []
    place = None
    unique = len({t.block.name for t in one.tests}) == len({t.block.dataset for t in one.tests})
    for test in one.tests:
        if place != (test.block.name, test.backbone):
            place = test.block.name, test.backbone
            seeds = test.comparison.n_seeds
            lines.append(f"{test.block.dataset if unique else test.block.name}, {test.backbone}, {seeds} "
                         f"seed{'' if seeds == 1 else 's'}")
        lines.append(test)
    return lines


def _panel(axes: Axes, one: Tested) -> None:
    lines = _lines(one)
    axes.axvline(0.0, color="0.2", linewidth=1.0)
    for place, test in enumerate(lines):
        if isinstance(test, str):
            continue
        (color, marker), c = LOOKS[test.verdict], test.comparison
        axes.plot(c.interval, [place, place], color=color, linewidth=1.8, solid_capstyle="butt")
        axes.plot([c.difference], [place], color=color, marker=marker, markersize=6)
        axes.annotate(f"{c.difference:+.4f}, {p_text(test.p_holm)}", (1.01, place), fontsize=8, va="center",
                      xycoords=("axes fraction", "data"), annotation_clip=False)
    axes.set_yticks(range(len(lines)), [line if isinstance(line, str) else line.group.name for line in lines])
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set(fontsize=8.5, fontweight="bold" if isinstance(line, str) else "normal")
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(labelbottom=True)
    axes.grid(axis="y", visible=False)
    axes.set_title(broken_label(f"{one.family.name[0].upper()}{one.family.name[1:]}, profile {one.profile}", 90),
                   loc="left")
