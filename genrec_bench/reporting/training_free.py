"""The page about training-free rows: do they beat what papers print, and on which test rows?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import DASH, MARK, pipe
from genrec_bench.results.records import RunRecord
from genrec_bench.results.test_users import REACHES

TITLE = "Training-free rows beside the papers' best rows"
HEADER = ("Data set", "Best printed row", "NDCG@10", "Recall@10", "Training-free row", "NDCG@10, history kept",
          "Recall@10, history kept", "NDCG@10, unseen", "Recall@10, unseen", "To the printed NDCG@10, history kept",
          "To the printed NDCG@10, unseen")
TRAINED_HEADER = ("Data set", "Row", "Seeds", *HEADER[5:9])
LIKE = ("[arXiv 2605.07125](https://arxiv.org/abs/2605.07125) reports that a graph heuristic without training matches "
        "or beats many trained models on 10 of 14 other data sets.")
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
    told = [f"# {TITLE}", f"**{sentence(found)}** {_otherwise(found)} {LIKE}", absent(material, found),
            table(found), _reading(found), picture, trained(material, found, others),
            "## Where the hits are", *_by_group(material, found),
            "## How the rows were tuned", tuning(found, records),
            "## What this does not show", "\n".join(f"- {text}" for text in _limits(found))]
    return "\n\n".join(text for text in told if text) + "\n"


def sentence(found: Sequence[Beside]) -> str:
    """What is found, in one sentence."""
    outcomes = Counter(one.outcome() for one in found)
    papers = " and ".join(dict.fromkeys(one.printed.paper.short for one in found))
    return (f"On {_higher(found)} of {len(found)} data sets a training-free row, chosen by validation, has a higher "
            f"NDCG@10 than every row that the papers of {papers} print (our 95 % interval is above the best printed "
            f"value on {outcomes['above']}, below it on {outcomes['below']} and around it on {outcomes[APART]}); the "
            "printed rows have no interval, so no difference is tested.")


def _otherwise(found: Sequence[Beside]) -> str:
    """How often it is higher in other ways of counting."""
    first = sum(one.users_first[0].value > one.printed.value for one in found)
    return (f"With the history taken out it is higher on {_higher(found, unseen=True)}; with a user's rows averaged "
            f"first, as in our other reports, on {first}.")


def _higher(found: Sequence[Beside], unseen: bool = False) -> int:
    return sum(one.change(unseen) > 0 for one in found)


def absent(material: ReportData, found: Sequence[Beside]) -> str:
    """The data sets that are not in the table, and why."""
    there = {one.dataset for one in found}
    lacking = [name for name in papers_data() if name in registry.datasets.names() and name not in there]
    unprinted = sorted({b.dataset for b in material.blocks if best_printed(b.dataset) is None})
    told = [f"Not here, as no run on the whole data is stored: {', '.join(lacking)}." if lacking else "",
            f"Without a printed row, so in the suite's report alone: {', '.join(unprinted)}." if unprinted else ""]
    return " ".join(filter(None, told))


def table(found: Sequence[Beside]) -> str:
    """A line a data set: printed, ours under both policies, and the difference."""
    rows = []
    for one in found:
        recall = DASH if one.printed.recall is None else f"{one.printed.recall:.4f}"
        rows.append([one.dataset, one.printed.place, f"{one.printed.value:.4f}", recall, one.group.label,
                     _interval(one.ndcg[0]), _interval(one.recall[0]), _interval(one.ndcg[1]), _interval(one.recall[1]),
                     *(f"{one.change(unseen):+.1%}: {one.outcome(unseen)}" for unseen in (False, True))])
    return pipe(HEADER, rows, numeric_from=len(HEADER))


def trained(material: ReportData, found: Sequence[Beside], others: Sequence[ReportData]) -> str:
    """The trained models over item ids that were run on some of the data sets, or ""."""
    rows, cold, networks = [], [], set()
    for one in found:
        runs = trained_beside(one, others)
        if not runs:
            continue
        for where, group in ((material, one.group), *runs):
            ndcg, recall = (row_means(where, group, metric) for metric in ("ndcg", "recall"))
            rows.append([one.dataset, group.label, str(len(group.records)) if group.row.seeded else DASH,
                         *map(_interval, (ndcg[0], recall[0], ndcg[1], recall[1]))])
        networks |= {group.label for _, group in runs}
        if (facts := material.users(one.block)) is not None:
            cold.append(f"{(facts.target_count == 0).mean():.0%} on {one.dataset}")
    if not rows:
        return ""
    unseen = f" They are never trained on targets that no training row has: {', '.join(cold)}." if cold else ""
    return (f"## Trained models over item ids\n\n{len(networks)} models with the settings of their files, **untuned**, "
            f"so these are no best values of theirs.{unseen} First, tuned, the row of the table above.\n\n"
            + pipe(TRAINED_HEADER, rows, numeric_from=len(TRAINED_HEADER)))


def _interval(one: Estimate) -> str:
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


def _reading(found: Sequence[Beside]) -> str:
    """How the table is to be read."""
    texts = ["Like for like: **history kept**, as the papers rank, as far as their files tell; \"unseen\" takes what "
             "the user had before out of the list. In brackets: 95 % intervals over users. \"Above\" and \"below\": "
             "the interval leaves the printed value out. Rows are chosen by validation NDCG@10, printed ones by the "
             "printed test values. Recall@10 is BEAR's HitRatio@10."]
    other = [f"{one.dataset} {best.value:.4f} ({best.cell.method})" for one in found
             if one.printed.cell.table != main_table(one.printed)
             and (best := best_printed(one.dataset, main_table(one.printed)))]
    if other:
        texts.append(f"In the paper's main table alone the best NDCG@10 are: {', '.join(other)}.")
    several = [f"{one.dataset} {_interval(one.users_first[0])}, {one.outcome_users_first}" for one in found
               if one.users_first is not one.ndcg]
    if several:
        texts.append("Means are over test rows, as BEAR's are (its HitRatios are whole numbers of hits over its test "
                     "rows); a user's rows averaged first give as NDCG@10, history kept: "
                     f"{'; '.join(several)}.")
    return " ".join(texts)


def _by_group(material: ReportData, found: Sequence[Beside]) -> list[str]:
    """A line a group, a column a data set: rows, their share and NDCG@10 of the chosen row."""
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
    if not cells:
        return ["The facts about the test rows are not stored."]
    names = [one.dataset for one in found]
    rows = [[name, *(cells[name].get(data, DASH) for data in names)]
            for name in (*REACHES, *WARM, *DAYS.values()) if name in cells]
    return [f"Test rows (share): NDCG@10 of the chosen row, history kept; a user's rows are averaged first. {MARK}: "
            f"fewer than {FEW} users. A row is in the first of the first {len(REACHES)} groups that holds.",
            pipe(["Group", *names], rows)]


def tuning(found: Sequence[Beside], records: Sequence[RunRecord]) -> str:
    """How many trials each row had on each data set, where its settings are those that they chose."""
    rows = {g.row.baseline: g.label for one in found for g in training_free(one.block)}
    told = {label: [_trials(one, name, records) for one in found] for name, label in rows.items()}
    if not any(any(numbers) for numbers in told.values()):
        return "Untuned, as they come."
    cells = [[label, *map(str, numbers)] for label, numbers in told.items()]
    return ("By validation NDCG@10 alone, on each data set by itself. Trials (0: untuned, as it comes):\n\n"
            + pipe(["Row", *(one.dataset for one in found)], cells))


def _trials(one: Beside, baseline: str, records: Sequence[RunRecord]) -> int:
    """The trials of a row under the block's profile; 0 where the row does not have the settings of the best."""
    own = [g.records[0] for g in training_free(one.block) if g.row.baseline == baseline]
    tried = [r for r in records if r.is_trial and (r.dataset, r.profile) == (one.dataset, one.block.profile)
             and (r.config.get("baseline") or {}).get("name") == baseline]
    best = max((r.metrics[CHOSEN_BY] for r in tried), default=None)
    chosen = {r.method for r in tried if r.metrics[CHOSEN_BY] == best}
    return len(tried) if own and own[0].method in chosen else 0


