"""HR@K."""

from __future__ import annotations

from dataclasses import dataclass

from genrec_bench.core.registry import metrics
from genrec_bench.metrics.recall import Recall


@metrics.register("hr")
@dataclass(frozen=True)
class HitRate(Recall):
    """The hit rate under the name that some papers print; `recall` says why it is the same number here."""
