"""Scores against one setting that a suite varies, one at a time, from the row that all have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from genrec_bench.core.files import canonical
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, entries, named, point, seed_points
from genrec_bench.reporting.figures.runs import bare, complete, group_of, interval, lacking, needed, path_of
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite, effective

DIFFERENCE, ZERO = "difference", "no difference"
CHOOSES = "valid_ndcg@10"  # where a figure shows it, its best value has a star


@dataclass(frozen=True)
class Sweep:
    """Rows of one backbone that differ in one setting. base: the first of them, with its value `own`.

    rows: value -> the equal rows that have it, in the order of values.
    """

    base: Row
    setting: str
    own: float
    rows: Mapping[float, Sequence[Row]]

    def groups(self, block: Block, find: Callable = group_of) -> dict[float, Group]:
        """The values that have runs, or all of them, with `complete`."""
        return {value: found for value, rows in self.rows.items() if (found := find(block, rows))}


def sweeps(suite: Suite, setting: str, dataset: str) -> list[Sweep]:
    """The rows of a suite that differ in a setting alone, as their values are on a dataset; see `runs.path_of`.

    A row whose other settings its paper has found better ones for there is no point of a sweep there.
    """
    classes: dict[str, list[Row]] = {}
    for row in suite.rows:
        path = path_of(row, setting)
        if path and isinstance(row.wanted[path], (int, float)) and not isinstance(row.wanted[path], bool):
            classes.setdefault(_rest(row.wanted, path), []).append(row)
    found = []
    for rest, same in classes.items():
        path, points = path_of(same[0], setting), {}
        for row in same:
            if _rest(settings := effective(row, dataset), path) == rest:
                points.setdefault(float(settings[path]), []).append(row)
        if len({row.wanted[path] for row in same}) > 1:
            found.append(Sweep(same[0], setting, float(same[0].wanted[path]), dict(sorted(points.items()))))
    return found


def _rest(settings: Mapping, path: str) -> str:
    return canonical({k: v for k, v in settings.items() if k != path})


@plate(*(key for key, own in entries().items() if "settings" in own))
def swept(key: str, data: ReportData, block: Block) -> Chart | str | None:
    """Scores by setting with differences to the base row: a panel for each backbone and setting, of a line of scores
    for each metric and one of differences. None where the block's backbones have no such rows.
    """
    settings = entries()[key]["settings"]
    found = [s for setting in settings for s in sweeps(data.suite, setting, block.dataset)]
    if not found:
        return f"it needs rows that differ in {' or '.join(settings)} alone; suite {data.suite.name} has none"
    own = [(family, s) for family, groups in block.families().items() for s in found
           if s.base.backbone == groups[0].row.backbone]
    absent = [label for _, s in own for label in lacking(block, s.rows.values())]
    points, looks, ticks = [], {}, {}
    for family, sweep in ((family, s) for family, s in own if len(s.groups(block, complete)) > 1):
        panel = f"{family}, {settings[sweep.setting].rpartition(', ')[2]}"
        if panel not in ticks:
            ticks[panel] = settings[sweep.setting], set()
            points += _reference(key, data, block, family, panel)
        groups = sweep.groups(block)
        ticks[panel][1].update(groups)
        looks[bare(sweep.base)] = next(data.look[row.key] for row in (sweep.base, *(g.row for g in groups.values()))
                                 if row.key in data.look)
        points += _points(key, data, block, sweep, panel)
    axes = {panel: Axis(label, ticks={v: f"{v:g}" for v in sorted(of)}) for panel, (label, of) in ticks.items()}
    return named(key, data, block, points, looks=looks, at=axes, absent=absent) if points else \
        needed(data, block, absent)


def _points(key: str, data: ReportData, block: Block, sweep: Sweep, panel: str) -> list[dict]:
    """One sweep: scores of each metric, the best value, and differences to the row's own value."""
    metrics, groups, whole, found = _metrics(key), sweep.groups(block), sweep.groups(block, complete), []
    known = [v for v, g in whole.items() if g.values(CHOOSES)] if CHOOSES in metrics else []
    best = max(known, key=lambda v: whole[v].mean(CHOOSES), default=None)
    for metric in metrics:
        for value, group in groups.items():
            found += seed_points(panel, metric, bare(sweep.base), value, group.values(metric), block.stands(group))
        if best is not None and whole[best].values(metric):
            found.append(point(panel, metric, bare(sweep.base), "best", best, whole[best].mean(metric)))
        found += [point(panel, metric, bare(sweep.base), "own", sweep.own, None)] * (sweep.own in groups)
    for value, group in whole.items() if data.ranked and sweep.own in whole else ():
        if value != sweep.own:
            gap = interval(data, group, metrics[-1], whole[sweep.own])
            found += [] if gap is None else [
                point(panel, DIFFERENCE, bare(sweep.base), "mean", value, gap.value, gap)]
    printed = printed_best(sweep, block.dataset)
    if data.ranked and printed in groups:
        found.append(point(panel, DIFFERENCE, bare(sweep.base), "printed", printed, 0.0))
    return found


def _metrics(key: str) -> list[str]:
    """The scores that a figure shows, the one of test targets last."""
    return [quantity for quantity in entries()[key]["values"] if quantity != DIFFERENCE]


def _reference(key: str, data: ReportData, block: Block, family: str, panel: str) -> list[dict]:
    """Lines at the backbone's cross-entropy, and at no difference."""
    found = [point(panel, DIFFERENCE, ZERO, "level", None, 0.0)] * data.ranked
    reference = block.cross_entropy(family)
    if reference is None or not block.stands(reference):
        return found
    return found + [point(panel, m, reference.name, "level", None, reference.mean(m)) for m in _metrics(key)
                    if reference.values(m)]


def printed_best(sweep: Sweep, dataset: str) -> float | None:
    """The value that the paper's table of best settings has for a dataset, or None."""
    return sweep.base.best.get(dataset, {}).get(path_of(sweep.base, sweep.setting))


