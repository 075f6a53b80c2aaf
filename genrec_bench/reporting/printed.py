"""Our numbers beside a paper's: which run of ours stands for a printed row, whether it may be compared, and a grade."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from genrec_bench.core.lists import grouped
from genrec_bench.experiments.suite_files import undecided
from genrec_bench.reporting.families import UNTESTED
from genrec_bench.reporting.load import Block, Group, Summary, summarise
from genrec_bench.reporting.matching import differing, planned
from genrec_bench.reporting.papers import CHANGE, IMPROVEMENT, Layout, Paper, Reported
from genrec_bench.reporting.rows import Row, Suite
from genrec_bench.reporting.tables import METRIC
from genrec_bench.results.records import RunRecord

PROFILE = "paper"
# How a pass is cut into parts: the numbers are those of another order of adding up.
NO_MATTER = ("decoding.batch_size", "decoding.memory_gib", "training.memory_gib")
EXACT, STATISTICAL, DIRECTIONAL = "exact", "statistical", "directional"
NOT_REPRODUCED, NOT_COMPARABLE, NOT_RUN = "not reproduced", "not comparable", "not run"
GRADES = (EXACT, STATISTICAL, DIRECTIONAL, NOT_REPRODUCED, NOT_COMPARABLE, NOT_RUN)
REASONED = (DIRECTIONAL, NOT_COMPARABLE, NOT_REPRODUCED)  # that are told with their reason
ENOUGH = 5  # seeds for the grade of the spread
FEWEST = 2  # other methods of a column for the grade of the order, and at least half of them
TINY = 1e-12  # what two equal decimals may differ by in binary
COUNTS = {"n_users": lambda d: d["users"], "n_items": lambda d: d["items"],
          "n_interactions": lambda d: d["interactions"],
          "density": lambda d: d["interactions"] / (d["users"] * d["items"]),
          "sparsity": lambda d: 1 - d["interactions"] / (d["users"] * d["items"])}
COSTS = {"s": "another machine", "epochs": "counted otherwise"}  # why costs are never compared, by unit
Better = Mapping[tuple[str, str], tuple[str, ...]]  # (block, label of a row) -> labels that a test found it better than


def why_not(block: Block, paper: Paper) -> str:
    """Why no row of a block can stand beside the paper's, in one line, or "" where some may."""
    if reason := _why_not_data(block, paper):
        return reason
    reasons = {why_not_group(g, paper) for g in block.groups if g.row.paper_row}
    if not reasons:
        return "no row of the paper has been run"
    return "" if "" in reasons else "; ".join(sorted(reasons))


def _why_not_data(block: Block, paper: Paper) -> str:
    if block.dataset not in paper.datasets:
        return f"{block.dataset} is not among the paper's datasets"
    return "" if block.profile == PROFILE else f"profile {block.profile}, not the paper's sizes and schedule"


def why_not_group(group: Group, paper: Paper) -> str:
    """Why one row's runs are not the paper's, or "": they have to be what the row is under profile `paper`, unchanged.

    The block's own reasons come first, see `why_not`.
    """
    if group.row.paper_row is None:
        return f"the paper prints no row for {group.label}"
    config = planned(group.row, PROFILE, group.records[0])
    if config is None:
        return f"{group.label}: no run of profile {PROFILE}"
    other = [f"{key} is {own}, {wanted} under profile {PROFILE}" for key, own, wanted in
             differing(group.records[0].config, config.to_dict(), ("label", "profile", "seed")) if key not in NO_MATTER]
    return f"{group.label}: {', '.join(other)}" if other else ""


def comparable_rows(block: Block, paper: Paper) -> list[tuple[Group, str, str, float]]:
    """(group, table, metric, printed number) wherever data and settings are the paper's; rows may share a number."""
    if why_not(block, paper):
        return []
    return [(group, group.row.table, metric, value) for group in block.groups if not why_not_group(group, paper)
            for metric in paper.metrics(group.row.table)
            if (value := printed_value(block.dataset, group.row, metric, paper)) is not None]


def printed_value(dataset: str, row: Row, metric: str, paper: Paper, table: str | None = None) -> float | None:
    """The number that is printed for a row, whatever the settings, in its own table or another; None without one."""
    if row.paper_row is None:
        return None
    backbone, name = row.paper_row
    return paper.cell(table=table or row.table, dataset=dataset, backbone=backbone, method=name, metric=metric)


