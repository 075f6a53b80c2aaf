"""What the declared comparisons say: sentences for the answer, and a table for each family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genrec_bench.analysis.classical import one_sample_t
from genrec_bench.analysis.significance import ALPHA, LEVEL, NUM_PERMUTATIONS
from genrec_bench.reporting.families import Test, Tested
from genrec_bench.reporting.tables import DASH, csv_text, pipe, title_of

MOST_NAMED = 6  # tests that a sentence names
ENOUGH = 5  # seeds that a claim on an objective needs
CSV_HEADER = ("family", "profile", "block", "backbone", "method", "against", "metric", "seeds", "users", "mean",
              "mean_against", "difference", "low", "high", "p_value", "p_holm", "d_z", "minimum_detectable",
              "detectable", "paired_t", "paired_t_p", "paired_t_low", "paired_t_high", "mcnemar_only_method",
              "mcnemar_only_against", "mcnemar_p", "apao_one_sample_t", "apao_one_sample_p", "verdict")


def sentences(families: Sequence[Tested]) -> list[str]:
    """One bullet a family: who is better or worse than what it is measured by, and what could have been found."""
    empty = [f"{one.family.name} (profile {one.profile})" for one in families if not one.tests]
    return [*(_sentence(one) for one in families if one.tests),
            *([f"- Declared, and nothing of it tested yet: {'; '.join(empty)}."] if empty else [])]


def _sentence(one: Tested) -> str:
    parts = [f"{word}: {_named(one.of(word)) or 'none'}" for word in ("better", "worse")]
    quiet = one.of(None)
    if quiet:
        sizes = [t.detectable for t in quiet]
        span = f"{min(sizes):.4f}" if min(sizes) == max(sizes) else f"{min(sizes):.4f} to {max(sizes):.4f}"
        parts.append(f"no difference detected: {len(quiet)} of {len(one.tests)} (a difference of {span} would have "
                     "got a verdict in about 4 of 5 cases)")
    count = f"{len(one.tests)} test{'s' if len(one.tests) > 1 else ''}"
    return (f"- **{_title(one)}** (profile {one.profile}, {title_of(one.family.metric)}, {count}, "
            f"{_seeds(one.tests)}): {'; '.join(parts)}.")


def _seeds(tests: Sequence[Test]) -> str:
    few, most = (f(t.comparison.n_seeds for t in tests) for f in (min, max))
    return f"{few} seed{'s' if few > 1 else ''}" if few == most else f"{few} to {most} seeds"


def _title(one: Tested) -> str:
    return one.family.name[0].upper() + one.family.name[1:]


def _named(tests: Sequence[Test]) -> str:
    names = [f"{t.group.label} on {t.block.dataset} ({t.comparison.difference:+.4f}, {p_text(t.p_holm)})"
             for t in tests]
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return ", ".join([*names[:MOST_NAMED], *more])


def p_text(p: float) -> str:
    """`p = 0.0123`, or `p < 0.001`: no digits that the permutations cannot give."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def section(families: Sequence[Tested], declared: int) -> list[str]:
    """How the tests were made, then a table for each family, with what could not be tested."""
    parts = [f"The only verdicts of this report: {declared} famil{'y' if declared == 1 else 'ies'} of comparisons that "
             f"the suite file declares, by {NUM_PERMUTATIONS:,} sign flips over users of seed-averaged differences, "
             f"corrected by Holm within a family and profile; interval: {LEVEL:.0%} over resampled seeds and users, "
             f"uncorrected. Better or worse: corrected p at most {ALPHA} and an interval that leaves 0 out. Paired t: "
             "over the seeds' means, for whether other seeds would show it. McNemar: exact, of hits within the "
             "metric's length, seed by seed. APAO's test is the papers' own (one-sample t of the seeds against the "
             "other row's mean taken as a constant): it leaves out that row's variance, so it is no verdict here. "
             "Detectable: the true difference that gets a verdict in about 4 of 5 cases. More: `docs/statistics.md`; "
             "unrounded: [tables/tests.csv](tables/tests.csv)."]
    parts += _few([t for one in families for t in one.tests])
    parts.append(_by_their_test(families))
    for one in families:
        parts += [f"### {_title(one)}, profile {one.profile}", _table(one)] if one.tests else []
        if one.absent and one.tests:
            parts.append(f"Declared and not tested yet: {_absent(one)}.")
    empty = [f"- {one.family.name}, profile {one.profile}: {_absent(one)}." for one in families if not one.tests]
    return [*parts, *(["### Declared, and nothing of it tested yet", "\n".join(empty)] if empty else [])]


