"""The cells of a printed table with our numbers in them: which run stands where, grades, order and improvements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from genrec_bench.reporting.answer import METRIC
from genrec_bench.reporting.grades import Grade, Order, grade, grade_count, known_reasons, order_of
from genrec_bench.reporting.load import Block, Group, Summary, summarise
from genrec_bench.reporting.papers import CHANGE, IMPROVEMENT, Layout, Paper, Reported
from genrec_bench.reporting.printed import Standing, standings
from genrec_bench.results.records import RunRecord

COUNTS = {"n_users": lambda d: d["users"], "n_items": lambda d: d["items"],
          "n_interactions": lambda d: d["interactions"],
          "density": lambda d: d["interactions"] / (d["users"] * d["items"]),
          "sparsity": lambda d: 1 - d["interactions"] / (d["users"] * d["items"])}
SETTINGS = {"beta": "weight", "eta": "eta"}  # the paper's name of a setting -> ours, of the last objective
HARDWARE = "another machine"
EPOCHS = "the paper does not say how it counts; ours is the epoch that is kept"
TAKEN = "taken from the paper's table"
OTHERWISE = "our rows are set otherwise"
UNGRADED = Grade("", "computed from the cells of its column")
Better = Mapping[tuple[str, str], tuple[str, ...]]  # (block, label of a row) -> labels that a test found it better than


@dataclass(frozen=True)
class Cell:
    """One printed cell and ours beside it.

    digits: decimals it is printed with. values: ours, (seed, value); not averaged where `whole` is False. order,
    printed_order: 1 for the best of its column, 2 for the second, else 0. better_than: labels of the rows that a
    declared test found it better than.
    per_base, printed_per_base: multiples of the table's base, of costs. gain, among: our improvement, and how many
    methods stand behind it of how many that are printed. recomputed, spread: the improvement that the printed cells
    give, and the least and most that their rounding allows.
    """

    reported: Reported
    digits: int
    standing: Standing | None = None
    values: tuple[tuple[int, float], ...] = ()
    whole: bool = True
    grade: Grade = UNGRADED
    order: int = 0
    printed_order: int = 0
    better_than: tuple[str, ...] = ()
    per_base: float | None = None
    printed_per_base: float | None = None
    gain: float | None = None
    recomputed: float | None = None
    spread: tuple[float, float] | None = None
    among: tuple[int, int] | None = None

    @property
    def ours(self) -> Summary:
        """Mean and SD over seeds; of an improvement the improvement, of an incomplete row nothing."""
        if self.reported.relative:
            return Summary(self.gain, None, 0)
        return summarise([v for _, v in self.values] if self.whole else [])

    @property
    def misprint(self) -> bool:
        """Whether a printed improvement lies outside what the printed cells allow."""
        if self.spread is None:
            return False
        half = 0.5 * 10.0**-self.digits
        return not self.spread[0] - half <= self.reported.value <= self.spread[1] + half


def fill(paper: Paper, layout: Layout, blocks: Sequence[Block], better: Better) -> list[Cell]:
    """The cells of a table in printed order. better: what a declared test found better than what."""
    columns: dict[tuple[str, str, str], list[Reported]] = {}
    for reported in paper.reported:
        if reported.table == layout.number:
            columns.setdefault(_column(layout, reported), []).append(reported)
    found: dict[tuple[str, str], dict[tuple[str, str], Standing]] = {}
    cells: dict[Reported, Cell] = {}
    for (dataset, backbone, _), column in columns.items():
        if (dataset, backbone) not in found:
            pairs = {(r.backbone, r.method) for r in column if not r.relative}
            found[dataset, backbone] = (_data_standing(paper, dataset, blocks) if layout.kind == "counts" else
                                        standings(blocks, paper, dataset, pairs))
        scores = [_cell(paper, layout, r, found[dataset, backbone].get((r.backbone, r.method)))
                  for r in column if not r.relative]
        scores = _finish(layout, scores, better)
        cells |= {cell.reported: cell for cell in scores}
        cells |= {r: _relative(paper, layout, r, scores) for r in column if r.relative}
    return [cells[r] for r in paper.reported if r in cells]


def _column(layout: Layout, cell: Reported) -> tuple[str, str, str]:
    """What the methods of a column have in common: dataset, backbone where it makes columns or blocks, metric."""
    apart = "backbone" in (*layout.blocks, *layout.columns)
    return cell.dataset, cell.backbone if apart else "", cell.metric


def _data_standing(paper: Paper, dataset: str, blocks: Sequence[Block]) -> dict[tuple[str, str], Standing]:
    """The block that tells a dataset's sizes: the first with all users, else the first."""
    ours = [b for b in blocks if paper.datasets.get(b.dataset) == dataset and b.profile != "smoke"]
    kept = [(b.config.get("split", {}).get("max_users", 0), b) for b in ours]
    if not kept:
        return {}
    users, block = min(kept, key=lambda pair: bool(pair[0]))
    return {("", ""): Standing(block, block.groups[0], f"only the first {users} users are kept" if users else "")}


def _cell(paper: Paper, layout: Layout, reported: Reported, standing: Standing | None) -> Cell:
    """A cell with our values; what rests on the whole column comes later."""
    digits = paper.digits(reported)
    if standing is None:
        return Cell(reported, digits)
    values = tuple(_values(layout.kind, reported.metric, standing.group))
    seeded = layout.kind in ("scores", "costs")
    whole = not seeded or not (standing.block.missing(standing.group) or len(values) < len(standing.group.records))
    return Cell(reported, digits, standing, values, whole)


