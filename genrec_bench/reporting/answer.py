"""The report's first paragraph: who is best and what the objectives do to each backbone, said from the numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from genrec_bench.reporting.load import Block, Group, Summary
from genrec_bench.reporting.rows import Suite
from genrec_bench.reporting.tables import title_of

METRIC = "ndcg@10"
REFERENCES = ("item_knn", "popularity", "sasrec")
MOST_NAMED = 5  # rows that a sentence names on either side
Scored = list[tuple[Group, Summary]]


def answer(suite: Suite, blocks: Sequence[Block], tested: Collection[str] = ()) -> str:
    """One bullet a block, after one sentence on how to read them.

    tested: names of blocks with declared comparisons, of whose objectives those speak instead.
    """
    wanted = {row.baseline for row in suite.rows}
    lines = [f"By {title_of(METRIC)} on the test targets, item-level; mean ± sample standard deviation over n seeds. "
             "Descriptive: differences are between means; one no larger than both standard deviations together is "
             "within the seeds' spread, and no test over users stands behind these sentences.", ""]
    lines += [f"- **{block.name}.** {' '.join(_sentences(block, wanted, block.name in tested))}" for block in blocks]
    return "\n".join(lines)


def _sentences(block: Block, wanted: Collection[str | None], tested: bool) -> list[str]:
    scored = [(g, g.summary(METRIC)) for g in block.groups if g.values(METRIC) and not block.missing(g)]
    if not scored:
        known = any(g.values(METRIC) for g in block.groups)
        return ["No row has all its seeds yet." if known else f"No record has {title_of(METRIC)}."]
    sentences = [*_best(scored), *([] if tested else _objectives(block, scored))]
    absent = [name for name in REFERENCES if name in wanted and name not in {g.row.baseline for g, _ in scored}]
    if absent and any(g.row.baseline is None for g, _ in scored):
        sentences.append(f"No record yet of {_join(absent)} to compare with.")
    if block.profile == "smoke":
        sentences.append("Profile smoke only shows that everything works: these numbers mean nothing.")
    incomplete = [g.label for g in block.groups if block.missing(g)]
    if incomplete:
        sentences.append(f"Left out, as seeds are missing: {', '.join(incomplete)}.")
    return sentences


def _best(scored: Scored) -> list[str]:
    """The best method, and where the best generative one stands against it and the references."""
    best, score = max(scored, key=lambda pair: pair[1].mean)
    sentences = [f"Best of {len(scored)}: {best.label} with {value_text(score)}." if len(scored) > 1 else
                 f"Only {best.label} has been run: {value_text(score)}."]
    generative = [(g, s) for g, s in scored if g.row.baseline is None]
    if not generative:
        return [*sentences, "No generative model has been run here yet."]
    if len(scored) > 1:
        sentences.append(_standing(generative, best, scored))
    return [s for s in sentences if s]


def _standing(generative: Scored, best: Group, scored: Scored) -> str:
    """Where the best generative row stands against the references that have been run, and against the best."""
    group, score = max(generative, key=lambda pair: pair[1].mean)
    ordered = sorted(scored, key=lambda pair: pair[1].mean)  # the best variant of a reference counts
    others = {g.row.baseline: (g, s) for g, s in ordered if g.row.baseline in REFERENCES}
    parts = [_against(score, g, s) for g, s in (others[name] for name in REFERENCES if name in others)]
    if best is not group and best.row.baseline not in REFERENCES:
        parts.append(_against(score, best, next(s for g, s in scored if g is best)))
    name = group.label if len(generative) == 1 else f"The best of {len(generative)} generative rows, {group.label},"
    own = "" if best is group else f" reaches {value_text(score)}:"
    if not parts:
        return f"{name}{own.rstrip(':')}." if own else ""
    return f"{name}{own or ' is'} {_join(parts)}."


def _objectives(block: Block, scored: Scored) -> list[str]:
    """For each backbone its rows against cross-entropy, and those of two stages against the control of two."""
    scores = {g.label: s for g, s in scored}
    sentences = []
    for family, groups in block.families().items():
        rows = [g for g in groups if g.row.baseline is None and g.label in scores]
        going_on = [g for g in rows if g.row.goes_on]
        for measure, compared, kind in ((block.cross_entropy(family), rows, "rows"),
                                        (block.control(family), going_on, "rows of two stages")):
            others = [(g, scores[g.label]) for g in compared if g is not measure]
            if measure is not None and measure.label in scores and others:
                sentences.append(_sides(f"{family}, {len(others)} {kind}", measure, scores[measure.label], others))
    return sentences


def _sides(name: str, measure: Group, reference: Summary, others: Scored) -> str:
    """How many rows are above, below and within the spread of the one they are measured by."""
    known = reference.sd is not None or any(s.sd is not None for _, s in others)
    ordered = sorted(others, key=lambda pair: -pair[1].mean)
    within = [p for p in ordered if (covered(p[1], reference) if known else p[1].mean == reference.mean)]
    above = [p for p in ordered if p not in within and p[1].mean > reference.mean]
    below = [p for p in reversed(ordered) if p not in within and p[1].mean < reference.mean]
    more = " by more than the seeds' spread" if known else ""
    parts = [f"{len(above) or 'none'} above{more}{_named(above, reference)}",
             f"{len(below) or 'none'} below{' by more' if known else ''}{_named(below, reference)}"]
    if known or within:
        parts.append(f"{len(within) or 'none'} {'within it' if known else 'level'}")
    single = "" if known else "; one seed each, so nothing is known of the spread"
    return f"{name} against {measure.label} ({value_text(reference)}): {', '.join(parts)}{single}."


def _named(pairs: Scored, reference: Summary) -> str:
    """` (A +12.0 %; B +3.1 %; 2 more)`; labels may hold commas."""
    names = [f"{g.name} {_change(s, reference)}" for g, s in pairs[:MOST_NAMED]]
    if len(pairs) > MOST_NAMED:
        names.append(f"{len(pairs) - MOST_NAMED} more")
    return f" ({'; '.join(names)})" if names else ""


def _change(score: Summary, reference: Summary) -> str:
    gap = score.mean - reference.mean
    return f"{100 * gap / reference.mean:+.1f} %" if reference.mean else f"{gap:+.4f}"


def covered(a: Summary, b: Summary) -> bool:
    """Whether the intervals mean ± SD meet; False where no seed tells the spread of either."""
    return (a.sd is not None or b.sd is not None) and abs(a.mean - b.mean) <= (a.sd or 0.0) + (b.sd or 0.0)


def _against(a: Summary, other: Group, b: Summary) -> str:
    if b.mean == 0:
        return f"above {other.label} ({value_text(b)})" if a.mean > 0 else f"level with {other.label} ({value_text(b)})"
    spread = "; within the seeds' spread" if covered(a, b) else ""
    change = 100 * (a.mean - b.mean) / b.mean
    side = "level with" if a.mean == b.mean else f"{abs(change):.1f} % {'above' if change > 0 else 'below'}"
    if change > 400:  # a ratio to a number near 0 says little
        side = "more than 5 times as high as"
    return f"{side} {other.label} ({value_text(b)}{spread})"


def value_text(summary: Summary) -> str:
    """`0.0402 ± 0.0010 (n = 3)`, with a comma form that fits into brackets."""
    sd = "" if summary.sd is None else f" ± {summary.sd:.4f}"
    return f"{summary.mean:.4f}{sd}, n = {summary.n}"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
