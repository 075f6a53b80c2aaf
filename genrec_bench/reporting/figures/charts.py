"""From a frame of points to a figure: rows of dots with labels, or panels with two axes. What is drawn is the frame.

A point is a line of the frame with the columns COLUMNS. `panel` and `quantity` say where it is, `method` how it looks,
`mark` what it is (MARKS), `at` its place (the label of a row, or a number), `value` with `low` to `high` what was
measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.core.lazy import pandas
from genrec_bench.reporting.figures import style
from genrec_bench.reporting.figures.style import Look

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("panel", "quantity", "method", "mark", "at", "at_low", "at_high", "value", "low", "high", "note")
# Mark -> what the caption says of it; "" where axis and legend say enough.
MARKS = {"mean": "", "curve": "", "bar": "", "join": "", "point": "",
         "seed": "small dots: single seeds", "incomplete": "crosses: the seeds of a row that lacks others",
         "printed": "hollow: printed by the paper", "level": "", "band": "",
         "front": "grey line: what no other point beats at its cost", "best": "star: best mean in validation",
         "own": "tick at the bottom: the row's own value"}
WIDTHS = {"": style.TEXT, "-column": style.COLUMN}  # end of a file's name -> inches

SOURCES = [Path(__file__).with_name(name) for name in ("drawing.py", "style.py", "styles.toml")]  # how a chart looks


@dataclass(frozen=True)
class Axis:
    """An axis. ticks: place -> label, None = chosen. percent: 0.1 is written 10%. hidden: no axis, and a narrow panel.
    whole: no ticks between whole numbers. even: its ticks, which are all that is on it, at equal distances.
    """

    label: str
    log: bool = False
    percent: bool = False
    hidden: bool = False
    whole: bool = False
    even: bool = False
    ticks: Mapping[float, str] | None = None


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure's data and texts.

    title: what it shows, in plain words. caption: data, profile, seeds and other settings, without the full stop.
    values: quantity -> its axis, in order; a bare label stands for an axis of this label. at: panel -> its axis, or
    one axis for all; None: `at` are labels of rows. looks: style by method. legend: False where the rows' labels say
    it all. shared: whether the panels of a quantity have one scale. fewest: rows or methods that it needs to be worth
    drawing. dodge: how far apart, in shares of the axis, methods at one place are drawn.
    """

    title: str
    caption: str
    points: Sequence[Mapping[str, Any]]
    values: Mapping[str, Axis]
    looks: Mapping[str, Look]
    at: Axis | Mapping[str, Axis] | None = None
    legend: bool = True
    shared: bool = True
    fewest: int = 3
    dodge: float = 0.0
    heights: Mapping[str, float] = field(default_factory=dict)

    @property
    def frame(self) -> DataFrame:
        """The points, without columns that nothing is in."""
        table = pandas.DataFrame(list(self.points), columns=list(COLUMNS))
        return table.dropna(axis="columns", how="all")

    @property
    def csv(self) -> str:
        """The drawn numbers, unrounded."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    @property
    def marks(self) -> set[str]:
        """The kinds of points that it has."""
        return {p["mark"] for p in self.points}

    @property
    def note(self) -> str:
        """The caption with what the marks mean."""
        return "; ".join([self.caption, *(text for mark, text in MARKS.items() if text and mark in self.marks)])

    def lacks(self) -> str:
        """Why it is not worth drawing, or ""."""
        rows = {p["at"] if self.at is None else p["method"] for p in self.points
                if p["mark"] in ("mean", "curve", "point", "bar", "incomplete")}
        count = len(rows)
        if count >= self.fewest:
            return ""
        what = "row" if self.at is None else "method"
        return f"it would show {count or 'no'} {what}{'' if count == 1 else 's'}, which the tables say"

    def digest(self) -> str:
        """Of all that the pictures depend on: numbers, texts, styles, the code that draws, and matplotlib's version."""
        parts = (self.csv, self.title, list(self.values.items()), self.at, sorted(self.looks.items()), self.legend,
                 self.shared, self.dodge, self.heights, WIDTHS, matplotlib.__version__)
        return hashlib.sha256(repr(parts).encode() + b"".join(p.read_bytes() for p in SOURCES)).hexdigest()

    def files(self) -> dict[str, bytes]:
        """End of the file's name -> bytes: the numbers, and pictures as wide as a page's text and as a column."""
        found = {".csv": self.csv.encode()}
        for end, width in WIDTHS.items():
            found |= {f"{end}.{kind}": content for kind, content in self.images(("svg", "pdf"), width).items()}
        return found

    def images(self, kinds: Sequence[str], width: float = style.TEXT) -> dict[str, bytes]:
        """The picture in some formats, as wide as given, in inches."""
        from genrec_bench.reporting.figures.drawing import draw  # loads seaborn, a second

        with style.own_style():
            return style.image_bytes(draw(self, width), kinds)


def point(panel: str, quantity: str, method: str, mark: str, at: str | float, value: float | None,
          around: Estimate | tuple[float, float] | None = None, **more: Any) -> dict[str, Any]:
    """A line of the frame. around: the interval; of nothing known, None."""
    low, high = (around.low, around.high) if isinstance(around, Estimate) else around or (None, None)
    return {"panel": panel, "quantity": quantity, "method": method, "mark": mark, "at": at, "value": value,
            "low": low, "high": high, **more}


def seed_points(panel: str, quantity: str, method: str, at: str | float, values: Sequence[float],
                whole: bool) -> list[dict[str, Any]]:
    """A row's single seeds, and mean ± SD where it has all of them."""
    from genrec_bench.reporting.load import summarise

    found = summarise(values)
    if found.mean is None:
        return []
    if not whole:
        return [point(panel, quantity, method, "incomplete", at, v) for v in values]
    around = None if found.sd is None else (found.mean - found.sd, found.mean + found.sd)
    dots = [point(panel, quantity, method, "seed", at, v) for v in values] if len(values) > 1 else []
    return [*dots, point(panel, quantity, method, "mean", at, found.mean, around)]
