"""Scores against one setting that a suite varies, one at a time, from the row that all have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genrec_bench.core.files import canonical
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Axis, Chart, point, seed_points
from genrec_bench.reporting.figures.runs import (
    complete,
    evidence,
    group_of,
    lacking,
    needed,
    not_drawn,
    paired,
    path_of,
)
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite, effective
from genrec_bench.reporting.tables import title_of

DIFFERENCE, ZERO = "difference", "no difference"


@dataclass(frozen=True)
class Sweep:
    """Rows of one backbone that differ in one setting. base: the first of them, with its value `own`.

    rows: value -> the equal rows that have it, in the order of values.
    """

    base: Row
    setting: str
    own: float
    rows: Mapping[float, Sequence[Row]]

    def points(self, block: Block) -> dict[float, Group]:
        """The values that have runs."""
        return {value: found for value, rows in self.rows.items() if (found := group_of(block, rows))}

    def drawable(self, block: Block) -> bool:
        """Whether two values have complete runs."""
        return sum(complete(block, rows) is not None for rows in self.rows.values()) > 1


def sweeps(suite: Suite, setting: str, dataset: str) -> list[Sweep]:
    """The rows of a suite that differ in a setting alone, as their values are on a dataset; see `runs.path_of`.

    A row whose other settings a paper has found better ones for on this dataset is no point of a sweep there.
    """
    classes: dict[str, list[Row]] = {}
    for row in suite.rows:
        path = path_of(row, setting)
        if path and isinstance(row.wanted[path], (int, float)) and not isinstance(row.wanted[path], bool):
            classes.setdefault(_rest(row.wanted, path), []).append(row)
    found = []
    for rest, same in classes.items():
        path, points = path_of(same[0], setting), {}
        if len({row.wanted[path] for row in same}) > 1:
            for row in same:
                settings = effective(row, dataset)
                if _rest(settings, path) == rest:
                    points.setdefault(float(settings[path]), []).append(row)
            found.append(Sweep(same[0], setting, float(same[0].wanted[path]), dict(sorted(points.items()))))
    return found


def _rest(settings: Mapping, path: str) -> str:
    return canonical({k: v for k, v in settings.items() if k != path})


@dataclass(frozen=True)
class Plan:
    """A paper's figure of sweeps. settings: setting -> label of its axis. metrics: a line of panels each; the first
    chooses the best value where `star`. caption: what the paper has. objectives: as of `base.Plate`.
    """

    paper: str
    number: str
    title: str
    settings: Mapping[str, str]
    caption: str
    objectives: tuple[str, ...]
    metrics: Sequence[str] = ("ndcg@10",)
    star: bool = False


PLANS = (
    Plan("apao", "3", "NDCG@10 by weight and step size of APAO",
         {"apao.weight": "Weight of the prefix loss, β", "apao.eta": "Step size of the adaptive weights, η"},
         "after APAO's Figure 3 (there Beauty; metric and what is held fixed are not said, here Table 5's best for "
         "Beauty), values of which are not in its text. The paper says that 0.1 to 0.4 does well and η matters little",
         ("apao",)),
    Plan("bear", "8", "NDCG@10 by weight and temperature of BEAR",
         {"bear.weight": "Weight of the regulariser, λ", "bear.xi": "Temperature, ξ"},
         "after BEAR's Figure 8, of which metric, data, grid and the fixed other value are not said. The paper says "
         "that each has one clear peak", ("bear",), ("valid_ndcg@10", "ndcg@10"), star=True),
    Plan("rankgr", "4", "Hit rate by the codewords kept for refinement", {"rsp.num_codewords": "Codewords kept, λ₂"},
         "after RankGR's Figure 4 (there HR@1000 of clicks and page views on Taobao)", ("rsp",), ("hr@20",)),
    Plan("rankgr", "5", "Hit rate by the weight of listwise preferences", {"ldpo.weight": "Weight of LDPO, α"},
         "after RankGR's Figure 5 (there HR@1000 of clicks and page views on Taobao), which rises from 0.5 to 1 and "
         "falls beyond", ("ldpo",), ("hr@20",)))


def _register(plan: Plan) -> None:
    @plate(plan.number, plan.title, paper=plan.paper, objectives=plan.objectives)
    def figure(material: ReportData, block: Block) -> Chart | str | None:
        return swept(material, block, plan)


for _plan in PLANS:
    _register(_plan)


def swept(material: ReportData, block: Block, plan: Plan) -> Chart | str | None:
    """Scores by setting with differences to the base row: a panel for each backbone and setting, of a line of scores
    for each metric and one of differences. None where the block's backbones have no such rows.
    """
    found = {setting: sweeps(material.suite, setting, block.dataset) for setting in plan.settings}
    if not any(found.values()):
        return (f"it needs rows that differ in {' or '.join(plan.settings)} alone; suite "
                f"{material.suite.name} has none")
    families = {(family, setting): [s for s in of if s.base.backbone == groups[0].row.backbone]
                for family, groups in block.families().items() for setting, of in found.items()}
    absent = list(dict.fromkeys(label for of in families.values() for sweep in of
                                for label in lacking(block, sweep.rows.values())))
    drawn = {key: shown for key, of in families.items() if (shown := [s for s in of if s.drawable(block)])}
    if not drawn:
        return needed(material, block, absent)
    points, looks, at = [], {ZERO: look("reference")}, {}
    for (family, setting), of in drawn.items():
        panel = f"{family}, {plan.settings[setting].rpartition(', ')[2]}"
        values = sorted({value for sweep in of for value in sweep.points(block)})
        at[panel] = Axis(plan.settings[setting], even=True, ticks={v: f"{v:g}" for v in values})
        for sweep in of:
            own = next(material.look[row.key] for row in (sweep.base, *(g.row for g in sweep.points(block).values()))
                       if row.key in material.look)
            looks[_name(sweep)] = own
            points += _points(material, block, plan, sweep, panel)
        points += _reference(material, block, plan, family, panel, looks)
    caption = f"{block.name}: one setting varied at a time, its values at equal distances, item-level, {plan.caption}"
    if any(p["mark"] == "printed" for p in points):
        caption += "; hollow marks on the zero line are the best values of its Table 5"
    kinds = {**{m: Axis(_score(m)) for m in plan.metrics},
             **({DIFFERENCE: Axis("Gain over own value")} if material.ranked else {})}
    return Chart(f"{plan.title} on {block.dataset}", f"{caption}. Here: {evidence(material, block)}{not_drawn(absent)}",
                 points, kinds, looks, at, fewest=1, dodge=0.015, shared=False,
                 heights={DIFFERENCE: 0.75, "valid_ndcg@10": 0.8})


def _points(material: ReportData, block: Block, plan: Plan, sweep: Sweep, panel: str) -> list[dict]:
    """One sweep: scores of each metric, the best value, and differences to the row's own value."""
    name, groups, found = _name(sweep), sweep.points(block), []
    whole = {v: g for v, g in groups.items() if not block.missing(g) and g.values(plan.metrics[0])}
    best = max(whole, key=lambda v: whole[v].mean(plan.metrics[0]), default=None) if plan.star else None
    for metric in plan.metrics:
        for value, group in groups.items():
            found += seed_points(panel, metric, name, value, group.values(metric), not block.missing(group))
        if best is not None and whole[best].values(metric):
            found.append(point(panel, metric, name, "best", best, whole[best].mean(metric)))
        found += [point(panel, metric, name, "own", sweep.own, None)] * (sweep.own in groups)
    if not material.ranked:
        return found
    own = complete(block, sweep.rows.get(sweep.own, ()))
    metric = next(m for m in plan.metrics if not m.startswith("valid_"))
    for value, rows in sweep.rows.items() if own else ():
        if value != sweep.own and (group := complete(block, rows)) is not None:
            gap = paired(material, group, own, metric)
            found.append(point(panel, DIFFERENCE, name, "mean", value, gap.value, gap))
    printed = printed_best(sweep, block.dataset)
    if printed in groups:
        found.append(point(panel, DIFFERENCE, name, "printed", printed, 0.0))
    return found


def _reference(material: ReportData, block: Block, plan: Plan, family: str, panel: str,
               looks: dict) -> list[dict]:
    """Lines at the backbone's cross-entropy, and at no difference."""
    found = [point(panel, DIFFERENCE, ZERO, "level", None, 0.0)] if material.ranked else []
    reference = block.cross_entropy(family)
    if reference is None or block.missing(reference):
        return found
    looks[reference.name] = material.look[reference.row.key]
    return found + [point(panel, m, reference.name, "level", None, reference.mean(m)) for m in plan.metrics
                    if reference.values(m)]


def _score(metric: str) -> str:
    plain = metric.removeprefix("valid_")
    return f"{title_of(plain)}, {'test' if plain == metric else 'validation'}"


def _name(sweep: Sweep) -> str:
    return (sweep.base.label or "").removeprefix(f"{sweep.base.spelling} + ")


def printed_best(sweep: Sweep, dataset: str) -> float | None:
    """The value that the paper's table of best settings has for a dataset, or None."""
    return sweep.base.best.get(dataset, {}).get(path_of(sweep.base, sweep.setting))
