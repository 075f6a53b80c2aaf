"""What the baselines share: the selection value, histories as arrays. No torch."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from genrec_bench.contracts import Instances, Rankings
from genrec_bench.evaluate import score

# Of the target's score: what scores may differ by that are equal on paper. A sum of n cosines is off by some n * 1e-16;
# scores that differ on paper hardly ever come so near.
ROUNDING = 1e-12


def selection_value(rankings: Rankings) -> float:
    """Mean NDCG@10, item level: what every method of the suite is selected by."""
    return score(rankings, ks=(10,), id_level=False)["ndcg@10"]


def settled(scores: sparse.csr_array, targets: np.ndarray) -> sparse.csr_array:
    """(B, I) scores, none negative, where what differs from the row's target's by rounding alone is set to it."""
    ends = scores.indptr.tolist()
    for row, target in enumerate(targets):  # row by row, so that a row stays in the processor's caches
        entries = slice(ends[row], ends[row + 1])
        values = scores.data[entries]
        own = values[scores.indices[entries] == target]
        if len(own):
            values[np.abs(values - own) <= ROUNDING * own] = own[0]
    return scores


def flat_histories(instances: Instances, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Histories of some rows as (position among `rows`, item, age) triples; age 0 is the newest item."""
    histories = instances.histories[rows]
    lengths = histories.lengths
    return histories.rows, histories.flat, np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum())
