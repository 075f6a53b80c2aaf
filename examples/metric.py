"""A metric of your own in one file: rank-biased precision."""

from dataclasses import dataclass

import numpy as np

from genrec_bench.core.registry import metrics
from genrec_bench.core.settings import setting
from genrec_bench.metrics.base import Metric


@metrics.register("rbp")
@dataclass(frozen=True)
class RankBiasedPrecision(Metric):
    """The chance that a reader who goes on to the next item with some probability gets to the target."""

    persistence: float = setting(0.8, "probability of going on", low=0.0, high=1.0)

    def gain(self, ranks: np.ndarray) -> np.ndarray:
        return self.persistence ** (ranks - 1.0)
