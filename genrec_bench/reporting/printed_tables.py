"""The tables of a paper as it prints them, with our numbers in its cells: Markdown, CSV and LaTeX."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from genrec_bench.reporting import latex
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.papers import IMPROVEMENT, Layout, Paper, Reported
from genrec_bench.reporting.printed import (
    ENOUGH,
    FEWEST,
    GRADES,
    NOT_COMPARABLE,
    NOT_RUN,
    Better,
    Cell,
    joined,
    reasons,
)
from genrec_bench.reporting.tables import DASH, csv_text, pipe, title_of

WIDE = 4  # columns of a Markdown or LaTeX table; of a wider one each dataset is a table of its own
HEADER = ("paper", "table", "dataset", "backbone", "method", "metric", "reproduced_mean", "sd", "n", "seeds", "values",
          "level", "reported", "delta", "grade", "why", "flag", "our_row", "block")
NAMES = {"n_users": "Users", "n_items": "Items", "n_interactions": "Interactions", "density": "Density",
         "sparsity": "Sparsity", "time_per_epoch": "Seconds per epoch", "epochs_to_convergence": "Epochs",
         "hr_click": "Click HR", "hr_pv": "PV HR", "pvr": "Share of page views", "ipv_lift": "Page views, change",
         "transactioncount_lift": "Transactions, change", "dataset": "Data", IMPROVEMENT: "Improvement"}
READING = {
    "scores": "Ours ± SD over seeds (printed, difference, grade), a dash where nothing was run. Bold and underlined: "
              "best and second of the printed column, and of ours where all its rows are there. Improvements: ours "
              "(printed, and what the printed cells give where that differs).",
    "counts": "Ours (printed, grade).",
    "costs": "Ours ± SD over seeds, as a multiple of the first row (printed, as a multiple, grade). Of the last stage; "
             "our epochs are those up to the one that is kept. Multiples depend on the machine less than seconds do.",
    "reference": "Printed numbers for reference: nothing of ours stands beside them.",
}
GRADING = ("Grades: exact, the printed number is within one standard error of our seeds (at least two) and half a unit "
           f"of its last digit; statistical, within mean ± 2 SD of at least {ENOUGH} seeds; directional, the method "
           "stands as printed to all others of its column that were run, at least half of those printed and "
           f"{FEWEST}; else not reproduced. Not comparable: data or settings are not the paper's, or seeds are "
           "missing. No grade is a test.")


@dataclass(frozen=True)
class PrintedTable:
    """One table of a paper. markdown: its sub-tables; csv: a line a cell; notes: plain text, one a line. cells: in
    printed order.
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

    def marked(self, text: str, place: int) -> str:
        """The best of a column in bold, the second underlined."""
        return self.bold(text) if place == 1 else self.underline(text) if place == 2 else text


MARKDOWN = Style(lambda t: f"**{t}**", lambda t: f"<u>{t}</u>", lambda t: re.sub(r"([\\*<>`])", r"\\\1", t))
LATEX = Style(lambda t: rf"\textbf{{{t}}}", lambda t: rf"\underline{{{t}}}", latex.escape)


def paper_tables(paper: Paper, blocks: Sequence[Block], *,
                 better: Better = MappingProxyType({})) -> list[PrintedTable]:
    """Every table that the paper's file lays out, with the runs that the blocks of its suite have for it.

    better: (name of a block, label of its row) -> labels of the rows that a declared test found it better than; its
    NDCG@10 gets a star. blocks may be empty: every cell is then not run.
    """
    return [_table(paper, number, joined(paper, number, blocks, better)) for number in paper.layouts]


def grade_counts(tables: Iterable[PrintedTable]) -> dict[str, dict[str, int]]:
    """Table -> grade -> how many of its cells have it; improvements and references have none."""
    counts = {table.number: Counter(cell.grade for cell in table.cells) for table in tables}
    return {key: {name: found[name] for name in GRADES if found[name]} for key, found in counts.items()}


