"""What a figure is: a function of a report's data, registered under its entry of `figures.toml`."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from genrec_bench.reporting.figures.charts import Chart, entries
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Suite

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

    name: of its entry, `forest` or `apao-5`. title: what it is about. paper: key of the paper that it is drawn after,
    or None. objectives: suites with a row of one of these have it, () for every suite. whole: one figure of all
    blocks; else one a block. section: which part of the report shows it, tests, power, figures or pruning.
    chart(data, block): the chart, why there is none, or None where the block has nothing that it is about.
    """

    name: str
    title: str
    chart: Draw
    paper: str | None = None
    objectives: Sequence[str] = ()
    whole: bool = False
    section: str = "figures"

    @property
    def key(self) -> str:
        """As `--only` names it: `figure:apao-5`, or `figure:forest`."""
        return f"figure:{self.name}"

    @property
    def heading(self) -> str:
        """What it is called where it is not drawn."""
        return f"Figure {self.number}: {self.title}" if self.paper else self.title

    @property
    def number(self) -> str:
        """The paper's, such as "1c", or for a figure of ours its name."""
        return self.name.removeprefix(f"{self.paper}-")

    def belongs_to(self, suite: Suite) -> bool:
        """Whether a suite has rows that the figure is about."""
        trained = {o["name"] for row in suite.rows for o in row.stated.get("objective", ())}
        return not self.objectives or not trained.isdisjoint(self.objectives)

    def subjects(self, data: ReportData) -> Sequence[Block | None]:
        """What it is drawn of: None for all blocks together, or each block; those of baselines alone where no other is.
        """
        generative = [block for block in data.blocks if any(g.row.backbone for g in block.groups)]
        return [None] if self.whole else generative or data.blocks

    def draw(self, data: ReportData, block: Block | None) -> Chart | str | None:
        """The chart, or why there is none, which may be that it would show too little."""
        made = self.chart(data, block)
        return made.lacks() or made if isinstance(made, Chart) else made

    def stem(self, data: ReportData, block: Block | None) -> str:
        """The name of its files without their ends: `apao-fig5-office`, `apao-results-office`."""
        head = f"{self.paper}-fig{self.number}" if self.paper else f"{data.suite.name}-{self.number}"
        return head if block is None else f"{head}-{short_name(data.blocks, block)}"


def short_name(blocks: Sequence[Block], block: Block) -> str:
    """The shortest name of a block that no other block of the report has."""
    def names(of: Block) -> tuple[str, ...]:
        whole = of.dataset.replace("_", "-")
        return (of.dataset.partition("_")[2] or of.dataset, whole, f"{whole}-{of.profile}",
                f"{whole}-{of.profile}-{blocks.index(of)}")
    every = [names(of) for of in blocks]
    name = next(name for level, name in enumerate(names(block)) if [n[level] for n in every].count(name) == 1)
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")  # `toy (folder)` is no part of a file's name


_PLATES: dict[str, Plate] = {}


def plate(*names: str, **more) -> Callable[[Callable], Callable]:
    """Register a function as a figure, or as several, of which it is then given the name first.

    more: what the entry of `figures.toml` does not say, see Plate. Raises: ValueError where a name is taken.
    """
    def register(draw: Callable) -> Callable:
        for name in names:
            if name in _PLATES:
                raise ValueError(f"figure {name} is registered twice")
            own = {**entries().get(name, {}), **more}
            made = {key: own[key] for key in ("title", "paper", "objectives", "whole", "section") if key in own}
            _PLATES[name] = Plate(name, chart=partial(draw, name) if len(names) > 1 else draw, **made)
        return draw
    return register


@cache
def _load() -> None:
    package = importlib.import_module(__package__)
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name != "drawing"):
        importlib.import_module(f"{__package__}.{module}")


def plates(suite: Suite | None = None, paper: str | None = None) -> list[Plate]:
    """The figures of a suite, or all; of one paper alone where it is named. In the order of `figures.toml`."""
    _load()
    order = {name: place for place, name in enumerate(entries())}
    return [p for p in sorted(_PLATES.values(), key=lambda p: order.get(p.name, len(order)))
            if (suite is None or p.belongs_to(suite)) and (paper is None or p.paper == paper)]



def status(data: ReportData, paper: str, drawn: Sequence[tuple[Plate, Block | None, Picture]]
           ) -> list[tuple[str, str, str]]:
    """(number, title, text) of every measured figure of a paper, in order: of what it is drawn, or what is missing.

    drawn: the suite's figures.
    """
    lines = []
    for made in plates(paper=paper):
        known = [(block, picture) for of, block, picture in drawn if of.key == made.key]
        names = [block.name if block else "all data together" for block, picture in known if picture.files]
        reasons = [f"{f'{block.name}: ' if block else ''}{picture.text}" for block, picture in known]
        why = (" / ".join(reasons) or "no run on data and backbone that it is about" if made.belongs_to(data.suite) else
               f"suite {data.suite.name} has no row with {' or '.join(made.objectives)}")
        lines.append((made.number, made.heading, f"drawn for {'; '.join(names)}" if names else f"not drawn: {why}"))
    return lines
