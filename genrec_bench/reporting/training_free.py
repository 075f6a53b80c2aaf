"""The page about training-free rows: do they beat what papers print, and on which test rows?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from genrec_bench.analysis.pruning import Estimate
from genrec_bench.core import registry
from genrec_bench.metrics.base import averaged
from genrec_bench.reporting.best_printed import (
    APART,
    Beside,
    beside_printed,
    best_printed,
    main_table,
    papers_data,
    row_means,
    trained_beside,
    training_free,
)
from genrec_bench.reporting.groups import CHOSEN_BY, DAYS, FEW, WARM, check_rows, parts
from genrec_bench.reporting.load import Group
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import DASH, MARK, pipe
from genrec_bench.results.records import RunRecord
from genrec_bench.results.test_users import REACHES

TITLE = "Training-free rows beside the papers' best rows"
HEADER = ("Data set", "Best printed row", "NDCG@10", "Recall@10", "Training-free row", "NDCG@10, history kept",
          "Recall@10, history kept", "NDCG@10, history out", "Recall@10, history out",
          "From the printed NDCG@10, history kept", "From the printed NDCG@10, history out")
TEXT_READERS = ("content_knn", "transition_graph")


def page(material: ReportData, records: Sequence[RunRecord], picture: str,
         others: Sequence[ReportData] = ()) -> str | None:
    """The page as Markdown, or None where no data set can be compared.

    records: all, of which trials say how the rows were tuned. picture: the figure's Markdown. others: of all suites,
    whose trained baselines stand beside the row without training.
    """
    found = beside_printed(material)
    if not found:
        return None
    there = {one.dataset for one in found}
    return render(
        "training-free", title=TITLE, sentence=sentence(found), picture=picture, found=found, mark=MARK, few=FEW,
        reaches=len(REACHES), dash=DASH, higher_unseen=_higher(found, unseen=True),
        higher_users_first=sum(one.users_first[0].value > one.printed.value for one in found),
        repeats=[one.dataset for one in found if one.outcome() == "above" and one.outcome(unseen=True) == "below"],
        lacking=[name for name in papers_data() if name in registry.datasets.names() and name not in there],
        unprinted=sorted({b.dataset for b in material.blocks if best_printed(b.dataset) is None}),
        table=table(found), groups=_by_group(material, found), tuning=tuning(found, records),
        main=[(one, best) for one in found if one.printed.cell.table != main_table(one.printed)
              and (best := best_printed(one.dataset, main_table(one.printed)))],
        several=[one for one in found if one.users_first is not one.ndcg],
        **_trained(material, found, others, records), **_limits(found)) + "\n"


def sentence(found: Sequence[Beside]) -> str:
    """What is found, in one sentence; README has it too."""
    outcomes = Counter(one.outcome() for one in found)
    papers = " and ".join(dict.fromkeys(one.printed.paper.short for one in found))
    return (f"On {_higher(found)} of {len(found)} data sets a training-free row, chosen by validation, has a higher "
            f"NDCG@10 than every row that the papers of {papers} print (our 95 % interval is above the best printed "
            f"value on {outcomes['above']}, below it on {outcomes['below']} and around it on {outcomes[APART]}); the "
            "printed rows have no interval, so no difference is tested.")


def _higher(found: Sequence[Beside], unseen: bool = False) -> int:
    return sum(one.change(unseen) > 0 for one in found)


def table(found: Sequence[Beside]) -> str:
    """A line a data set: printed, ours under both policies, and the difference."""
    rows = []
    for one in found:
        recall = DASH if one.printed.recall is None else f"{one.printed.recall:.4f}"
        rows.append([one.dataset, one.printed.place, f"{one.printed.value:.4f}", recall, one.group.label,
                     _interval(one.ndcg[0]), _interval(one.recall[0]), _interval(one.ndcg[1]), _interval(one.recall[1]),
                     *(f"{one.change(unseen):+.1%}: {one.outcome(unseen)}" for unseen in (False, True))])
    return pipe(HEADER, rows, numeric_from=len(HEADER))


def _trained(material: ReportData, found: Sequence[Beside], others: Sequence[ReportData],
             records: Sequence[RunRecord]) -> dict[str, Any]:
    """The trained models over item ids that were run on some of the data sets, and what papers print of them."""
    rows, cold, printed, groups, tuned, level = [], [], [], [], [], []
    for one in found:
        runs = trained_beside(one, others)
        for where, group in ((material, one.group), *runs) if runs else ():
            ndcg, recall = (row_means(where, group, metric) for metric in ("ndcg", "recall"))
            rows.append([one.dataset, group.label, str(len(group.records)) if group.row.seeded else DASH,
                         *map(_interval, (ndcg[0], recall[0], ndcg[1], recall[1]))])
            cell = one.printed_of(group)
            if group is not one.group and cell is not None and cell.value > ndcg[0].high:
                printed.append((one.dataset, group.label, ndcg[0].value, cell))
            if group is not one.group and (n := _trials(one, group, records)):
                tuned.append((one.dataset, group.label, n))
            if group is not one.group and ndcg[1].value > one.ndcg[1].value:
                level.append((one.dataset, group.label, ndcg[1].value, one.ndcg[1].value))
        groups += [group for _, group in runs]
        if runs and (facts := material.users(one.block)) is not None:
            cold.append((one.dataset, (facts.target_count == 0).mean()))
    few, most = min(numbers := [len(group.records) for group in groups] or [0]), max(numbers)
    return {"trained": pipe(("Data set", "Row", "Seeds", *HEADER[5:9]), rows, numeric_from=7) if rows else "",
            "cold": cold, "printed": printed, "tuned": tuned, "level": level,
            "networks": len({group.label for group in groups}),
            "seeds": "one seed" if most < 2 else f"{most} seeds" if few == most else f"{few} to {most} seeds"}


def _interval(one: Estimate) -> str:
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


def _by_group(material: ReportData, found: Sequence[Beside]) -> str:
    """A line a group, a column a data set: rows, their share and NDCG@10 of the chosen row; "" without facts."""
    cells: dict[str, dict[str, str]] = {}
    for one in found:
        facts, values = material.users(one.block), material.row_values(one.group)
        if facts is None:
            continue
        check_rows(one.block, values, facts.num_rows)
        for part in parts(facts):
            mean = averaged(values[:, part.rows], facts.user[part.rows]).mean()
            mark = f" {MARK}" if part.few else ""
            cells.setdefault(part.name, {})[one.dataset] = f"{part.count:,} ({part.rows.mean():.0%}): {mean:.4f}{mark}"
    names = [one.dataset for one in found]
    rows = [[name, *(cells[name].get(data, DASH) for data in names)]
            for name in (*REACHES, *WARM, *DAYS.values()) if name in cells]
    return pipe(["Group", *names], rows) if rows else ""


def tuning(found: Sequence[Beside], records: Sequence[RunRecord]) -> str:
    """How many trials each row had on each data set, where its settings are those that they chose; "" without any."""
    rows = dict.fromkeys(g.label for one in found for g in training_free(one.block))
    told = {label: [next((_trials(one, g, records) for g in training_free(one.block) if g.label == label), None)
                    for one in found] for label in rows}
    if not any(any(numbers) for numbers in told.values()):
        return ""
    cells = [[label, *(DASH if n is None else str(n) for n in numbers)] for label, numbers in told.items()]
    return pipe(["Row", *(one.dataset for one in found)], cells)


def _trials(one: Beside, group: Group, records: Sequence[RunRecord]) -> int:
    """The trials of a row under the block's profile; 0 where there is none beside the row as it stands, and where the
    row does not have the settings of the best."""
    tried = [r for r in records if r.is_trial and (r.dataset, r.profile) == (one.dataset, one.block.profile)
             and (r.config.get("baseline") or {}).get("name") == group.row.baseline]
    best = max((r.metrics[CHOSEN_BY] for r in tried), default=None)
    chosen = {r.method for r in tried if r.metrics[CHOSEN_BY] == best}
    return len(tried) if len(tried) > 1 and group.records[0].method in chosen else 0


def _limits(found: Sequence[Beside]) -> dict[str, Any]:
    """What the sentences about the comparison's limits need."""
    rows = {one.dataset: training_free(one.block) for one in found}
    labels = list(dict.fromkeys(g.label for groups in rows.values() for g in groups))
    gone = {data: [name for name in labels if name not in {g.label for g in groups}] for data, groups in rows.items()}
    orders = {one.dataset: one.group.records[0].data.get("order") for one in found}
    shares = {one.dataset: one.block.config["split"].get("valid_share") for one in found}
    return {"labels": labels, "not_run": [(data, names) for data, names in gone.items() if names],
            "readers": sorted({g.label for groups in rows.values() for g in groups if g.row.baseline in TEXT_READERS}),
            "valid_share": shares.get("bear_book"),
            "again": [(data, order["repeated"] / order["targets"]) for data, order in orders.items()
                      if order and order["targets"]]}
