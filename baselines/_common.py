"""What the baselines share: scoring in batches, the selection value, histories as arrays. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from genrec_bench.contracts import Instances, Rankings
from genrec_bench.evaluate import rankings_from_scores, score


def rank_in_batches(scores: Callable[[np.ndarray], np.ndarray], targets: np.ndarray, *, max_k: int,
                    excluded: Sequence[np.ndarray] | None = None, batch_size: int = 512) -> Rankings:
    """Rank every row's target, holding the scores of one batch at a time.

    scores: row numbers (B,) -> scores (B, I) over the whole catalogue. excluded: one array of items a row.
    """
    parts = []
    for start in range(0, len(targets), batch_size):
        rows = np.arange(start, min(start + batch_size, len(targets)))
        out = None if excluded is None else [excluded[row] for row in rows]
        parts.append(rankings_from_scores(scores(rows), targets[rows], max_k=max_k, exclude=out))
    return Rankings(*(np.concatenate([getattr(part, name) for part in parts])
                      for name in ("ranks", "ties", "id_ranks")))


def selection_value(rankings: Rankings) -> float:
    """Mean NDCG@10, item level: what every method of the suite is selected by."""
    return score(rankings, ks=(10,), id_level=False)["ndcg@10"]


def flat_histories(instances: Instances, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Histories of some rows as (position among `rows`, item, age) triples; age 0 is the newest item."""
    lengths = instances.lengths[rows]
    where = np.repeat(np.arange(len(rows)), lengths)
    age = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum())
    items = instances.items[np.repeat(instances.offsets[rows + 1], lengths) - 1 - age]
    return where, items, age
