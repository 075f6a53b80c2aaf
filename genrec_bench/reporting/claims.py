"""What a paper claims and what our records say of it: an estimate with interval, an answer, and what could be found.

Each claim of the paper's TOML names pairs of rows and a quantity; the quantity is measured on every block and backbone
of the suite that has both rows. The answers' rule is `analysis.claims`; only runs with the paper's data and settings
support or contradict.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from statistics import NormalDist, fmean, stdev
from typing import Any

from genrec_bench.analysis import pruning
from genrec_bench.analysis.claims import (
    ENOUGH,
    NOT_SEEN,
    OPEN,
    SEEN,
    answer,
    answer_between,
    answering,
    outside,
    with_seeds,
)
from genrec_bench.analysis.classical import one_sample_t, t_power
from genrec_bench.analysis.noise import MIN_SEEDS
from genrec_bench.analysis.significance import DETECTABLE, LEVEL, Comparison, compare_values, detectable
from genrec_bench.core.lazy import pandas
from genrec_bench.core.lists import grouped
from genrec_bench.experiments.suite_files import undecided
from genrec_bench.reporting.families import UNTESTED, paired
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.pages import Pages
from genrec_bench.reporting.papers import Claim, Paper, load_paper, paper_names
from genrec_bench.reporting.printed import PROFILE
from genrec_bench.reporting.pruning import OWN, Diagnosed
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import DASH, OUTSIDE, listed, title_of
from genrec_bench.results.frame import SAME_TIME

WORDS = {SEEN: "supports", NOT_SEEN: "contradicts"}  # of runs with the paper's data and settings
PRINTED = {"epoch_time": "time_per_epoch"}  # what papers print of a quantity, where that is no metric of ours
NAMES = {"pruning_rate": "PR@{k}, beam {beam}", "violation_share": "share of the lost at beam {beam}",
         "retention": "share of the exact top in beam {beam}", "prefix_growth": "last gain - first, beam {beam}",
         "beam_ndcg": "NDCG@{k}, beam {beam} against {against_beam}", "epoch_time": "processor time an epoch"}
HEADER = ("claim", "place", "block", "profile", "method", "against", "quantity", "seeds", "claimed", "least", "most",
          "value", "low", "high", "minimum_detectable", "noise_floor", "answer", "why_not")


class Unknown(Exception):
    """Why something cannot be measured, in two or three words."""


@dataclass(frozen=True)
class Found:
    """A measured value with its interval, relative but for shares. detectable: the true difference whose interval
    leaves 0 out in about 80% of cases. floor: noise floor, None with too few seeds. seeds: how many. over_seeds:
    Student's interval over the seeds' values, None for one."""

    value: float
    low: float
    high: float
    detectable: float
    floor: float | None
    seeds: int
    over_seeds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Evidence:
    """One pair of rows of a claim on one block and backbone. claimed: the paper's size there, None for a range.

    found: what was measured, or None and `why`.
    """

    claim: Claim
    block: Block | None = None
    rows: tuple[Group, ...] = ()
    claimed: float | None = None
    found: Found | None = None
    why: str = "not run"
    papers_own: bool = False

    @property
    def answer(self) -> str:
        """What the data say; nothing where the profile's runs are not to answer, for the reason that its file names."""
        if self.found is None:
            return OPEN
        if reason := undecided(self.block.profile):
            return f"{OPEN}: {reason}"
        found, claim = self.found, self.claim
        ends = answering((found.low, found.high), found.over_seeds, found.seeds)
        if ends is None:
            return f"{OPEN}: too few seeds"
        said = answer_between(*ends, -math.inf if claim.least is None else claim.least, claim.most) \
            if self.claimed is None else answer(*ends, self.claimed)
        return with_seeds(WORDS.get(said, said) if self.papers_own else said, found.seeds)

    @property
    def counts(self) -> bool:
        """Whether it is measured by runs that are to answer."""
        return self.found is not None and not undecided(self.block.profile)


