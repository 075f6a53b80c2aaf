"""A baseline of your own in one file: what followed the user's newest item in the training sequences."""

from dataclasses import dataclass

import numpy as np

from genrec_bench.contracts import Baseline, Job, Outcome
from genrec_bench.core.registry import baselines
from genrec_bench.evaluate import rank_rows


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
        seconds, longest = job.meter.seconds(), job.config.evaluation.max_k
        valid, test = (rank_rows(lambda n, rows=rows: counts[rows.newest[n]], rows, max_k=longest)
                       for rows in (job.split.valid, job.split.test))
        return Outcome(valid.kept, test.kept, test.unseen, {"epochs": 0}, {"train_seconds": seconds})
