"""Content-kNN: items whose titles are like those of the user's newest items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from baselines._common import flat_histories, settled
from baselines._training_free import TrainingFree, fields_of, has_texts
from genrec_bench.contracts import Job, Split
from genrec_bench.core.errors import DoesNotFit
from genrec_bench.core.registry import baselines
from genrec_bench.core.settings import setting
from genrec_bench.core.texts import tfidf
from genrec_bench.evaluate import Ranked, rank_rows


@baselines.register("content_knn")
@dataclass(frozen=True)
class ContentKnn(TrainingFree):
    """Score of item b = sum over the user's last n items h of weight**age(h) * cosine(h, b); age 0 = newest.

    cosine: of TF-IDF vectors of words and runs of words, fitted on the texts of the catalogue; no interaction is
    counted. An item without text has an empty vector: cosine 0 with every item. A user's own items, where they are
    ranked, are candidates like all others. What is equal on paper is equal here, and equal scores are ties.
    Differs from the paper: none (no paper).
    """

    label: ClassVar[str] = "Content-kNN"
    reads_texts: ClassVar[bool] = True

    last: int = setting(1, "newest items of the history that are read", low=1)
    weight: float = setting(0.5, "weight of a history item relative to the one after it", low=0.0, high=1.0)
    fields: str = setting("title", "the first line of an item's text, or all of it", choices=("title", "text"))
    ngrams: int = setting(2, "words of the longest run of words that counts as one term", low=1, high=3)
    sublinear: bool = setting(True, "a term that occurs n times in a text counts 1 + log n times")

    def check_fit(self, config: Any, split: Split) -> None:
        """Refuse data without texts. Raises: DoesNotFit."""
        if not has_texts(split.interactions):
            raise DoesNotFit(f"baseline content_knn: dataset {split.interactions.name!r} has no item texts, which it "
                             "compares. Add texts to the dataset, or leave this baseline out of --baselines.")

    def fit(self, split: Split) -> sparse.csr_array:
        """(I, V) float64 TF-IDF vectors of length 1, or 0 for items without text. Raises: DoesNotFit, UserError."""
        self.check_fit(None, split)
        vectors = tfidf(fields_of(split.interactions, self.fields), "baseline content_knn",
                        ngram_range=(1, self.ngrams), sublinear_tf=self.sublinear)
        vectors.sort_indices()  # items of equal texts then have their products summed in one order
        return sparse.csr_array(vectors)

    def parameters(self, fitted: sparse.csr_array) -> int:
        """Weights that are not 0."""
        return int(fitted.nnz)

    def rank(self, job: Job, fitted: sparse.csr_array, part: str) -> Ranked:
        """Rank the targets of a part ("valid" or "test") under both policies."""
        turned = sparse.csr_array(fitted.T)
        return rank_rows(lambda rows: self.scores(fitted, turned, job.split, part, rows), getattr(job.split, part),
                         max_k=job.config.evaluation.max_k)

    def scores(self, vectors: sparse.csr_array, turned: sparse.csr_array, split: Split, part: str,
               rows: np.ndarray) -> sparse.csr_array:
        """(B, I) float64 scores of some rows of a part. turned: the (V, I) transpose of the vectors.

        A score that differs from its row's target's by rounding alone is set to it.
        """
        instances = getattr(split, part)
        where, items, age = flat_histories(instances, rows)
        read = age < self.last
        weights = sparse.csr_array((self.weight ** age[read].astype(np.float64), (where[read], items[read])),
                                   shape=(len(rows), split.num_items))
        return settled((weights @ vectors) @ turned, instances.targets[rows])
