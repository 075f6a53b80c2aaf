"""The tables of a paper as it prints them, with our numbers in its cells: Markdown, CSV and LaTeX."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from genrec_bench.reporting import latex
from genrec_bench.reporting.grades import GRADES
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.papers import IMPROVEMENT, Layout, Paper, Reported
from genrec_bench.reporting.printed_cells import Better, Cell, fill
from genrec_bench.reporting.printed_notes import notes_of
from genrec_bench.reporting.tables import DASH, csv_text, mean_sd, number, pipe, title_of

WIDE = 4  # columns of a Markdown or LaTeX table; of a wider one each dataset is a table of its own
HEADER = ("paper", "table", "dataset", "backbone", "method", "metric", "reproduced_mean", "sd", "n", "seeds", "values",
          "reported", "delta", "grade", "why", "flag", "our_row", "block")
NAMES = {"n_users": "Users", "n_items": "Items", "n_interactions": "Interactions", "density": "Density",
         "sparsity": "Sparsity", "time_per_epoch": "Seconds per epoch", "epochs_to_convergence": "Epochs",
         "hr_click": "Click HR", "hr_pv": "PV HR", "dataset": "Data", IMPROVEMENT: "Improvement"}
READING = {
    "scores": "Each cell: reproduced ± SD over seeds (reported, difference, grade); best in bold, second underlined, "
              "ours and theirs apart. Improvements and changes: ours (printed, recomputed from the printed cells).",
    "counts": "Each cell: ours (printed, grade).",
    "costs": "Each cell: ours ± SD over seeds, as a multiple of the first row (printed, as a multiple, grade).",
    "settings": "Each cell: what our rows of the paper are run with (printed).",
}


Panel = list[Cell]


@dataclass(frozen=True)
class PrintedTable:
    """One table of a paper. markdown: its sub-tables; csv: a line a cell; notes: plain text, one a line.

    cells: in printed order.
    """

    number: str
    title: str
    markdown: str
    csv: str
    latex: str
    notes: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Style:
    """How a text is made bold, underlined and safe."""

    bold: Callable[[str], str]
    underline: Callable[[str], str]
    escape: Callable[[str], str]


MARKDOWN = Style(lambda t: f"**{t}**", lambda t: f"<u>{t}</u>", lambda t: re.sub(r"([\\*<>`])", r"\\\1", t))
LATEX = Style(lambda t: rf"\textbf{{{t}}}", lambda t: rf"\underline{{{t}}}", latex.escape)


def paper_tables(paper: Paper, blocks: Sequence[Block], *,
                 better: Better = MappingProxyType({})) -> list[PrintedTable]:
    """Every table that the paper's file lays out, with the runs that the blocks of its suite have for it.

    better: (name of a block, label of its row) -> labels of the rows that a declared test found it better than; its
    NDCG@10 gets a star. blocks may be empty: every cell is then not run.
    """
    return [_table(paper, layout, fill(paper, layout, blocks, better)) for layout in paper.layouts]


def numbers(paper: Paper) -> list[str]:
    """The numbers of the tables that `paper_tables` makes, in order."""
    return [layout.number for layout in paper.layouts]


def grade_counts(tables: Iterable[PrintedTable]) -> dict[str, dict[str, int]]:
    """Table -> grade -> how many of its cells have it; improvements, and settings that were run, have no grade."""
    counts = {table.number: Counter(cell.grade.name for cell in table.cells) for table in tables}
    return {key: {name: found[name] for name in GRADES if found[name]} for key, found in counts.items()}


def _table(paper: Paper, layout: Layout, cells: list[Cell]) -> PrintedTable:
    flags = list(dict.fromkeys(c.reported.flag for c in cells if c.reported.flag))
    letters = {flag: chr(ord("a") + i) for i, flag in enumerate(flags)}
    notes = (READING[layout.kind], *(f"[{letter}] {flag}." for flag, letter in letters.items()),
             *notes_of(paper, layout, cells))
    panels = _panels(layout, cells)
    rows = [_csv_row(paper, cell) for cell in cells]
    markdown = "\n\n".join(f"**{heading}**\n\n{body}" if heading else body for heading, body in (
        (", ".join((*block, *part)), _markdown(layout, panel, letters)) for block, part, panel in panels))
    return PrintedTable(layout.number, layout.title, markdown, csv_text(HEADER, rows),
                        _latex(paper, layout, panels, letters, notes), notes, tuple(cells))


def _key(parts: Sequence[str], cell: Reported) -> tuple[str, ...]:
    return tuple(getattr(cell, part) for part in parts)


def _panels(layout: Layout, cells: list[Cell]) -> list[tuple[tuple[str, ...], tuple[str, ...], Panel]]:
    """(sub-table of the paper, dataset of a wide one, cells) in printed order."""
    columns = dict.fromkeys(_key(layout.columns, c.reported) for c in cells)
    cut = layout.columns[:1] if len(layout.columns) > 1 and len(columns) > WIDE else ()
    panels: dict[tuple[tuple[str, ...], tuple[str, ...]], Panel] = {}
    for cell in cells:
        panels.setdefault((_key(layout.blocks, cell.reported), _key(cut, cell.reported)), []).append(cell)
    blocks = list(dict.fromkeys(block for block, _ in panels))
    ordered = sorted(panels.items(), key=lambda item: blocks.index(item[0][0]))
    return [(block, part, panel) for (block, part), panel in ordered]


def _grid(layout: Layout, panel: Panel, style: Style, letters: dict[str, str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one panel; parts that are the same in all columns are left out of the header."""
    rows = list(dict.fromkeys(_key(layout.rows, c.reported) for c in panel))
    columns = list(dict.fromkeys(_key(layout.columns, c.reported) for c in panel))
    told = [i for i in range(len(layout.columns)) if len({c[i] for c in columns}) > 1] or [len(layout.columns) - 1]
    found = {(_key(layout.rows, c.reported), _key(layout.columns, c.reported)): c for c in panel}
    header = [NAMES.get(part, part.capitalize()) for part in layout.rows]
    header += [", ".join(_name(c[i]) for i in told) for c in columns]
    lines = []
    for row in rows:
        cells = [found.get((row, column)) for column in columns]
        lines.append([*(style.escape(_name(part) or DASH) for part in row),
                      *(style.escape(DASH) if cell is None else _text(cell, style, letters) for cell in cells)])
    return [style.escape(h) for h in header], lines


