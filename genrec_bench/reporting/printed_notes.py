"""What stands below a printed table: which of our rows stand in it, why they may not be compared, its misprints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from genrec_bench.reporting.grades import DIRECTIONAL, NOT_COMPARABLE, NOT_REPRODUCED
from genrec_bench.reporting.papers import IMPROVEMENT, Layout, Paper, Reported
from genrec_bench.reporting.printed_cells import OTHERWISE, TAKEN, Cell

COSTS = ("Seconds and epochs are those of the last stage, ours on our machine; our epochs are those up to the one that "
         "is kept. The multiples depend on the machine less than the seconds do.")


def notes_of(paper: Paper, layout: Layout, cells: Sequence[Cell]) -> list[str]:
    """One line each, plain text."""
    notes = [*_stars(cells), *([COSTS] if layout.kind == "costs" else [])]
    notes += _settings(cells) if layout.kind == "settings" else []
    notes += [*_rows(cells), *_reasons(cells), *_misprints(cells)]
    return notes + [f"{f['key']}: {f['text'].strip()}" for f in paper.findings if layout.number in f["tables"]]


def _stars(cells: Sequence[Cell]) -> Iterator[str]:
    """What the rows with a star are better than, a line for each that differs."""
    found: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        if cell.better_than:
            found.setdefault(cell.better_than, []).append(_place(cell.reported))
    for others, places in found.items():
        where = f" ({'; '.join(places)})" if len(found) > 1 else ""
        yield (f"Star{where}: better than {' and '.join(others)} in a declared comparison of ours (Holm), not the "
               "paper's test.")


def _settings(cells: Sequence[Cell]) -> Iterator[str]:
    if any(c.grade.why == TAKEN for c in cells):
        yield "Where the two are equal our rows take the setting from this table: it is no result of ours."
    other = list(dict.fromkeys(_place(c.reported) for c in cells if c.grade.why == OTHERWISE))
    if other:
        yield f"Set otherwise: {'; '.join(other)}."


def _rows(cells: Sequence[Cell]) -> Iterator[str]:
    """Which of our rows stand in the printed ones, a line a block."""
    found: dict[str, dict[str, str]] = {}
    for cell in cells:
        if cell.standing and cell.reported.method:
            label, *others = (f'"{name}"' for name in (cell.standing.group.label, *cell.standing.others))
            found.setdefault(cell.standing.block.name, {})[_method(cell.reported)] = label + (
                f" (not {', '.join(others)})" if others else "")
    for block, rows in found.items():
        yield f"Our rows, from {block}: {'; '.join(f'{method} is {label}' for method, label in rows.items())}."
    data = dict.fromkeys(c.standing.block.name for c in cells if c.standing and not c.reported.method)
    if data:
        yield f"Our counts are from {', '.join(data)}."


def _reasons(cells: Sequence[Cell]) -> Iterator[str]:
    """What cells agree in, or what keeps them from being compared or reproduced, a line a reason."""
    for grade in (DIRECTIONAL, NOT_COMPARABLE, NOT_REPRODUCED):
        places: dict[str, list[str]] = {}
        for cell in cells:
            if cell.grade.name == grade:
                places.setdefault(cell.grade.why, []).append(_place(cell.reported))
        for why, where in places.items():
            yield f"{grade.capitalize()}, {'; '.join(dict.fromkeys(where))}: {why}."


def _misprints(cells: Sequence[Cell]) -> Iterator[str]:
    """Improvements that the printed cells cannot give."""
    for cell in cells:
        if cell.misprint:
            values = (cell.reported.value, cell.recomputed, *cell.spread)
            printed, ours, low, high = (f"{100 * value:+.2f}%" for value in values)
            yield (f"{_place(cell.reported)}, {cell.reported.metric}: {printed} is printed, but the printed cells give "
                   f"{ours}, with their rounding {low} to {high}.")


def _method(cell: Reported) -> str:
    name = "Improvement" if cell.method == IMPROVEMENT else cell.method
    return f"{cell.backbone} {name}".strip()


def _place(cell: Reported) -> str:
    return f"{_method(cell)} on {cell.dataset}" if cell.method else cell.dataset
