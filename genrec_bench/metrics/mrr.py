"""MRR@K."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec_bench.core.registry import metrics
from genrec_bench.metrics.base import Metric


@metrics.register("mrr")
@dataclass(frozen=True)
class MRR(Metric):
    """1 / rank within the first k places."""

    def gain(self, ranks: np.ndarray) -> np.ndarray:
        return 1.0 / ranks
