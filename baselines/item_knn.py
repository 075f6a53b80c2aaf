"""Item-kNN: cosine of items that share users, summed over the history with newer items counting more."""

from __future__ import annotations

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
        users = np.repeat(np.arange(len(sequences)), [len(s) for s in sequences])
        seen = sparse.csr_array((np.ones(len(users)), (users, np.concatenate(sequences))),
                                shape=(len(sequences), split.num_items))
        seen.data[:] = 1.0  # an item counts once a user
        together = (seen.T @ seen).tocoo()
        count = seen.sum(axis=0)
        rows, columns = together.coords
        product = count[rows] * count[columns]  # whole numbers, exact: equal ratios have equal roots
        values = (together.data / (np.sqrt(product) + self.shrink) if self.shrink
                  else np.sqrt(together.data**2 / product))
        others = rows != columns  # an item's cosine of 1 with itself would put the history on top
        similarity = sparse.csr_array((values[others], (rows[others], columns[others])), shape=together.shape)
        similarity.sort_indices()
        return _nearest(similarity, self.neighbours) if self.neighbours else similarity

    def scores(self, similarity: sparse.csr_array, split: Split, part: str, rows: np.ndarray) -> sparse.csr_array:
        """(B, I) float64 scores of some rows of a part ("valid" or "test").

        A score that differs from its row's target's by rounding alone is set to it.
        """
        instances = getattr(split, part)
        where, items, age = flat_histories(instances, rows)
        weights = sparse.csr_array((self.decay ** age.astype(np.float64), (where, items)),
                                   shape=(len(rows), split.num_items))
        return settled(weights @ similarity, instances.targets[rows])


def _nearest(similarity: sparse.csr_array, count: int) -> sparse.csr_array:
    """Keep the `count` largest of each row; of equals the item with the smaller number."""
    rows = np.repeat(np.arange(similarity.shape[0]), np.diff(similarity.indptr))
    order = np.lexsort((similarity.indices, -similarity.data, rows))
    rank = np.arange(len(order)) - similarity.indptr[rows[order]]
    keep = order[rank < count]
    return sparse.csr_array((similarity.data[keep], (rows[keep], similarity.indices[keep])), shape=similarity.shape)
