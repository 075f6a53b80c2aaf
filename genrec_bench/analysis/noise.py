"""What chance alone does, and what users and seeds can show: A/A comparisons, simulated nulls, parts of the variance.

Two methods are told apart by the difference of their means. One method under other seeds gives differences too (A/A),
and these are noise: a difference of their size says nothing. How large a true difference has to be to be found follows
from the parts of the variance of the users' differences, of which more seeds remove some and not others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec_bench.analysis.classical import LEVEL, ROUNDING, standard_deviation
from genrec_bench.analysis.draws import flipped, resampled
from genrec_bench.analysis.significance import ALPHA, DETECTABLE, compare_values, told_apart, verdict
from genrec_bench.core.seeds import stream_seed

MIN_SEEDS = 4  # two halves of two seeds: one seed a half would say nothing of how seeds differ
MOST_SPLITS = 126  # all those of ten seeds
SPLIT_DRAWS = 999  # permutations and resamples of an A/A comparison
STUDIES, STUDY_DRAWS = 400, 399


@dataclass(frozen=True)
class SelfComparison:
    """One method against itself: its seeds in two groups of `size`, compared like two methods, split after split.

    mean, seed_sd: of the seeds' means. differences: one a split, in the metric's unit; which group comes first is
    arbitrary, so that their signs say nothing. verdicts: how many splits got one, each of which is an error. Splits
    share seeds: their share is no error rate, see `simulated_nulls`.
    """

    mean: float
    seed_sd: float
    n_seeds: int
    size: int
    differences: tuple[float, ...]
    verdicts: int

    @property
    def sd(self) -> float:
        """Root mean square of the differences, whose true mean is 0. Over all splits it is `floor(size)`, exactly."""
        return math.sqrt(math.fsum(d * d for d in self.differences) / len(self.differences))

    @property
    def middle(self) -> float:
        """What 95% of the differences are at most away from 0."""
        return float(np.quantile(np.abs(self.differences), LEVEL))

    @property
    def largest(self) -> float:
        """The largest difference, without its sign."""
        return max(map(abs, self.differences))

    def floor(self, seeds: int) -> float:
        """Noise floor: standard deviation of the difference of two equal methods with so many seeds each.

        seed_sd * sqrt(2 / seeds): each mean over seeds has the variance seed_sd² / seeds, and the two are independent.
        """
        return self.seed_sd * math.sqrt(2.0 / seeds)

    def half_width(self, seeds: int) -> float:
        """What 95% of such differences are at most away from 0: Student's t of n_seeds - 1 degrees, times the floor."""
        from scipy.special import stdtrit  # takes longer to import than all else here

        return float(stdtrit(self.n_seeds - 1, (1 + LEVEL) / 2)) * self.floor(seeds)


