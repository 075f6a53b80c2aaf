"""From a frame of points to a figure: rows of dots with labels, or panels with two axes. What is drawn is the frame.

A point is a line of the frame with the columns COLUMNS. `panel` and `quantity` say where it is, `method` how it looks,
`mark` what it is (MARKS), `at` its place (the label of a row, or a number), `value` with `low` to `high` what was
measured. All texts stand in `figures.toml`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.core.lazy import pandas
from genrec_bench.reporting.figures import style
from genrec_bench.reporting.figures.runs import listed
from genrec_bench.reporting.figures.style import Look
from genrec_bench.reporting.load import Block, summarise

if TYPE_CHECKING:
    from jinja2 import Environment
    from pandas import DataFrame

    from genrec_bench.reporting.report_data import ReportData

COLUMNS = ("panel", "quantity", "method", "mark", "at", "value", "low", "high", "note")
# Mark -> what the caption says of it; "" where axis and legend say enough.
MARKS = {**dict.fromkeys(("mean", "curve", "bar", "whisker", "join", "level"), ""),
         "seed": "small dots: single seeds", "incomplete": "crosses: the seeds of a row that lacks others",
         "printed": "hollow: printed by the paper", "best": "star: best mean in validation",
         "own": "tick at the bottom: the row's own value"}
MEASURED = ("mean", "curve", "bar", "incomplete")
WIDTHS = {"": style.TEXT, "-column": style.COLUMN}  # end of a file's name -> inches
FEWEST = 3  # rows, or points of panels, of a figure that is worth drawing
SOURCES = [Path(__file__).with_name(name) for name in ("drawing.py", "style.py", "styles.toml")]  # how a chart looks


@dataclass(frozen=True)
class Axis:
    """An axis. percent: 0.1 is written 10%. hidden: no axis, and a narrow panel. whole: no ticks between whole numbers.
    ticks: place -> label of all places there are, which then stand at equal distances; None = a scale of numbers.
    """

    label: str
    log: bool = False
    percent: bool = False
    hidden: bool = False
    whole: bool = False
    ticks: Mapping[float, str] | None = None


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure's data and texts.

    title: what it shows, in plain words. caption: data, profile, seeds and other settings, without the full stop.
    values: quantity -> its axis, in order. at: panel -> its axis, or one axis for all; None: `at` are labels of rows.
    looks: style by method. legend: False where the rows' labels say it all. shared: whether the panels of a quantity
    have one scale.
    """

    title: str
    caption: str
    points: Sequence[Mapping[str, Any]]
    values: Mapping[str, Axis]
    looks: Mapping[str, Look]
    at: Axis | Mapping[str, Axis] | None = None
    legend: bool = True
    shared: bool = True

    @property
    def frame(self) -> DataFrame:
        """The points."""
        return pandas.DataFrame(list(self.points), columns=list(COLUMNS))

    @property
    def csv(self) -> str:
        """The drawn numbers, unrounded, without columns that nothing is in."""
        return self.frame.dropna(axis="columns", how="all").to_csv(index=False, lineterminator="\n")

    @property
    def note(self) -> str:
        """The caption with what the marks mean."""
        marks = {p["mark"] for p in self.points}
        return "; ".join([self.caption, *(text for mark, text in MARKS.items() if text and mark in marks)])

    def lacks(self) -> str:
        """Why it is not worth drawing, or ""."""
        count = len({(p["panel"], p["at"], self.at and p["method"]) for p in self.points if p["mark"] in MEASURED})
        what = "row" if self.at is None else "point"
        return "" if count >= FEWEST else \
            f"it would show {count or 'no'} {what}{'s' * (count != 1)}, which the tables say"

    def digest(self) -> str:
        """Of all that the pictures depend on: numbers, texts, styles, the code that draws, and matplotlib's version."""
        parts = (self.csv, self.title, list(self.values.items()), self.at, sorted(self.looks.items()), self.legend,
                 self.shared, WIDTHS, matplotlib.__version__)
        return hashlib.sha256(repr(parts).encode() + b"".join(p.read_bytes() for p in SOURCES)).hexdigest()

    def files(self) -> dict[str, bytes]:
        """End of the file's name -> bytes: the numbers, and pictures as wide as a page's text and as a column."""
        return {".csv": self.csv.encode(), **{f"{end}.{kind}": content for end, width in WIDTHS.items()
                                              for kind, content in self.images(("svg", "pdf"), width).items()}}

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


