"""What tests say: declared comparisons, methods in order, what more seeds would show, and the best printed rows."""

from __future__ import annotations

import math
from dataclasses import replace

from genrec_bench.analysis.ranking import all_pairs
from genrec_bench.reporting.best_printed import beside_printed
from genrec_bench.reporting.figures.base import plate
from genrec_bench.reporting.figures.charts import Chart, estimates, named, point
from genrec_bench.reporting.figures.runs import beside_baselines, incomplete, needed, undrawn
from genrec_bench.reporting.figures.style import look
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.power import SEEDS, TIMES, curves
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import title_of
from genrec_bench.reporting.verdicts import p_text

OUTCOMES = {"better": "better", "worse": "worse", None: "no difference detected"}
ZERO = "no difference"
LOOKS = {name: look(name) for name in (*OUTCOMES.values(), ZERO)}
MOST = 14  # methods of a panel that ranks them
JOIN = "no difference detected"
USERS = ("users", "twice the users", "many more users")  # styles of TIMES
GAINS, PRINTED = "gains that the paper prints", "best row that the paper prints"
POLICIES = ("history kept", "history taken out")


@plate("forest")
def forest_figure(data: ReportData, block: Block | None = None) -> Chart | None:
    """The differences of all declared tests with 95 % intervals, in per cent of the row that is compared with.

    A panel for each family, block and backbone, all on one scale. None where nothing was tested.
    """
    tests, points, panels = [t for one in data.families for t in one.tests], [], set()
    for test in tests:
        panel = f"Against {test.against.name}: {test.block.name}, {test.backbone}"
        if panel not in panels:
            points.append(point(panel, "difference", ZERO, "level", test.group.name, 0.0))
        panels.add(panel)
        c, base = test.comparison, test.comparison.mean_b or float("nan")
        points.append(point(panel, "difference", OUTCOMES[test.verdict], "mean", test.group.name, c.difference / base,
                            (c.interval[0] / base, c.interval[1] / base), note=p_text(test.p_holm)))
    shown = [one.family for one in data.families if one.tests]
    counts = [t.comparison.n_seeds for t in tests]
    metrics = " or ".join(dict.fromkeys(title_of(family.metric) for family in shown))
    return named("forest", data, None, points, tests=tests, families=len({family.name for family in shown}),
                 metrics=metrics, seeds=sorted({min(counts), max(counts)})) if tests else None


@plate("ranking")
def ranking_figure(data: ReportData, block: Block) -> Chart | str | None:
    """Mean NDCG@10 of the baselines and each backbone's rows, best first; after Demšar (2006), for users as units.

    Mean ranks over users say little where most users have no hit by any method and all ranks are equal; so the
    methods stand by their means, and every two are tested by the users' paired differences. None without ranks.
    """
    if not data.ranked:
        return None
    equal = replace(block, groups=tuple(g for g in block.groups if not block.missing(g)))  # all pairs share their draws
    beside = {family: beside_baselines(equal, family, MOST) for family in equal.families()}
    panels = {family: groups for family, (baselines, own) in beside.items()
              if len(groups := [*baselines, *own[:MOST - len(baselines)]]) > 1}
    if not panels:
        return needed(data, block)
    if data.values(next(iter(panels.values()))[0]).shape[1] == 1:
        return "it needs more than one test user: one allows no test"
    points = []
    for family, groups in panels.items():
        pairs = all_pairs([data.values(g) for g in groups])
        title = family if len(block.families()) == 1 else f"{family} and baselines"
        order = sorted(range(len(groups)), key=lambda i: (-pairs.means[i].value, i))
        for i in order:
            points += estimates(title, "mean", groups[i].label, {groups[i].name: pairs.means[i]},
                                note=f"{pairs.means[i].value:.4f}")
        joined = sorted(pairs.together(), key=lambda c: min(map(order.index, c)))
        points += [point(title, "joined", JOIN, "join", groups[i].name, float(turn)) for turn, c in enumerate(joined)
                   for i in c]
    counts = ", ".join(f"{family} {math.comb(len(groups), 2)}" for family, groups in panels.items())
    shown = [g for groups in panels.values() for g in groups]
    return named("ranking", data, block, points, looks={JOIN: look("reference")}, counts=counts,
                 absent=incomplete(block, shown), left_out=undrawn(block, shown))


@plate("power")
def power_figure(data: ReportData, block: Block) -> Chart | None:
    """The minimum detectable difference against seeds, a line a number of users; None without enough seeds."""
    found, points, looks = curves(data, block), [], {}
    finite = {n: str(n) for n in SEEDS if n < math.inf}
    for one in found:
        for times, style in zip(TIMES, USERS, strict=True):
            name = f"{round(times * one.users):,} users" + f" ({times:g}×)" * (times != 1)
            looks |= {name: look(style), f"{name}, any seeds": look(style)}
            points += [point(one.family, "detectable", name, "mean", n, one.percent(n, times) / 100.0) for n in finite]
            points.append(point(one.family, "detectable", f"{name}, any seeds", "level", SEEDS[0],
                                one.percent(math.inf, times) / 100.0))
        points += [point(one.family, "detectable", GAINS, "level", SEEDS[0], gain)
                   for gain in sorted(set(map(abs, one.gains)))]
    return named("power", data, block, points, looks=looks, ticks=finite, gains=any(one.gains for one in found)
                 ) if found else None


@plate("printed")
def printed_figure(data: ReportData, block: Block | None = None) -> Chart | None:
    """The training-free row of each data set with its interval, history kept or not, and the best printed row; None
    for suites that have no page about it."""
    points = []
    for one in beside_printed(data) if data.suite.page else ():
        at = f"{one.dataset}: {one.group.label}"
        for name, e in zip(POLICIES, one.ndcg, strict=True):
            points += estimates("", "ndcg@10", name, {at: e})
        points.append(point("", "ndcg@10", PRINTED, "printed", at, one.printed.value))
    return named("printed", data, None, points) if points else None
