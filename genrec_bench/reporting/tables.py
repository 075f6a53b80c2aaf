"""Tables as plain strings, for Markdown (pipe tables) and CSV (unrounded)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

from genrec_bench.reporting.load import Block, Group, Summary
from genrec_bench.reporting.papers import Paper
from genrec_bench.reporting.printed import REPORTED_TABLE, comparable_rows

DASH = "–"
MARK = "†"
METRICS = ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr@10")
TITLES = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR", "hr": "HR"}
MIB = 2**20


def title_of(metric: str) -> str:
    """`ndcg@10` as `NDCG@10`."""
    name, _, k = metric.partition("@")
    return f"{TITLES.get(name, name)}@{k}" if k else name


def pipe(header: Sequence[str], rows: Iterable[Sequence[str]], numeric_from: int = 1) -> str:
    """A Markdown pipe table; columns from `numeric_from` on are right-aligned."""
    body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    align = ["left" if i < numeric_from else "right" for i in range(len(header))]
    return tabulate(body, headers=list(header), tablefmt="pipe", colalign=align, disable_numparse=True)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with unrounded numbers; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return buffer.getvalue()


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
    """The footnote of marked rows, or "" where none is."""
    parts = [f"{g.label} lacks seed{'s' if len(block.missing(g)) > 1 else ''} "
             f"{', '.join(str(s) for s in block.missing(g))}" for g in block.groups if block.missing(g)]
    return f"{MARK} Incomplete: {'; '.join(parts)}. The row is over the seeds there are." if parts else ""


def results(block: Block, *, prefix: str = "", groups: Sequence[Group] | None = None) -> str:
    """Methods by metrics, the best of a column in bold. prefix: "" for item-level, "id_" for ID-level."""
    shown = block.groups if groups is None else groups
    cells = {m: [g.metric(prefix + m) for g in shown] for m in METRICS}
    rows = []
    for i, group in enumerate(shown):
        row = [group.label, seeds_cell(block, group)]
        for metric in METRICS:
            text = mean_sd(cells[metric][i], len(group.seeds))
            best = max((round(c.mean, 4) for c in cells[metric] if c.mean is not None), default=None)
            mean = cells[metric][i].mean
            row.append(f"**{text}**" if mean is not None and round(mean, 4) == best and len(shown) > 1 else text)
        rows.append(row)
    return pipe(["Method", "n", *(title_of(m) for m in METRICS)], rows)


def differing_by_id(block: Block) -> list[Group]:
    """Groups that generate semantic IDs and whose ID-level metrics are not their item-level ones."""
    return [g for g in block.groups if g.row.baseline is None
            and any(g.metric_values(f"id_{m}") and g.metric_values(f"id_{m}") != g.metric_values(m) for m in METRICS)]


def results_csv(blocks: Sequence[Block]) -> str:
    """Every metric of every group: mean, SD, n, seeds and the value of each seed, unrounded."""
    rows = []
    for block in blocks:
        for group in block.groups:
            for key in sorted({k for r in group.records for k in r.metrics}):
                s = group.metric(key)
                seeds = [r.seed for r in group.records if key in r.metrics]
                rows.append([block.dataset, block.profile, block.name, group.label, key, s.n, s.mean, s.sd,
                             " ".join(map(str, seeds)), " ".join(map(repr, group.metric_values(key))),
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


def compared(block: Block, paper: Paper) -> tuple[str, list[list[Any]]]:
    """Reproduced beside reported for the comparable rows of a block: the Markdown table and the CSV rows."""
    shown, raw = [], []
    for group, metric, reported in comparable_rows(block, paper):
        ours, item = group.metric(f"id_{metric}"), group.metric(metric)
        ours = item if ours.mean is None else ours
        gap = None if ours.mean is None else ours.mean - reported.value
        shown.append([group.label, seeds_cell(block, group), title_of(metric), mean_sd(ours, len(group.seeds)),
                      mean_sd(item, len(group.seeds)), f"{reported.value:.4f}",
                      DASH if gap is None else f"{gap:+.4f}",
                      DASH if gap is None else f"{100 * gap / reported.value:+.1f} %"])
        raw.append([block.dataset, group.label, metric, ours.n, ours.mean, ours.sd, item.mean, item.sd,
                    reported.value, gap, f"Table {REPORTED_TABLE}", reported.flag])
    header = ["Method", "n", "Metric", "Reproduced, ID-level", "Reproduced, item-level", "Reported", "Difference",
              "Relative"]
    return pipe(header, shown) if shown else "", raw


COMPARED_HEADER = ("dataset", "method", "metric", "n", "reproduced_mean", "reproduced_sd", "item_level_mean",
                   "item_level_sd", "reported", "difference", "source", "flag")

EFFICIENCY_HEADER = ("dataset", "profile", "method", "n", "parameters", "epochs", "best_epoch", "seconds_per_epoch",
                     "train_seconds", "total_seconds", "decode_users_per_second", "peak_memory_bytes", "device",
                     "threads")


def efficiency_rows(block: Block) -> list[list[Any]]:
    """Means over seeds, unrounded, in the order of EFFICIENCY_HEADER."""
    return [[block.dataset, block.profile, g.label, len(g.seeds), *(g.training(k).mean for k in
             ("parameters", "epochs", "best_epoch")), *(g.timing(k).mean for k in
             ("seconds_per_epoch", "train_seconds", "total_seconds", "decode_users_per_second",
              "peak_memory_bytes")), places(g, "device"), places(g, "threads")] for g in block.groups]


def places(group: Group, key: str) -> str:
    """The distinct values of one fact of provenance, joined by "; "."""
    values = {str(r.provenance[key]) for r in group.records if r.provenance.get(key) not in (None, "")}
    return "; ".join(sorted(values)) or DASH


def efficiency(block: Block) -> str:
    """Cost of each method of a block: means over seeds, with units in the header."""
    rows = []
    for group, values in zip(block.groups, efficiency_rows(block), strict=True):
        parameters, epochs, best, epoch_s, train_s, _, users, peak, device, threads = values[4:]
        rows.append([group.label, str(len(group.seeds)), number(parameters),
                     f"{_count(epochs)} / {_count(best)}" if epochs else DASH, number(epoch_s, 2),
                     number(train_s, 1), number(users),
                     number(None if peak is None else peak / MIB), device, threads])
    header = ["Method", "n", "Parameters", "Epochs run / best", "Seconds per epoch", "Training (s)",
              "Decoding (users/s)", "Peak memory (MiB)", "Device", "Threads"]
    return pipe(header, rows)


def _count(value: float | None) -> str:
    return number(value, 0 if value is None or float(value).is_integer() else 1)
