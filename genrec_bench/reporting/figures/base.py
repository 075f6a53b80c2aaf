"""What a figure is: a function of a report's material, registered under the key that `--only` knows."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Suite


@dataclass(frozen=True)
class Picture:
    """A drawn figure. text: its caption without the full stop, or why it is not drawn. files: "png" and "svg"."""

    text: str
    files: dict[str, bytes] | None = None


@dataclass(frozen=True)
class Plate:
    """A figure that can be drawn.

    number: the paper's, such as "1c", or for a figure of ours a word; `--only` knows it as figure:<number>. name: of
    its files. title: what it is called in reports. paper: key of the paper that it is drawn after, or None.
    objectives: suites with a row of one of these have it, () for every suite. whole: one picture of all blocks; else
    one a block. section: which part of the report shows it, SECTIONS.
    draw(material, block): a picture, or None where the block has nothing that it is about.
    """

    number: str
    name: str
    title: str
    draw: Callable[[ReportData, Block | None], Picture | None]
    paper: str | None = None
    objectives: tuple[str, ...] = ()
    whole: bool = False
    section: str = "figures"

    @property
    def key(self) -> str:
        """As `--only` names it."""
        return f"figure:{self.number}"

    def belongs_to(self, suite: Suite) -> bool:
        """Whether a suite has rows that the figure is about."""
        trained = {o["name"] for row in suite.rows for o in row.stated.get("objective", ())}
        return not self.objectives or not trained.isdisjoint(self.objectives)

    def subjects(self, material: ReportData) -> Sequence[Block | None]:
        """What it is drawn of: None for all blocks together, or each block; those of baselines alone where no other is.
        """
        generative = [block for block in material.blocks if any(g.row.backbone for g in block.groups)]
        return [None] if self.whole else generative or material.blocks


SECTIONS = ("tests", "power", "figures", "pruning")
_PLATES: dict[tuple[str | None, str], Plate] = {}


def plate(number: str, name: str, title: str, **more) -> Callable:
    """Register a function as a figure; see Plate. Raises: ValueError where paper and number are taken."""
    def register(draw: Callable[[ReportData, Block | None], Picture | None]) -> Callable:
        made = Plate(number, name, title, draw, **more)
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
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
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


ORDER = ("results", "forest", "ranking", "curves", "plane", "popularity", "history")  # of our own; others after them


def missing(title: str, what: str) -> Picture:
    """No picture, and the runs or diagnoses that it needs."""
    return Picture(f"{title}: no picture; it needs {what}")


def blocks_of(made: Plate, material: ReportData) -> Iterator[tuple[Block | None, Picture]]:
    """Draw a figure of all that it is about."""
    for block in made.subjects(material):
        picture = made.draw(material, block)
        if picture is not None:
            yield block, picture
