"""THE evaluator: from scores or lists to the rank of each user's target, and from ranks to metrics.

Nothing else in the suite decides what a hit is. Ties are honest: a target that shares its score or its semantic
ID with others is worth the expected value over a random order among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec_bench.contracts import Rankings
from genrec_bench.core import registry
from genrec_bench.metrics.base import expected_values

KS = (1, 5, 10, 20)


def rankings_from_scores(scores: np.ndarray, targets: np.ndarray, *, max_k: int,
                         exclude: Sequence[np.ndarray] | None = None) -> Rankings:
    """Places of the targets where every item has a score, larger is better.

    scores: (U, I); targets: (U,) item numbers. exclude: item numbers taken out of each user's ranking (the target
    stays, repeats count once). A rank is 1 + the number of strictly greater scores, ties the number of scores
    equal to the target's with its own; a rank beyond max_k becomes 0. id_ranks count ties against the target
    (its last possible rank), so that equal scores never earn ID-level credit; without ties they equal ranks.
    Raises: ValueError naming the row for NaN, +inf, a target at -inf, or a target or exclusion out of range.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    _check_rows(scores, targets, exclude, scores.shape[1] if scores.ndim == 2 else 0, "item")
    bad = np.flatnonzero(np.isnan(scores).any(axis=1) | np.isposinf(scores).any(axis=1))
    if len(bad):
        column = int(np.flatnonzero(np.isnan(scores[bad[0]]) | np.isposinf(scores[bad[0]]))[0])
        raise ValueError(f"row {bad[0]} has the score {scores[bad[0], column]} for item {column}; "
                         f"{len(bad)} of {len(scores)} rows hold NaN or +inf")
    own = scores[np.arange(len(targets)), targets][:, None]
    lost = np.flatnonzero(np.isneginf(own[:, 0]))
    if len(lost):
        raise ValueError(f"row {lost[0]} has the score -inf for its target, item {targets[lost[0]]}")
    greater = (scores > own).sum(axis=1)
    equal = (scores == own).sum(axis=1)
    if exclude is not None:
        for row, items in enumerate(exclude):
            items = np.unique(np.asarray(items, dtype=np.int64))
            gone = scores[row, items[items != targets[row]]]
            greater[row] -= (gone > own[row]).sum()
            equal[row] -= (gone == own[row]).sum()
    return _cut(greater + 1, equal, greater + equal, max_k)


def rankings_from_pairs(rows: np.ndarray, items: np.ndarray, scores: np.ndarray, targets: np.ndarray, *,
                        max_k: int) -> Rankings:
    """Places of the targets where only some items have a score, such as a file of lists.

    rows, items, scores: (M,) user row, item number and finite score of each entry, larger is better; targets: (U,)
    item numbers. A target without an entry has rank 0; the rest is as in `rankings_from_scores`.
    Raises: ValueError for a row out of range, a score that is not finite or a repeated (row, item).
    """
    targets = np.asarray(targets)
    if len(rows) and (rows.min() < 0 or rows.max() >= len(targets)):
        raise ValueError(f"rows must be 0 to {len(targets) - 1}")
    if not np.isfinite(scores).all():
        raise ValueError(f"entry {int(np.flatnonzero(~np.isfinite(scores))[0])} has a score that is not finite")
    order = np.lexsort((items, rows))
    again = (np.diff(rows[order]) == 0) & (np.diff(items[order]) == 0)
    if again.any():
        entry = order[1:][again][0]
        raise ValueError(f"row {rows[entry]} lists item {items[entry]} twice")
    own = np.full(len(targets), np.inf)
    found = items == targets[rows]
    own[rows[found]] = scores[found]
    greater = np.bincount(rows[scores > own[rows]], minlength=len(targets))
    equal = np.bincount(rows[scores == own[rows]], minlength=len(targets))
    inside = np.isfinite(own)
    return _cut(np.where(inside, greater + 1, 0), np.maximum(equal, 1), np.where(inside, greater + equal, 0), max_k)