def evidence(paper: Paper, material: ReportData | None) -> list[Evidence]:
    """Each claim on every block and backbone that has its rows; of a claim without any, one that says why."""
    blocks = [b for b in material.blocks if b.profile not in UNTESTED] if material else []
    return [one for claim in paper.claims
            for one in [e for b in blocks for e in _on_block(paper, material, claim, b)] or [Evidence(claim)]]


def _on_block(paper: Paper, material: ReportData, claim: Claim, block: Block) -> Iterator[Evidence]:
    fitting = material.suite.paper == paper.key and block.profile == PROFILE and block.dataset in paper.datasets
    for backbone in dict.fromkeys(g.row.backbone for g in block.groups if g.row.backbone):
        names = {g.name: g for g in block.groups if g.row.backbone == backbone and g.label == g.row.label}
        for pair in claim.pairs:
            if any(name not in names for name in pair):
                continue
            rows, claimed = tuple(names[name] for name in pair), None
            try:
                claimed = _claimed(paper, claim, block, rows)
                if not all(map(block.stands, rows)):
                    raise Unknown("seeds missing")
                measure = QUANTITIES.get(claim.quantity, partial(_metric, claim.quantity))
                measured = measure(material, claim, block, rows)
                yield Evidence(claim, block, rows, claimed, measured, "", fitting and not material.overrides)
            except Unknown as why:
                yield Evidence(claim, block, rows, claimed, why=str(why))


def _claimed(paper: Paper, claim: Claim, block: Block, rows: Sequence[Group]) -> float | None:
    """The claimed gain of a pair: as stated, else as printed for the data set, or the mean of all that are printed."""
    if claim.gain is not None or claim.least is not None:
        return claim.gain
    places = [g.row.paper_row for g in rows]
    if not claim.printed and None in places:
        raise Unknown("not printed")
    methods, metric = claim.printed or [method for _, method in places], PRINTED.get(claim.quantity, claim.quantity)
    cells = grouped((c for c in paper.reported if c.metric == metric and not c.relative and c.table in
                     (claim.tables or paper.layouts) and (claim.printed or c.backbone == places[0][0])),
                    lambda c: (c.dataset, c.backbone))
    gains: dict[str, float] = {}
    for (dataset, _), of in cells.items():  # of several backbones the paper's first, of several tables too
        printed = {c.method: c.value for c in reversed(of)}
        if set(methods) <= set(printed):
            gains.setdefault(dataset, printed[methods[0]] / printed[methods[1]] - 1.0)
    return gains.get(paper.datasets.get(block.dataset), fmean(gains.values()))


def _metric(metric: str, material: ReportData, claim: Claim, block: Block, rows: Sequence[Group]) -> Found:
    """The relative difference of a metric over users and seeds; of a declared comparison its own."""
    name, _, k = metric.partition("@")
    values = [material.values(g, name, int(k)) for g in _compared(rows)]
    if any(v is None for v in values):
        raise Unknown("no ranks")
    if values[0].shape[1] < 2:
        raise Unknown("one test user")
    known = (t.comparison for one in material.families for t in one.tests
             if t.group is rows[0] and t.against is rows[1] and t.metric == metric)
    c: Comparison = next(known, None) or compare_values(*values)
    if not c.mean_b:
        raise Unknown("reference is 0")
    every = material.values(block.with_extra(rows[1]), name, int(k)).mean(axis=1)
    low, high = (end / c.mean_b for end in c.interval)
    return Found(c.difference / c.mean_b, low, high, detectable(c) / c.mean_b, _floor(every, c.n_seeds), c.n_seeds,
                 c.paired_t and tuple(end / c.mean_b for end in c.paired_t.interval))


def _compared(rows: Sequence[Group]) -> tuple[Group, Group]:
    """Two rows with the seeds that both have. Raises: Unknown where they share none."""
    if (pair := paired(*rows)) is None:
        raise Unknown("no common seed")
    return pair.compared


def _floor(values: Sequence[float], seeds: int) -> float | None:
    """The noise floor in parts of the mean from a reference's seeds; see `SelfComparison.floor`."""
    if len(values) < MIN_SEEDS or not all(map(math.isfinite, values)) or not fmean(values):
        return None
    return stdev(values) * math.sqrt(2.0 / seeds) / fmean(values)