def self_comparison(values: np.ndarray, *, most: int = MOST_SPLITS, num: int = SPLIT_DRAWS) -> SelfComparison:
    """Compare a method with itself over the splits of its seeds, each by `compare_values` and the rule of verdicts.

    values: (seeds, users). most: splits, see `splits`. num: permutations and resamples of each comparison.
    Raises: ValueError for fewer than MIN_SEEDS seeds, and as `compare_values`.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < MIN_SEEDS:
        raise ValueError(f"values must be (seeds, users) of at least {MIN_SEEDS} seeds, got shape {values.shape}")
    halves = splits(len(values), most)
    found = [compare_values(values[first], values[second], num_permutations=num, num_resamples=num)
             for first, second in halves]
    means = values.mean(axis=1)
    return SelfComparison(float(means.mean()), standard_deviation(means, float(np.abs(means).max())), len(values),
                          len(halves[0][0]), tuple(c.difference for c in found),
                          sum(verdict(c, c.p_value) is not None for c in found))


def splits(seeds: int, most: int = MOST_SPLITS) -> list[tuple[list[int], list[int]]]:
    """The ways to take two groups of floor(seeds / 2) of some seeds, each in order; an odd number leaves one out.

    Which group is the first is no difference. Of more than `most` ways as many are taken, at equal steps of one fixed
    order. Raises: ValueError for fewer than two seeds.
    """
    if seeds < 2:
        raise ValueError(f"one seed cannot be split in two, got {seeds}")
    size = seeds // 2
    ways = math.comb(2 * size - 1, size - 1)  # to choose what is with the first of those that are split
    total = ways * (seeds if seeds % 2 else 1)
    count = min(most, total)
    return [_split(seeds, size, *divmod(place * total // count, ways)) for place in range(count)]


def _split(seeds: int, size: int, left_out: int, place: int) -> tuple[list[int], list[int]]:
    kept = [seed for seed in range(seeds) if seeds % 2 == 0 or seed != left_out]
    first = [kept[0], *(kept[1 + i] for i in _combination(place, 2 * size - 1, size - 1))]
    return first, [seed for seed in kept if seed not in first]


def _combination(place: int, n: int, k: int) -> list[int]:
    """Which k of n numbers stand at a place of the order of all such choices, without listing them."""
    chosen: list[int] = []
    for number in range(n):
        having = math.comb(n - number - 1, k - len(chosen) - 1) if len(chosen) < k else 0
        if place < having:
            chosen.append(number)
        else:
            place -= having
    return chosen


@dataclass(frozen=True)
class Nulls:
    """Simulated studies of no difference. significant: those with p at most ALPHA; verdicts: those with a verdict."""

    studies: int
    significant: int
    verdicts: int

    def share(self, count: int) -> tuple[float, float]:
        """A count as a share of the studies, with its binomial standard error."""
        share = count / self.studies
        return share, math.sqrt(share * (1 - share) / self.studies)


def simulated_nulls(values: np.ndarray, *, studies: int = STUDIES, num: int = STUDY_DRAWS, seed: int = 0) -> Nulls:
    """How often the rule of verdicts finds a difference where there is none, with the noise of one method's runs.

    values: (seeds, users) of one method. Each study takes a split of the seeds, the splits in turn, and swaps for every
    user and every pair of seeds the labels of the halves with probability 1/2, so that neither is better; nor does any
    part remain by which a whole seed moves all users. num: permutations and resamples of each study.
    Raises: ValueError for fewer than two seeds.
    """
    p, interval = study_results(swapped(values, studies, seed), np.shape(values)[1], num, seed)
    return Nulls(studies, int((p <= ALPHA).sum()), int(told_apart(p, *interval).sum()))


def swapped(values: np.ndarray, studies: int, seed: int = 0) -> np.ndarray:
    """(studies, pairs of seeds, m) differences of `simulated_nulls`, of the m users whose value depends on the seed."""
    values = np.asarray(values, dtype=np.float64)
    moved = values[:, (values != values[0]).any(axis=0)]
    halves = [moved[first] - moved[second] for first, second in splits(len(values), studies)]
    drawn = np.stack([halves[study % len(halves)] for study in range(studies)])
    signs = np.random.default_rng(stream_seed(seed, "nulls")).integers(2, size=drawn.shape, dtype=np.int8)
    return drawn * (2 * signs - 1)


def study_results(differences: np.ndarray, users: int, num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(studies,) p-values and (2, studies) ends of intervals of many studies at once, the tests of `compare_values`.

    differences: (studies, seeds, m) of the m of all `users` that have any. All studies share their draws; their signs
    differ, so that one's result says nothing of another's.
    """
    studies, seeds, m = differences.shape
    means = differences.mean(axis=1)
    seen = np.abs(means.sum(axis=1)) - ROUNDING * np.abs(means).sum(axis=1)
    hits = sum((np.abs(sums) >= seen).sum(axis=0)
               for sums in flipped(means, num, np.random.default_rng(stream_seed(seed, "sign flips"))))
    owners = [slice(place, place + seeds) for place in range(0, studies * seeds, seeds)]
    drawn = resampled(differences.reshape(studies * seeds, m), users, owners, num,
                      np.random.default_rng(stream_seed(seed, "resamples")))
    return (1 + hits) / (1 + num), np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


@dataclass(frozen=True)
class Components:
    """Parts of the variance of the differences of two methods, in the squared unit of the metric.

    users: between users, which no seed removes. noise: of one user at one seed. seeds: by which a whole seed moves all
    users.
    """

    users: float
    noise: float
    seeds: float

    def detectable(self, seeds: float, users: int) -> float:
        """Minimum detectable difference: found with 80% power by a two-sided 5% test over so many seeds and users.

        seeds may be infinite: what is left is the floor of these users. For the numbers of the data that the parts are
        of, it is `Comparison.minimum_detectable` with the part of whole seeds added, unless a part was cut off at 0.
        """
        return DETECTABLE * math.sqrt(self.users / users + self.noise / (seeds * users) + self.seeds / seeds)


def components(differences: np.ndarray) -> Components:
    """The parts of a table of differences by the method of moments, those below 0 cut off at 0.

    differences: (seeds, users) of two methods, paired. With S seeds and U users, the users' means vary by
    users + noise / S, the seeds' means by seeds + noise / U, and what neither explains by noise, as in a two-way
    analysis of variance with random effects and one value a cell (Searle, Casella, McCulloch 1992).
    Raises: ValueError for fewer than two seeds or users.
    """
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"differences must be (seeds, users) with at least two of each, got shape {table.shape}")
    seeds, users = table.shape
    of_users, of_seeds = table.mean(axis=0), table.mean(axis=1)
    left = table - of_users - of_seeds[:, None] + table.mean()
    noise = float((left**2).sum()) / ((seeds - 1) * (users - 1))
    return Components(max(0.0, float(of_users.var(ddof=1)) - noise / seeds), noise,
                      max(0.0, float(of_seeds.var(ddof=1)) - noise / users))


def pooled(parts: Sequence[Components]) -> Components:
    """The mean of the parts of several comparisons. Raises: ValueError for none."""
    if not parts:
        raise ValueError("at least one comparison is needed")
    return Components(*(math.fsum(getattr(part, name) for part in parts) / len(parts)
                        for name in ("users", "noise", "seeds")))
