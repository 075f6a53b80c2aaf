"""What objectives cost beside SFT, and what they gain for it: time and decoder positions as ratios."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from genrec_bench.core.files import canonical
from genrec_bench.reporting.figures.base import Picture, plate
from genrec_bench.reporting.figures.panels import whiskers
from genrec_bench.reporting.figures.runs import (
    alone,
    complete,
    geometric,
    lacking,
    needed,
    not_drawn,
    ratios,
    seeds_of,
)
from genrec_bench.reporting.figures.style import ROW, broken_label, image_bytes, own_style
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite

BEAR = {"paper": "bear", "objectives": ("bear",)}
# What BEAR prints of run times, for a language model that writes titles: the text to Figure 5, with B = 10, and the
# text to Figure 9 on CFT, S-DPO and SPRec, in units of BEAR's time, which is printed as about SFT's.
PRINTED_BEAM = 4.45
PRINTED_RANGE = (2.0, 10.0)
SFT, WITH_BEAR, WITH_BEAM = ((("cross_entropy", *more),) for more in ((), ("bear",), ("bear_beam",)))
COSTS = {"Seconds per epoch": "seconds", "Decoder positions per epoch": "positions"}
NEAR = 1.04  # how far apart points of equal cost are drawn
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
ONE_SEED = ("seconds are not drawn: those of one seed may be stretched by whatever else ran; positions depend on no "
            "machine")
SPREAD = "geometric mean, divided and multiplied by the geometric SD over seeds, of ratios to SFT at its seed"


def per_epoch(group: Group, what: str) -> dict[int, float]:
    """Seed -> "seconds" or decoder "positions", with and without gradient, of an epoch of the last stage."""
    if what == "seconds":
        return {r.seed: s for r in group.records if (s := r.timings.get("seconds_per_epoch"))}
    found = {}
    for r in group.records:
        passes = r.training.get("passes") or {}
        both = [passes.get(f"positions_{side}_gradient") for side in ("with", "without")]
        if None not in both and r.training.get("epochs"):
            found[r.seed] = sum(both) / r.training["epochs"]
    return found


def costs(block: Block) -> dict[str, str]:
    """The costs that a block's runs tell: seconds only where several seeds show how much they scatter."""
    return {text: what for text, what in COSTS.items() if what != "seconds" or len(block.seeds) > 1}


def _known(block: Block, group: Group) -> bool:
    return any(per_epoch(group, what) for what in costs(block).values())


def _first(suite: Suite, backbone: str | None, stages: tuple) -> list[Row]:
    return [row for row in suite.rows if row.backbone == backbone and row.stages == stages][:1]


@plate("5", "bear-time", "BEAR, Figure 5", **BEAR)
def time_figure(material: ReportData, block: Block) -> Picture | None:
    """Seconds and decoder positions of an epoch in units of SFT's: SFT, BEAR and objective (3.1) (BEAR, 5)."""
    title, parts, absent = "BEAR, Figure 5", {}, []
    for family, groups in block.families().items():
        wanted = [same for stages in (SFT, WITH_BEAR, WITH_BEAM)
                  if (same := _first(material.suite, groups[0].row.backbone, stages))]
        found = [group for same in wanted if (group := complete(block, same)) and _known(block, group)]
        if len(wanted) == 3:
            absent += lacking(block, wanted)
            if len(found) > 1 and found[0].row.stages == SFT:
                parts[family] = found
    if not parts:
        return needed(material, block, title, absent)
    beams = sorted({o["num_beams"] for groups in parts.values() for g in groups for o in g.config["objective"]
                    if "num_beams" in o})
    timed = len(costs(block)) > 1
    text = (f"{block.name}: {'seconds and ' if timed else ''}decoder positions of an epoch in units of SFT's, after "
            f"{title}, {seeds_of(block)}. Printed for B = 10 and a language model that writes titles: (3.1) takes over "
            f"{PRINTED_BEAM} times as long as SFT, and BEAR about as long; here B = "
            f"{', '.join(map(str, beams)) or 'not stated'}. {_clock(block, parts.values())}{not_drawn(absent)}")
    return Picture(text, _bars(material, block, parts))


def _spread(block: Block) -> str:
    return f"{SPREAD}, " if len(block.seeds) > 1 else ""