def _diagnosed(compare: Callable[..., Any], single: Callable[..., Any] | None, choices: Sequence[str],
               material: ReportData, claim: Claim, block: Block, rows: Sequence[Group]) -> Found:
    """What diagnoses say: of a pair the relative difference by `compare`, of one row the share by `single`."""
    there = material.searched[block.name]
    known = {id(row.group): row for row in there.rows} if there else {}
    found: list[Diagnosed] = [known[id(g)] for g in rows if id(g) in known]
    seeds = [seed for seed in found[0].seeds if all(seed in row.seeds for row in found)] if found else []
    if len(found) < len(rows) or not seeds:
        raise Unknown("beam not measured")
    if len(seeds) < len(set.intersection(*(set(g.seeds) for g in rows))):
        raise Unknown("beam of some seeds not measured")
    if not {claim.beam, *([claim.against_beam] if "against_beam" in choices else [])} <= set(there.beams):
        raise Unknown("no such beam")
    chosen = {name: getattr(claim, name) for name in choices}
    runs = [row.of_seeds(seeds) for row in found]
    estimate = compare(*runs, OWN, **chosen) if len(runs) == 2 else single(runs[0], OWN, **chosen)
    if not estimate.n:
        raise Unknown("no such targets")
    alone = [single([run], OWN, **chosen).value for run in found[-1].runs] if single and len(runs) == 2 else []
    error = (estimate.high - estimate.low) / (2 * NormalDist().inv_cdf((1 + LEVEL) / 2))
    few = [(compare if len(runs) == 2 else single)(*([run] for run in same), OWN, **chosen)
           for same in zip(*runs, strict=True)] if len(seeds) < ENOUGH else []
    over_seeds = one_sample_t([one.value for one in few], 0.0) if few and all(one.n for one in few) else None
    return Found(estimate.value, estimate.low, estimate.high, DETECTABLE * error, _floor(alone, len(seeds)), len(seeds),
                 over_seeds and over_seeds.interval)


def _last_retention(*args: Any, **choice: Any) -> pruning.Estimate:
    return pruning.retention(*args, **choice)[-1]


def _epoch_time(material: ReportData, claim: Claim, block: Block, rows: Sequence[Group]) -> Found:
    """The relative difference of the seconds of an epoch of the last stage, seed by seed, with Student's interval of
    the mean over seeds. Runs of one commit on one kind of machine alone are compared: what others took may differ by
    the machine, which its name does not tell, or by the code."""
    rows = _compared(rows)
    if len(pandas.concat([g.runs[[*SAME_TIME]] for g in rows]).drop_duplicates()) > 1:
        raise Unknown("times of other machines or commits")
    one, other = (g.runs.set_index("seed")["seconds_per_epoch"].replace(0.0, math.nan).dropna() for g in rows)
    ratios = (one / other - 1.0).dropna().tolist()
    if len(ratios) < 2:
        raise Unknown("one seed" if ratios else "no times")
    found, n = one_sample_t(ratios, 0.0), len(ratios)
    return Found(found.difference, *found.interval, t_power(n) * stdev(ratios) / math.sqrt(n),
                 _floor(other.tolist(), n), n, found.interval)


QUANTITIES: Mapping[str, Callable[[ReportData, Claim, Block, Sequence[Group]], Found]] = {
    "pruning_rate": partial(_diagnosed, pruning.pruning_change, pruning.pruning_rate, ("k", "beam")),
    "violation_share": partial(_diagnosed, None, partial(pruning.violation_share, vocabulary="trie"), ("k", "beam")),
    "retention": partial(_diagnosed, pruning.retention_change, _last_retention, ("beam",)),
    "prefix_growth": partial(_diagnosed, pruning.prefix_growth, None, ("beam",)),
    "beam_ndcg": partial(_diagnosed, partial(pruning.beam_change, metric="ndcg"), None, ("k", "beam", "against_beam")),
    "epoch_time": _epoch_time}