def _table(paper: Paper, number: str, cells: list[Cell]) -> PrintedTable:
    layout = paper.layouts[number]
    flags = list(dict.fromkeys(c.reported.note for c in cells if c.reported.note))
    letters = {flag: chr(ord("a") + i) for i, flag in enumerate(flags)}
    notes = (READING[layout.kind], *(f"[{letter}] {flag}." for flag, letter in letters.items()),
             *_notes(paper, number, cells))
    panels, markdown, floats = _panels(layout, cells), [], {}
    for block, part, some in panels:
        heading = ", ".join((*block, *part))
        grid = pipe(*_grid(layout, some, MARKDOWN, letters), numeric_from=len(layout.rows))
        markdown += [f"**{heading}**"] * bool(heading) + [grid]
        tabular = latex.tabular(*_grid(layout, some, LATEX, letters), labels=len(layout.rows))
        floats.setdefault(block, []).append((", ".join(part), tabular))
    last, name = next(reversed(floats)), f"tab:{paper.key}-{number}"
    made = [latex.table(f"{' on '.join((layout.title, *block))}: Table {number} of {paper.title}.",
                        name + f"-{n}" * (len(floats) > 1), parts, notes if block == last else ())
            for n, (block, parts) in enumerate(floats.items(), 1)]
    return PrintedTable(number, layout.title, "\n\n".join(markdown),
                        csv_text(HEADER, [_csv_row(paper, c) for c in cells]),
                        "\n\n".join([latex.NEEDS, *made]) + "\n", notes, tuple(cells))


def _key(parts: Sequence[str], cell: Cell) -> tuple[str, ...]:
    return tuple(getattr(cell.reported, part) for part in parts)


def _panels(layout: Layout, cells: Sequence[Cell]) -> list[tuple[tuple[str, ...], tuple[str, ...], list[Cell]]]:
    """(sub-table of the paper, dataset of a wide one, cells) in printed order."""
    columns = {_key(layout.columns, c) for c in cells}
    cut = layout.columns[:1] if len(layout.columns) > 1 and len(columns) > WIDE else ()
    blocks = list(dict.fromkeys(_key(layout.blocks, c) for c in cells))
    panels: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Cell]] = {}
    for c in sorted(cells, key=lambda c: blocks.index(_key(layout.blocks, c))):
        panels.setdefault((_key(layout.blocks, c), _key(cut, c)), []).append(c)
    return [(*key, panel) for key, panel in panels.items()]


