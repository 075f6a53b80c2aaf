"""Random signs of users, and users and seeds drawn with replacement: what tests and intervals are made of.

Sums over more than `MANY` users are not added up from draws of each user, which takes time in proportion to them, but
drawn from the normal distribution that they tend to, with the same means and covariances. Ends of a 95% interval are
then within 1% of a standard error of the exact ones (the skewness is about 1 / sqrt(MANY)); 10,000 draws of either kind
scatter by 3%.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

MANY = 2**15  # users with a value: more than the largest of the data sets that papers here use (30,431) has
CELLS = 2**16  # random numbers in memory at once: few enough to stay in a processor's cache


def flipped(rows: np.ndarray, num: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Sums of (n, users) rows under `num` draws of a sign for each user, as (draws, n) arrays.

    A draw's signs are the same for all rows, so that the difference of two sums is the sum of their flipped difference.
    """
    count, users = rows.shape
    if users > MANY:
        yield _normal(rows @ rows.T, num, random)
        return
    width, totals = -(-users // 8), rows.sum(axis=1)
    for draws in _blocks(num, users):
        if not users:
            yield np.zeros((draws, count))
            continue
        bits = np.frombuffer(random.bytes(draws * width), dtype=np.uint8).reshape(draws, width)
        plus = np.unpackbits(bits, axis=1, count=users) @ rows.T
        yield 2.0 * plus - totals


def resampled(rows: np.ndarray, users: int, owners: Sequence[slice], num: int,
              random: np.random.Generator) -> np.ndarray:
    """(num, methods) means over seeds and users drawn with replacement, the same ones for all seeds and methods.

    rows: (seeds of all methods, m) values of the m users that have any; owners: which rows are whose. The other users
    add 0 to every sum, so that only the number of draws that fall on the m, which is binomial, and the draws among them
    are needed. A method of one row has that one at every seed.
    """
    seeds = max(owner.stop - owner.start for owner in owners)
    result = [np.zeros((0, len(owners)))]
    for means in _means(rows, users, num, random):
        chosen = random.integers(seeds, size=(len(means), seeds))
        result.append(np.stack([np.take_along_axis(means[:, owner], chosen % (owner.stop - owner.start), axis=1)
                                .mean(axis=1) for owner in owners], axis=1))
    return np.concatenate(result)


def _means(rows: np.ndarray, users: int, num: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """(draws, rows) means of each row over `users` draws of a user, `num` of them in all."""
    m = rows.shape[1]
    if m > MANY:
        mean = rows.sum(axis=1) / users
        yield mean + _normal((rows @ rows.T / users - np.outer(mean, mean)) / users, num, random)
        return
    for draws in _blocks(num, m):
        sizes = random.binomial(users, m / users, size=draws)
        drawn = random.integers(max(1, m), size=sizes.sum()) + np.repeat(m * np.arange(draws), sizes)
        yield np.bincount(drawn, minlength=draws * m).reshape(draws, m) @ rows.T / users


def _normal(covariance: np.ndarray, num: int, random: np.random.Generator) -> np.ndarray:
    """(num, n) draws of mean 0; rows that are equal, as the covariance has it, get equal draws but for rounding."""
    sizes, directions = np.linalg.eigh(covariance)
    kept = sizes > len(sizes) * np.finfo(float).eps * sizes[-1]
    return random.standard_normal((num, int(kept.sum()))) @ (directions[:, kept] * np.sqrt(sizes[kept])).T


def _blocks(num: int, width: int) -> Iterator[int]:
    """`num` rows in blocks of at most CELLS cells."""
    most = max(1, CELLS // max(1, width))
    yield from (min(most, num - start) for start in range(0, num, most))
