"""The report's first paragraph: who is best and where the generative models stand, said from the numbers."""

from __future__ import annotations

from genrec_bench.reporting.load import Block, Group, Summary
from genrec_bench.reporting.tables import title_of

METRIC = "ndcg@10"
REFERENCES = ("item_knn", "popularity", "sasrec")


def answer(blocks: list[Block]) -> str:
    """One bullet a block, after one sentence on how to read them."""
    lines = [f"By {title_of(METRIC)} on the test targets, item-level; mean ± sample standard deviation over n seeds. "
             "Differences are between means; a difference that the seeds' spread covers is said to be so, and no "
             "test over users stands behind these sentences.", ""]
    lines += [f"- **{block.name}.** {' '.join(_sentences(block))}" for block in blocks]
    return "\n".join(lines)


def _sentences(block: Block) -> list[str]:
    scored = [(g, g.metric(METRIC)) for g in block.groups if g.metric_values(METRIC)]
    if not scored:
        return [f"No record has {title_of(METRIC)}."]
    best, score = max(scored, key=lambda pair: pair[1].mean)
    sentences = [f"Best of {len(scored)}: {best.label} with {value_text(score)}." if len(scored) > 1 else
                 f"Only {best.label} has been run: {value_text(score)}."]
    for group, summary in scored:
        if group.row.baseline is None and len(scored) > 1:
            sentences.append(_standing(group, summary, best, scored))
    if all(g.row.baseline is not None for g, _ in scored):
        sentences.append("No generative model has been run here yet.")
    absent = [name for name in REFERENCES if name not in {g.row.baseline for g, _ in scored}]
    if absent and any(g.row.baseline is None for g, _ in scored):
        sentences.append(f"No record yet of {' and '.join(absent)} to compare with.")
    if block.profile == "smoke":
        sentences.append("Profile smoke only shows that everything works: these numbers mean nothing.")
    incomplete = [g.label for g in block.groups if block.missing(g)]
    if incomplete:
        sentences.append(f"Seeds are missing for {', '.join(incomplete)}.")
    return sentences


def _standing(group: Group, score: Summary, best: Group, scored: list[tuple[Group, Summary]]) -> str:
    """Where one generative row stands against the references that have been run, and against the best."""
    ordered = sorted(scored, key=lambda pair: pair[1].mean)  # the best variant of a reference counts
    others = {g.row.baseline: (g, s) for g, s in ordered if g.row.baseline in REFERENCES}
    parts = [_against(score, g, s) for g, s in (others[name] for name in REFERENCES if name in others)]
    if best is not group and best.row.baseline not in REFERENCES:
        parts.append(_against(score, best, next(s for g, s in scored if g is best)))
    own = "" if best is group else f" reaches {value_text(score)}:"
    if not parts:
        return f"{group.label}{own.rstrip(':')}." if own else ""
    return f"{group.label}{own or ' is'} {_join(parts)}."


def _against(a: Summary, other: Group, b: Summary) -> str:
    if b.mean == 0:
        return f"above {other.label} ({value_text(b)})" if a.mean > 0 else f"level with {other.label} ({value_text(b)})"
    change = 100 * (a.mean - b.mean) / b.mean
    side = "level with" if a.mean == b.mean else f"{abs(change):.1f} % {'above' if change > 0 else 'below'}"
    if change > 400:  # as a percentage such a number is hard to read
        side = f"{a.mean / b.mean:.0f} times as high as"
    return f"{side} {other.label} ({value_text(b)}{_spread(a, b)})"


def _spread(a: Summary, b: Summary) -> str:
    """Says so where the intervals mean ± SD overlap; nothing where no seed tells the spread."""
    if a.sd is None and b.sd is None:
        return ""
    return "; within the seeds' spread" if abs(a.mean - b.mean) <= (a.sd or 0.0) + (b.sd or 0.0) else ""


def value_text(summary: Summary) -> str:
    """`0.0402 ± 0.0010 (n = 3)`, with a comma form that fits into brackets."""
    sd = "" if summary.sd is None else f" ± {summary.sd:.4f}"
    return f"{summary.mean:.4f}{sd}, n = {summary.n}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