def _clock(block: Block, parts: Collection[Sequence[Group]]) -> str:
    """Where the runs of a figure were timed, or why their seconds are not drawn; a sentence without its full stop."""
    if len(costs(block)) == 1:
        return f"{ONE_SEED[0].upper()}{ONE_SEED[1:]}"
    places = sorted({", ".join(str(r.provenance.get(k, "unknown")) for k in ("cpu", "device")) for groups in parts
                     for g in groups for r in g.records})
    return (f"Seconds are those of {'several machines and no fair comparison' if len(places) > 1 else 'one machine'} "
            f"({'; '.join(places)}) under whatever else ran; positions depend on no machine")


def _bars(material: ReportData, block: Block, parts: dict[str, list[Group]]) -> dict[str, bytes]:
    shown = costs(block)
    with own_style():
        heights = [ROW * (0.6 + len(groups)) for groups in parts.values()]
        figure = Figure(figsize=(8.6, 1.2 + sum(heights) + 0.4 * len(parts)), layout="constrained")
        panels = figure.subplots(len(parts), len(shown), squeeze=False, sharex=True, height_ratios=heights)
        for line, (family, groups) in zip(panels, parts.items(), strict=True):
            for axes, what in zip(line, shown.values(), strict=True):
                unit = per_epoch(groups[0], what)
                for place, group in enumerate(groups):
                    _ratio(axes, place, ratios(per_epoch(group, what), unit), material.look[group.row.key])
                    if what == "seconds" and group.row.stages == WITH_BEAM:
                        axes.plot([PRINTED_BEAM], [place + 0.3], marker="D", markersize=6.5, markerfacecolor="none",
                                  color=material.look[group.row.key][0], linestyle="none")
                axes.axvline(1.0, color="0.4", linewidth=0.9, linestyle=":", zorder=1)
                axes.set_yticks(range(len(groups)), [broken_label(g.name) for g in groups] if axes is line[0] else [])
                axes.set_ylim(len(groups) - 0.3, -0.5)
                axes.grid(axis="y", visible=False)
            line[0].set_title(family, loc="left", fontweight="bold")
        for axes, text in zip(panels[-1], shown, strict=True):
            axes.set_xlabel(f"{text} (SFT = 1)")
        _log_ratios(panels[0][0])
        for axes in panels.flat:
            axes.tick_params(labelbottom=True)
        figure.get_layout_engine().set(wspace=0.05)
        figure.suptitle(f"{block.name}: cost of an epoch", fontsize=11)
        notes = [f"small dots: one seed each; large: {SPREAD}" if len(block.seeds) > 1 else seeds_of(block)]
        if len(shown) > 1 and any(g.row.stages == WITH_BEAM for groups in parts.values() for g in groups):
            notes.append(f"hollow diamond: printed for objective (3.1), over {PRINTED_BEAM} at B = 10")
        figure.supxlabel("\n".join(notes), fontsize=8, color="0.35")
        return image_bytes(figure)