def section(paper: Paper, material: ReportData | None, pages: Pages | None = None, folder: str = "") -> str:
    """The claims of a paper as Markdown: one sentence on what is known, and a table; "" for a paper without any.

    pages, folder: where the unrounded numbers of all pairs go, `<folder>/tables/claims.csv`; without them, for a paper
    that no suite measures, a list.
    """
    found, table = evidence(paper, material), ""
    if not found:
        return ""
    if pages is not None:
        pages.table(f"{folder}/tables/claims.csv", HEADER, map(_csv_row, found))
        told = [{"Claim": "" if n else f"{same[0].claim.text} ({same[0].claim.place})", **_told(same)}
                for claim in _telling(found) for n, same in enumerate(claim)]
        columns = ("Claim", "Measured as", "Paper, %", f"Ours, % [{LEVEL:.0%}]", "Data, profile, n", "Answer",
                   "Detectable, %", "Floor, %")
        table = listed(told, {name: itemgetter(name) for name in columns}, 6, empty=False)
    return render("claims", **summary(paper, found), level=LEVEL, min_seeds=MIN_SEEDS, enough=ENOUGH,
                  dash=DASH, table=table)


def lines(materials: Sequence[ReportData]) -> list[dict[str, Any]]:
    """The claims that some suites measure, as texts for `html.html_page`: a line a measured pair, or why there is none.
    """
    return [_line(paper, same) for paper in map(load_paper, paper_names()) for m in materials
            if paper.measured_by == m.suite.name for claim in _telling(evidence(paper, m)) for same in claim]


def _line(paper: Paper, same: Sequence[Evidence]) -> dict[str, Any]:
    one, told = same[0], _told(same)
    estimate, _, interval = told[f"Ours, % [{LEVEL:.0%}]"].partition(" [")
    unit = " %" if one.found else ""
    place = one.found and {"data": ", ".join(o.block.dataset for o in same), "seeds": one.found.seeds,
                           "profile": one.block.profile + " (decides nothing)" * (not one.counts)}
    return {"claim": one.claim.text, "answer": told["Answer"], "estimate": estimate + unit,
            "about": f"{paper.short}, {one.claim.place}. {told['Measured as']}. Paper: {told['Paper, %']}",
            "interval": f"[{interval}" if interval else DASH, "minimum_detectable": told["Detectable, %"] + unit,
            **(place or dict.fromkeys(("data", "profile", "seeds")))}


def summary(paper: Paper, found: Sequence[Evidence]) -> dict[str, Any]:
    """What is known and what is not: claims by answer, profile by profile, as the template names it."""
    known = [one for one in found if one.found]
    profiles = []
    for profile in sorted({one.block.profile for one in known}, key=lambda name: (name != PROFILE, name)):
        own = [one for one in known if one.block.profile == profile]
        there = grouped(own, lambda one: one.claim.text, lambda one: one.answer).values()
        counts = Counter(min(answers) if len({a.partition(" (")[0] for a in answers}) == 1 else "differing between rows"
                         for answers in there)
        profiles.append({"name": profile, "data": ", ".join(dict.fromkeys(one.block.dataset for one in own)),
                         "counts": sorted(counts.items())})
    measured = {one.claim.text for one in known}
    absent = Counter({one.claim.text: one.why for one in found if one.claim.text not in measured}.values())
    return {"paper": paper, "own": any(one.papers_own for one in known), "profiles": profiles,
            "absent": sorted(absent.items()),
            "settled": len({one.claim.text for one in known if not one.answer.startswith(OPEN)})}


def known_by_claim(paper: Paper, material: ReportData | None) -> list[list[str]]:
    """A line a claim for the index: the claim, its answers, and the data and profiles that it was measured on."""
    lines = []
    for claim in _telling(evidence(paper, material)):
        of = [one for same in claim for one in same]
        where = dict.fromkeys(f"{one.block.dataset}, {one.block.profile}" for one in of if one.found)
        lines.append([f"{of[0].claim.text} ({of[0].claim.place})", _answers(of), "; ".join(where) or DASH])
    return lines


