"""Item-kNN: cosine of items that share users, summed over the history with newer items counting more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import sparse

from baselines._common import flat_histories, settled
from baselines._training_free import TrainingFree
from genrec_bench.contracts import Job, Split
from genrec_bench.core.registry import baselines
from genrec_bench.core.settings import setting
from genrec_bench.evaluate import Ranked, rank_rows

BLOCK = 2**20  # pairs of items whose cosines are computed together


@baselines.register("item_knn")
@dataclass(frozen=True)
class ItemKnn(TrainingFree):
    """Score of candidate c = sum over history items h of decay**age(h) * cosine(h, c); age 0 = newest.

    cosine(h, c) = users with both / sqrt(users with h * users with c), counted once a user over the training
    sequences. Nothing is learned by gradient. Cosine: Deshpande & Karypis 2004 (ACM TOIS 22(1), item-based top-N).
    Differs from the paper: weights decay with age, the history is a sequence; columns are not normalised.
    What is equal on paper is equal here: the rounding of roots and sums decides no tie with the target.
    """

    label: ClassVar[str] = "Item-kNN"
    version: ClassVar[int] = 2  # 2: ties that are equal on paper

    decay: float = setting(0.8, "weight of a history item relative to the one after it", low=0.0, high=1.0)
    neighbours: int = setting(0, "most similar items kept of each history item, 0 = all", low=0)
    shrink: float = setting(0.0, "added to the denominator of the cosine: trusts rare pairs less", low=0.0)

    def parameters(self, fitted: sparse.csr_array) -> int:
        """Similarities that are not 0."""
        return int(fitted.nnz)

    def rank(self, job: Job, fitted: sparse.csr_array, part: str) -> Ranked:
        """Rank the targets of a part ("valid" or "test") under both policies."""
        return rank_rows(lambda rows: self.scores(fitted, job.split, part, rows), getattr(job.split, part),
                         max_k=job.config.evaluation.max_k)

    def fit(self, split: Split) -> sparse.csr_array:
        """(I, I) float64: row = history item, column = candidate."""
        sequences = split.train_sequences
        seen = sparse.csr_array((np.ones(len(sequences.flat)), (sequences.rows, sequences.flat)),
                                shape=(len(sequences), split.num_items))
        seen.data[:] = 1.0  # an item counts once a user
        similarity, count = sparse.csr_array(seen.T) @ seen, seen.sum(axis=0)
        ends, end = similarity.indptr.copy(), 0
        for first, last in _blocks(ends):  # in place: what is kept of a block never needs more room
            block = slice(ends[first], ends[last])
            rows = np.repeat(np.arange(first, last), np.diff(ends[first:last + 1]))
            columns = similarity.indices[block]
            values = self.cosines(similarity.data[block], rows, columns, count)
            kept = columns != rows  # an item's cosine of 1 with itself would put the history on top
            rows, columns, values = rows[kept], columns[kept], values[kept]
            if self.neighbours:
                kept = _nearest(rows, columns, values, self.neighbours)
                rows, columns, values = rows[kept], columns[kept], values[kept]
            similarity.data[end:end + len(rows)], similarity.indices[end:end + len(rows)] = values, columns
            similarity.indptr[first + 1:last + 1] = end + np.searchsorted(rows, np.arange(first + 1, last + 1))
            end += len(rows)
        similarity.prune()
        return similarity

    def cosines(self, together: np.ndarray, rows: np.ndarray, columns: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Of pairs of items: users with both over the root of the product of the users with each."""
        product = count[rows] * count[columns]  # whole numbers, exact: equal ratios have equal roots
        return together / (np.sqrt(product) + self.shrink) if self.shrink else np.sqrt(together**2 / product)

    def scores(self, similarity: sparse.csr_array, split: Split, part: str, rows: np.ndarray) -> sparse.csr_array:
        """(B, I) float64 scores of some rows of a part ("valid" or "test").

        A score that differs from its row's target's by rounding alone is set to it.
        """
        instances = getattr(split, part)
        where, items, age = flat_histories(instances, rows)
        weights = sparse.csr_array((self.decay ** age.astype(np.float64), (where, items)),
                                   shape=(len(rows), split.num_items))
        return settled(weights @ similarity, instances.targets[rows])


def _blocks(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) rows of blocks with about `BLOCK` entries. ends: (rows + 1,) as of a `csr_array`."""
    first = 0
    while first < len(ends) - 1:
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + BLOCK, side="right")) - 1)
        yield first, last
        first = last


def _nearest(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Which entries are the `count` largest of their row, row by row; of equals the item with the smaller number.

    rows: ascending.
    """
    order = np.lexsort((columns, -values, rows))
    return order[np.arange(len(order)) - np.searchsorted(rows, rows) < count]
