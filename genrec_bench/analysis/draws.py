"""Random signs of users, and users and seeds drawn with replacement: what tests and intervals are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

CELLS = 2**16  # random numbers in memory at once: few enough to stay in a processor's cache


def flipped(rows: np.ndarray, num: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Sums of (n, users) rows under `num` draws of a sign for each user, as (draws, n) arrays.

    A draw's signs are the same for all rows, so that the difference of two sums is the sum of their flipped difference.
    """
    count, users = rows.shape
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
    m, seeds = rows.shape[1], max(owner.stop - owner.start for owner in owners)
    result = [np.zeros((0, len(owners)))]
    for draws in _blocks(num, m):
        sizes = random.binomial(users, m / users, size=draws)
        drawn = random.integers(max(1, m), size=sizes.sum()) + np.repeat(m * np.arange(draws), sizes)
        means = np.bincount(drawn, minlength=draws * m).reshape(draws, m) @ rows.T / users
        chosen = random.integers(seeds, size=(draws, seeds))
        result.append(np.stack([np.take_along_axis(means[:, owner], chosen % (owner.stop - owner.start), axis=1)
                                .mean(axis=1) for owner in owners], axis=1))
    return np.concatenate(result)


def _blocks(num: int, width: int) -> Iterator[int]:
    """`num` rows in blocks of at most CELLS cells."""
    most = max(1, CELLS // max(1, width))
    yield from (min(most, num - start) for start in range(0, num, most))
