"""Tables as plain strings, for Markdown (pipe tables) and CSV (unrounded)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from typing import TypeVar

from tabulate import tabulate

from genrec_bench.core.files import csv_text
from genrec_bench.core.lazy import pandas
from genrec_bench.reporting.load import OTHER_COLUMNS, Block, Group, Summary, summarise
from genrec_bench.reporting.rendering import said

T = TypeVar("T")
METRIC = "ndcg@10"  # that methods are compared by
DASH = "–"
OUTSIDE = " (outside)"  # behind a paper's number that our interval leaves out
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
        return f"{title_of(metric.removeprefix(UNSEEN))}, history out"
    name, _, k = metric.partition("@")
    return f"{TITLES.get(name, name)}@{k}" if k else name


def pipe(header: Sequence[str], rows: Iterable[Sequence[str]], numeric_from: int = 1) -> str:
    """A Markdown pipe table; columns from `numeric_from` on are right-aligned."""
    body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    align = ["left" if i < numeric_from else "right" for i in range(len(header))]
    return tabulate(body, headers=list(header), tablefmt="pipe", colalign=align, disable_numparse=True)


def listed(rows: Iterable[T], columns: Mapping[str, Callable[[T], str]], numeric_from: int = 1, *,
           empty: bool = True) -> str:
    """A pipe table of a line a row; columns: title -> what stands there of a row. empty: with columns of dashes too."""
    rows = list(rows)
    cells = {title: [cell(row) for row in rows] for title, cell in columns.items()}
    kept = {title: of for title, of in cells.items() if empty or any(text not in ("", DASH) for text in of)}
    return pipe(list(kept), zip(*kept.values(), strict=True), numeric_from)


def mean_sd(summary: Summary, expected: int | None = None) -> str:
    """`mean ± SD`; without SD for one seed, with its n where that is not `expected`, a dash for none."""
    if summary.mean is None:
        return DASH
    text = f"{summary.mean:.4f}" + ("" if summary.sd is None else f" ± {summary.sd:.4f}")
    return text if expected is None or summary.n == expected else f"{text} (n={summary.n})"


def number(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators, or a dash."""
    return DASH if value is None else f"{value:,.{digits}f}"


def seeds_cell(block: Block, group: Group) -> str:
    """How many seeds are behind a row, marked where it does not stand with them."""
    if not group.row.seeded:
        return f"{len(group.seeds)} (not seeded)"
    if not block.stands(group):
        return f"{len(group.seeds)} of {len(block.seeds)} {MARK}"
    return str(len(group.seeds))


def missing_note(block: Block) -> str:
    """The footnote of marked rows and of runs that are left out, or ""."""
    return said("incomplete", "note", MARK, block, [(g.label, block.missing(g)) for g in block.groups
                                                   if not block.stands(g)])


def results(block: Block, *, prefix: str = "") -> str:
    """Methods by metrics, the best of a table's column in bold. prefix: "" for item-level, "id_" for ID-level.

    A block of more rows than LONG is one table for the baselines and one for each backbone.
    """
    names = {m: prefix + m for m in COLUMNS} | {BESIDE: f"{UNSEEN}{prefix}{BESIDE.removeprefix(UNSEEN)}"}

    def table(groups: Sequence[Group]) -> str:
        columns = {title_of(m): means(block, groups, name) for m, name in names.items()
                   if m != BESIDE or any(g.values(name) for g in groups)}
        rows = zip((g.label for g in groups), (seeds_cell(block, g) for g in groups), *columns.values(), strict=True)
        return pipe(["Method", "n", *columns], rows)

    return by_family(block, differing_by_id(block) if prefix else block.groups, table)


def means(block: Block, groups: Sequence[Group], metric: str, *, spread: bool = True, best: bool = True) -> list[str]:
    """A metric of some rows: mean ± SD or mean, the highest of those with equal seeds in bold, of two or more; of an
    incomplete row each seed by itself."""
    whole = {g: round(mean, 4) for g in groups if block.stands(g) and (mean := g.mean(metric)) is not None}
    equal = [g for g in whole if not block.missing(g)]
    highest = max((whole[g] for g in equal), default=None) if best and len(equal) > 1 else None
    cells = []
    for group in groups:
        text = " / ".join(f"{value:.4f}" for value in group.values(metric)) or DASH
        if group in whole:
            text = mean_sd(group.summary(metric), len(group.seeds)) if spread else f"{whole[group]:.4f}"
        first = group in equal and whole[group] == highest
        cells.append(f"**{text}**" if first else text)
    return cells


def by_family(block: Block, shown: Sequence[Group], table: Callable[[Sequence[Group]], str]) -> str:
    """One table of the groups, or where they are many one for each heading."""
    if len(shown) <= LONG:
        return table(shown)
    parts = {family: [g for g in groups if g in shown] for family, groups in block.families().items()}
    return "\n\n".join(f"**{family}**\n\n{table(groups)}" for family, groups in parts.items() if groups)


def differing_by_id(block: Block) -> list[Group]:
    """Groups that generate semantic IDs and whose ID-level metrics are not their item-level ones."""
    return [g for g in block.groups if g.row.baseline is None
            and any(g.values(f"id_{m}") and g.values(f"id_{m}") != g.values(m) for m in METRICS)]


def results_csv(blocks: Sequence[Block]) -> str:
    """Every metric of every group: mean, SD, n, seeds and the value of each seed, unrounded; no mean of a part."""
    rows = []
    for block, group in ((b, g) for b in blocks for g in b.groups):
        values = group.runs[sorted(group.runs.columns.difference(OTHER_COLUMNS))]
        missing = block.missing(group)
        for metric, column in zip(values, values.to_numpy().T, strict=True):
            known = column == column  # not so where a run lacks the metric
            seeds, numbers = compress(group.seeds, known), column[known].tolist()
            one = summarise(numbers)
            mean, sd = (one.mean, one.sd) if block.stands(group) else (None, None)
            rows.append([block.dataset, block.profile, block.name, group.label, metric, one.n, mean, sd,
                         " ".join(map(str, seeds)), " ".join(map(repr, numbers)), " ".join(map(str, missing))])
    return csv_text(["dataset", "profile", "block", "method", "metric", "n", "mean", "sd", "seeds", "values",
                     "missing_seeds"], rows)


RUN_COLUMNS = ("run_id", "block", "dataset", "profile", "method", "seed", "recall@10", "ndcg@10", "id_ndcg@10",
               "commit", "dirty")


def runs_csv(blocks: Sequence[Block]) -> str:
    """One line a run of a block: where a number of the report comes from. profile: the run's own."""
    lines = pandas.concat([b.runs.assign(block=b.name, dataset=b.dataset, method=b.runs["label"]) for b in blocks])
    return lines.reindex(columns=RUN_COLUMNS).to_csv(index=False, lineterminator="\n")
