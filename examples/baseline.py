"""A baseline of your own in one file: what followed the user's newest item in the training sequences."""

from dataclasses import dataclass

import numpy as np

from genrec_bench.contracts import Baseline, Job, Outcome, Rankings
from genrec_bench.core.registry import baselines
from genrec_bench.evaluate import rankings_from_scores


@baselines.register("follows")
@dataclass(frozen=True)
class Follows(Baseline):
    """Score of an item = how often it came right behind the newest item of the history."""

    label = "Follows"
    seeded = False  # nothing is random: one run says it all

    def run(self, job: Job) -> Outcome:
        counts = np.zeros((job.split.num_items, job.split.num_items))
        for items in job.split.train_sequences:
            np.add.at(counts, (items[:-1], items[1:]), 1)
        seconds = job.meter.seconds()
        return Outcome(self._rank(job, counts, "valid"), self._rank(job, counts, "test"), {"epochs": 0},
                       {"train_seconds": seconds})

    def _rank(self, job: Job, counts: np.ndarray, part: str) -> Rankings:
        rows, evaluation = getattr(job.split, part), job.config.evaluation
        newest = rows.items[rows.offsets[1:] - 1]
        return rankings_from_scores(counts[newest], rows.targets, max_k=evaluation.max_k,
                                    exclude=getattr(job.split, part).seen if evaluation.exclude_history else None)
