"""What papers print: reader of `genrec_bench/experiments/papers/*.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError, unknown

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "papers"
IMPROVEMENT = "IMPROVEMENT"
CHANGE = " (change)"  # closes the method of printed changes against another row
KINDS = ("scores", "counts", "costs", "settings")
PARTS = ("dataset", "backbone", "method", "metric")


@dataclass(frozen=True)
class Reported:
    """One printed cell. unit: "fraction", "relative" (an improvement, never a score), "count", "seconds", "epochs"
    or "hyperparameter" (a best setting, never a score). flag: why the number itself is in doubt, or "".
    """

    table: str
    dataset: str
    backbone: str
    method: str
    metric: str
    value: float
    unit: str
    flag: str = ""


    @property
    def relative(self) -> bool:
        """Whether it is an improvement or a change, computed from other cells."""
        return self.unit == "relative"


@dataclass(frozen=True)
class Layout:
    """How one table is set: its sub-tables, rows and columns, each named by parts of a cell in printed order.

    A table without a layout is known but never compared.
    """

    number: str = settings.setting(MISSING, "as printed")
    title: str = settings.setting(MISSING, "what it shows, in our words")
    kind: str = settings.setting(MISSING, "what its numbers are", choices=KINDS)
    rows: tuple[str, ...] = settings.setting(MISSING, "parts that name a row")
    columns: tuple[str, ...] = settings.setting(MISSING, "parts that name a column")
    blocks: tuple[str, ...] = settings.setting((), "parts that name a sub-table")
    own: tuple[str, ...] = settings.setting((), "the paper's methods, of which the best makes the improvement row")
    base: str | None = settings.setting(None, "method that changes and costs are measured by")


@dataclass(frozen=True)
class Paper:
    """One paper as it stands. datasets: our name -> the paper's. protocol: name -> {"value", "source"}.
    settings: part -> setting -> what a run has to have beside them where the protocol has no fact for it.

    findings: inconsistencies of the paper, each {"key", "tables", "text"}. layouts: its tables, in order. reported:
    all printed cells, in order. url: "" where the paper has no address.
    """

    key: str
    title: str
    url: str
    datasets: Mapping[str, str]
    protocol: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Mapping[str, Any]]
    not_stated: Mapping[str, str]
    findings: tuple[Mapping[str, Any], ...]
    layouts: tuple[Layout, ...]
    reported: tuple[Reported, ...]

    @property
    def short(self) -> str:
        """The title up to its colon: what the paper calls its method."""
        return self.title.partition(":")[0]

    @property
    def link(self) -> str:
        """The title as a Markdown link, or as it is where the paper has no address."""
        return f"[{self.title}]({self.url})" if self.url else self.title

    def find(self, *, table: str | int, dataset: str, backbone: str, method: str, metric: str) -> Reported | None:
        """One printed cell with its unit and flag, or None where the paper has none.

        `dataset` is our name or the paper's; `hr@k` stands for `recall@k` (equal with one target a user).
        """
        wanted = (str(table), self.datasets.get(dataset, dataset), backbone, method, metric.replace("hr@", "recall@"))
        for cell in self.reported:
            if (cell.table, cell.dataset, cell.backbone, cell.method, cell.metric) == wanted:
                return cell
        return None

    def cell(self, *, table: str | int, dataset: str, backbone: str, method: str, metric: str) -> float | None:
        """The number printed in one cell, percentages as fractions, or None; see `find`."""
        found = self.find(table=table, dataset=dataset, backbone=backbone, method=method, metric=metric)
        return None if found is None else found.value

    def rows(self, table: str | int) -> list[tuple[str, str]]:
        """The (backbone, method) rows of a table in printed order, without improvements and changes."""
        return list(dict.fromkeys((c.backbone, c.method) for c in self.reported
                                  if c.table == str(table) and not c.relative))

    def metrics(self, table: str | int) -> list[str]:
        """The metric keys of a table in printed order."""
        return list(dict.fromkeys(c.metric for c in self.reported if c.table == str(table)))

    def digits(self, cell: Reported) -> int:
        """Decimals that a cell is printed with: the most that any number of its table and unit has."""
        return self._digits[cell.table, cell.unit]

    @cached_property
    def _digits(self) -> dict[tuple[str, str], int]:
        most: dict[tuple[str, str], int] = {}
        for cell in self.reported:
            decimals = -int(Decimal(repr(cell.value)).normalize().as_tuple().exponent)
            most[cell.table, cell.unit] = max(most.get((cell.table, cell.unit), 0), decimals)
        return most


def paper_names() -> list[str]:
    """Keys of all papers, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_paper(key: str) -> Paper:
    """The paper of a key. Raises: UserError with the nearest match, or naming a damaged file."""
    if key not in paper_names():
        raise unknown("paper", key, paper_names())
    path = FOLDER / f"{key}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return Paper(data["key"], data["title"], data["url"], data["datasets"], data["protocol"],
                     data.get("settings", {}), data.get("not_stated", {}), tuple(data.get("finding", ())),
                     tuple(_layout(table, path) for table in data.get("table", ())),
                     tuple(cell for block in data["reported"] for cell in _cells(block)))
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a paper file ({error}).") from None


def _layout(data: Mapping[str, Any], path: Path) -> Layout:
    layout = settings.build(Layout, data, f"{path}, table {data.get('number', '?')}")
    for part in (*layout.blocks, *layout.rows, *layout.columns):
        if part not in PARTS:
            raise unknown("part of a cell", part, PARTS, f"{path}, table {layout.number}")
    return layout


def _cells(block: Mapping[str, Any]) -> list[Reported]:
    flags = {(f["dataset"], f["metric"]): f["text"] for f in block.get("flags", ())}
    return [Reported(block["table"], dataset, block["backbone"], block["method"], metric, float(value), unit,
                     flags.get((dataset, metric), ""))
            for dataset, values in block["values"].items()
            for metric, unit, value in zip(block["metrics"], block["units"], values, strict=True)]