def _name(part: str) -> str:
    """A part of a cell as a heading."""
    name, at, k = part.partition("@")
    return f"{NAMES[name]}@{k}" if at and name in NAMES else NAMES.get(part, title_of(part))


def _markdown(layout: Layout, panel: Panel, letters: dict[str, str]) -> str:
    header, rows = _grid(layout, panel, MARKDOWN, letters)
    return pipe(header, rows, numeric_from=len(layout.rows))


def _latex(paper: Paper, layout: Layout, panels: Sequence[tuple[tuple[str, ...], tuple[str, ...], Panel]],
           letters: dict[str, str], notes: Sequence[str]) -> str:
    """A float for each of the paper's sub-tables; the notes stand below the last."""
    floats, blocks = [], list(dict.fromkeys(block for block, _, _ in panels))
    for i, block in enumerate(blocks):
        parts = []
        for _, part, panel in (p for p in panels if p[0] == block):
            header, rows = _grid(layout, panel, LATEX, letters)
            parts.append((", ".join(part), latex.tabular(header, rows, labels=len(layout.rows))))
        place = f" ({', '.join(block)})" if block else ""
        caption = f"{layout.title}{place}: Table {layout.number} of {paper.title}."
        label = f"tab:{paper.key}-{layout.number}" + (f"-{i + 1}" if len(blocks) > 1 else "")
        floats.append(latex.table(caption, label, parts, notes if i == len(blocks) - 1 else ()))
    return "\n\n".join([latex.NEEDS, *floats]) + "\n"


def _text(cell: Cell, style: Style, letters: dict[str, str]) -> str:
    """One cell: ours and in brackets what is printed."""
    reported = _marked(style.escape(_number(cell, cell.reported.value)), cell.printed_order, style)
    flag = f" [{letters[cell.reported.flag]}]" if cell.reported.flag else ""
    inside = [reported + style.escape(flag), *map(style.escape, _beside(cell))]
    return f"{_ours(cell, style)} ({', '.join(inside)})"


def _ours(cell: Cell, style: Style) -> str:
    """Ours with its spread, unaveraged where seeds are missing."""
    if cell.reported.relative:
        text = _number(cell, cell.gain)
        partly = cell.gain is not None and cell.among[0] < cell.among[1]
        return style.escape(f"{text} [{cell.among[0]} of {cell.among[1]} rows]" if partly else text)
    if not cell.values:
        return style.escape(DASH)
    if not cell.whole:
        seeds = ", ".join(str(seed) for seed, _ in cell.values)
        texts = ", ".join(_number(cell, value, ours=True) for _, value in cell.values)
        return style.escape(f"{texts} [seed{'s' if len(cell.values) > 1 else ''} {seeds}]")
    unit = cell.reported.unit
    if unit in ("count", "hyperparameter"):
        return style.escape(_number(cell, cell.ours.mean))
    text = mean_sd(cell.ours, digits=cell.digits if unit == "fraction" else 1)
    text = _marked(style.escape(text + ("*" if cell.better_than else "")), cell.order, style)
    return text + ("" if cell.per_base is None else f", {cell.per_base:.2f}x")


def _beside(cell: Cell) -> list[str]:
    """What follows the printed number in the brackets."""
    if cell.reported.relative:
        return [_number(cell, cell.recomputed)]
    graded = [cell.grade.name] if cell.grade.name else []
    ratio = [] if cell.printed_per_base is None else [f"{cell.printed_per_base:.2f}x"]
    if cell.reported.unit != "fraction" or not cell.reported.method or cell.ours.mean is None:
        return [*ratio, *graded]
    return [f"{cell.ours.mean - cell.reported.value:+.{cell.digits}f}", *graded]


def _marked(text: str, order: int, style: Style) -> str:
    return style.bold(text) if order == 1 else style.underline(text) if order == 2 else text


def _number(cell: Cell, value: float | None, *, ours: bool = False) -> str:
    """A number as its unit is printed."""
    unit = cell.reported.unit
    if value is None:
        return DASH
    if unit == "relative":
        return f"{100 * value:+.{cell.digits - 2}f}%"
    if unit == "hyperparameter":
        return f"{value:g}"
    return number(value, 1 if ours and unit in ("seconds", "epochs") else cell.digits)


def _csv_row(paper: Paper, cell: Cell) -> list[Any]:
    """One cell in the order of HEADER, unrounded; an incomplete row has values, but no mean."""
    r, ours, standing = cell.reported, cell.ours, cell.standing
    return [paper.key, r.table, r.dataset, r.backbone, r.method, r.metric, ours.mean, ours.sd,
            None if r.relative else len(cell.values), " ".join(str(seed) for seed, _ in cell.values),
            " ".join(repr(value) for _, value in cell.values), r.value,
            None if ours.mean is None else ours.mean - r.value, cell.grade.name, cell.grade.why, r.flag,
            standing.group.label if standing else None, standing.block.name if standing else None]