def printed_gain(dataset: str, row: Row, against: Row, metric: str, paper: Paper) -> float | None:
    """The gain of one row over another as a part of the other's value, from two cells of one table; None without one.
    """
    for table in dict.fromkeys((row.table, against.table)):
        ours, theirs = (printed_value(dataset, one, metric, paper, table) for one in (row, against))
        if ours is not None and theirs:
            return ours / theirs - 1.0
    return None


def tables_of(rows: Sequence[Row]) -> list[str]:
    """The tables of the paper that some rows stand in, in order."""
    return sorted({row.table for row in rows if row.paper_row})


def coverage(suite: Suite, blocks: Sequence[Block], paper: Paper) -> tuple[list[list[str]], int, int]:
    """The paper's rows by its datasets, a line for each of our rows that stands for one: what is there.

    Returns the lines (table, backbone, method, our row, then datasets), printed results that some row of ours
    reproduces, and printed results in all. A row that a later table repeats counts once.
    """
    found = grouped(((b, g) for b in blocks for g in b.groups), lambda of: (of[0].dataset, of[1].row.label),
                    lambda of: not why_not(of[0], paper) and not why_not_group(of[1], paper))
    stands = grouped(((t, pair) for t in tables_of(suite.rows) for pair in paper.rows(t)), lambda of: of[1])
    lines, done, total = [], 0, 0
    for (backbone, name), ((table, _), *_) in stands.items():
        labels = [row.label for row in suite.rows if row.paper_row == (backbone, name) and row.label]
        there = {c.dataset for c in paper.of(table) if (c.backbone, c.method) == (backbone, name)}
        printed = [ours for ours, theirs in paper.datasets.items() if theirs in there]
        total += len(printed)
        done += sum(any(any(found.get((d, label), ())) for label in labels) for d in printed)
        for label in labels or ["–"]:
            states = [_state(found.get((d, label), ())) if d in printed else "–" for d in paper.datasets]
            lines.append([table, backbone, name, label, *states])
    return lines, done, total


def _state(found: Sequence[bool]) -> str:
    return "reproduced" if any(found) else "other settings" if found else "no record"


@dataclass(frozen=True)
class Standing:
    """The row of ours beside a printed one. why_not: why it cannot be compared, or "". others: labels of our rows that
    would stand for the same one.
    """

    block: Block
    group: Group
    why_not: str
    others: tuple[str, ...] = ()


def standings(blocks: Sequence[Block], paper: Paper, dataset: str,
              pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], Standing]:
    """Our row for each (backbone, method) on the paper's dataset, as far as they have been run.

    All are of one block, because methods compare only there: the first with a comparable row, else the first of profile
    paper, then quick, then others; never smoke. Of several rows for one the first that can be compared, whole rows
    before incomplete ones.
    """
    found = []
    for block in _usable(blocks, paper, dataset):
        shared = _why_not_data(block, paper)
        rows = grouped((Standing(block, g, shared or why_not_group(g, paper)) for g in block.groups
                        if g.row.paper_row in pairs), lambda s: s.group.row.paper_row)
        first = {pair: min(of, key=lambda s: (bool(s.why_not), bool(s.block.missing(s.group))))
                 for pair, of in rows.items()}
        found.append({pair: replace(one, others=tuple(s.group.label for s in rows[pair] if s is not one))
                      for pair, one in first.items()})
    return min(filter(None, found), key=lambda f: all(s.why_not for s in f.values()), default={})


def _usable(blocks: Sequence[Block], paper: Paper, dataset: str) -> list[Block]:
    usable = [b for b in blocks if paper.datasets.get(b.dataset) == dataset and b.profile not in UNTESTED]
    return sorted(usable, key=lambda b: (b.profile != PROFILE, bool(undecided(b.profile)), b.profile))