def rankings_from_lists(lists: np.ndarray, targets: np.ndarray, sizes: np.ndarray, *, max_k: int,
                        exclude: Sequence[tuple[np.ndarray, np.ndarray]] | None = None) -> Rankings:
    """Places of the targets in ranked lists of distinct semantic IDs, each of which stands for all of its items.

    lists: (U, K) numbers of semantic IDs, best first, -1 = unused; targets: (U,) the number of the target's ID;
    sizes: (S,) items that share each ID. An ID of c items occupies c consecutive ranks in random order: the first
    rank of the target is 1 + the items of the IDs above its own, ties = c, id_ranks counts IDs. exclude: of each
    user the (ID numbers, items of it taken out) as `id_exclusions` makes them; an ID without items left occupies
    no rank. Ranks beyond max_k become 0.
    Raises: ValueError naming the row for a repeated ID, a number out of range or a target that was taken out.
    """
    lists, targets, sizes = np.asarray(lists), np.asarray(targets), np.asarray(sizes)
    pairs = [(np.asarray(gone, dtype=np.int64), np.asarray(counts)) for gone, counts in exclude or ()]
    _check_rows(lists, targets, None if exclude is None else [gone for gone, _ in pairs], len(sizes), "semantic ID")
    if len(sizes) and sizes.min() < 1:
        raise ValueError(f"semantic ID {int(sizes.argmin())} has {sizes.min()} items; an ID belongs to an item")
    bad = np.flatnonzero(((lists < -1) | (lists >= len(sizes))).any(axis=1))
    if len(bad):
        raise ValueError(f"row {bad[0]} lists a semantic ID outside -1 to {len(sizes) - 1}")
    in_order = np.sort(lists, axis=1)
    bad = np.flatnonzero(((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any(axis=1))
    if len(bad):
        raise ValueError(f"row {bad[0]} lists a semantic ID twice: {lists[bad[0]].tolist()}")
    occupied = np.where(lists >= 0, sizes[lists], 0)
    ties = sizes[targets].astype(np.int64)
    for row, (gone, counts) in enumerate(pairs):
        _shrink(occupied[row], lists[row], gone, counts, sizes, row)
        ties[row] -= counts[gone == targets[row]].sum()
        if ties[row] < 1:
            raise ValueError(f"row {row} excludes every item of its target's semantic ID {targets[row]}")
    hit = lists == targets[:, None]
    found = hit.any(axis=1)
    above = np.cumsum(hit, axis=1) == 0  # True up to, not including, the target; all of the row where it is absent
    ranks = np.where(found, 1 + (occupied * above).sum(axis=1), 0)
    id_ranks = np.where(found, 1 + ((occupied > 0) & above).sum(axis=1), 0)
    return _cut(ranks, ties, id_ranks, max_k)


def id_exclusions(histories: Sequence[np.ndarray], targets: np.ndarray,
                  id_of_item: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """What `rankings_from_lists` excludes: of each user the semantic IDs of its history and how many items in each.

    histories: item numbers (repeats count once); targets: (U,) item numbers, never excluded; id_of_item: (I,).
    """
    pairs = []
    for items, target in zip(histories, targets, strict=True):
        items = np.unique(np.asarray(items, dtype=np.int64))
        pairs.append(np.unique(id_of_item[items[items != target]], return_counts=True))
    return pairs


def score(rankings: Rankings, *, ks: Sequence[int] = KS, id_level: bool = True) -> dict[str, float]:
    """All registered metrics, averaged over users: "recall@10" (items) and "id_recall@10" (semantic IDs).

    ks must not exceed the max_k the rankings were cut to. id_level=False leaves the "id_" keys out.
    Raises: ValueError where there are no users.
    """
    if not len(rankings.ranks):
        raise ValueError("no users to average over")
    result: dict[str, float] = {}
    for name in registry.metrics.names():
        metric = registry.metrics.build({"name": name})
        for k in ks:
            result[f"{name}@{k}"] = float(expected_values(metric, rankings, k).mean(dtype=np.float64))
            if id_level:
                result[f"id_{name}@{k}"] = float(metric.values(rankings.id_ranks, k).mean(dtype=np.float64))
    return result


def _cut(ranks: np.ndarray, ties: np.ndarray, id_ranks: np.ndarray, max_k: int) -> Rankings:
    if max_k < 1:
        raise ValueError(f"max_k must be at least 1, got {max_k}")
    ranks, ties, id_ranks = (np.asarray(a, dtype=np.int64) for a in (ranks, ties, id_ranks))
    return Rankings(np.where(ranks > max_k, 0, ranks), ties, np.where(id_ranks > max_k, 0, id_ranks))


def _shrink(occupied: np.ndarray, listed: np.ndarray, gone: np.ndarray, counts: np.ndarray, sizes: np.ndarray,
            row: int) -> None:
    """Take `counts` items of the IDs `gone` out of one user's row, in place."""
    if len(np.unique(gone)) != len(gone) or len(gone) != len(counts) or (counts > sizes[gone]).any():
        raise ValueError(f"row {row} must exclude distinct semantic IDs, of each at most the items that share it")
    where_listed, which_gone = np.nonzero(listed[:, None] == gone[None, :])
    occupied[where_listed] -= counts[which_gone]


def _check_rows(table: np.ndarray, targets: np.ndarray, exclude: Sequence[np.ndarray] | None, limit: int,
                what: str) -> None:
    if table.ndim != 2 or targets.shape != table.shape[:1]:
        raise ValueError(f"expected a table and one target a row, got shapes {table.shape} and {targets.shape}")
    bad = np.flatnonzero((targets < 0) | (targets >= limit))
    if len(bad):
        raise ValueError(f"row {bad[0]} has target {targets[bad[0]]}, which is no {what} (0 to {limit - 1})")
    if exclude is None:
        return
    if len(exclude) != len(targets):
        raise ValueError(f"expected exclusions for {len(targets)} rows, got {len(exclude)}")
    for row, numbers in enumerate(exclude):
        if len(numbers) and (np.min(numbers) < 0 or np.max(numbers) >= limit):
            raise ValueError(f"row {row} excludes a number that is no {what} (0 to {limit - 1})")
