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
from genrec_bench.core.ragged import Ragged
from genrec_bench.metrics.base import averaged, expected_values

KS = (1, 5, 10, 20)
FIRST_BATCH = 16  # rows that are ranked together at first
BATCH_BYTES = 2**25  # of scores that are held at a time


class Ranked(NamedTuple):
    """Rankings under both policies. kept: among all items; unseen: without the items that the user had before."""

    kept: Rankings
    unseen: Rankings


def rank_rows(scores: Callable[[np.ndarray], np.ndarray | sparse.csr_array], rows: Instances, *, max_k: int,
              batch_size: int = 0) -> Ranked:
    """Rank every row's target under both policies, holding the scores of one batch at a time.

    scores: row numbers (B,) -> larger is better, over the whole catalogue: (B, I), or sparse without repeated entries
    where most are 0, or (I,) where they are the same for all rows. rows: validation or test rows. batch_size: 0 = as
    many rows as have scores of `BATCH_BYTES`. Raises: ValueError as `rankings_from_scores`.
    """
    parts, start, size = [], 0, batch_size or FIRST_BATCH
    while start < len(rows):
        batch = np.arange(start, min(start + size, len(rows)))
        found = scores(batch)
        parts.append(_ranked(found, rows.targets[batch], rows.seen[start:start + len(batch)], max_k))
        start += len(batch)
        held = found.data.nbytes + found.indices.nbytes if sparse.issparse(found) else np.asarray(found).nbytes
        size = batch_size or max(1, min(2 * size, size * BATCH_BYTES // max(held, 1)))
    users = rows.groups
    return Ranked(*(_joined(policy, users) for policy in zip(*parts, strict=True)))


def rankings_from_scores(scores: np.ndarray, targets: np.ndarray, *, max_k: int,
                         seen: Sequence[np.ndarray] | None = None) -> Rankings:
    """Ranks of the targets where every item has a score, larger is better.

    scores: (N, I); targets: (N,) item numbers. seen: item numbers taken out of each row's ranking, repeats count once;
    a target among them is a miss. A rank is 1 + the number of strictly greater scores, ties the number of scores
    equal to the target's with its own; a rank beyond max_k becomes 0. id_ranks count ties against the target
    (its last possible rank), so that equal scores never earn ID-level credit; without ties they equal ranks.
    Raises: ValueError naming the row for NaN, +inf, a target at -inf, or a target or seen item out of range.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2:
        raise ValueError(f"expected a table of scores, got shape {scores.shape}")
    return _ranked(scores, targets, seen or [np.empty(0, dtype=np.int64)] * len(targets), max_k)[seen is not None]


def _ranked(scores: np.ndarray | sparse.csr_array, targets: np.ndarray, seen: Sequence[np.ndarray],
            max_k: int) -> Ranked:
    """Both rankings, by scores of any of the forms that `rank_rows` takes."""
    scores = scores if sparse.issparse(scores) else np.asarray(scores)
    items = scores.shape[-1]
    _check_rows(scores if scores.ndim == 2 else np.broadcast_to(scores, (len(targets), items)), targets, items, "item")
    row, item = row_items(seen, items)
    if scores.ndim == 1:
        own, greater, equal, gone = _count_alike(scores, targets, item)
    else:
        own, greater, equal, gone = _count_rows(scores, targets, row, item)
    lost = np.flatnonzero(np.isneginf(own))
    if len(lost):
        raise ValueError(f"row {lost[0]} has the score -inf for its target, item {targets[lost[0]]}")
    kept = _cut(greater + 1, equal, greater + equal, max_k)
    greater = greater - np.bincount(row[gone > own[row]], minlength=len(targets))
    equal = equal - np.bincount(row[gone == own[row]], minlength=len(targets))
    return Ranked(kept, misses(_cut(greater + 1, equal, greater + equal, max_k), seen, targets))


def _count_alike(scores: np.ndarray, targets: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, ...]:
    """`_count_rows` where all rows have the same (I,) scores."""
    _check_scores(scores[None], scores.max(initial=0)[None])
    ordered, own = np.sort(scores), scores[targets]
    up_to = np.searchsorted(ordered, own, side="right")
    return own, len(scores) - up_to, up_to - np.searchsorted(ordered, own), scores[item]


def _count_rows(scores: np.ndarray | sparse.csr_array, targets: np.ndarray, row: np.ndarray,
                item: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of each row the score of its target, how many are greater and how many equal; and the scores at (row, item).

    row, item: ascending. Row by row, so that a row stays in the processor's caches.
    """
    items, is_sparse = scores.shape[1], sparse.issparse(scores)
    own, top = np.empty(len(targets), scores.dtype), np.empty(len(targets), scores.dtype)
    greater, equal = np.empty(len(targets), np.int64), np.empty(len(targets), np.int64)
    gone, ends = np.empty(len(row), scores.dtype), np.searchsorted(row, np.arange(len(targets) + 1))
    line = np.zeros(items, scores.dtype)  # of a sparse row all items
    for n, target in enumerate(targets):
        if is_sparse:
            entries = slice(scores.indptr[n], scores.indptr[n + 1])
            values, places = scores.data[entries], scores.indices[entries]
            line[places] = values
        else:
            values = line = scores[n]
        own[n], gone[ends[n]:ends[n + 1]] = line[target], line[item[ends[n]:ends[n + 1]]]
        top[n] = values.max(initial=0)
        greater[n], equal[n] = np.count_nonzero(values > own[n]), np.count_nonzero(values == own[n])
        if is_sparse:
            greater[n] += (items - len(values)) * (own[n] < 0)
            equal[n] += (items - len(values)) * (own[n] == 0)
            line[places] = 0
    _check_scores(scores, top)
    return own, greater, equal, gone


def _check_scores(scores: np.ndarray | sparse.csr_array, top: np.ndarray) -> None:
    """Refuse NaN and +inf. top: (N,) the greatest score of each row, NaN where there is one."""
    bad = np.flatnonzero(np.isnan(top) | np.isposinf(top))
    if len(bad):
        line = scores[[bad[0]]].toarray()[0] if sparse.issparse(scores) else scores[bad[0]]
        column = int(np.flatnonzero(np.isnan(line) | np.isposinf(line))[0])
        raise ValueError(f"row {bad[0]} has the score {line[column]} for item {column}; "
                         f"{len(bad)} of {len(top)} rows hold NaN or +inf")


def misses(rankings: Rankings, seen: Sequence[np.ndarray], targets: np.ndarray) -> Rankings:
    """The same with a miss wherever the target is among the items that its user had before."""
    gone = repeated(seen, targets)
    return replace(rankings, ranks=np.where(gone, 0, rankings.ranks), ties=np.where(gone, 1, rankings.ties),
                   id_ranks=np.where(gone, 0, rankings.id_ranks))


def repeated(seen: Sequence[np.ndarray], targets: np.ndarray) -> np.ndarray:
    """(N,) bool, whether a row's target is among the items that its user had before."""
    return Ragged.of(seen).holds(targets)


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
    lists = Ragged.of(lists)
    rows, items = lists.rows, lists.flat
    bad = np.flatnonzero((items < 0) | (items >= limit))
    if len(bad):
        raise ValueError(f"row {rows[bad[0]]} has seen item {items[bad[0]]}, which is no item (0 to {limit - 1})")
    keys = np.sort(rows * limit + items)  # numpy's `unique` hashes, which takes ten times as long
    return np.divmod(keys[np.diff(keys, prepend=-1) > 0], limit)


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
