"""What more seeds and more users would show: the minimum detectable difference against both."""

from __future__ import annotations

import math

from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.power import SEEDS, TIMES, curves
from genrec_bench.reporting.report_data import ReportData

STYLES = ("users", "twice the users", "many more users")  # of TIMES
PRINTED, QUANTITY = "gains that the paper prints", "detectable"


@plate("power", "Detectable differences by seeds and users", section="power")
def power_figure(material: ReportData, block: Block) -> Chart | None:
    """The minimum detectable difference against seeds, a line a number of users; None without enough seeds."""
    found = curves(material, block)
    if not found:
        return None
    points, looks = [], {PRINTED: look("reference")}
    for one in found:
        for times, style in zip(TIMES, STYLES, strict=True):
            name = f"{round(times * one.users):,} users" + f" ({times:g}×)" * (times != 1)
            looks[name] = look(style)
            points += [point(one.family, QUANTITY, name, "mean", n, one.percent(n, times) / 100.0)
                       for n in SEEDS if n < math.inf]
            points.append(point(one.family, QUANTITY, f"{name}, any seeds", "level", SEEDS[0],
                                one.percent(math.inf, times) / 100.0))
            looks[f"{name}, any seeds"] = look(style)
        points += [point(one.family, QUANTITY, PRINTED, "level", SEEDS[0], gain)
                   for gain in sorted({abs(gain) for gain in one.gains})]
    caption = (f"{block.name}: the true difference from cross-entropy that a two-sided 5 % test finds in 80 % of "
               "cases, in per cent of its NDCG@10, from the parts of the variance of the declared comparisons; "
               "lines without marks: what is left with any number of seeds")
    caption += "; grey: the gains that the paper prints for these comparisons" * any(c.gains for c in found)
    ticks = {n: str(n) for n in SEEDS if n < math.inf}
    return Chart(f"How large a difference seeds and users can show on {block.dataset}", caption, points,
                 {QUANTITY: Axis("Detectable difference", percent=True)}, looks,
                 Axis("Seeds of each method", log=True, ticks=ticks))
