"""Which stored methods a new one stands beside, run by run, and which of these comparisons carry verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from genrec_bench.contracts import Rankings
from genrec_bench.core.files import canonical
from genrec_bench.metrics.base import expected_values
from genrec_bench.reporting.families import Test, Values, corrected, unpaired
from genrec_bench.reporting.load import Group, run_table
from genrec_bench.reporting.matching import EVERY, Rows, data_of, dataset_title, is_seeded, unequal_budget
from genrec_bench.results.records import RunRecord

OUTSIDE = "rankings"  # part of the config of a record that stands for a file of somebody else's lists
Ranks = Callable[[RunRecord], Rankings]
Blocks = Sequence[tuple[Group, Sequence[Test]]]


def compared(new: Sequence[RunRecord], stored: Sequence[RunRecord], ranks: Ranks, *, num_permutations: int,
             seed: int, rows: Rows = EVERY) -> Blocks:
    """Each new method against every stored one that it may be compared with, Holm's correction made over the declared.

    new, stored: records; those of one dataset, split, evaluation and profile are paired (a stored method without
    randomness in every profile). ranks: the per-user ranks of a record. rows: which carry verdicts. seed: of the draws.
    """
    def values(group: Group, metric: str, k: int) -> np.ndarray:
        return np.stack([expected_values(metric, ranks(r), k) for r in group.records])

    draws = {"num_permutations": num_permutations, "seed": seed}
    blocks = [(m, [_tested(m, other, rows, values, draws) for other in methods(_fitting(m, stored), rows)])
              for m in methods(new, rows)]
    family = iter(corrected(tested(t for _, tests in blocks for t in tests)))
    return [(m, [next(family) if t.declared and t.comparison else t for t in tests]) for m, tests in blocks]


def beside(stored: Sequence[RunRecord]) -> tuple[list[RunRecord], list[Group]]:
    """The stored runs that lists from elsewhere are put beside, and the methods that are left out.

    Taken are the runs of one split, evaluation and profile: those of most methods that a suite has a row for, then of
    most methods. A method that is stored with another split as well would otherwise be tested twice.
    """
    every = methods(stored)
    parts = {_place(m.records[0]): [o for o in every if _fits(o.records[0], m.records[0])] for m in every}

    def size(place: str) -> tuple[int, int]:
        firsts = {m.records[0].method: m.records[0] for m in parts[place]}
        return sum(EVERY.of(r, r.profile) is not None for r in firsts.values()), len(firsts)

    most = parts[max(sorted(parts), key=size)]
    return [record for m in most for record in m.records], [m for m in every if m not in most]


def outside(label: str, count: int, stored: Sequence[RunRecord]) -> list[RunRecord]:
    """Records that stand for `count` files of somebody's lists, on the data of the stored runs that `beside` takes.

    One a file: their data, split and profile. Seeds are the numbers of the files, from 1.
    """
    r = min(stored, key=lambda r: (not is_seeded(r), r.run_id))
    config = {"label": label, "profile": r.profile, **{k: r.config[k] for k in ("dataset", "split", "evaluation")},
              OUTSIDE: label}
    return [RunRecord(f"{label}, file {file}", f"{OUTSIDE} {label}", label, r.profile, {**config, "seed": file},
                      data_of(r), {}, r.data, {}, {}, {}, {}) for file in range(1, count + 1)]


def is_outside(group: Group) -> bool:
    """Whether a method comes from files of lists; its seeds are then the numbers of the files."""
    return OUTSIDE in group.records[0].config


def tested(pairs: Iterable[Test]) -> list[Test]:
    """The pairs that carry a verdict."""
    return [t for t in pairs if t.declared and t.comparison]


def methods(records: Sequence[RunRecord], rows: Rows = EVERY) -> list[Group]:
    """Runs that differ in the seed only, in the order of data and labels, with labels that tell them apart.

    `where` of their runs: their data, with the split where names alone do not tell them apart.
    """
    data: Mapping[str, RunRecord] = {canonical(data_of(r)): r for r in records}
    titles = Counter(map(dataset_title, data.values()))
    where = {key: title if titles[title := dataset_title(r)] == 1 else f"{title}, split {r.split_fingerprint[:8]}"
             for key, r in data.items()}
    table = run_table(records)
    table = table.assign(where=table["data"].map(where), place=list(map(_place, table["record"])))
    key = ["place", "method", "semantic_ids"]
    groups = [of for _, of in table.drop_duplicates([*key, "seed"]).groupby(key)]
    groups.sort(key=lambda of: (of["place"].iloc[0], of["label"].iloc[0], of["run_id"].min()))
    same = Counter((of["place"].iloc[0], of["label"].iloc[0]) for of in groups)
    return [Group(None, label if same[place, label] == 1 or rows.of(first, first.profile) is not None else
                  f"{label} (other settings, {first.method[:8]})", of)
            for of in groups for place, label, first in [of[["place", "label", "record"]].iloc[0]]]


def _place(record: RunRecord) -> str:
    return canonical([dataset_title(record), record.profile, data_of(record)])


def _fitting(new: Group, stored: Sequence[RunRecord]) -> list[RunRecord]:
    return [r for r in stored if _fits(r, new.records[0]) and r.method != new.records[0].method]


def _fits(record: RunRecord, other: RunRecord) -> bool:
    """Whether a stored run may stand beside another: the same data, and the same profile where it is seeded."""
    return data_of(record) == data_of(other) and (record.profile == other.profile or not is_seeded(record))


def _tested(new: Group, other: Group, rows: Rows, values: Values, draws: Mapping[str, int]) -> Test:
    """Both on the runs that are paired; one test user allows no verdict."""
    left = _without_partner(new, other) if is_outside(new) else unpaired(new, other)
    test = Test(new, other, left=left, declared=_is_declared(new.records[0], other.records[0], rows))
    if test.empty:
        return test
    ours, theirs = test.compared
    made = replace(test, group=ours, against=theirs).measured(values, **draws)
    return replace(made, declared=made.declared and made.comparison.n_users > 1)


def _without_partner(files: Group, other: Group) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The seeds that nothing stands beside: files of lists have none of ours, so they are paired in order.

    A single run of one side stands against every run of the other.
    """
    counts = len(files.seeds), len(other.seeds)
    paired = max(counts) if 1 in counts else min(counts)
    return files.seeds[paired:], other.seeds[paired:]


def _is_declared(new: RunRecord, other: RunRecord, rows: Rows) -> bool:
    """Whether the rows have the other method as one to stand beside, and the budgets are equal.

    Those are baselines, and rows outside the grid `full`, exactly as they are under the new method's profile, on its
    backbone. Baselines have the profile's budget, whatever `--set` says of the training of networks. Beside lists from
    elsewhere stand the baselines and each backbone's plain cross-entropy: which of the objectives would be theirs is
    not known.
    """
    row = rows.of(other, new.profile)
    if row is None or row.grid == "full" or unequal_budget(new, {} if row.baseline else rows.overrides):
        return False
    if row.baseline is not None:
        return True
    if OUTSIDE in new.config:
        return row.stages == (("cross_entropy",),) and list(row.stated["objective"]) == [{"name": "cross_entropy"}]
    return row.backbone == (new.config.get("backbone") or {}).get("name", row.backbone)