def _absent(one: Tested) -> str:
    """What is lacking, by place; places that lack the same stand together."""
    by_place: dict[str, list[str]] = {}
    for where, what in one.absent:
        by_place.setdefault(where, []).append(what)
    by_what: dict[str, list[str]] = {}
    for where, what in by_place.items():
        by_what.setdefault("; ".join(what), []).append(where)
    return ". ".join(f"{', '.join(places)}: {what}" for what, places in by_what.items())


def _by_their_test(families: Sequence[Tested]) -> str:
    """How often the papers' own test would have spoken, where there are seeds to take it over."""
    both = [(t, theirs) for one in families for t in one.tests if (theirs := _theirs(t)) is not None]
    if not both:
        return ""
    found, strictly = (sum(theirs.p_value <= level for _, theirs in both) for level in (ALPHA, 0.01))
    ours = sum(t.verdict is not None for t, _ in both)
    return (f"APAO's test would call {found} of these {len(both)} differences significant at {ALPHA} ({strictly} at "
            f"the paper's 0.01); {ours} of them carry a verdict here.")


def _few(tests: Sequence[Test]) -> list[str]:
    """What the numbers of seeds can and cannot show, a paragraph each."""
    single = [f"{t.group.label} on {t.block.dataset}" for t in tests if t.comparison.n_seeds == 1]
    some = sorted({t.comparison.n_seeds for t in tests if 1 < t.comparison.n_seeds < ENOUGH})
    parts = []
    if single:
        parts.append(f"With one seed ({', '.join(single)}) the tests say whether other users would show the same "
                     "between these two trained models; they cannot say whether the objectives or the luck of the "
                     "seeds made the difference.")
    if some:
        parts.append(f"With {' or '.join(map(str, some))} seeds the tests say whether other users would show the same; "
                     "about other seeds the interval and the paired t know that few values. An effect that is found is "
                     f"one of these networks; {ENOUGH} seeds or more are needed to say it of the objective.")
    return parts


def _table(one: Tested) -> str:
    header = ["Data", "Method", "Against", "n", "Users", "Mean", "Against", "Difference [95 %]", "p", "p (Holm)", "d_z",
              "Detectable", "Paired t, p", "McNemar, p", "APAO's test, p", "Verdict"]
    rows = []
    for t in one.tests:
        c, theirs = t.comparison, _theirs(t)
        rows.append([t.block.dataset, t.group.label, t.against.label, str(c.n_seeds), f"{c.n_users:,}",
                     f"{c.mean_a:.4f}", f"{c.mean_b:.4f}",
                     f"{c.difference:+.4f} [{c.interval[0]:+.4f}, {c.interval[1]:+.4f}]", _plain(c.p_value),
                     _plain(t.p_holm), f"{c.d_z:+.3f}", f"{t.detectable:.4f}",
                     DASH if c.paired_t is None else _plain(c.paired_t.p_value),
                     " / ".join(_plain(m.p_value) for m in t.hits),
                     DASH if theirs is None else _plain(theirs.p_value),
                     f"**{t.verdict}**" if t.verdict else "no difference detected"])
    return pipe(header, rows, numeric_from=3)


def _plain(p: float) -> str:
    return p_text(p).removeprefix("p ").removeprefix("= ")


def _theirs(t: Test) -> Any:
    """The papers' own test of the same two rows, or None for one seed."""
    values = [r.metrics[t.metric] for r in t.group.records if r.seed in t.seeds and t.metric in r.metrics]
    return one_sample_t(values, t.comparison.mean_b) if len(values) > 1 else None


def tests_csv(families: Sequence[Tested]) -> str:
    """Every test, unrounded."""
    rows = []
    for one in families:
        for t in one.tests:
            c, theirs = t.comparison, _theirs(t)
            rows.append([one.family.name, one.profile, t.block.name, t.backbone, t.group.label, t.against.label,
                         one.family.metric, " ".join(map(str, t.seeds)), c.n_users, c.mean_a, c.mean_b,
                         c.difference, *c.interval, c.p_value, t.p_holm, c.d_z, c.minimum_detectable, t.detectable,
                         *((c.paired_t.t, c.paired_t.p_value, *c.paired_t.interval) if c.paired_t else (None,) * 4),
                         *(" ".join(map(repr, column)) for column in zip(
                             *((m.only_a, m.only_b, m.p_value) for m in t.hits), strict=True)),
                         *((theirs.t, theirs.p_value) if theirs else (None, None)),
                         t.verdict or "no difference detected"])
    return csv_text(CSV_HEADER, rows)
