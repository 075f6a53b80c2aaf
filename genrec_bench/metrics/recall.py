"""Recall@K."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec_bench.core.registry import metrics
from genrec_bench.metrics.base import Metric


@metrics.register("recall")
@dataclass(frozen=True)
class Recall(Metric):
    """1 where the target is within the first k places. With one target a user this equals the hit rate (HR)."""

    def gain(self, ranks: np.ndarray) -> np.ndarray:
        return np.ones_like(ranks)
