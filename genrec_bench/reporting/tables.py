"""Tables as plain strings, for Markdown (pipe tables) and CSV (unrounded)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tabulate import tabulate

from genrec_bench.core.files import csv_text
from genrec_bench.reporting.load import Block, Group, Summary

DASH = "–"
MARK = "†"
LONG = 12  # rows of a table that is read without headings
METRICS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr@10")
UNSEEN = "unseen_"  # begins the name of a metric without what the user had before
BESIDE = f"{UNSEEN}ndcg@10"
COLUMNS = (*METRICS[:5], BESIDE, *METRICS[5:])
TITLES = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR", "hr": "HR"}


def title_of(metric: str) -> str:
    """`ndcg@10` as `NDCG@10`."""
    if metric.startswith(UNSEEN):
        return f"Unseen {title_of(metric.removeprefix(UNSEEN))}"
    name, _, k = metric.partition("@")
    return f"{TITLES.get(name, name)}@{k}" if k else name


def pipe(header: Sequence[str], rows: Iterable[Sequence[str]], numeric_from: int = 1) -> str:
    """A Markdown pipe table; columns from `numeric_from` on are right-aligned."""
    body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    align = ["left" if i < numeric_from else "right" for i in range(len(header))]
    return tabulate(body, headers=list(header), tablefmt="pipe", colalign=align, disable_numparse=True)


def mean_sd(summary: Summary, expected: int | None = None, digits: int = 4) -> str:
    """`mean ± SD`; without SD for one seed, with its n where that is not `expected`, a dash for none."""
    if summary.mean is None:
        return DASH
    text = f"{summary.mean:.{digits}f}"
    if summary.sd is not None:
        text += f" ± {summary.sd:.{digits}f}"
    return text if expected is None or summary.n == expected else f"{text} (n={summary.n})"


def number(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators, or a dash."""
    return DASH if value is None else f"{value:,.{digits}f}"


def seeds_cell(block: Block, group: Group) -> str:
    """How many seeds stand behind a row, marked where some are missing."""
    if not group.row.seeded:
        return f"{len(group.seeds)} (not seeded)"
    if block.missing(group):
        return f"{len(group.seeds)} of {len(block.seeds)} {MARK}"
    return str(len(group.seeds))


def missing_note(block: Block) -> str:
    """The footnote of marked rows and of runs that are left out, or ""."""
    parts = [f"{g.label} lacks seed{'s' if len(block.missing(g)) > 1 else ''} "
             f"{', '.join(str(s) for s in block.missing(g))}" for g in block.groups if block.missing(g)]
    notes = [f"{MARK} Incomplete: {'; '.join(parts)}. The row shows the seeds that there are, each by itself: a mean "
             "over some of the seeds is not comparable with one over all."] if parts else []
    if block.left_out:
        notes.append(f"Left out, as most rows have no such seed: {'; '.join(block.left_out)}.")
    return " ".join(notes)


def seeds_text(group: Group, metric: str) -> str:
    """The values of a row with missing seeds, each by itself."""
    return " / ".join(f"{value:.4f}" for value in group.values(metric)) or DASH


def results(block: Block, *, prefix: str = "") -> str:
    """Methods by metrics, the best of a table's column in bold. prefix: "" for item-level, "id_" for ID-level.

    A block of more rows than LONG is one table for the baselines and one for each backbone.
    """
    shown = differing_by_id(block) if prefix else block.groups
    return by_family(block, shown, lambda groups: _results(block, groups, prefix))


def by_family(block: Block, shown: Sequence[Group], table: Callable[[Sequence[Group]], str]) -> str:
    """One table of the groups, or where they are many one for each heading."""
    if len(shown) <= LONG:
        return table(shown)
    parts = {family: [g for g in groups if g in shown] for family, groups in block.families().items()}
    return "\n\n".join(f"**{family}**\n\n{table(groups)}" for family, groups in parts.items() if groups)


def _results(block: Block, shown: Sequence[Group], prefix: str) -> str:
    whole = [not block.missing(g) for g in shown]
    keys = {m: prefix + m for m in METRICS} | {BESIDE: f"{UNSEEN}{prefix}{BESIDE.removeprefix(UNSEEN)}"}
    shown_metrics = [m for m in COLUMNS if m != BESIDE or any(g.values(keys[m]) for g in shown)]
    cells = {m: [g.summary(keys[m]) for g in shown] for m in shown_metrics}
    highest = {m: max((round(c.mean, 4) for c, all_seeds in zip(column, whole, strict=True)
                       if c.mean is not None and all_seeds), default=None) for m, column in cells.items()}
    rows = []
    for i, group in enumerate(shown):
        row = [group.label, seeds_cell(block, group)]
        for metric in shown_metrics:
            cell = cells[metric][i]
            if not whole[i]:
                row.append(seeds_text(group, keys[metric]))
                continue
            text = mean_sd(cell, len(group.seeds))
            best = cell.mean is not None and round(cell.mean, 4) == highest[metric] and len(shown) > 1
            row.append(f"**{text}**" if best else text)
        rows.append(row)
    return pipe(["Method", "n", *(title_of(m) for m in shown_metrics)], rows)


def differing_by_id(block: Block) -> list[Group]:
    """Groups that generate semantic IDs and whose ID-level metrics are not their item-level ones."""
    return [g for g in block.groups if g.row.baseline is None
            and any(g.values(f"id_{m}") and g.values(f"id_{m}") != g.values(m) for m in METRICS)]


def results_csv(blocks: Sequence[Block]) -> str:
    """Every metric of every group: mean, SD, n, seeds and the value of each seed, unrounded; no mean of a part."""
    rows = []
    for block in blocks:
        for group in block.groups:
            for key in sorted({k for r in group.records for k in r.metrics}):
                s = group.summary(key)
                mean, sd = (None, None) if block.missing(group) else (s.mean, s.sd)
                seeds = [r.seed for r in group.records if key in r.metrics]
                rows.append([block.dataset, block.profile, block.name, group.label, key, s.n, mean, sd,
                             " ".join(map(str, seeds)), " ".join(map(repr, group.values(key))),
                             " ".join(map(str, block.missing(group)))])
    return csv_text(["dataset", "profile", "block", "method", "metric", "n", "mean", "sd", "seeds", "values",
                     "missing_seeds"], rows)


def runs_csv(blocks: Sequence[Block]) -> str:
    """One line a run of a block: where a number of the report comes from. profile: the run's own."""
    return csv_text(
        ["run_id", "block", "dataset", "profile", "method", "seed", "recall@10", "ndcg@10", "id_ndcg@10", "commit",
         "dirty"],
        [[r.run_id, b.name, b.dataset, r.profile, g.label, r.seed, *(r.metrics.get(k) for k in
          ("recall@10", "ndcg@10", "id_ndcg@10")), r.provenance.get("commit"), r.provenance.get("dirty")]
         for b in blocks for g in b.groups for r in g.records])
