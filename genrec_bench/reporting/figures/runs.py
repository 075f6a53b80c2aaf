"""The runs that a figure is drawn of: which rows have them all and are shown, and what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.analysis.significance import compare_values
from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.reporting.families import UNTESTED, paired
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.rows import PARTS, Row

if TYPE_CHECKING:
    from genrec_bench.reporting.report_data import ReportData

RESAMPLES = 500  # of an interval that is only looked at
MOST_ROWS = 24  # rows of a figure; of a block with more only those of the smaller grids are drawn


def bare(row: Row) -> str:
    """A row's label without its backbone."""
    return (row.label or "").removeprefix(f"{row.spelling} + ")


def group_of(block: Block, rows: Iterable[Row]) -> Group | None:
    """The runs of the first of some equal rows that has any, with the settings that it states; None without runs."""
    return next((g for row in rows for g in block.groups if g.row is row and g.label == row.label), None)


def complete(block: Block, rows: Iterable[Row]) -> Group | None:
    """As `group_of`, but None also where the row does not stand with the seeds that it has."""
    found = group_of(block, rows)
    return found if found is not None and block.stands(found) else None


def lacking(block: Block, wanted: Iterable[Sequence[Row]]) -> list[str]:
    """Labels of the rows without complete runs; of equal rows the first."""
    return [rows[0].label for rows in wanted if complete(block, rows) is None]


def needed(data: ReportData, block: Block, labels: Iterable[str] | None = None) -> str | None:
    """The rows that have no complete runs and how to run one; None where the runs mean nothing.

    labels: in order, also twice; None = the rows of the smallest grid on a backbone.
    """
    if labels is None:
        labels = lacking(block, [[row] for row in data.suite.rows if row.backbone and row.grid == GRIDS[0]])
    if block.profile in UNTESTED or not (labels := list(dict.fromkeys(labels))):
        return None
    words = ["python", "benchmark.py", "run", "--suite", data.suite.name, "--datasets",
             block.config["dataset"]["name"], "--profile", block.profile, "--row", labels[0]]
    more = ", and so on for each" if len(labels) > 1 else ""
    return f"it needs complete runs of {listed(labels)} (`{shlex.join(words)}`{more})"


def listed(labels: Iterable[str]) -> str:
    """Labels in a line; those that differ in a setting's value alone are joined: "A, weight = 0.1, 0.2"."""
    values: dict[str, list[str]] = {}
    for label in labels:
        head, sign, value = label.rpartition(" = ")
        values.setdefault(head + sign if sign else label, []).extend([value] if sign else [])
    return "; ".join(head + ", ".join(of) for head, of in values.items())


def counted(block: Block, group: Group, name: str | None = None) -> str:
    """A row's name with the number of its seeds where some are missing."""
    count = f" ({len(group.seeds)} of {len(block.seeds)} seeds)" if block.missing(group) else ""
    return (name or group.name) + count


def incomplete(block: Block, shown: Iterable[Group] = ()) -> list[str]:
    """Labels of the rows that lack seeds and are not shown."""
    return [g.label for g in block.groups if not block.stands(g) and not any(g is one for one in shown)]


def undrawn(block: Block, shown: Iterable[Group]) -> int:
    """How many rows that stand are not shown."""
    labels = {g.label for g in shown}
    return sum(block.stands(g) and g.label not in labels for g in block.groups)


def path_of(row: Row, setting: str) -> str | None:
    """Where a row states a setting, as in `wanted`; None where it does not.

    setting: "apao.eta" for an objective's, whichever place it has, or "decoding.temperature" for a part's.
    """
    part, _, key = setting.partition(".")
    specs = row.stated.get("objective", ())
    place = next((f"{i}." if len(specs) > 1 else "" for i, spec in enumerate(specs) if spec["name"] == part), None)
    found = setting if part in PARTS else None if place is None else f"objective.{place}{key}"
    return found if found in row.wanted else None


def interval(data: ReportData, group: Group, metric: str, against: Group | None = None) -> Estimate | None:
    """How far a row is above another, or without one its score, over seeds and users; None where no ranks are stored.

    metric: name@k, item-level.
    """
    name, _, k = metric.partition("@")
    if against is not None:
        if (pair := paired(group, against)) is None:
            return None
        group, against = pair.compared
    a, b = (one and data.values(one, name, int(k)) for one in (group, against))
    if a is None or (against and b is None):
        return None
    found = compare_values(a, np.zeros((1, a.shape[1])) if b is None else b, num_permutations=1,
                           num_resamples=RESAMPLES)
    return Estimate(found.difference, *found.interval, found.n_users)


def smaller(block: Block) -> tuple[Block, int]:
    """The block with the rows that a figure has room for, and how many are left out."""
    groups = tuple(g for g in block.groups if g.row.grid != GRIDS[-1])
    if len(block.groups) <= MOST_ROWS or not groups:
        return block, 0
    return replace(block, groups=groups), len(block.groups) - len(groups)


def principal(block: Block, family: str, most: int) -> list[Group]:
    """At most `most` rows of a family for a figure that compares methods: those that stand, one group a row.

    Of a row's variants it is the plainest; rows of the full grid are left out where there is no room for all.
    """
    own, plainest = block.families()[family], {}
    for group in sorted(own, key=lambda g: g.label != g.row.label):
        plainest.setdefault(group.row.key, group)
    groups = [g for g in own if plainest[g.row.key] is g and block.stands(g)]
    if len(groups) > most:
        groups = [g for g in groups if g.row.grid != GRIDS[-1]] or groups
    return groups[:most]


def beside_baselines(block: Block, family: str, most: int) -> tuple[list[Group], list[Group]]:
    """The baselines and a backbone's rows that stand, the backbone's only where there are any.

    Baselines alone stand as rows where there is no backbone.
    """
    families = block.families()
    plain = [f for f, groups in families.items() if groups[0].row.backbone is None]
    baselines = [g for f in plain for g in principal(block, f, most)]
    if family in plain:
        return (baselines if len(plain) == len(families) else []), []
    own = principal(block, family, most)
    return (baselines, own) if own else ([], [])