def _telling(found: Sequence[Evidence]) -> Iterator[list[list[Evidence]]]:
    """Of each claim what was measured, or what says why nothing was; a pair of rows on several data sets together.

    Runs that are not to answer stand only where there are no others.
    """
    for own in grouped(found, lambda one: one.claim).values():
        some = [one for one in own if one.counts] or [one for one in own if one.found] or own[:1]
        yield list(grouped(some, lambda one: (*(g.label for g in one.rows), one.block and one.block.profile)).values())


def _answers(same: Sequence[Evidence]) -> str:
    """`seen`, or `2 seen, 1 cannot tell`."""
    if same[0].found is None:
        return f"{OPEN}: {same[0].why}"
    answers = Counter(one.answer for one in same)
    return next(iter(answers)) if len(answers) == 1 else ", ".join(f"{n} {word}" for word, n in answers.items())


def _told(same: Sequence[Evidence]) -> dict[str, str]:
    """The cells of one pair of rows, on one data set or several."""
    claim, rows, found = same[0].claim, same[0].rows, [one.found for one in same if one.found]
    quantity = NAMES.get(claim.quantity, title_of(claim.quantity)).format(**vars(claim)) if claim.quantity else ""
    pair = [g.label if i == 0 else g.name for i, g in enumerate(rows)] or (claim.pairs or [()])[0]
    values = [_percent(f.value, len(rows) == 2) for f in sorted(found, key=lambda f: f.value)]
    ours, data = _span(values), f"{len(same)} data sets"
    if len(found) == 1:
        ours = f"{ours} [{_percent(found[0].low, len(rows) == 2)}, {_percent(found[0].high, len(rows) == 2)}]"
        data = same[0].block.dataset
    return {"Measured as": ": ".join(filter(None, [" over ".join(pair), quantity])) or DASH,
            "Paper, %": _span(list(map(_size, same))), f"Ours, % [{LEVEL:.0%}]": ours,
            "Data, profile, n": f"{data}, {same[0].block.profile}, {found[0].seeds}" if found else DASH,
            "Answer": _answers(same), "Detectable, %": DASH if _is_range(claim) else _span(
                ["over 100" if f.detectable >= 1.0 else _percent(f.detectable) for f in found]),
            "Floor, %": _span([_percent(f.floor) for f in found if f.floor is not None])}


def _span(texts: Sequence[str]) -> str:
    """The first and the last where they differ, else the one there is, or a dash."""
    return " to ".join(dict.fromkeys([texts[0], texts[-1]])) if texts else DASH


def _is_range(claim: Claim) -> bool:
    """Whether a claim is a range other than "above 0", for which no difference from 0 has to be found."""
    return bool(claim.least) or claim.least is not None and claim.most < math.inf


def _size(one: Evidence) -> str:
    """The claimed size, marked where the interval of runs that may answer leaves it out, or its range."""
    claim, found = one.claim, one.found
    if one.claimed is not None:
        out = one.counts and outside(found.low, found.high, one.claimed)
        return _percent(one.claimed, True) + OUTSIDE * out
    if claim.least is None:
        return DASH
    if claim.most < math.inf:
        return f"{_percent(claim.least, True)} to {_percent(claim.most, True)}"
    return "above 0" if not claim.least else f"at least {_percent(claim.least)}"


def _percent(value: float, signed: bool = False) -> str:
    return f"{100.0 * value:{'+' * signed},.1f}"


def _csv_row(one: Evidence) -> list[Any]:
    claim, found, block = one.claim, one.found, one.block
    numbers = [None] * 5 if found is None else [found.value, found.low, found.high, found.detectable, found.floor]
    return [claim.text, claim.place, *([block.name, block.profile] if block else [None] * 2),
            *([g.label for g in one.rows] + [None] * 2)[:2], claim.quantity, found and found.seeds, one.claimed,
            claim.least, None if claim.least is None else claim.most, *numbers, one.answer, one.why]