@dataclass(frozen=True)
class Cell:
    """One printed cell and ours beside it.

    values: ours, seed -> value; not averaged where a seed is missing (not `whole`). gain: ours of an improvement or
    change; recomputed: what the printed cells give for it. place, printed_place: 1 for the best of its column, 2 for
    the second, else 0; gain and place only where every row of the column is there, all with the same seeds. multiple,
    printed_multiple: of the table's base, of costs. better_than: labels of rows that a declared test found it better
    than. grade: one of GRADES, or "" for what has none, and why.
    """

    reported: Reported
    standing: Standing | None = None
    values: Mapping[int, float] = field(default_factory=dict)
    whole: bool = True
    gain: float | None = None
    recomputed: float | None = None
    place: int = 0
    printed_place: int = 0
    multiple: float | None = None
    printed_multiple: float | None = None
    better_than: tuple[str, ...] = ()
    grade: str = ""
    why: str = ""

    @property
    def ours(self) -> Summary:
        """Mean and SD over seeds, of an incomplete row nothing; of an improvement the improvement."""
        if self.reported.relative:
            return Summary(self.gain, None, 0)
        return summarise(list(self.values.values()) if self.whole else [])

    @property
    def why_not(self) -> str:
        """Why ours cannot be compared with the printed number, or ""."""
        if self.standing is None:
            return ""
        group = self.standing.group
        lacking = {*self.standing.block.missing(group), *(s for s in group.seeds if s not in self.values)}
        seeds = "" if self.whole else f"seed{'s' * (len(lacking) > 1)} {', '.join(map(str, sorted(lacking)))} missing"
        return "; ".join(filter(None, (seeds, self.standing.why_not))) or COSTS.get(self.reported.unit, "")


def joined(paper: Paper, number: str, blocks: Sequence[Block], better: Better) -> list[Cell]:
    """The cells of a table in printed order. better: what a declared test found better than what."""
    layout, cells = paper.layouts[number], {}
    apart = "backbone" in (*layout.blocks, *layout.columns)  # methods are compared within a backbone
    for (dataset, _), part in grouped(paper.of(number), lambda c: (c.dataset, apart and c.backbone)).items():
        rows = _standing_rows(paper, layout, dataset, blocks, {(c.backbone, c.method) for c in part})
        for column in grouped(part, lambda c: c.metric).values():
            made = [_cell(layout, c, rows.get((c.backbone, c.method)), better) for c in column]
            cells |= {c.reported: c for c in _finished(layout, made)}
    return [cells[c] for c in paper.of(number)]


def _standing_rows(paper: Paper, layout: Layout, dataset: str, blocks: Sequence[Block],
                   pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], Standing]:
    if layout.kind in ("scores", "costs"):
        return standings(blocks, paper, dataset, pairs)
    kept = [(b.config["split"].get("max_users", 0), b) for b in _usable(blocks, paper, dataset)]
    if layout.kind == "reference" or not kept:
        return {}
    users, block = min(kept, key=lambda pair: bool(pair[0]))  # the first with all users
    return {("", ""): Standing(block, block.groups[0], f"only the first {users} users are kept" if users else "")}


def _cell(layout: Layout, reported: Reported, standing: Standing | None, better: Better) -> Cell:
    """A cell with our values; what rests on the whole column comes later."""
    if standing is None or reported.relative:
        return Cell(reported)
    block, group, once = standing.block, standing.group, layout.kind == "counts"
    values = {r.seed: float(value) for r in group.records[:1 if once else None]
              if (value := _value(layout.kind, reported.metric, r)) is not None}
    whole = once or block.stands(group) and len(values) == len(group.records)
    starred = better.get((block.name, group.label), ()) if reported.metric == METRIC else ()
    return Cell(reported, standing, values, whole, better_than=starred)


def _value(kind: str, metric: str, record: RunRecord) -> float | None:
    """Ours of a printed metric, ID-level where there is an ID-level value, as papers count."""
    if kind == "counts":
        known = all(record.data.get(k) for k in ("users", "items", "interactions"))
        return COUNTS[metric](record.data) if known else None
    if kind == "costs":
        return (record.timings.get("seconds_per_epoch") if metric == "time_per_epoch" else
                record.training.get("best_epoch"))
    return record.metrics.get(f"id_{metric}", record.metrics.get(metric))


