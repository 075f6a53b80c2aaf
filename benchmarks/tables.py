"""The rows of all benchmarks: one CSV file, and a page rendered from it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from benchmarks.machine import is_quiet
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import write_atomically

TITLE = """# Speed

Made by `make bench`; what the arms are and how they are timed stands in [README.md](README.md). Every number is the \
median of the repeats, with the least and the most of them behind it; what is counted has one value. A ratio is taken \
within each repeat.
"""


@dataclass(frozen=True)
class Line:
    """A row, and where it was measured: the texts of `machine.describe`."""

    row: Row
    about: dict[str, str]


ABOUT = ("commit", "load", "versions", "machine")
FIELDS = {f.name: f.type for f in fields(Row)}
COLUMNS = (*FIELDS, "verdict", *ABOUT)


def write(path: Path, lines: Iterable[Line]) -> None:
    """One CSV row a line, with the verdict."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        cells = {k: "" if v is None else f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(line.row).items()}
        writer.writerow({**cells, "verdict": line.row.verdict, **line.about})
    write_atomically(path, buffer.getvalue().encode())


def read(path: Path) -> list[Line]:
    """What `write` wrote; nothing where there is no file. Raises: UserError for another table."""
    return [Line(Row(**{k: _value(FIELDS[k], cells[k]) for k in FIELDS}), {k: cells[k] for k in ABOUT})
            for cells in cells_of(path, COLUMNS)]


def cells_of(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV file; none where there is no file. Raises: UserError where its columns are others."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise UserError(f"{path} is not a table of this benchmark: its columns are others. Delete it.")
        return list(reader)


def _value(kind: str, text: str) -> Any:
    if kind.startswith("float"):
        return None if text == "" else float(text)
    return {"int": int, "bool": "True".__eq__, "str": str}[kind](text)


def merged(old: list[Line], new: list[Line]) -> list[Line]:
    """The new lines, and the old ones of benchmarks and places that were not run; rows of a case stand together."""
    again = {_place(line.row) for line in new}
    lines = [line for line in old if _place(line.row) not in again] + new
    cases = {case: n for n, case in enumerate(dict.fromkeys((x.row.benchmark, x.row.case) for x in lines))}
    return sorted(lines, key=lambda x: (x.row.benchmark, cases[x.row.benchmark, x.row.case], x.row.allocator != "keeps",
                                        x.row.threads))


def _place(row: Row) -> tuple[str, int, str]:
    return row.benchmark, row.threads, row.allocator


def render(lines: list[Line]) -> str:
    """The page: what was aimed at, then one table a benchmark; missed targets are in bold."""
    goals = [line for line in lines if line.row.verdict]
    parts = [TITLE, *(["## Targets\n\n" + _table(goals)] if goals else []), *_gains(lines)]
    for benchmark in dict.fromkeys(line.row.benchmark for line in lines):
        own = [line for line in lines if line.row.benchmark == benchmark]
        parts.append(f"## {benchmark.capitalize()}\n\n" + "\n".join(_machines(own)) + "\n\n" + _table(own))
        notes = dict.fromkeys((x.row.case, x.row.note) for x in own if x.row.note)
        parts.append("\n".join(f"- {case}: {note}" for case, note in notes) + "\n" if notes else "")
    return "\n".join(part for part in parts if part)


def _gains(lines: list[Line]) -> list[str]:
    """What settings gain: every arm that was timed with both allocators, beside the first row of its side.

    Cases that differ in precision alone are one work, and the first word of an arm names its side.
    """
    speeds = {(x.row.case, x.row.quantity, x.row.allocator): x.row.value for x in lines
              if x.row.threads == 1 and x.row.unit.endswith(" a CPU second")}
    cells = [("case", "arm", "default allocator", "keeps memory", "gain", "times the side's first row")]
    cells.append(("---",) * 2 + ("---:",) * 4)
    first: dict[tuple[str, str], float] = {}
    for (case, arm, allocator), speed in speeds.items():
        plain = speeds.get((case, arm, "default"))
        if allocator == "keeps" and plain is not None:
            base = first.setdefault((case.rpartition(",")[0], arm.partition(" ")[0].strip(",")), plain)
            cells.append((case, arm, *map(number, (plain, speed, speed / plain, max(plain, speed) / base))))
    page = "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"
    return ["## What settings gain\n\nUsers or rows a CPU second on 1 thread.\n\n" + page] if cells[2:] else []


def _machines(lines: list[Line]) -> list[str]:
    """One sentence for each machine and state the rows come from, with a warning where it was busy."""
    places = dict.fromkeys(tuple(line.about[k] for k in ABOUT) for line in lines)
    texts = []
    for commit, load, versions, machine in places:
        busy = "" if is_quiet(load) else " **The machine was not quiet: do not rely on these figures.**"
        texts.append(f"{machine}; {versions}; commit {commit}; load average before the start {load}.{busy}")
    return texts


def _table(lines: list[Line]) -> str:
    cells = [("case", "quantity", "threads", "value", "least to most", "unit", "target", "aim", "")]
    cells.append(("---",) * 2 + ("---:",) * 3 + ("---",) + ("---:",) * 2 + ("---",))
    before = None
    for row in (line.row for line in lines):
        spread = "" if row.low == row.high else f"{number(row.low)} to {number(row.high)}"
        sign = "≤ " if row.at_most else "≥ "
        goals = ["" if goal is None else f"{sign}{goal:g}" for goal in (row.target, row.aim)]
        verdict = f"**{row.verdict}**" if row.verdict == "MISSED" else row.verdict
        place = str(row.threads) + (", default allocator" if row.allocator == "default" else "")
        cells.append(("" if row.case == before else row.case, row.quantity, place, number(row.value), spread,
                      row.unit, *goals, verdict))
        before = row.case
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def number(value: float) -> str:
    """Three figures, whole from 100 on, thousands with commas."""
    if abs(value) < 0.001:
        return f"{value:.2g}"
    digits = next((d for d, limit in ((0, 99.95), (1, 9.995), (2, 0.9995)) if abs(value) >= limit), 3)
    return f"{value:,.{digits}f}"
