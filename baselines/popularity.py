"""Popularity: every user gets the most frequent items of the training sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from baselines._training_free import TrainingFree
from genrec_bench.contracts import Job, Split
from genrec_bench.core.registry import baselines
from genrec_bench.evaluate import Ranked, rank_rows


def item_counts(split: Split) -> np.ndarray:
    """(I,) how often each item occurs in what training may see; never-seen items have 0."""
    return np.bincount(split.train_sequences.flat, minlength=split.num_items)


@baselines.register("popularity")
@dataclass(frozen=True)
class Popularity(TrainingFree):
    """Rank items by their number of training interactions. A floor that has read nothing about the user.

    Equal counts are ties: a target in a group of equals gets the expected value over the group's places.
    Differs from the paper: none (no paper).
    """

    label: ClassVar[str] = "Popularity"

    def fit(self, split: Split) -> np.ndarray:
        """(I,) the counts as scores."""
        return item_counts(split).astype(np.float64)

    def parameters(self, fitted: np.ndarray) -> int:
        """One count an item."""
        return len(fitted)

    def rank(self, job: Job, fitted: np.ndarray, part: str) -> Ranked:
        """Rank the targets of a part ("valid" or "test") under both policies."""
        return rank_rows(lambda rows: fitted, getattr(job.split, part), max_k=job.config.evaluation.max_k)
