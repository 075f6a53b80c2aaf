"""The runs that a figure is drawn of: which of its rows have them all, how far apart two rows are, what is missing."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

import numpy as np

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.analysis.significance import compare_values
from genrec_bench.reporting.families import UNTESTED
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import PARTS, Row

RESAMPLES = 500  # of an interval that is only looked at
INTERVAL = "differences with 95 % intervals, paired by user, over seeds and users"


def group_of(block: Block, rows: Iterable[Row]) -> Group | None:
    """The runs of the first of some equal rows that has any, with the settings that it states; None without runs."""
    for row in rows:
        for group in block.groups:
            if group.row is row and group.label == row.label:
                return group
    return None


def complete(block: Block, rows: Iterable[Row]) -> Group | None:
    """As `group_of`, but None also where a seed is missing that other rows have."""
    found = group_of(block, rows)
    return None if found is None or block.missing(found) else found


def lacking(block: Block, wanted: Iterable[Sequence[Row]]) -> list[str]:
    """Labels of the rows without complete runs; of equal rows the first."""
    return [rows[0].label for rows in wanted if complete(block, rows) is None]


def needed(material: ReportData, block: Block, labels: Sequence[str]) -> str | None:
    """The rows that have no complete runs and how to run one; None where the runs mean nothing."""
    if block.profile in UNTESTED or not labels:
        return None
    words = ["python", "benchmark.py", "run", "--suite", material.suite.name, "--datasets",
             block.config["dataset"]["name"], "--profile", block.profile, "--row", labels[0]]
    more = ", and so on for each" if len(labels) > 1 else ""
    return f"it needs complete runs of {listed(labels)} (`{shlex.join(words)}`{more})"


def counted(group: Group, block: Block) -> str:
    """A row's name with the number of its seeds where some are missing."""
    return f"{group.name} ({len(group.seeds)} of {len(block.seeds)} seeds)" if block.missing(group) else group.name


def not_drawn(labels: Sequence[str]) -> str:
    """The end of a caption that names the rows that are left out, or ""."""
    return f". Without complete runs: {listed(labels)}" if labels else ""


def seeds_of(block: Block) -> str:
    """How many seeds stand behind a block's complete rows, for captions."""
    return "one seed, so no SD over seeds" if len(block.seeds) == 1 else f"{len(block.seeds)} seeds"


def evidence(material: ReportData, block: Block) -> str:
    """The seeds, and what the intervals are, for captions of figures with differences."""
    return f"{seeds_of(block)}; {INTERVAL if material.ranked else 'without ranks no differences are shown'}"


def listed(labels: Sequence[str]) -> str:
    """Labels in a line; those that differ in a setting's value alone are joined: "A, weight = 0.1, 0.2"."""
    values: dict[str, list[str]] = {}
    for label in labels:
        head, sign, value = label.rpartition(" = ")
        values.setdefault(head + sign if sign else label, []).extend([value] if sign else [])
    return "; ".join(head + ", ".join(of) for head, of in values.items())


def path_of(row: Row, setting: str) -> str | None:
    """Where a row states a setting, as in `wanted`; None where it does not.

    setting: "apao.eta" for an objective's, whichever place it has, or "decoding.temperature" for a part's.
    """
    part, _, key = setting.partition(".")
    specs = row.stated.get("objective", ())
    if part in PARTS:
        found = setting
    else:
        places = [i for i, spec in enumerate(specs) if spec["name"] == part]
        found = f"objective.{places[0]}.{key}" if places and len(specs) > 1 else f"objective.{key}" if places else ""
    return found if found in row.wanted else None


def paired(material: ReportData, group: Group, against: Group, metric: str) -> Estimate | None:
    """How far one row is above another; None where no ranks are stored. metric: name@k, item-level."""
    return None if material.results is None else _estimate(_values(material, group, metric),
                                                           _values(material, against, metric))


def alone(material: ReportData, group: Group, metric: str) -> Estimate | None:
    """A row's score with its interval over seeds and users; None where no ranks are stored."""
    if not material.ranked:
        return None
    values = _values(material, group, metric)
    return _estimate(values, np.zeros((1, values.shape[1])))


def _values(material: ReportData, group: Group, metric: str) -> np.ndarray:
    name, _, k = metric.partition("@")
    return material.values(group, name, int(k))


def _estimate(a: np.ndarray, b: np.ndarray) -> Estimate:
    found = compare_values(a, b, num_permutations=1, num_resamples=RESAMPLES)
    return Estimate(found.difference, *found.interval, found.n_users)


def ratios(values: Mapping[int, float], unit: Mapping[int, float]) -> list[float]:
    """What each seed has in units of the same seed of another row; seeds that both have, in order."""
    return [values[s] / unit[s] for s in sorted(values) if unit.get(s)]


def geometric(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of positive numbers, and that mean divided and multiplied by the geometric SD (1 for one)."""
    logs = [math.log(v) for v in values]
    mean, spread = fmean(logs), stdev(logs) if len(logs) > 1 else 0.0
    return math.exp(mean), math.exp(mean - spread), math.exp(mean + spread)