def _grid(layout: Layout, panel: Sequence[Cell], style: Style,
          letters: dict[str, str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one panel; parts that are the same in all columns are left out of the header."""
    found = {(_key(layout.rows, c), _key(layout.columns, c)): _text(c, style, letters) for c in panel}
    rows, columns = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    told = [i for i in range(len(layout.columns)) if len({c[i] for c in columns}) > 1] or [len(layout.columns) - 1]
    header = [NAMES.get(part, part.capitalize()) for part in layout.rows]
    header += [", ".join(_name(c[i]) for i in told) for c in columns]
    lines = [[*(style.escape(_name(part) or DASH) for part in row),
              *(found.get((row, column), style.escape(DASH)) for column in columns)] for row in rows]
    return [style.escape(h) for h in header], lines


def _name(part: str) -> str:
    """A part of a cell as a heading."""
    name, at, k = part.partition("@")
    return f"{NAMES[name]}@{k}" if at and name in NAMES else NAMES.get(part, title_of(part))


def _text(cell: Cell, style: Style, letters: dict[str, str]) -> str:
    """One cell: ours and in brackets what is printed; of a reference what is printed."""
    reported = cell.reported
    printed = style.marked(style.escape(_number(reported, reported.value)), cell.printed_place)
    printed += style.escape(f" [{letters[reported.note]}]") if reported.note else ""
    if not cell.grade and not cell.values and cell.recomputed is None:
        return printed
    return f"{_ours(cell, style)} ({', '.join([printed, *map(style.escape, _beside(cell))])})"


def _ours(cell: Cell, style: Style) -> str:
    """Ours with its spread, unaveraged where seeds are missing."""
    reported, ours = cell.reported, cell.ours
    if not cell.whole:
        texts = ", ".join(_number(reported, value, ours=True) for value in cell.values.values())
        seeds = ", ".join(map(str, cell.values))
        return style.escape(f"{texts} [seed{'s' * (len(cell.values) > 1)} {seeds}]" if texts else DASH)
    if ours.mean is None:
        return style.escape(DASH)
    spread = "" if ours.sd is None else f" ± {_number(reported, ours.sd, ours=True)}"
    text = style.escape(_number(reported, ours.mean, ours=True) + spread + "*" * bool(cell.better_than))
    return style.marked(text, cell.place) + ("" if cell.multiple is None else f", {cell.multiple:.2f}x")


def _beside(cell: Cell) -> Iterator[str]:
    """What follows the printed number in the brackets."""
    reported = cell.reported
    if reported.relative:
        recomputed = _number(reported, cell.recomputed)
        yield from [recomputed] * (recomputed != _number(reported, reported.value))
        return
    if cell.printed_multiple is not None:
        yield f"{cell.printed_multiple:.2f}x"
    if cell.grade in (NOT_RUN, ""):
        return
    if reported.score and cell.grade != NOT_COMPARABLE:
        delta = _number(reported, cell.ours.mean - reported.value)
        yield delta if delta.startswith("-") else f"+{delta}"
    yield cell.grade


def _number(cell: Reported, value: float, *, ours: bool = False) -> str:
    """A number as its unit is printed."""
    if cell.unit.endswith("percent"):
        return f"{100 * value:{'+' * cell.relative}.{cell.digits - 2}f}%"
    if cell.unit == "hyperparameter":
        return f"{value:g}"
    return f"{value:,.{1 if ours and cell.unit in ('s', 'epochs') else cell.digits}f}"


def _csv_row(paper: Paper, cell: Cell) -> list[Any]:
    """One cell in the order of HEADER, unrounded; an incomplete row has values, but no mean, and what is not comparable
    no difference."""
    r, ours, standing = cell.reported, cell.ours, cell.standing
    delta = None if ours.mean is None or r.relative or cell.grade in (NOT_COMPARABLE, "") else ours.mean - r.value
    return [paper.key, r.table, r.dataset, r.backbone, r.method, r.metric, ours.mean, ours.sd,
            None if r.relative else len(cell.values), " ".join(map(str, cell.values)),
            " ".join(map(repr, cell.values.values())), _level(cell), r.value, delta, cell.grade, cell.why, r.note,
            standing.group.label if standing else None, standing.block.name if standing else None]


def _level(cell: Cell) -> str:
    """Whether ours are ID-level, as papers count, or item-level; "" for what is no score of ours."""
    if not cell.reported.score or not cell.values:
        return ""
    return "ID-level" if f"id_{cell.reported.metric}" in cell.standing.group.records[0].metrics else "item-level"


def _notes(paper: Paper, number: str, cells: Sequence[Cell]) -> Iterator[str]:
    """What stands below a table: stars, our rows, why they may not be compared, and the paper's inconsistencies."""
    starred: dict[tuple[str, ...], list[str]] = {}
    for cell in (c for c in cells if c.better_than):
        starred.setdefault(cell.better_than, []).append(_place(cell.reported))
    for others, places in starred.items():
        where = f" ({'; '.join(places)})" if len(starred) > 1 else ""
        yield (f"Star{where}: better than {' and '.join(others)} in a declared comparison of ours (Holm), not the "
               "paper's test.")
    yield from _our_rows(cells)
    for grade, why, some in reasons(cells):
        yield f"{grade.capitalize()}, {'; '.join(dict.fromkeys(map(_place, some)))}: {why}."
    yield from (f"{name}: {text}" for name, text, tables in paper.findings if f"Table {number}" in tables.split("; "))


def _our_rows(cells: Sequence[Cell]) -> Iterator[str]:
    """Which of our rows stand in the printed ones, a line a block; how they count and search."""
    found: dict[str, dict[str, str]] = {}
    for cell in (c for c in cells if c.standing and c.reported.method):
        group, more = cell.standing.group, [f'not "{name}"' for name in cell.standing.others]
        if (group.config.get("decoding") or {}).get("normaliser") == "trie":
            more.append("decoded by the softmax over valid tokens")
        more = [text for text in (_level(cell), *more) if text]
        text = f'"{group.label}"' + (f" ({', '.join(more)})" if more else "")
        name = f"{cell.reported.backbone} {cell.reported.method}".strip()
        found.setdefault(cell.standing.block.name, {})[name] = text
    for block, rows in found.items():
        yield f"Our rows, from {block}: {'; '.join(f'{name} is {text}' for name, text in rows.items())}."
    data = dict.fromkeys(c.standing.block.name for c in cells if c.standing and not c.reported.method)
    if data:
        yield f"Our counts are from {', '.join(data)}."


def _place(cell: Reported) -> str:
    return f"{cell.backbone} {cell.method} on {cell.dataset}".strip() if cell.method else cell.dataset
