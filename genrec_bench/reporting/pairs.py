"""Which stored methods a new one stands beside, run by run, and what the users say of each pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec_bench.analysis.significance import compare_values
from genrec_bench.contracts import Rankings
from genrec_bench.core.files import canonical
from genrec_bench.metrics.base import expected_values
from genrec_bench.reporting.families import Compared, corrected
from genrec_bench.reporting.matching import EVERY, Rows, data_of, dataset_title, is_seeded, unequal_budget
from genrec_bench.results.records import RunRecord

K = 10
OUTSIDE = "rankings"  # part of the config of a record that stands for a file of somebody else's lists
Ranks = Callable[[RunRecord], Rankings]


@dataclass(frozen=True)
class Method:
    """Runs that are equal but for the seed. where: its data, with settings where the data alone do not tell.

    seeded: False where nothing is random, so that one run says it all.
    """

    label: str
    where: str
    runs: Mapping[int, RunRecord]
    seeded: bool

    @property
    def first(self) -> RunRecord:
        """One of its runs, for what all have in common."""
        return self.runs[min(self.runs)]

    @property
    def outside(self) -> bool:
        """Whether it comes from files of lists; its seeds are then the numbers of the files."""
        return OUTSIDE in self.first.config


@dataclass(frozen=True)
class Pair(Compared):
    """The new method and a stored one on the runs that are paired, by NDCG@10; no comparison where no two can be.

    seeds, against: of the new method's and of the stored one's runs, in the order in which they are paired; a single
    run stands against every other. declared: the pair carries a verdict, which one test user never does.
    """

    new: Method
    baseline: Method
    seeds: tuple[int, ...]
    against: tuple[int, ...]
    declared: bool
    recall: tuple[float, float] = (0.0, 0.0)


Blocks = Sequence[tuple[Method, Sequence[Pair]]]


def compared(new: Sequence[RunRecord], stored: Sequence[RunRecord], ranks: Ranks, *, num_permutations: int,
             seed: int, rows: Rows = EVERY) -> Blocks:
    """Each new method with its pairs, Holm's correction made over the declared ones.

    new, stored: records; those of one dataset, split, evaluation and profile are paired (a stored method without
    randomness in every profile). ranks: the per-user ranks of a record. rows: which carry verdicts.
    """
    blocks = [(m, [_tested(p, ranks, num_permutations, seed) for p in _pairs(m, stored, rows)])
              for m in _methods(new, rows)]
    family = iter(corrected(tested(pair for _, pairs in blocks for pair in pairs)))
    return [(m, [next(family) if p.declared and p.comparison else p for p in pairs]) for m, pairs in blocks]


def beside(stored: Sequence[RunRecord]) -> tuple[list[RunRecord], list[Method]]:
    """The stored runs that lists from elsewhere are put beside, and the methods that are left out.

    Taken are the runs of one split, evaluation and profile: those of most methods that a suite has a row for, then of
    most methods. A method that is stored with another split as well would otherwise be tested twice.
    """

    def size(place: str) -> tuple[int, int]:
        firsts = {m.first.method: m.first for m in parts[place]}
        return sum(EVERY.of(r, r.profile) is not None for r in firsts.values()), len(firsts)

    methods = _methods(stored)
    parts = {_place(m.first): [o for o in methods if _fits(o.first, m.first)] for m in methods}
    most = max(sorted(parts), key=size)
    return ([record for m in parts[most] for record in m.runs.values()],
            [m for m in methods if m not in parts[most]])


def outside(label: str, count: int, stored: Sequence[RunRecord]) -> list[RunRecord]:
    """Records that stand for `count` files of somebody's lists, on the data of the stored runs that `beside` takes.

    One a file: their data, split and profile. Seeds are the numbers of the files, from 1.
    """
    r = min(stored, key=lambda r: (not is_seeded(r), r.run_id))
    identity = data_of(r)
    config = {"label": label, "profile": r.profile, "dataset": r.config["dataset"], "split": r.config["split"],
              "evaluation": r.config["evaluation"], OUTSIDE: label}
    return [RunRecord(f"{label}, file {file}", f"{OUTSIDE} {label}", label, r.profile, {**config, "seed": file},
                      identity, {}, r.data, {}, {}, {}, {}) for file in range(1, count + 1)]


def tested(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs that carry a verdict."""
    return [p for p in pairs if p.declared and p.comparison]


