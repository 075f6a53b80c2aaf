"""Forest plot: every comparison that a suite declares, with its interval and verdict."""

from __future__ import annotations

from genrec_bench.reporting.families import Test, Tested
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import title_of
from genrec_bench.reporting.verdicts import p_text

OUTCOMES = {"better": "better", "worse": "worse", None: "no difference detected"}
ZERO = "no difference"
LOOKS = {**{name: look(name) for name in OUTCOMES.values()}, ZERO: look("reference")}


@plate("forest", "Declared comparisons", section="tests", whole=True)
def forest_figure(material: ReportData, block: Block | None = None) -> Chart | None:
    """The differences of all declared tests with 95 % intervals, in per cent of the row that is compared with.

    A panel for each family, block and backbone, with a scale of its own. None where nothing was tested.
    """
    shown = [one for one in material.families if one.tests]
    if not shown:
        return None
    points = []
    for one in shown:
        for test in one.tests:
            panel = _panel(one, test)
            if not any(p["panel"] == panel for p in points):
                points.append(point(panel, "difference", ZERO, "level", test.group.name, 0.0))
            points.append(point(panel, "difference", OUTCOMES[test.verdict], "mean", test.group.name,
                                *_relative(test), note=p_text(test.p_holm)))
    metrics = " or ".join(dict.fromkeys(title_of(one.family.metric) for one in shown))
    tests = [t for one in shown for t in one.tests]
    seeds = sorted({t.comparison.n_seeds for t in tests})
    span = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    caption = (f"{len(tests)} tests in {len(shown)} families, {span} seed{'s' * (seeds[-1] > 1)}: mean difference in "
               f"{metrics} and 95 % interval over seeds and users, in per cent of the mean of the row that is compared "
               "with; at the right p after Holm's correction within the family; better or worse where both p and "
               "interval say so; each panel has a scale of its own")
    return Chart("Declared comparisons: gain or loss against the row compared with", caption, points,
                 {"difference": Axis(f"Difference in {metrics}", percent=True)}, LOOKS, shared=False)


def _panel(one: Tested, test: Test) -> str:
    return f"Against {test.against.name}: {test.block.name}, {test.backbone}"


def _relative(test: Test) -> tuple[float, tuple[float, float]]:
    c = test.comparison
    base = c.mean_b or float("nan")
    return c.difference / base, (c.interval[0] / base, c.interval[1] / base)
