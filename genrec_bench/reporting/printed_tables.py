"""The tables of a paper as it prints them, with our numbers in its cells: Markdown, CSV and LaTeX."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from genrec_bench.core.lists import grouped
from genrec_bench.reporting import latex
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.papers import IMPROVEMENT, Layout, Paper, Reported
from genrec_bench.reporting.printed import NOT_COMPARABLE, NOT_RUN, REASONED, Better, Cell, joined
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.tables import DASH, csv_text, pipe, title_of

WIDE = 4  # columns of a Markdown or LaTeX table; of a wider one each dataset is a table of its own
HEADER = ("paper", "table", "dataset", "backbone", "method", "metric", "reproduced_mean", "sd", "n", "seeds", "values",
          "level", "reported", "delta", "grade", "why", "flag", "our_row", "block")
NAMES = {"n_users": "Users", "n_items": "Items", "n_interactions": "Interactions", "density": "Density",
         "sparsity": "Sparsity", "time_per_epoch": "Seconds per epoch", "epochs_to_convergence": "Epochs",
         "hr_click": "Click HR", "hr_pv": "PV HR", "pvr": "Share of page views", "ipv_lift": "Page views, change",
         "transactioncount_lift": "Transactions, change", "dataset": "Data", IMPROVEMENT: "Improvement"}


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

    @property
    def grades(self) -> Counter[str]:
        """How many of its cells have each grade; improvements and references have none."""
        return Counter(cell.grade for cell in self.cells if cell.grade)


def paper_tables(paper: Paper, blocks: Sequence[Block], *,
                 better: Better = MappingProxyType({})) -> list[PrintedTable]:
    """Every table that the paper's file lays out, with the runs that the blocks of its suite have for it.

    better: (name of a block, label of its row) -> labels of the rows that a declared test found it better than; its
    NDCG@10 gets a star. blocks may be empty: every cell is then not run.
    """
    return [_table(paper, number, joined(paper, number, blocks, better)) for number in paper.layouts]


def _table(paper: Paper, number: str, cells: list[Cell]) -> PrintedTable:
    layout = paper.layouts[number]
    flags = dict.fromkeys(c.reported.note for c in cells if c.reported.note)
    letters = {flag: chr(ord("a") + i) for i, flag in enumerate(flags)}
    notes = render("printed_notes", **_notes(paper, number, cells), kind=layout.kind, letters=letters).splitlines()
    markdown, floats = [], {}
    for (block, part), some in _panels(layout, cells).items():
        heading, (header, rows) = ", ".join((*block, *part)), _grid(layout, some, letters)
        markdown += [f"**{heading}**"] * bool(heading) + [pipe(header, rows, numeric_from=len(layout.rows))]
        floats.setdefault(block, []).append((", ".join(part), latex.tabular(header, rows, labels=len(layout.rows))))
    made = [latex.table(f"{' on '.join((layout.title, *block))}: Table {number} of {paper.title}.",
                        f"tab:{paper.key}-{number}" + f"-{n}" * (len(floats) > 1), parts,
                        notes if n == len(floats) else ()) for n, (block, parts) in enumerate(floats.items(), 1)]
    return PrintedTable(number, layout.title, "\n\n".join(markdown),
                        csv_text(HEADER, [_csv_row(paper, c) for c in cells]),
                        "\n\n".join([latex.NEEDS, *made]) + "\n", tuple(notes), tuple(cells))


def _key(parts: Sequence[str], cell: Cell) -> tuple[str, ...]:
    return tuple(getattr(cell.reported, part) for part in parts)


def _panels(layout: Layout, cells: Sequence[Cell]) -> dict[tuple[tuple[str, ...], tuple[str, ...]], list[Cell]]:
    """(sub-table of the paper, dataset of a wide one) -> cells, in printed order."""
    columns = {_key(layout.columns, c) for c in cells}
    cut = layout.columns[:1] if len(layout.columns) > 1 and len(columns) > WIDE else ()
    blocks = list(dict.fromkeys(_key(layout.blocks, c) for c in cells))
    return grouped((c for block in blocks for c in cells if _key(layout.blocks, c) == block),
                   lambda c: (_key(layout.blocks, c), _key(cut, c)))


def _grid(layout: Layout, panel: Sequence[Cell], letters: dict[str, str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one panel; parts that are the same in all columns are left out of the header."""
    found = {(_key(layout.rows, c), _key(layout.columns, c)): _text(c, letters) for c in panel}
    rows, columns = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    told = [i for i in range(len(layout.columns)) if len({c[i] for c in columns}) > 1] or [len(layout.columns) - 1]
    header = [*(NAMES.get(part, part.capitalize()) for part in layout.rows),
              *(", ".join(_name(c[i]) for i in told) for c in columns)]
    lines = [[*(_escape(_name(part) or DASH) for part in row), *(found.get((row, column), DASH) for column in columns)]
             for row in rows]
    return [_escape(h) for h in header], lines


