"""NDCG@K."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec_bench.core.registry import metrics
from genrec_bench.metrics.base import Metric


@metrics.register("ndcg")
@dataclass(frozen=True)
class NDCG(Metric):
    """1 / log2(rank + 1) within the first k places; the ideal gain is 1, as there is one target."""

    def gain(self, ranks: np.ndarray) -> np.ndarray:
        return 1.0 / np.log2(ranks + 1.0)
