"""What papers print: reader of `genrec_bench/experiments/papers`, a TOML and two CSV files a paper.

`<paper>.csv` has every printed cell, `<paper>_facts.csv` what the paper states and where, what it leaves open, and its
inconsistencies (`finding`); the TOML says how its tables are set, and what it claims.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.experiments.suite_files import FOLDERS, paper_names, paper_table

IMPROVEMENT = "IMPROVEMENT"
CHANGE = " (change)"  # closes the method of printed changes against another row
KINDS = ("scores", "counts", "costs", "reference")
PARTS = ("dataset", "backbone", "method", "metric")
COLUMNS = ("paper", "table", "dataset", "backbone", "method", "metric", "k", "value", "unit", "note")
FACTS = ("kind", "name", "value", "source")
UNITS = ("fraction", "fraction_from_percent", "relative_fraction_from_percent", "count", "s", "epochs",
         "hyperparameter")


@dataclass(frozen=True)
class Reported:
    """One printed cell. unit: one of UNITS, whatever was printed in per cent as a fraction. note: why the number itself
    is in doubt, or "". digits: decimals it is printed with, the most that any number of its table and unit has.
    """

    table: str
    dataset: str
    backbone: str
    method: str
    metric: str
    value: float
    unit: str
    note: str = ""
    digits: int = 0

    @property
    def relative(self) -> bool:
        """Whether it is an improvement or a change, computed from other cells."""
        return self.unit.startswith("relative")

    @property
    def score(self) -> bool:
        """Whether it is a metric of a ranking."""
        return self.unit.startswith("fraction") and self.method != ""


@dataclass(frozen=True)
class Layout:
    """How one table is set: its sub-tables, rows and columns, each named by parts of a cell in printed order."""

    title: str = settings.setting(MISSING, "what it shows, in our words")
    kind: str = settings.setting("scores", "what its numbers are; nothing stands beside a reference", choices=KINDS)
    blocks: tuple[str, ...] = settings.setting((), "parts that name a sub-table")
    rows: tuple[str, ...] = settings.setting(("method",), "parts that name a row")
    columns: tuple[str, ...] = settings.setting(("dataset", "metric"), "parts that name a column")
    own: tuple[str, ...] = settings.setting((), "the paper's methods, of which the best makes the improvement row")
    base: str | None = settings.setting(None, "method that changes and costs are measured by")


@dataclass(frozen=True)
class Claim:
    """What a paper claims, in our words, and how our runs measure it; without `pairs` nothing of ours does.

    Its size is `gain`, or a range from `least` to `most`, or else what the paper prints for the pair's rows. All are
    relative, 0.05 for 5%, but for the shares of a single row.
    """

    text: str = settings.setting(MISSING, "the claim")
    place: str = settings.setting(MISSING, "where the paper states it")
    quantity: str = settings.setting("", "what is measured: a metric, or a name of `reporting.claims.QUANTITIES`")
    pairs: tuple[tuple[str, ...], ...] = settings.setting((), "rows without backbone: one, and its reference")
    gain: float | None = settings.setting(None, "claimed gain over the reference, below 0 for a loss")
    least: float | None = settings.setting(None, "least value that agrees with the claim")
    most: float = settings.setting(math.inf, "largest value that agrees with the claim")
    printed: tuple[str, ...] = settings.setting((), "printed methods whose cells give the gain, where rows name none")
    tables: tuple[str, ...] = settings.setting((), "the tables whose cells count; absent = all")
    k: int = settings.setting(10, "list length", low=1)
    beam: int = settings.setting(20, "beam width", low=1)
    against_beam: int = settings.setting(20, "beam width of the reference", low=1)


@dataclass(frozen=True)
class Paper:
    """One paper as it stands. datasets: our name -> the paper's. layouts: number -> table, in order. reported: all
    printed cells, in order. findings: its inconsistencies, (name, text, tables). url: "" where it has no address.
    claims: what it claims, and measured_by: the suite whose rows measure them, or "". apart: how these rows differ from
    the paper's, a sentence, or "".
    """

    key: str
    title: str
    url: str
    datasets: Mapping[str, str]
    layouts: Mapping[str, Layout]
    reported: tuple[Reported, ...]
    findings: tuple[tuple[str, str, str], ...] = ()
    claims: tuple[Claim, ...] = ()
    measured_by: str = ""
    apart: str = ""

    @property
    def short(self) -> str:
        """The title up to its colon: what the paper calls its method."""
        return self.title.partition(":")[0]

    @property
    def link(self) -> str:
        """The title as a Markdown link, or as it is where the paper has no address."""
        return f"[{self.title}]({self.url})" if self.url else self.title

    @cached_property
    def _values(self) -> dict[tuple[str, ...], float]:
        return {(c.table, c.dataset, c.backbone, c.method, c.metric): c.value for c in self.reported}

    def cell(self, *, table: str | int, dataset: str, backbone: str, method: str, metric: str) -> float | None:
        """The number printed in one cell, percentages as fractions, or None where the paper has none.

        dataset: our name or the paper's. `hr@k` and `recall@k` stand for each other (equal with one target a row).
        """
        places = [(str(table), self.datasets.get(dataset, dataset), backbone, method, name)
                  for name in (metric, metric.replace("hr@", "recall@"), metric.replace("recall@", "hr@"))]
        return next((self._values[place] for place in places if place in self._values), None)

    def of(self, table: str | int) -> list[Reported]:
        """The cells of a table, in order."""
        return [c for c in self.reported if c.table == str(table)]

    def rows(self, table: str | int) -> list[tuple[str, str]]:
        """The (backbone, method) rows of a table in printed order, without improvements and changes."""
        return list(dict.fromkeys((c.backbone, c.method) for c in self.of(table) if not c.relative))

    def metrics(self, table: str | int) -> list[str]:
        """The metric keys of a table in printed order."""
        return list(dict.fromkeys(c.metric for c in self.of(table)))


def load_paper(key: str) -> Paper:
    """The paper of a key. Raises: UserError with the nearest match, or naming a damaged file."""
    if key not in paper_names():
        raise unknown("paper", key, paper_names())
    path = FOLDERS["paper"] / f"{key}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        facts = paper_table(f"{key}_facts", FACTS)
        return Paper(key, data["title"], data["url"], data["datasets"],
                     {number: _layout(table, f"{path}, table {number}") for number, table in data["table"].items()},
                     _cells(key), tuple((f["name"], f["value"], f["source"]) for f in facts if f["kind"] == "finding"),
                     tuple(settings.build(Claim, claim, f"{path}, claim {n}")
                           for n, claim in enumerate(data.get("claim", ()), 1)), data.get("measured_by", ""),
                     data.get("apart", ""))
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise UserError(f"{path} and its CSV files are no paper ({error}).") from None


def _layout(data: Mapping[str, Any], where: str) -> Layout:
    layout = settings.build(Layout, data, where)
    for part in (*layout.blocks, *layout.rows, *layout.columns):
        if part not in PARTS:
            raise unknown("part of a cell", part, PARTS, where)
    return layout


def _cells(key: str) -> tuple[Reported, ...]:
    """The printed cells; of two of one place the second is the change that the paper prints beside the first."""
    cells: dict[tuple[str, ...], Reported] = {}
    digits: dict[tuple[str, str], int] = {}
    for line in paper_table(key, COLUMNS):
        backbone, method = (line[part].replace("-", "", line[part] == "-") for part in ("backbone", "method"))
        metric = line["metric"].lower() + (f"@{line['k']}" if line["k"] else "")
        cell = Reported(line["table"], line["dataset"], backbone, method, metric, float(line["value"]), line["unit"],
                        line["note"])
        place = cell.table, cell.dataset, cell.backbone, cell.method, cell.metric
        if cell.unit not in UNITS:
            raise unknown("unit", cell.unit, UNITS, f"{key}.csv")
        if place in cells:
            cell = replace(cell, method=method + CHANGE)
        cells[(*place[:3], cell.method, cell.metric)] = cell
        decimals = -int(Decimal(repr(cell.value)).normalize().as_tuple().exponent)
        digits[cell.table, cell.unit] = max(digits.get((cell.table, cell.unit), 0), decimals)
    return tuple(replace(cell, digits=digits[cell.table, cell.unit]) for cell in cells.values())
