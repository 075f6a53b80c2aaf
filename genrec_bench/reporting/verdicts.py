"""The declared comparisons as tables: what was found, what could have been, and what is not tested yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from genrec_bench.analysis.claims import OPEN, answer, answering, outside, with_seeds
from genrec_bench.analysis.classical import one_sample_t
from genrec_bench.analysis.significance import ALPHA, LEVEL
from genrec_bench.core.lists import grouped
from genrec_bench.experiments.suite_files import undecided
from genrec_bench.reporting.families import Test, Tested
from genrec_bench.reporting.papers import Paper
from genrec_bench.reporting.printed import printed_gain
from genrec_bench.reporting.tables import DASH, OUTSIDE, UNSEEN, csv_text, listed, pipe

NOTHING = "no difference detected"
NUMBERS = ("metric", "seeds", "users", "mean", "mean_against", "difference", "low", "high", "p_value", "p_holm", "d_z",
           "minimum_detectable", "detectable", "paired_t", "paired_t_p", "paired_t_low", "paired_t_high",
           "mcnemar_only_method", "mcnemar_only_against", "mcnemar_p")
VARIANCES = ("variance_users", "variance_noise", "variance_seeds")
CSV_HEADER = ("family", "profile", "block", "backbone", "method", "against", *NUMBERS, "apao_one_sample_t",
              "apao_one_sample_p", "verdict")


def csv_line(header: Sequence[str], t: Test, **more: Any) -> list[Any]:
    """A comparison unrounded, in the order of a header; without a verdict none of the tests, of one user no spread.

    more: what else the header names, as `csv_line` does not know it.
    """
    c, told = t.comparison, t.declared
    paired = (c.paired_t.t, c.paired_t.p_value, *c.paired_t.interval) if told and c.paired_t else (None,) * 4
    hits = zip(*((m.only_a, m.only_b, m.p_value) for m in t.hits), strict=True)
    found = (t.metric, " ".join(map(str, t.seeds)), c.n_users, c.mean_a, c.mean_b, c.difference, *c.interval,
             *((c.p_value, t.p_holm) if told else (None, None)),
             *((c.d_z, c.minimum_detectable) if c.n_users > 1 else (None, None)), t.detectable if told else None,
             *paired, *(" ".join(map(repr, column)) if told else None for column in hits))
    parts = (t.parts.users, t.parts.noise, t.parts.seeds) if t.parts else (None,) * 3
    known = {**dict(zip(NUMBERS, found, strict=True)), **dict(zip(VARIANCES, parts, strict=True)),
             "block": t.block and t.block.name, "method": t.group.label, "against": t.against.label,
             "backbone": t.block and t.backbone, "verdict": t.verdict or NOTHING if told else None, **more}
    return [known[name] for name in header]


def p_text(p: float) -> str:
    """`p = 0.0123`, or `p < 0.001`: no digits that the permutations cannot give."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def percent(value: float | None, mean: float | None, sign: str = "") -> str:
    """A difference in per cent of the reference's mean, or a dash."""
    return DASH if value is None or not mean else f"{100.0 * value / mean:{sign}.1f}"


def interval(value: float, low: float, high: float, mean: float) -> str:
    """`+3.4 [-3.7, +10.7]`, in per cent of the reference's mean, or a dash."""
    value, low, high = (percent(v, mean, "+") for v in (value, low, high))
    return f"{value} [{low}, {high}]" if mean else DASH


def paper_gain(t: Test, paper: Paper | None) -> float | None:
    """The gain that the paper prints for a comparison, as a part of the reference."""
    return printed_gain(t.block.dataset, t.group.row, t.against.row, t.metric, paper) if paper else None


def answer_of(t: Test, gain: float | None) -> str | None:
    """What our interval says of the paper's gain; None without one. Short runs answer nothing, nor do some seeds."""
    c, mean = t.comparison, t.comparison.mean_b
    if not gain or not mean:
        return None
    ends = answering(c.interval, c.paired_t and c.paired_t.interval, len(t.seeds))
    if reason := _unsettled(t) or ("" if ends else "too few seeds"):
        return f"{OPEN}: {reason}"
    return with_seeds(answer(*(end / mean for end in ends), gain), len(t.seeds))


def facts(families: Sequence[Tested], paper: Paper | None) -> dict[str, Any]:
    """What the templates say of the comparisons: tables, and what is declared and not tested, by family and profile.

    table: of runs that may answer, or of all where none may; aside: of the others, which the appendix has.
    """
    tests = [t for one in families for t in one.tests]
    telling = [t for t in tests if not undecided(t.block.profile)] or tests
    aside = [t for t in tests if t not in telling]
    theirs = [(t, found) for t in tests if (found := _theirs(t)) is not None]
    return {"tests": tests, "table": _table(telling, paper) if tests else "", "across": _across(tests),
            "aside": _table(aside, paper) if aside else "", "num_aside": len(aside),
            "short": any(undecided(t.block.profile) for t in telling),
            "untested": [(one.family.name, one.profile) for one in families if not one.tests],
            "absent": [(one.family.name, one.profile, _absent(one)) for one in families
                       if one.absent and not _unrun(one)],
            "unrun": {profile: [one.family.name for one in families if one.profile == profile and _unrun(one)]
                      for profile in dict.fromkeys(one.profile for one in families if _unrun(one))},
            "left": [(_name(t), g.label, seeds) for t in tests
                     for g, seeds in zip((t.group, t.against), t.left, strict=True) if seeds],
            "seeds": sorted({t.comparison.n_seeds for t in tests}), "theirs": len(theirs), "alpha": ALPHA,
            "theirs_found": sum(found.p_value <= ALPHA for _, found in theirs),
            "ours_found": sum(t.verdict is not None for t, _ in theirs)}


