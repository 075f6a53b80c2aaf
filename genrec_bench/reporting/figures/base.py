"""What a figure is: a function of a report's data, registered under the key that `--only` knows."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from genrec_bench.reporting.figures.charts import Chart
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Suite

SECTIONS = ("tests", "power", "figures", "pruning")
ORDER = ("results", "forest", "ranking", "curves", "plane", "popularity", "history")  # of our own; others after them
Draw = Callable[[ReportData, Block | None], Chart | str | None]


@dataclass(frozen=True)
class Picture:
    """A figure in a report. text: its caption, or why it is not drawn, without the full stop. files: end of the file's
    name -> bytes, None where it is not drawn. stem: the name without its end.
    """

    text: str
    files: dict[str, bytes] | None = None
    title: str = ""
    stem: str = ""


@dataclass(frozen=True)
class Plate:
    """A figure that can be drawn.

    number: the paper's, such as "1c", or for a figure of ours a word. title: what it is called where it is not drawn.
    paper: key of the paper that it is drawn after, or None. objectives: suites with a row of one of these have it, ()
    for every suite. whole: one figure of all blocks; else one a block. section: which part of the report shows it.
    chart(data, block): the chart, why there is none, or None where the block has nothing that it is about.
    """

    number: str
    title: str
    chart: Draw
    paper: str | None = None
    objectives: tuple[str, ...] = ()
    whole: bool = False
    section: str = "figures"

    @property
    def key(self) -> str:
        """As `--only` names it: `figure:apao-5`, or `figure:forest`."""
        return f"figure:{self.paper}-{self.number}" if self.paper else f"figure:{self.number}"

    def belongs_to(self, suite: Suite) -> bool:
        """Whether a suite has rows that the figure is about."""
        trained = {o["name"] for row in suite.rows for o in row.stated.get("objective", ())}
        return not self.objectives or not trained.isdisjoint(self.objectives)

    def subjects(self, material: ReportData) -> Sequence[Block | None]:
        """What it is drawn of: None for all blocks together, or each block; those of baselines alone where no other is.
        """
        generative = [block for block in material.blocks if any(g.row.backbone for g in block.groups)]
        return [None] if self.whole else generative or material.blocks

    def draw(self, material: ReportData, block: Block | None) -> Chart | str | None:
        """The chart, or why there is none, which may be that it would show too little."""
        made = self.chart(material, block)
        return made.lacks() or made if isinstance(made, Chart) else made

    def stem(self, material: ReportData, block: Block | None) -> str:
        """The name of its files without their ends: `apao-fig5-office`, `apao-results-office`."""
        head = f"{self.paper}-fig{self.number}" if self.paper else f"{material.suite.name}-{self.number}"
        return head if block is None else f"{head}-{short_name(material.blocks, block)}"


def short_name(blocks: Sequence[Block], block: Block) -> str:
    """The shortest name of a block that no other block of the report has."""
    def names(of: Block) -> tuple[str, ...]:
        place = blocks.index(of)
        return (of.dataset.partition("_")[2] or of.dataset, of.dataset.replace("_", "-"),
                f"{of.dataset.replace('_', '-')}-{of.profile}", f"{of.dataset.replace('_', '-')}-{of.profile}-{place}")
    every = [names(of) for of in blocks]
    name = next(name for level, name in enumerate(names(block)) if [n[level] for n in every].count(name) == 1)
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")  # `toy (folder)` is no part of a file's name


_PLATES: dict[tuple[str | None, str], Plate] = {}


def plate(number: str, title: str, **more) -> Callable[[Draw], Draw]:
    """Register a function as a figure; see Plate. Raises: ValueError where paper and number are taken."""
    def register(draw: Draw) -> Draw:
        made = Plate(number, f"Figure {number}: {title}" if more.get("paper") else title, draw, **more)
        if made.section not in SECTIONS:
            raise ValueError(f"figure {number}: section {made.section!r} is none of {', '.join(SECTIONS)}")
        if (made.paper, number) in _PLATES:
            raise ValueError(f"figure {number} of {made.paper or 'our own'} is registered twice")
        _PLATES[made.paper, number] = made
        return draw
    return register


@cache
def _load() -> None:
    package = importlib.import_module(__package__)
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name != "drawing"):
        importlib.import_module(f"{__package__}.{module}")


def plates(suite: Suite | None = None, paper: str | None = None) -> list[Plate]:
    """The figures of a suite, or all; of one paper alone where it is named. Ours first, then the papers', by number."""
    _load()
    return [p for p in sorted(_PLATES.values(), key=_place)
            if (suite is None or p.belongs_to(suite)) and (paper is None or p.paper == paper)]


def _place(made: Plate) -> tuple:
    digits = "".join(c for c in made.number if c.isdigit())
    first = ORDER.index(made.number) if made.number in ORDER else len(ORDER)
    return made.paper or "", int(digits or 0), 0 if digits else first, made.number


def undiagnosed(what: str, beam: int | None = None) -> str:
    """Why a figure of diagnoses is not drawn."""
    return f"it needs diagnoses of {what}{'' if beam is None else f' at beam {beam}'} (`diagnose` makes them)"