def _ratio(axes: Axes, place: float, values: Sequence[float], look: tuple[str, str]) -> None:
    """A dot a seed, their geometric mean with its spread, and the mean in figures."""
    if not values:
        return
    color, marker = look
    mean, low, high = geometric(values)
    axes.scatter(values, [place + 0.16] * len(values), s=10, color=color, alpha=0.6, linewidths=0)
    axes.errorbar([mean], [place], xerr=[[mean - low], [high - mean]], color=color, marker=marker, ecolor="0.1",
                  capsize=3.0, linestyle="none")
    axes.annotate(f"{mean:.2f}", (mean, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7.5)


def _log_ratios(axes: Axes) -> None:
    """A logarithmic axis of ratios with plain numbers, a little wider than what is on it and at least 0.5 to 2."""
    together = axes.get_shared_x_axes().get_siblings(axes)
    low, high = min(one.dataLim.x0 for one in together), max(one.dataLim.x1 for one in together)
    axes.set_xscale("log")
    axes.set_xticks(TICKS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(0.5, low / 1.4), max(2.0, 1.4 * high))


@plate("9", "bear-plane", "BEAR, Figure 9", **BEAR)
def plane_figure(material: ReportData, block: Block) -> Picture | None:
    """NDCG@10 against seconds per epoch in units of SFT's, or positions of one seed, a point a method (BEAR, 9)."""
    title, parts, absent = "BEAR, Figure 9", {}, []
    for family, groups in block.families().items():
        rows = own_methods(material.suite, groups[0].row.backbone)
        absent += lacking(block, [[row] for row in rows])
        found = [g for row in rows if (g := complete(block, [row])) and _known(block, g)]
        trained = {g.row.stages for g in found}
        if SFT in trained and WITH_BEAR in trained:
            parts[family] = found
    if not parts:
        return needed(material, block, title, absent)
    around = "95 % intervals over seeds and users; paired differences, as in the tests, are known better than that" \
        if material.results else "without ranks no intervals"
    label, what = next(iter(costs(block).items()))
    band = ("Grey band: 2 to 10 times BEAR's time, printed for CFT, S-DPO and SPRec, from SFT's as the paper's BEAR "
            "is about as fast; other" if what == "seconds" else "The")
    near = "" if what == "seconds" else "; points of equal cost are drawn side by side"
    text = (f"{block.name}: item-level NDCG@10 of test targets by {label[0].lower()}{label[1:]} in units of SFT's, "
            f"after {title}, {seeds_of(block)}; cost: {_spread(block)}of the last stage where there are two; NDCG@10: "
            f"{around}{near}. {band} values of the paper's figure are not in its text. {_clock(block, parts.values())}"
            f"{not_drawn(absent)}")
    return Picture(text, _plane(material, block, parts))


def own_methods(suite: Suite, backbone: str | None) -> list[Row]:
    """The rows of a backbone that are no mere point of a sweep: none differs from an earlier one in numbers alone."""
    found: dict[str, Row] = {}
    for row in suite.rows:
        if row.backbone is not None and row.backbone == backbone:
            words = {k: None if isinstance(v, (int, float)) and not isinstance(v, bool) else v
                     for k, v in row.wanted.items()}
            found.setdefault(canonical(words), row)
    return list(found.values())


def _plane(material: ReportData, block: Block, parts: dict[str, list[Group]]) -> dict[str, bytes]:
    label, what = next(iter(costs(block).items()))
    with own_style():
        labels = [len(groups) + sum(broken_label(g.name).count("\n") for g in groups) for groups in parts.values()]
        heights = [max(2.8, 0.21 * lines + 0.4) for lines in labels]
        figure = Figure(figsize=(8.6, 0.8 + sum(heights) + 0.3 * len(parts)), layout="constrained")
        panels = figure.subplots(len(parts), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for axes, (family, groups) in zip(panels, parts.items(), strict=True):
            unit = per_epoch(next(g for g in groups if g.row.stages == SFT), what)
            if what == "seconds":
                axes.axvspan(*PRINTED_RANGE, color="0.5", alpha=0.13, linewidth=0, zorder=0,
                             label="printed: 2 to 10 × BEAR's time\n(CFT, S-DPO, SPRec)")
            times = [ratios(per_epoch(group, what), unit) for group in groups]
            for turn, (group, own) in enumerate(zip(groups, times, strict=True)):
                same = [i for i, other in enumerate(times) if other == own]
                _point(axes, material, group, own, NEAR ** (same.index(turn) - (len(same) - 1) / 2))
            axes.set_title(family, loc="left", fontweight="bold")
            axes.set_ylabel("NDCG@10 (fraction)")
            axes.tick_params(labelbottom=True)
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0.0, frameon=False)
        _log_ratios(panels[0])
        panels[-1].set_xlabel(f"{label} (SFT = 1)")
        figure.suptitle(f"{block.name}: quality and cost of training", fontsize=11)
        return image_bytes(figure)


def _point(axes: Axes, material: ReportData, group: Group, times: Sequence[float], moved: float) -> None:
    """A row by its cost and score. moved: a factor that keeps rows of equal cost apart."""
    color, marker = material.look[group.row.key]
    score, around = group.mean("ndcg@10"), alone(material, group, "ndcg@10")
    if not times or score is None:
        return
    mean, low, high = (moved * cost for cost in geometric(times))
    axes.errorbar([mean], [score], xerr=[[mean - low], [high - mean]], yerr=whiskers([around]) if around else None,
                  color=color, marker=marker, markersize=7, elinewidth=1.0, capsize=2.5, linestyle="none",
                  label=broken_label(group.name))