def estimates(panel: str, quantity: str, method: str, found: Mapping[Any, Estimate], **more: Any) -> list[dict]:
    """The means of a method with their intervals, by place; those of no case are left out."""
    return [point(panel, quantity, method, "mean", at, e.value, e, **more) for at, e in found.items() if e.n]


def seed_points(panel: str, quantity: str, method: str, at: str | float, values: Sequence[float],
                whole: bool) -> list[dict[str, Any]]:
    """A row's single seeds, and mean ± SD where it has all of them."""
    found = summarise(values)
    if found.mean is None:
        return []
    if not whole:
        return [point(panel, quantity, method, "incomplete", at, v) for v in values]
    around = None if found.sd is None else (found.mean - found.sd, found.mean + found.sd)
    dots = [point(panel, quantity, method, "seed", at, v) for v in values] if len(values) > 1 else []
    return [*dots, point(panel, quantity, method, "mean", at, found.mean, around)]


@cache
def entries() -> dict[str, dict[str, Any]]:
    """`figures.toml`; an entry that is `like` another has what it does not say itself from there."""
    known = tomllib.loads(Path(__file__).with_name("figures.toml").read_text(encoding="utf-8"))
    return {key: {**known.get(own.get("like"), {}), **own} for key, own in known.items()}


def named(key: str, data: ReportData, block: Block | None, points: Sequence[Mapping[str, Any]], *,
          looks: Mapping[str, Look] | None = None, ticks: Mapping[float, str] | None = None,
          at: Mapping[str, Axis] | None = None, absent: Sequence[str] = (), **facts: Any) -> Chart:
    """The chart of an entry of `figures.toml`, its texts filled with facts. Quantities without points have no axis.

    looks: of methods that are no row's name or label and stand in no styles. ticks, at: of the axis of places. absent:
    labels of rows that are not drawn, for the end of the caption.
    """
    own, groups = entries()[key], [g for b in ([block] if block else data.blocks) for g in b.groups]
    methods, shown, marks = ({p[column] for p in points} for column in ("method", "quantity", "mark"))
    known = {**style.styles_of_others(), **{name: data.look[g.row.key] for g in groups for name in (g.label, g.name)
                                            if g.row.key in data.look}, **(looks or {})}
    facts = {"block": block, "ranked": data.ranked, "looks": methods, "marks": marks, "number": key.rpartition("-")[2],
             "text": own.get("text", "").strip(), "without_runs": listed(dict.fromkeys(absent)), **facts}
    for name, text in entries()["texts"].items() if block else ():
        facts[name] = _filled(text, facts)
    places = _axis(own["at"], facts) if "at" in own else None
    facts["axis"] = places and places.label
    return Chart(_filled(own.get("shows", own["title"] + " on {{ block.dataset }}"), facts),
                 _filled(own["caption"], facts), points,
                 {q: _axis(of, facts) for q, of in own["values"].items() if q in shown},
                 {name: known[name] for name in methods}, at or places and replace(places, ticks=ticks),
                 **{name: own[name] for name in ("legend", "shared") if name in own})


def _axis(of: str | Mapping[str, Any], facts: Mapping[str, Any]) -> Axis:
    more = {"label": of} if isinstance(of, str) else of
    return Axis(**{**more, "label": _filled(more["label"], facts)})


def _filled(text: str, facts: Mapping[str, Any]) -> str:
    """A text in one line, or as many as \\n\\n divides; what it names and nobody gives is an error."""
    return re.sub(r"\s*\n\s*", " ", _environment().from_string(text).render(facts)).strip()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, StrictUndefined  # no command but a report needs it

    return Environment(undefined=StrictUndefined)
