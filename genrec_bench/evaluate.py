"""THE evaluator: from scores or lists to the rank of each user's target, and from ranks to metrics.

Nothing else in the suite decides what a hit is. Ties are honest: a target that shares its score or its semantic
ID with others is worth the expected value over a random order among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import sparse

from genrec_bench.contracts import Instances, Rankings
from genrec_bench.core import registry
from genrec_bench.metrics.base import averaged, expected_values

KS = (1, 5, 10, 20)


class Ranked(NamedTuple):
    """Rankings under both policies. kept: among all items; unseen: without the items that the user had before."""

    kept: Rankings
    unseen: Rankings


def rank_rows(scores: Callable[[np.ndarray], np.ndarray], rows: Instances, *, max_k: int,
              batch_size: int = 512) -> Ranked:
    """Rank every row's target under both policies, holding the scores of one batch at a time.

    scores: row numbers (B,) -> scores (B, I) over the whole catalogue, larger is better. rows: validation or test rows.
    Raises: ValueError as `rankings_from_scores`.
    """
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = np.arange(start, min(start + batch_size, len(rows)))
        seen = [rows.seen[row] for row in batch]
        parts.append(_ranked(scores(batch), rows.targets[batch], seen, max_k))
    return Ranked(*(_joined(policy, rows.groups) for policy in zip(*parts, strict=True)))


def rankings_from_scores(scores: np.ndarray, targets: np.ndarray, *, max_k: int,
                         seen: Sequence[np.ndarray] | None = None) -> Rankings:
    """Ranks of the targets where every item has a score, larger is better.

    scores: (N, I); targets: (N,) item numbers. seen: item numbers taken out of each row's ranking, repeats count once;
    a target among them is a miss. A rank is 1 + the number of strictly greater scores, ties the number of scores
    equal to the target's with its own; a rank beyond max_k becomes 0. id_ranks count ties against the target
    (its last possible rank), so that equal scores never earn ID-level credit; without ties they equal ranks.
    Raises: ValueError naming the row for NaN, +inf, a target at -inf, or a target or seen item out of range.
    """
    return _ranked(scores, targets, seen or [np.empty(0, dtype=np.int64)] * len(targets), max_k)[seen is not None]


def _ranked(scores: np.ndarray, targets: np.ndarray, seen: Sequence[np.ndarray], max_k: int) -> Ranked:
    scores, targets = np.asarray(scores), np.asarray(targets)
    items = scores.shape[1] if scores.ndim == 2 else 0
    _check_rows(scores, targets, items, "item")
    bad = np.flatnonzero(np.isnan(scores).any(axis=1) | np.isposinf(scores).any(axis=1))
    if len(bad):
        column = int(np.flatnonzero(np.isnan(scores[bad[0]]) | np.isposinf(scores[bad[0]]))[0])
        raise ValueError(f"row {bad[0]} has the score {scores[bad[0], column]} for item {column}; "
                         f"{len(bad)} of {len(scores)} rows hold NaN or +inf")
    own = scores[np.arange(len(targets)), targets]
    lost = np.flatnonzero(np.isneginf(own))
    if len(lost):
        raise ValueError(f"row {lost[0]} has the score -inf for its target, item {targets[lost[0]]}")
    greater, equal = (scores > own[:, None]).sum(axis=1), (scores == own[:, None]).sum(axis=1)
    kept = _cut(greater + 1, equal, greater + equal, max_k)
    row, item = row_items(seen, items)
    gone = scores[row, item]
    greater = greater - np.bincount(row[gone > own[row]], minlength=len(targets))
    equal = equal - np.bincount(row[gone == own[row]], minlength=len(targets))
    return Ranked(kept, misses(_cut(greater + 1, equal, greater + equal, max_k), seen, targets))


def misses(rankings: Rankings, seen: Sequence[np.ndarray], targets: np.ndarray) -> Rankings:
    """The same with a miss wherever the target is among the items that its user had before."""
    gone = repeated(seen, targets)
    return replace(rankings, ranks=np.where(gone, 0, rankings.ranks), ties=np.where(gone, 1, rankings.ties),
                   id_ranks=np.where(gone, 0, rankings.id_ranks))


def repeated(seen: Sequence[np.ndarray], targets: np.ndarray) -> np.ndarray:
    """(N,) bool, whether a row's target is among the items that its user had before."""
    return np.array([target in items for items, target in zip(seen, targets, strict=True)], dtype=bool)


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
                        taken: sparse.csr_array | None = None) -> Rankings:
    """Ranks of the targets in ranked lists of distinct semantic IDs, each of which stands for all of its items.

    lists: (N, K) numbers of semantic IDs, best first, -1 = unused; targets: (N,) the number of the target's ID;
    sizes: (S,) items that share each ID. An ID of c items occupies c consecutive ranks in random order: the first
    rank of the target is 1 + the items of the IDs above its own, ties = c, id_ranks counts IDs. taken: (N, S) how many
    items of an ID are not ranked for a row, as `items_by_id` counts them; an ID without items left occupies no rank.
    Ranks beyond max_k become 0. Raises: ValueError naming the row for a repeated ID or a number out of range.
    """
    lists, targets, sizes = np.asarray(lists), np.asarray(targets), np.asarray(sizes)
    _check_rows(lists, targets, len(sizes), "semantic ID")
    if len(sizes) and sizes.min() < 1:
        raise ValueError(f"semantic ID {int(sizes.argmin())} has {sizes.min()} items; an ID belongs to an item")
    bad = np.flatnonzero(((lists < -1) | (lists >= len(sizes))).any(axis=1))
    if len(bad):
        raise ValueError(f"row {bad[0]} lists a semantic ID outside -1 to {len(sizes) - 1}")
    in_order = np.sort(lists, axis=1)
    bad = np.flatnonzero(((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any(axis=1))
    if len(bad):
        raise ValueError(f"row {bad[0]} lists a semantic ID twice: {lists[bad[0]].tolist()}")
    occupied, ties = sizes[lists], sizes[targets].astype(np.int64)
    if taken is not None:
        rows = np.arange(len(lists))
        occupied = occupied - taken[np.repeat(rows, lists.shape[1]), lists.ravel()].reshape(lists.shape)
        ties = np.maximum(ties - taken[rows, targets], 1)
    occupied = np.where(lists >= 0, occupied, 0)
    hit = lists == targets[:, None]
    found = hit.any(axis=1)
    above = np.cumsum(hit, axis=1) == 0  # True up to, not including, the target; all of the row where it is absent
    ranks = np.where(found, 1 + (occupied * above).sum(axis=1), 0)
    id_ranks = np.where(found, 1 + ((occupied > 0) & above).sum(axis=1), 0)
    return _cut(ranks, ties, id_ranks, max_k)


def items_by_id(seen: Sequence[np.ndarray], id_of_item: np.ndarray, num_ids: int) -> sparse.csr_array:
    """(N, S) how many different items of each semantic ID a row's user had before. id_of_item: (I,)."""
    rows, items = row_items(seen, len(id_of_item))
    return sparse.csr_array((np.ones(len(rows), dtype=np.int64), (rows, id_of_item[items])), shape=(len(seen), num_ids))


def row_items(lists: Sequence[np.ndarray], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and item of every different entry. Raises: ValueError naming the row for an item out of range."""
    rows = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    items = np.concatenate([np.empty(0, dtype=np.int64), *lists])
    bad = np.flatnonzero((items < 0) | (items >= limit))
    if len(bad):
        raise ValueError(f"row {rows[bad[0]]} has seen item {items[bad[0]]}, which is no item (0 to {limit - 1})")
    return np.divmod(np.unique(rows * limit + items), limit)


def score(rankings: Rankings, *, ks: Sequence[int] = KS, id_level: bool = True) -> dict[str, float]:
    """All registered metrics, averaged over users: "recall@10" (items) and "id_recall@10" (semantic IDs).

    Of a user with several rows the mean over them counts. ks must not exceed the max_k the rankings were cut to.
    id_level=False leaves the "id_" keys out. Raises: ValueError where there are no users.
    """
    if not len(rankings.ranks):
        raise ValueError("no users to average over")
    result: dict[str, float] = {}
    for name in registry.metrics.names():
        metric = registry.metrics.build({"name": name})
        for k in ks:
            result[f"{name}@{k}"] = float(expected_values(metric, rankings, k).mean(dtype=np.float64))
            if id_level:
                values = averaged(metric.values(rankings.id_ranks, k), rankings.users)
                result[f"id_{name}@{k}"] = float(values.mean(dtype=np.float64))
    return result


def _cut(ranks: np.ndarray, ties: np.ndarray, id_ranks: np.ndarray, max_k: int) -> Rankings:
    if max_k < 1:
        raise ValueError(f"max_k must be at least 1, got {max_k}")
    ranks, ties, id_ranks = (np.asarray(a, dtype=np.int64) for a in (ranks, ties, id_ranks))
    return Rankings(np.where(ranks > max_k, 0, ranks), ties, np.where(id_ranks > max_k, 0, id_ranks))


def _joined(parts: Sequence[Rankings], users: np.ndarray | None) -> Rankings:
    arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ranks", "ties", "id_ranks"))
    return Rankings(*arrays, users)


def _check_rows(table: np.ndarray, targets: np.ndarray, limit: int, what: str) -> None:
    if table.ndim != 2 or targets.shape != table.shape[:1]:
        raise ValueError(f"expected a table and one target a row, got shapes {table.shape} and {targets.shape}")
    bad = np.flatnonzero((targets < 0) | (targets >= limit))
    if len(bad):
        raise ValueError(f"row {bad[0]} has target {targets[bad[0]]}, which is no {what} (0 to {limit - 1})")