def _labels(one: Beside) -> list[str]:
    return [g.label for g in training_free(one.block)]


def _limits(found: Sequence[Beside]) -> list[str]:
    """What the comparison cannot tell."""
    labels = list(dict.fromkeys(name for one in found for name in _labels(one)))
    again = [(one.dataset, order["repeated"] / order["targets"]) for one in found
             if (order := one.group.records[0].data.get("order")) and order["targets"]]
    readers = sorted({g.label for one in found for g in training_free(one.block) if g.row.baseline in TEXT_READERS})
    lacking = [f"{one.dataset} {', '.join(gone)}" for one in found
               if (gone := [name for name in labels if name not in _labels(one)])]
    absences = f" (not run: {'; '.join(lacking)})" if lacking else ""
    share = next((one.block.config["split"]["valid_share"] for one in found if one.dataset == "bear_book"), None)
    limits = [
        "The printed rows have no interval and no ranks by user, so nothing is tested.",
        "Data, split and ranking are the papers' own as far as the given files tell. No printed row is run again.",
        f"Our row is the best of {len(labels)} in validation{absences}; the best printed one is picked by its test "
        "value.",
        *([f"{' and '.join(readers)} may read item texts; some printed rows do not."] if readers else [])]
    if share is not None:
        limits.append(f"bear_book brings no validation rows: the last {share:.0%} of its training rows validate.")
    if again:
        some = ", ".join(f"{name} {part:.1%}" for name, part in again if part)
        limits.append(f"Test targets that the history already has, lost when it is taken out: {some or 'none'}"
                      f"{', none elsewhere' if some else ''}.")
    return [*limits, f"{len(found)} data sets of {len({one.printed.paper.key for one in found})} papers say nothing "
            "about others."]
