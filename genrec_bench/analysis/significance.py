"""Is one method better than another: test, interval and effect size over users and seeds, from stored ranks alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from genrec_bench.analysis.classical import (
    LEVEL,
    ROUNDING,
    McNemar,
    TTest,
    effect_size,
    mcnemar,
    paired_t,
    standard_deviation,
)
from genrec_bench.analysis.draws import flipped, resampled
from genrec_bench.core import registry
from genrec_bench.core.seeds import stream_seed
from genrec_bench.metrics.base import averaged

ALPHA = 0.05
NUM_PERMUTATIONS = NUM_RESAMPLES = 10_000
DETECTABLE = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)  # in standard errors: 80% power, two-sided 5%


@dataclass(frozen=True)
class Comparison:
    """What the data say about a minus b, in the metric's unit.

    difference: mean over seeds and users. p_value: two-sided, sign flips over users. interval: 95%, over seeds and
    users (over users alone where there is one seed). d_z: mean over standard deviation of the users' seed-averaged
    differences (Cohen); infinite where they are all equal and not 0. minimum_detectable: the true difference that a
    two-sided 5% test over these users finds in 80% of cases. Both are NaN for one user.

    Beside the verdict: paired_t over the seeds' means, None for one seed. mcnemar: one test a seed of hits within the
    first k places, empty where values were compared instead of ranks.
    """

    difference: float
    p_value: float
    interval: tuple[float, float]
    d_z: float
    n_users: int
    n_seeds: int
    minimum_detectable: float
    mean_a: float
    mean_b: float
    paired_t: TTest | None = None
    mcnemar: tuple[McNemar, ...] = ()


def compare_ranks(a: np.ndarray, b: np.ndarray, *, metric: str, k: int, num_permutations: int = NUM_PERMUTATIONS,
                  seed: int = 0, num_resamples: int = NUM_RESAMPLES, groups: np.ndarray | None = None) -> Comparison:
    """Compare two methods by the ranks of the same users' targets at the same seeds.

    a, b: (seeds, rows) integers, 1-based, 0 = not in the list. metric: a registered name (recall, ndcg, mrr, ...).
    groups: (rows,) the user of each row, where one has several: the metric is averaged over a user's rows first, and
    users are what is tested and resampled, and McNemar's test asks who has a hit in any row; None = every row is a
    user's.
    Raises: UserError for an unknown metric; ValueError for other shapes, no users, or ranks that are not integers.
    """
    a, b = _checked(a, "a"), _checked(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"a and b must hold the same seeds and users, got shapes {a.shape} and {b.shape}")
    values = registry.metrics.build({"name": metric}).values
    if groups is not None and np.shape(groups) != a.shape[1:]:
        raise ValueError(f"groups must name the user of each of {a.shape[1]} rows, got shape {np.shape(groups)}")
    ours, theirs = (averaged(values(ranks, k), groups) for ranks in (a, b))
    comparison = compare_values(ours, theirs, num_permutations=num_permutations, seed=seed, num_resamples=num_resamples)
    hits_a, hits_b = (averaged((ranks >= 1) & (ranks <= k), groups) > 0 for ranks in (a, b))
    return replace(comparison, mcnemar=tuple(map(mcnemar, hits_a, hits_b)))


def compare_values(a: np.ndarray, b: np.ndarray, *, num_permutations: int = NUM_PERMUTATIONS, seed: int = 0,
                   num_resamples: int = NUM_RESAMPLES) -> Comparison:
    """Compare two methods by a value a user, so that expected values over ties can be used.

    a, b: (seeds, users), the same users and seeds in the same order. b may have one row where it is not seeded: it
    is then compared with every seed of a. The order of users changes no number; swapping a and b leaves the p-value.

    The test flips the signs of the users' seed-averaged differences: p = (1 + hits) / (1 + num_permutations). The
    interval holds the middle 95% of means over resampled seeds and one draw of users that all seeds share.
    Raises: ValueError for other shapes, no users, values that are not finite, or fewer than one draw.
    """
    a, b = _checked(a, "a").astype(np.float64), _checked(b, "b").astype(np.float64)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} users and b {b.shape[1]}; a paired comparison needs the same ones")
    if len(b) not in (1, len(a)):
        raise ValueError(f"a has {len(a)} seeds and b {len(b)}; b may have the same ones, or one where it has no seed")
    if num_permutations < 1 or num_resamples < 1:
        raise ValueError(f"at least one draw is needed, got {num_permutations} permutations, {num_resamples} resamples")
    seeds, users = a.shape
    differences = a - b
    different = differences[:, differences.any(axis=0)]  # most users are hit by neither method
    different = different[:, np.lexsort(different)]  # an order of users that depends on the values alone
    per_user = np.zeros(users)
    per_user[:different.shape[1]] = different.mean(axis=0)
    difference = math.fsum(different.ravel()) / a.size
    deviation = standard_deviation(per_user, float(np.abs(per_user).max()))
    drawn = resampled(different, users, [slice(0, seeds)], num_resamples,
                      np.random.default_rng(stream_seed(seed, "resamples")))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    means_a, means_b = _seed_means(a), _seed_means(b)
    return Comparison(
        difference, _sign_flips(per_user, num_permutations, np.random.default_rng(stream_seed(seed, "sign flips"))),
        (float(low), float(high)), effect_size(difference, deviation), users, seeds,
        DETECTABLE * deviation / math.sqrt(users), math.fsum(means_a) / seeds, math.fsum(means_b) / len(b),
        paired_t(means_a, np.broadcast_to(means_b, seeds)))


def verdict(comparison: Comparison, p_holm: float) -> str | None:
    """"better" or "worse" where the corrected p is at most ALPHA and the interval leaves 0 out, else None.

    Test and interval have to agree: the test asks about other users, the interval about other seeds too.
    """
    if not told_apart(p_holm, *comparison.interval):
        return None
    return "better" if comparison.difference > 0 else "worse"


def told_apart(p: Any, low: Any, high: Any) -> Any:
    """Whether p is at most ALPHA and the interval leaves 0 out, of numbers or of arrays of them."""
    return (p <= ALPHA) & ((low > 0.0) | (high < 0.0))


def detectable(comparison: Comparison, num_tests: int = 1) -> float:
    """The true difference that gets a verdict in about 80% of cases, by the normal approximation.

    num_tests: comparisons that are corrected together, of which this one counts as the first (Bonferroni, Holm's first
    step). Larger than `minimum_detectable`, which is of one uncorrected test over users: a verdict also needs an
    interval over seeds and users that leaves 0 out. NaN for one user. Raises: ValueError for no test.
    """
    if num_tests < 1:
        raise ValueError(f"at least one test is needed, got {num_tests}")
    error = comparison.minimum_detectable / DETECTABLE
    low, high = comparison.interval
    corrected = NormalDist().inv_cdf(1 - ALPHA / (2 * num_tests)) * error
    return max(corrected, (high - low) / 2) + NormalDist().inv_cdf(0.8) * error


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of one family, in the order given and at most 1.

    The j-th smallest of n is multiplied by n - j + 1 and never less than the one before it.
    Raises: ValueError for a value outside 0 to 1.
    """
    values = [float(p) for p in p_values]
    wrong = [p for p in values if not 0.0 <= p <= 1.0]
    if wrong:
        raise ValueError(f"p-values lie between 0 and 1, got {wrong[0]}")
    adjusted, largest = [0.0] * len(values), 0.0
    for place, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - place) * values[i]))
        adjusted[i] = largest
    return adjusted


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{name} must be a (seeds, users) array with at least one of each, got shape {values.shape}")
    if not np.isfinite(values).all():
        seed, user = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{name} has the value {values[seed, user]} at row {seed}, user {user}")
    return values


def _seed_means(values: np.ndarray) -> np.ndarray:
    """(seeds,) means that do not depend on the order of users, not even in the last bit."""
    return np.array([math.fsum(row[row != 0.0]) / len(row) for row in values])


def _sign_flips(per_user: np.ndarray, num: int, random: np.random.Generator) -> float:
    """Two-sided p-value: how often random signs give a mean as far from 0 as the one seen."""
    sizes = np.sort(np.abs(per_user[per_user != 0.0]))  # whatever the signs were, and users without a difference
    seen = abs(per_user.sum()) - ROUNDING * sizes.sum()
    hits = sum(int((np.abs(sums) >= seen).sum()) for sums in flipped(sizes[None], num, random))
    return (1 + hits) / (1 + num)
