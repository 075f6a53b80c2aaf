"""Which measured figures of a paper a report has, and what the others need."""

from __future__ import annotations

from collections.abc import Iterable

from genrec_bench.reporting.figures.base import Picture, Plate, blocks_of, plates
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData


def status(material: ReportData, paper_key: str,
           drawn: Iterable[tuple[Plate, Block | None, Picture]] | None = None) -> list[tuple[str, str, str]]:
    """(number, title, text) of every measured figure of a paper, in order: of what it is drawn, or what is missing.

    drawn: the suite's figures where they have been drawn already; else they are drawn here.
    """
    found = None if drawn is None else list(drawn)
    lines = []
    for made in plates(paper=paper_key):
        if not made.belongs_to(material.suite):
            lines.append((made.number, made.title, f"not drawn: suite {material.suite.name} has no row with "
                          f"{' or '.join(made.objectives)}"))
            continue
        pictures = list(blocks_of(made, material)) if found is None else [
            (block, picture) for plate, block, picture in found
            if (plate.paper, plate.number) == (made.paper, made.number)]
        lines.append((made.number, made.title, _text(made.title, pictures)))
    return lines


def _text(title: str, pictures: list[tuple[Block | None, Picture]]) -> str:
    names = ["all data together" if block is None else block.name for block, p in pictures if p.files]
    if names:
        return f"drawn for {'; '.join(names)}"
    reasons = [f"{'' if block is None else f'{block.name}: '}{p.text.removeprefix(f'{title}: no picture; ')}"
               for block, p in pictures]
    return f"not drawn: {' / '.join(reasons)}" if reasons else "not drawn: no run on data and backbone that it is about"