def _finished(layout: Layout, column: list[Cell]) -> list[Cell]:
    """The cells of a column with what only all of it tells: places, multiples, improvements and grades."""
    rows, scores = [c for c in column if not c.reported.relative], layout.kind == "scores"
    ours, printed = _means(rows), [c.reported.value for c in rows]
    base = next((c for c in rows if c.reported.method == layout.base), None)
    found = [_change(layout, c, rows) if scores else c for c in column if c.reported.relative]
    for c, *places in zip(rows, *(_places(of, column[0].reported.digits) for of in (ours, printed)), strict=True):
        grade, why = _graded(layout, c, rows)
        multiples = (_ratio(c.ours.mean, base.ours.mean), _ratio(c.reported.value, base.reported.value)) \
            if layout.kind == "costs" else (None, None)
        place, printed_place = places if scores else (0, 0)
        found.append(replace(c, grade=grade, why=why, multiple=multiples[0], printed_multiple=multiples[1], place=place,
                             printed_place=printed_place))
    return found


def _means(cells: Sequence[Cell]) -> list[float | None]:
    """Ours of some rows of a column, one beside the other; none where they are of unlike seeds."""
    return [c.ours.mean for c in cells] if len({tuple(c.values) for c in cells}) == 1 else [None] * len(cells)


def _places(values: Sequence[float | None], digits: int) -> list[int]:
    """1 for the highest as shown, 2 for the next, else 0; all 0 where one is lacking, or has no other beside it."""
    if None in values or len(values) < 2:
        return [0] * len(values)
    shown = [round(v, digits) for v in values]
    best = sorted(set(shown), reverse=True)[:2]
    return [best.index(v) + 1 if v in best else 0 for v in shown]


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _change(layout: Layout, cell: Cell, rows: Sequence[Cell]) -> Cell:
    """An improvement or change: ours, where every row that it is of is there, and what the printed cells give."""
    name = cell.reported.method
    own = layout.own if name == IMPROVEMENT else (name.removesuffix(CHANGE),)
    new = [c for c in rows if c.reported.method in own]
    old = [c for c in rows if c.reported.method == layout.base or name == IMPROVEMENT and c not in new]
    printed = [max(c.reported.value for c in part) for part in (new, old)]
    ours = _means([*new, *old])
    gain = None if None in ours else _ratio(max(ours[:len(new)]), max(ours[len(new):]))
    return replace(cell, gain=None if gain is None else gain - 1, recomputed=printed[0] / printed[1] - 1)


def _order(cell: Cell, fair: Sequence[Cell], others: int) -> tuple[str, bool]:
    """How a method stands to the others of its column that can be compared, each over the seeds that both have, in
    words, and whether enough of them all stand to it as printed; a tie on either side agrees with anything."""
    known = [(c, both) for c in fair if c is not cell and (both := cell.values.keys() & c.values.keys())]
    count = f"{len(known)} of {others} others"
    if any(fmean(cell.values[s] - c.values[s] for s in both) * (cell.reported.value - c.reported.value) < 0
           for c, both in known):
        return f"another order than printed among {count}", False
    return f"order as printed among {count}", len(known) >= FEWEST and 2 * len(known) >= others


def _graded(layout: Layout, cell: Cell, rows: Sequence[Cell]) -> tuple[str, str]:
    """Grade and reason of a cell."""
    if layout.kind == "reference":
        return "", ""
    if not cell.values:
        return NOT_RUN, ""
    if cell.why_not:
        return NOT_COMPARABLE, cell.why_not
    order = _order(cell, [c for c in rows if c.values and not c.why_not], len(rows) - 1) \
        if layout.kind == "scores" and len(rows) > 1 else None
    return grade(cell.ours, cell.reported.value, digits=cell.reported.digits, order=order,
                 counted=layout.kind == "counts")


def grade(ours: Summary, printed: float, *, digits: int, order: tuple[str, bool] | None = None,
          counted: bool = False) -> tuple[str, str]:
    """How near a mean over seeds comes to a printed number of so many decimals: one of GRADES, and why.

    order: what is known of the order in words, and whether it is the printed one. counted: what has no spread.
    """
    gap, error = abs(ours.mean - printed), (ours.sd or 0.0) / math.sqrt(ours.n)
    if gap <= error + 0.5 * 10.0**-digits + TINY and (counted or ours.sd is not None):
        return EXACT, ""
    if ours.sd is not None and ours.n >= ENOUGH and gap <= 2 * ours.sd + TINY:
        return STATISTICAL, ""
    text, as_printed = order or ("", False)
    return DIRECTIONAL if as_printed else NOT_REPRODUCED, text