def _table(tests: Sequence[Test], paper: Paper | None) -> str:
    return listed(tests, {
        "Comparison": _name, "Data, profile": lambda t: f"{t.block.dataset}, {t.block.profile}",
        "n": lambda t: str(t.comparison.n_seeds),
        f"Difference, % [{LEVEL:.0%}]": lambda t: interval(t.comparison.difference, *t.comparison.interval,
                                                           t.comparison.mean_b),
        "History out, %": lambda t: percent(*_out(t), "+"),
        "p (Holm)": lambda t: p_text(t.p_holm).removeprefix("p ").removeprefix("= "),
        "of declared": lambda t: f"{t.num_tests} of {t.num_declared}", "Verdict": said,
        "Detectable, %": lambda t: percent(t.detectable, t.comparison.mean_b),
        "Paper's gain, %": lambda t: gain_text(t, paper),
        "Answer": lambda t: answer_of(t, paper_gain(t, paper)) or DASH}, 10, empty=False)


def gain_text(t: Test, paper: Paper | None) -> str:
    """The paper's gain in per cent, marked where the interval of runs that may answer leaves it out, or a dash."""
    gain, mean = paper_gain(t, paper), t.comparison.mean_b
    may = bool(gain and mean) and not _unsettled(t)
    out = may and outside(*(end / mean for end in t.comparison.interval), gain)
    return percent(gain, 1.0, "+") + OUTSIDE * out


def _out(t: Test) -> tuple[float | None, float | None]:
    """The difference of the means of a comparison's metric with the history out, and the reference's mean."""
    one, other = (g.mean(f"{UNSEEN}{t.metric}") for g in t.compared)
    return None if one is None or other is None else one - other, other


def _name(t: Test) -> str:
    return f"{t.group.label} over {t.against.name}"


def said(t: Test) -> str:
    """The verdict as tables show it, with the reason beside it where it answers no claim."""
    word, reason = f"**{t.verdict}**" if t.verdict else NOTHING, _unsettled(t)
    return f"{word} ({reason})" if t.verdict and reason else word


def _unsettled(t: Test) -> str:
    """Why a comparison answers no claim, "" where it may."""
    return undecided(t.block.profile) or ("" if t.whole else "seeds missing")


def _across(tests: Sequence[Test]) -> str:
    """Comparisons that were made on several data sets of a profile, with the mean of their differences; "" without.

    The interval takes the data sets as given and their errors as independent.
    """
    same = grouped((t for t in tests if t.comparison.mean_b), lambda t: (_name(t), t.block.profile))
    rows = []
    for (name, profile), some in same.items():
        if len(some) < 2:
            continue
        gaps = [t.comparison.difference / t.comparison.mean_b for t in some]
        halves = [(t.comparison.interval[1] - t.comparison.interval[0]) / 2 / t.comparison.mean_b for t in some]
        mean, half = sum(gaps) / len(gaps), math.hypot(*halves) / len(halves)
        least, most = (percent(v, 1.0, "+") for v in (min(gaps), max(gaps)))
        rows.append([name, profile, str(len(some)), interval(mean, mean - half, mean + half, 1.0), f"{least} to {most}",
                     *(str(sum(t.verdict == word for t in some)) for word in ("better", "worse", None))])
    header = ["Comparison", "Profile", "Data sets", f"Mean difference, % [{LEVEL:.0%}]", "Least to most, %", "Better",
              "Worse", NOTHING.capitalize()]
    return pipe(header, rows, numeric_from=2) if rows else ""


def _unrun(one: Tested) -> bool:
    """Whether no row of a family has been run on any of its data."""
    return not one.tests and all(what == "no run" for _, what in one.absent)


def _absent(one: Tested) -> list[tuple[str, str]]:
    """(places, what is lacking there); places that lack the same stand together."""
    by_place = grouped(one.absent, lambda of: of[0], lambda of: of[1])
    by_what = grouped(by_place, lambda place: "; ".join(by_place[place]))
    return [(", ".join(places), what) for what, places in by_what.items()]


def _theirs(t: Test) -> Any:
    """The papers' own test of the same two rows, or None for one seed."""
    values = t.compared[0].values(t.metric)
    return one_sample_t(values, t.comparison.mean_b) if len(values) > 1 else None


def tests_csv(families: Sequence[Tested]) -> str:
    """Every test, unrounded."""
    return csv_text(CSV_HEADER, [csv_line(
        CSV_HEADER, t, family=one.family.name, profile=one.profile, apao_one_sample_t=theirs and theirs.t,
        apao_one_sample_p=theirs and theirs.p_value) for one in families for t in one.tests for theirs in [_theirs(t)]])
