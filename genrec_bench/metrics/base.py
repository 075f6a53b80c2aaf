"""What a metric is: a function of the target's rank, nothing else, so that a new one applies to stored ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genrec_bench.contracts import Rankings
from genrec_bench.core import registry


@dataclass(frozen=True)
class Metric:
    """A value a user from the 1-based rank of the one target, 0 where the target is not in the list.

    increasing: larger is better. value_range: smallest and largest possible value. A subclass defines `gain`,
    the value of a target that is within the first k places.
    """

    increasing: ClassVar[bool] = True
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def gain(self, ranks: np.ndarray) -> np.ndarray:
        """Values of targets at ranks (1-based, float64, any shape) that are known to be within the list."""
        raise NotImplementedError

    def values(self, ranks: np.ndarray, k: int) -> np.ndarray:
        """Values at list length k: `ranks` are 1-based integers of any shape, 0 = not in the list; float64 out.

        Raises: ValueError for k below 1, ranks below 0 or ranks that are not integers.
        """
        ranks = np.asarray(ranks)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if not np.issubdtype(ranks.dtype, np.integer):
            raise ValueError(f"ranks must be integers, got {ranks.dtype}")
        if ranks.size and ranks.min() < 0:
            raise ValueError(f"ranks must be at least 0 (0 = not in the list), got {ranks.min()}")
        hit = (ranks >= 1) & (ranks <= k)
        # Ranks outside the list are replaced by 1 before `gain`, so that no metric has to guard against 0.
        return np.where(hit, self.gain(np.where(hit, ranks, 1).astype(np.float64)), 0.0)


def averaged(values: np.ndarray, users: np.ndarray | None) -> np.ndarray:
    """(..., N) values of rows -> (..., U), the mean of each user's rows, users ascending.

    users: (N,) the user of each row; None = every row is a user's.
    """
    if users is None:
        return values
    _, row_of, count = np.unique(users, return_inverse=True, return_counts=True)
    total = np.zeros((*values.shape[:-1], len(count)))
    np.add.at(total, (..., row_of), values)
    return total / count


def expected_values(metric: Metric | str, rankings: Rankings, k: int) -> np.ndarray:
    """(U,) item-level values of users: the mean over each user's rows of `row_values`."""
    return averaged(row_values(metric, rankings, k), rankings.users)


def row_values(metric: Metric | str, rankings: Rankings, k: int) -> np.ndarray:
    """(N,) item-level values of rows: the mean of the metric over the ranks the target's group of equals occupies.

    metric: one, or a registered name. A place beyond k counts 0. k must not exceed the max_k the rankings were cut to.
    """
    if isinstance(metric, str):
        metric = registry.metrics.build({"name": metric})
    first, ties = rankings.ranks.astype(np.int64), rankings.ties.astype(np.int64)
    alone = metric.values(first, k)
    # A metric depends on the place alone, so that the sum over a group is a difference of two running sums.
    running = np.concatenate([[0.0], np.cumsum(metric.values(np.arange(1, k + 1), k))])
    group = running[np.minimum(first + ties - 1, k).clip(0)] - running[np.minimum(first - 1, k).clip(0)]
    return np.where((first > 0) & (ties > 1), group / np.maximum(ties, 1), alone)