def _values(kind: str, metric: str, group: Group) -> Iterable[tuple[int, float]]:
    """Ours of a printed metric, (seed, value), ID-level where there is an ID-level value, as papers count."""
    for record in group.records[:1] if kind in ("counts", "settings") else group.records:
        value = _value(kind, metric, group, record)
        if value is not None:
            yield record.seed, float(value)


def _value(kind: str, metric: str, group: Group, record: RunRecord) -> float | None:
    if kind == "counts":
        known = all(record.data.get(k) for k in ("users", "items", "interactions"))
        return COUNTS[metric](record.data) if known else None
    if kind == "costs":
        return (record.timings.get("seconds_per_epoch") if metric == "time_per_epoch" else
                record.training.get("best_epoch"))
    if kind == "settings":
        specs = [o for o in group.config.get("objective", ()) if SETTINGS[metric] in o]
        return specs[-1][SETTINGS[metric]] if specs else None
    return record.metrics.get(f"id_{metric}", record.metrics.get(metric))


def _finish(layout: Layout, column: list[Cell], better: Better) -> list[Cell]:
    """What only the whole column tells: the order of the methods, the grades that rest on it, costs by the base."""
    if layout.kind == "costs":
        base = next(c for c in column if c.reported.method == layout.base)
        column = [replace(c, per_base=_ratio(c.ours.mean, base.ours.mean),
                          printed_per_base=_ratio(c.reported.value, base.reported.value)) for c in column]
    if layout.kind != "scores":
        return [replace(c, grade=_grade(layout, c, None)) for c in column]
    fair = {_name(c): c.ours.mean for c in column if c.values and not _why_not(c)}
    printed = {_name(c): c.reported.value for c in column}
    orders = _orders([c.ours.mean for c in column], column[0].digits)
    printed_orders = _orders(list(printed.values()), column[0].digits)
    return [replace(c, order=a, printed_order=b, better_than=_better_than(c, better), grade=_grade(
                layout, c, order_of(_name(c), fair, printed) if _name(c) in fair else None))
            for c, a, b in zip(column, orders, printed_orders, strict=True)]


def _grade(layout: Layout, cell: Cell, order: Order | None) -> Grade:
    """The grade of a cell; order: see `order_of`."""
    value = cell.reported.value
    if not cell.values:
        return grade(Summary(None, None, 0), value, digits=cell.digits, reason="")
    reason = _why_not(cell)
    if layout.kind == "counts":
        return grade_count(cell.values[0][1], value, digits=cell.digits, reason=reason)
    if layout.kind == "settings":
        return Grade("", TAKEN if math.isclose(cell.values[0][1], value) else OTHERWISE)
    return grade(summarise([v for _, v in cell.values]), value, digits=cell.digits, order=order, reason=reason,
                 known=known_reasons(cell.standing.group.row))


def _why_not(cell: Cell) -> str:
    """Why our values of a cell cannot be compared with the printed one, or ""."""
    if not cell.whole:
        have, group = dict(cell.values), cell.standing.group
        lacking = sorted({*cell.standing.block.missing(group), *(s for s in group.seeds if s not in have)})
        text = f"incomplete: seed{'s' if len(lacking) > 1 else ''} {', '.join(map(str, lacking))} missing"
        return "; ".join(filter(None, (text, cell.standing.why_not)))
    cost = {"seconds": HARDWARE, "epochs": EPOCHS}.get(cell.reported.unit, "")
    return cell.standing.why_not or cost


def _better_than(cell: Cell, better: Better) -> tuple[str, ...]:
    if cell.reported.metric != METRIC or cell.standing is None:
        return ()
    return better.get((cell.standing.block.name, cell.standing.group.label), ())


def _name(cell: Cell) -> str:
    return f"{cell.reported.backbone} {cell.reported.method}"


def _orders(values: Sequence[float | None], digits: int) -> list[int]:
    """1 for the highest as shown, 2 for the next, else 0; all 0 where there is no other to be better than."""
    shown = [None if v is None else round(v, digits) for v in values]
    ranked = sorted({v for v in shown if v is not None}, reverse=True)[:2]
    if sum(v is not None for v in shown) < 2:
        return [0] * len(shown)
    return [ranked.index(v) + 1 if v in ranked else 0 for v in shown]


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _relative(paper: Paper, layout: Layout, reported: Reported, column: list[Cell]) -> Cell:
    """An improvement or change: ours, the printed one, and the one that the printed cells give."""
    if reported.method == IMPROVEMENT:
        new = [c for c in column if c.reported.method in layout.own]
        old = [c for c in column if c.reported.method not in layout.own]
    else:
        new = [c for c in column if c.reported.method == reported.method.removesuffix(CHANGE)]
        old = [c for c in column if c.reported.method == layout.base]
    run = [[c.ours.mean for c in cells if c.ours.mean is not None] for cells in (new, old)]
    printed = [max(c.reported.value for c in cells) for cells in (new, old)]
    half = 0.5 * 10.0**-column[0].digits
    gain = _ratio(max(run[0]), max(run[1])) if all(run) else None
    spread = (printed[0] - half) / (printed[1] + half) - 1, (printed[0] + half) / (printed[1] - half) - 1
    return Cell(reported, paper.digits(reported), gain=None if gain is None else gain - 1, spread=spread,
                recomputed=printed[0] / printed[1] - 1, among=(len(run[0]) + len(run[1]), len(column)))
