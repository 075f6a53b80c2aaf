"""Popularity: every user gets the most frequent items of the training sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genrec_bench.contracts import Baseline, Job, Outcome, Split
from genrec_bench.core.registry import baselines
from genrec_bench.evaluate import rank_rows


def item_counts(split: Split) -> np.ndarray:
    """(I,) how often each item occurs in what training may see; never-seen items have 0."""
    return np.bincount(np.concatenate(split.train_sequences), minlength=split.num_items)


@baselines.register("popularity")
@dataclass(frozen=True)
class Popularity(Baseline):
    """Rank items by their number of training interactions. A floor that has read nothing about the user.

    Equal counts are ties: a target in a group of equals gets the expected value over the group's places.
    Differs from the paper: none (no paper).
    """

    label: ClassVar[str] = "Popularity"
    seeded: ClassVar[bool] = False

    def run(self, job: Job) -> Outcome:
        """Count, then rank the validation and test targets."""
        started = job.meter.seconds()
        counts = item_counts(job.split)
        train_seconds = job.meter.seconds() - started
        started = job.meter.seconds()
        scores, longest = counts.astype(np.float64), job.config.evaluation.max_k
        valid, test = (rank_rows(lambda rows: np.tile(scores, (len(rows), 1)), part, max_k=longest)
                       for part in (job.split.valid, job.split.test))
        seconds = job.meter.seconds() - started
        job.progress.step(1, 1, "counted")
        users = len(job.split.valid) + len(job.split.test)
        return Outcome(valid.kept, *test, {"epochs": 0, "best_epoch": 0, "curve": [], "parameters": job.split.num_items,
                                     "stopped": "no training"},
                       {"train_seconds": train_seconds, "decode_users_per_second": users / seconds})