def described(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs that are shown without one."""
    return [p for p in pairs if not p.declared and p.comparison]


def _methods(records: Sequence[RunRecord], rows: Rows = EVERY) -> list[Method]:
    """Groups that differ in the seed only, in the order of data and labels, with labels that tell them apart."""
    groups: dict[tuple[str, str, str], dict[int, RunRecord]] = {}
    for record in sorted({r.run_id: r for r in records}.values(), key=lambda r: (_place(r), r.label, r.run_id)):
        key = _place(record), record.method, record.identity.get("semantic_ids_fingerprint", "")
        groups.setdefault(key, {}).setdefault(record.seed, record)
    where = _wheres(records)
    firsts = [next(iter(group.values())) for group in groups.values()]
    names = Counter((_place(r), r.label) for r in firsts)
    methods = []
    for first, group in zip(firsts, groups.values(), strict=True):
        label = first.label
        if names[_place(first), label] > 1 and rows.of(first, first.profile) is None:
            label = f"{label} (other settings, {first.method[:8]})"
        methods.append(Method(label, where[canonical(data_of(first))], dict(sorted(group.items())), is_seeded(first)))
    return methods


def _wheres(records: Iterable[RunRecord]) -> dict[str, str]:
    """The names of the data of some records, with the split only where names alone do not tell them apart."""
    data = {canonical(data_of(r)): r for r in records}
    titles = Counter(dataset_title(r) for r in data.values())
    return {key: title if titles[title := dataset_title(r)] == 1 else f"{title}, split {r.split_fingerprint[:8]}"
            for key, r in data.items()}


def _place(record: RunRecord) -> str:
    return canonical([dataset_title(record), record.profile, data_of(record)])


def _pairs(new: Method, stored: Sequence[RunRecord], rows: Rows) -> list[Pair]:
    """The new method beside every other that may be compared with it."""
    fitting = [r for r in stored if _fits(r, new.first) and r.method != new.first.method]
    return [Pair(new, m, *_matched(new, m), _is_declared(new, m.first, rows)) for m in _methods(fitting, rows)]


def _fits(record: RunRecord, other: RunRecord) -> bool:
    """Whether a stored run may stand beside another: the same data, and the same profile where it is seeded."""
    return data_of(record) == data_of(other) and (record.profile == other.profile or not is_seeded(record))


def _matched(new: Method, other: Method) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which runs are paired: those of one seed; files of lists, which know nothing of our seeds, in their order."""
    ours, theirs = tuple(new.runs), tuple(other.runs)
    if new.outside:
        count = min(len(ours), len(theirs))
        return (ours, theirs) if count == 1 else (ours[:count], theirs[:count])
    if not other.seeded:
        return ours, theirs[:1]
    common = tuple(s for s in ours if s in theirs)
    return common, common


def _is_declared(new: Method, other: RunRecord, rows: Rows) -> bool:
    """Whether the rows have the other method as one to stand beside, and the budgets are equal.

    Those are baselines, and rows outside the grid `full`, exactly as they are under the new method's profile, on its
    backbone. Baselines have the profile's budget, whatever `--set` says of the training of networks. Beside lists from
    elsewhere stand the baselines and each backbone's plain cross-entropy: which of the objectives would be theirs is
    not known.
    """
    row = rows.of(other, new.first.profile)
    if row is None or row.grid == "full":
        return False
    if row.baseline is not None:
        return not unequal_budget(new.first)
    if unequal_budget(new.first, rows.overrides):
        return False
    if new.outside:
        return row.stages == (("cross_entropy",),) and list(row.stated["objective"]) == [{"name": "cross_entropy"}]
    return row.backbone == (new.first.config.get("backbone") or {}).get("name", row.backbone)


def _tested(pair: Pair, ranks: Ranks, num_permutations: int, seed: int) -> Pair:
    if not pair.seeds:
        return pair
    sides = [[ranks(pair.new.runs[s]) for s in pair.seeds], [ranks(pair.baseline.runs[s]) for s in pair.against]]
    ndcg, recall = ([np.stack([expected_values(metric, r, K) for r in side]) for side in sides]
                    for metric in ("ndcg", "recall"))
    ours = np.repeat(ndcg[0], len(ndcg[1]), axis=0) if len(ndcg[0]) == 1 else ndcg[0]
    comparison = compare_values(ours, ndcg[1], num_permutations=num_permutations, seed=seed)
    return replace(pair, comparison=comparison, declared=pair.declared and comparison.n_users > 1,
                   recall=tuple(float(side.mean()) for side in recall))
