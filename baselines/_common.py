"""What the baselines share: the selection value, histories as arrays. No torch."""

from __future__ import annotations

import numpy as np

from genrec_bench.contracts import Instances, Rankings
from genrec_bench.evaluate import score

# Of the target's score: what scores may differ by that are equal on paper. A sum of n cosines is off by some n * 1e-16;
# scores that differ on paper hardly ever come so near.
ROUNDING = 1e-12


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
