"""Many methods at once: means with intervals, and between which two of them no difference is detected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from genrec_bench.analysis.classical import LEVEL, ROUNDING
from genrec_bench.analysis.draws import flipped, resampled
from genrec_bench.analysis.pruning import Estimate, wilson
from genrec_bench.analysis.significance import holm, told_apart
from genrec_bench.core.seeds import stream_seed

NUM_PERMUTATIONS = 4_999  # the smallest p is 0.0002, which Holm over 91 pairs of 14 methods makes 0.0182
NUM_RESAMPLES = 1_000


@dataclass(frozen=True, eq=False)
class AllPairs:
    """Methods in the order given. means: with their intervals. p_holm: (M, M), corrected over all pairs, 1 on the
    diagonal. apart: (M, M) bool, whether a difference is detected: p_holm at most 5% and the interval of the
    difference leaves 0 out."""

    means: tuple[Estimate, ...]
    p_holm: np.ndarray
    apart: np.ndarray

    def together(self) -> list[tuple[int, ...]]:
        """The largest sets of at least two methods of which no two are apart, by their members."""
        return sorted(c for c in _cliques(~self.apart, (), set(range(len(self.means))), set()) if len(c) > 1)


def all_pairs(values: Sequence[np.ndarray], *, num_permutations: int = NUM_PERMUTATIONS,
              num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> AllPairs:
    """Compare every two of some methods by values of the same users at the same seeds.

    values: a (seeds, users) array a method, one row where it is not seeded. The tests are those of `compare_values`,
    sign flips of the users' seed-averaged differences and intervals over seeds and users; all pairs share their draws,
    which makes hundreds of pairs cheap. The order of users changes no number.
    Raises: ValueError for fewer than two methods, other users, or other numbers of seeds.
    """
    if len(values) < 2:
        raise ValueError(f"at least two methods are needed to compare any, got {len(values)}")
    whole, users, owners = _joined(values)
    pairs = list(combinations(range(len(values)), 2))
    averaged = np.stack([whole[owner].mean(axis=0) for owner in owners])
    p_holm = holm(_sign_flips(averaged, pairs, num_permutations, seed))
    drawn = resampled(whole, users, owners, num_resamples, _resampling(seed))
    matrix, apart = np.ones((len(values), len(values))), np.zeros((len(values), len(values)), dtype=bool)
    for (i, j), p in zip(pairs, p_holm, strict=True):
        matrix[i, j] = matrix[j, i] = p
        apart[i, j] = apart[j, i] = told_apart(p, *_middle(drawn[:, i] - drawn[:, j]))
    return AllPairs(tuple(_estimate(whole[owner], users, drawn[:, m]) for m, owner in enumerate(owners)), matrix, apart)


def mean_interval(values: np.ndarray, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of (seeds, users) values between 0 and 1, with its interval over resampled seeds and users.

    Where all values are 0 no resample holds anything else; the upper end is then Wilson's for a share of none of the
    users, which bounds a mean of values up to 1. Raises: ValueError for another shape or no users.
    """
    whole, users, owners = _joined([values])
    return _estimate(whole, users, resampled(whole, users, owners, num_resamples, _resampling(seed))[:, 0])


def against(values: Sequence[np.ndarray], references: Sequence[int], *, num_resamples: int = NUM_RESAMPLES,
            seed: int = 0) -> list[tuple[Estimate, Estimate | None]]:
    """Of each method its mean and its difference from another one, with intervals over resampled seeds and users.

    values: as for `all_pairs`; references: the position of what each is measured by. All share their draws. The
    difference is None from itself, and where neither has a value above 0. Raises: ValueError, see `all_pairs`.
    """
    whole, users, owners = _joined(values)
    drawn = resampled(whole, users, owners, num_resamples, _resampling(seed))
    means = [_estimate(whole[owner], users, drawn[:, m]) for m, owner in enumerate(owners)]
    found = []
    for m, r in enumerate(references):
        told = m != r and (whole[owners[m]].any() or whole[owners[r]].any())
        found.append((means[m], Estimate(means[m].value - means[r].value, *_middle(drawn[:, m] - drawn[:, r]), users)
                      if told else None))
    return found


def _joined(values: Sequence[np.ndarray]) -> tuple[np.ndarray, int, list[slice]]:
    """All methods' rows below each other for the users that have any value, in an order that depends on the values
    alone; the number of all users; and which rows are whose."""
    arrays = [np.asarray(v, dtype=np.float64) for v in values]
    for array in arrays:
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"values must be (seeds, users) with at least one of each, got shape {array.shape}")
    if len({a.shape[1] for a in arrays}) > 1 or len({len(a) for a in arrays} - {1}) > 1:
        raise ValueError(f"methods must have the same users and seeds, got {[a.shape for a in arrays]}")
    edges = np.cumsum([0, *map(len, arrays)])
    whole = np.concatenate(arrays)
    kept = whole[:, whole.any(axis=0)]
    return (kept[:, np.lexsort(kept)], whole.shape[1],
            [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)])


def _sign_flips(averaged: np.ndarray, pairs: Sequence[tuple[int, int]], num: int, seed: int) -> list[float]:
    """Two-sided p-value of each pair of (methods, users) rows; one sum a method is enough for all pairs."""
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    totals = averaged.sum(axis=1)
    seen = np.abs(totals[first] - totals[second]) - ROUNDING * max(1.0, float(np.abs(averaged).sum()))
    hits = np.zeros(len(pairs), dtype=np.int64)
    for sums in flipped(averaged, num, np.random.default_rng(stream_seed(seed, "sign flips"))):
        hits += (np.abs(sums[:, first] - sums[:, second]) >= seen).sum(axis=0)
    return [(1 + int(h)) / (1 + num) for h in hits]


def _resampling(seed: int) -> np.random.Generator:
    return np.random.default_rng(stream_seed(seed, "resamples"))


def _estimate(rows: np.ndarray, users: int, drawn: np.ndarray) -> Estimate:
    low, high = _middle(drawn) if rows.any() else wilson(0, users)
    return Estimate(math.fsum(rows.ravel()) / (len(rows) * users), low, high, users)


def _middle(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _cliques(joined: np.ndarray, chosen: tuple[int, ...], open_: set[int], done: set[int]) -> Iterator[tuple[int, ...]]:
    """Every largest set of nodes that are all joined (Bron and Kerbosch 1973)."""
    if not open_ and not done:
        yield tuple(sorted(chosen))
    for node in sorted(open_):
        near = {other for other in range(len(joined)) if joined[node, other] and other != node}
        yield from _cliques(joined, (*chosen, node), open_ & near, done & near)
        open_, done = open_ - {node}, done | {node}
