"""Which measured figures of a paper a report has, and what the others need."""

from __future__ import annotations

from collections.abc import Iterable

from genrec_bench.reporting.figures.base import Picture, Plate, plates
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData


def status(material: ReportData, paper_key: str,
           drawn: Iterable[tuple[Plate, Block | None, Picture]] | None = None) -> list[tuple[str, str, str]]:
    """(number, title, text) of every measured figure of a paper, in order: of what it is drawn, or what is missing.

    drawn: the suite's figures where they have been drawn already; else it is found out here.
    """
    found = None if drawn is None else list(drawn)
    lines = []
    for made in plates(paper=paper_key):
        if not made.belongs_to(material.suite):
            lines.append((made.number, made.title, f"not drawn: suite {material.suite.name} has no row with "
                          f"{' or '.join(made.objectives)}"))
            continue
        if found is None:
            charts = [(block, made.draw(material, block)) for block in made.subjects(material)]
            known = [(block, not isinstance(chart, str), chart if isinstance(chart, str) else "")
                     for block, chart in charts if chart is not None]
        else:
            known = [(block, bool(picture.files), picture.text) for plate, block, picture in found
                     if plate.key == made.key]
        lines.append((made.number, made.title, _text(known)))
    return lines


def _text(known: list[tuple[Block | None, bool, str]]) -> str:
    names = ["all data together" if block is None else block.name for block, is_drawn, _ in known if is_drawn]
    if names:
        return f"drawn for {'; '.join(names)}"
    reasons = [f"{'' if block is None else f'{block.name}: '}{text}" for block, _, text in known]
    return f"not drawn: {' / '.join(reasons)}" if reasons else "not drawn: no run on data and backbone that it is about"
