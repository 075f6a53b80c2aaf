"""The training-free row of each data set with its interval, and the best printed row."""

from __future__ import annotations

from genrec_bench.reporting.best_printed import beside_printed
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData

NAME = "printed"
POLICIES = ("history kept", "history taken out")
PRINTED = "best row that the paper prints"


@plate(NAME, "Beside the best printed rows", whole=True)
def beside_printed_figure(material: ReportData, block: Block | None = None) -> Chart | None:
    """NDCG@10 with 95 % intervals, a line a data set; None for suites that have no page about it."""
    found = beside_printed(material) if material.suite.page else []
    if not found:
        return None
    points = []
    for one in found:
        at = f"{one.dataset}: {one.group.label}"
        points += [point("", "ndcg@10", name, "mean", at, e.value, e)
                   for name, e in zip(POLICIES, one.ndcg, strict=True)]
        points.append(point("", "ndcg@10", PRINTED, "printed", at, one.printed.value))
    return Chart("A training-free row beside the best that the papers print",
                 "NDCG@10 of the training-free row that is best in validation, the history kept as in the papers or "
                 "taken out, with 95 % interval over users; the printed rows have none", points,
                 {"ndcg@10": Axis("NDCG@10")},
                 {**{name: look(name) for name in POLICIES}, PRINTED: (*look("reference")[:1], "D", ())}, fewest=2)