def _escape(text: str) -> str:
    return re.sub(r"([\\*<>`])", r"\\\1", text)


def _marked(text: str, place: int) -> str:
    """The best of a column in bold, the second underlined."""
    return f"**{text}**" if place == 1 else f"<u>{text}</u>" if place == 2 else text


def _name(part: str) -> str:
    """A part of a cell as a heading."""
    name, at, k = part.partition("@")
    return f"{NAMES[name]}@{k}" if at and name in NAMES else NAMES.get(part, title_of(part))


def _text(cell: Cell, letters: dict[str, str]) -> str:
    """One cell: ours and in brackets what is printed; of a reference what is printed."""
    reported = cell.reported
    printed = _marked(_number(reported, reported.value), cell.printed_place)
    printed += f" [{letters[reported.note]}]" if reported.note else ""
    if not cell.grade and not cell.values and cell.recomputed is None:
        return printed
    return f"{_ours(cell)} ({', '.join([printed, *_beside(cell)])})"


def _ours(cell: Cell) -> str:
    """Ours with its spread, unaveraged where seeds are missing."""
    reported, ours = cell.reported, cell.ours
    if not cell.whole and cell.values:
        texts = ", ".join(_number(reported, value, ours=True) for value in cell.values.values())
        return f"{texts} [seed{'s' * (len(cell.values) > 1)} {', '.join(map(str, cell.values))}]"
    if ours.mean is None:
        return DASH
    spread = "" if ours.sd is None else f" ± {_number(reported, ours.sd, ours=True)}"
    text = _number(reported, ours.mean, ours=True) + spread + r"\*" * bool(cell.better_than)
    return _marked(text, cell.place) + ("" if cell.multiple is None else f", {cell.multiple:.2f}x")


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


def _notes(paper: Paper, number: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """What is said below a table: stars, our rows, why they may not be compared, and the paper's inconsistencies."""
    ours: dict[str, dict[str, tuple[str, list[str]]]] = {}
    for c in (c for c in cells if c.standing and c.reported.method):
        group = c.standing.group
        told = [_level(c), *(f'not "{name}"' for name in c.standing.others),
                "decoded by the softmax over valid tokens"
                * ((group.config.get("decoding") or {}).get("normaliser") == "trie")]
        name = f"{c.reported.backbone} {c.reported.method}".strip()
        ours.setdefault(c.standing.block.name, {})[name] = group.label, list(filter(None, told))
    why = grouped((c for c in cells if c.why and c.grade in REASONED), lambda c: (c.grade, c.why), _place)
    return {"ours": ours, "starred": grouped((c for c in cells if c.better_than), lambda c: c.better_than, _place),
            "counted": dict.fromkeys(c.standing.block.name for c in cells if c.standing and not c.reported.method),
            "reasons": {key: dict.fromkeys(why[key]) for key in sorted(why, key=lambda k: REASONED.index(k[0]))},
            "findings": [(name, text) for name, text, tables in paper.findings
                         if f"Table {number}" in tables.split("; ")]}


def _place(cell: Cell) -> str:
    of = cell.reported
    return f"{of.backbone} {of.method} on {of.dataset}".strip() if of.method else of.dataset
