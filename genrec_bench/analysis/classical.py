"""Textbook tests that are given beside the verdict: t-tests over seeds, McNemar's test over one seed's users."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LEVEL, POWER = 0.95, 0.8
ROUNDING = 1e-12  # numbers that differ by less than this share of their size are equal


@dataclass(frozen=True)
class TTest:
    """A two-sided t-test of a mean or of a difference of means, in the unit of the values.

    t: difference by its standard error. d_z: difference by standard deviation (Cohen). interval: 95%. n: values
    a side. Where nothing varies, t and d_z are infinite and p is 0, or t and d_z are 0 and p is 1 for no difference.
    """

    t: float
    p_value: float
    d_z: float
    difference: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True)
class McNemar:
    """Users that one of two runs hits and the other does not, and the exact two-sided p-value of their shares."""

    only_a: int
    only_b: int
    p_value: float


def paired_t(a: np.ndarray, b: np.ndarray) -> TTest | None:
    """Paired t-test of a minus b: does the mean difference of these seeds stand out from their scatter?

    a, b: (seeds,) means over the same users, the same seeds in the same order. None for one seed, which has no
    scatter. It asks about other seeds on these same users. d_z is per seed, not per user.
    Raises: ValueError for other shapes or values that are not finite.
    """
    a, b = _checked(a, "a"), _checked(b, "b")
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b {len(b)}; a paired test needs one of each a seed")
    return _one_mean(a - b, _size(a, b))


def one_sample_t(a: np.ndarray, constant: float) -> TTest | None:
    """One-sample t-test of a method's seeds against a constant: APAO's own test, read from the caption of Table 1.

    a: (seeds,) means of the method. constant: mean of the best baseline. None for one seed.
    Differs from the paper: it does not state what the test is taken over; seeds are the likely reading.

    It is never the verdict. The baseline's mean counts as known, so its variance is ignored; the baseline is picked
    after its results are seen; the test is repeated for 32 cells without correction; and users are not sampled.
    Raises: ValueError for other shapes or values that are not finite.
    """
    a, constant = _checked(a, "a"), _checked([constant], "constant")
    return _one_mean(a - constant, _size(a, constant))


def t_power(n: int) -> float:
    """The true mean, in standard errors, for which a t-test of n values finds one in 80% of cases: 5.65 for 3 values,
    3.76 for 5, 2.80 for very many. Values are taken as normal. Raises: ValueError for fewer than two values."""
    if n < 2:
        raise ValueError(f"a t-test needs two values, got {n}")
    from scipy.special import nctdtrinc, stdtrit

    return float(nctdtrinc(n - 1, 1.0 - POWER, stdtrit(n - 1, (1 + LEVEL) / 2)))


def mcnemar(hits_a: np.ndarray, hits_b: np.ndarray) -> McNemar:
    """Exact McNemar test of two runs' hits: a fair coin for each user that one run hits and the other does not.

    hits_a, hits_b: (users,) booleans, the same users in the same order. Users that both or neither hit say nothing.
    It asks about other users of these two trained models. Raises: ValueError for other shapes or types.
    """
    hits_a, hits_b = np.asarray(hits_a), np.asarray(hits_b)
    if hits_a.ndim != 1 or hits_a.shape != hits_b.shape or {hits_a.dtype, hits_b.dtype} != {np.dtype(bool)}:
        raise ValueError(f"hits must be two (users,) arrays of booleans of the same users, got {hits_a.dtype} of shape "
                         f"{hits_a.shape} and {hits_b.dtype} of shape {hits_b.shape}")
    from scipy.special import bdtr  # takes longer to import than all else here

    only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
    tail = float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return McNemar(only_a, only_b, min(1.0, 2.0 * tail))


def standard_deviation(values: np.ndarray, size: float) -> float:
    """Sample standard deviation, 0 where it is rounding in numbers of this size, NaN for one value."""
    if len(values) == 1:
        return math.nan
    deviation = float(np.std(values, ddof=1))
    return deviation if deviation > ROUNDING * size else 0.0


def effect_size(difference: float, deviation: float) -> float:
    """Cohen's d: infinite where nothing varies and the difference is not 0."""
    if deviation == 0.0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / deviation


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"{name} must be a row of finite numbers, at least one, got {values!r}")
    return values


def _size(a: np.ndarray, b: np.ndarray) -> float:
    return float(max(np.abs(a).max(), np.abs(b).max()))


def _mean(values: np.ndarray) -> float:
    return math.fsum(values) / len(values)


def _one_mean(values: np.ndarray, size: float) -> TTest | None:
    if len(values) == 1:
        return None
    difference, deviation = _mean(values), standard_deviation(values, size)
    return _t_test(difference if abs(difference) > ROUNDING * size else 0.0, deviation,
                   deviation / math.sqrt(len(values)), len(values) - 1, len(values))


def _t_test(difference: float, deviation: float, error: float, degrees: float, n: int) -> TTest:
    from scipy.special import stdtr, stdtrit

    t = effect_size(difference, error)
    half = float(stdtrit(degrees, (1 + LEVEL) / 2)) * error
    return TTest(t, 2.0 * float(stdtr(degrees, -abs(t))), effect_size(difference, deviation), difference,
                 (difference - half, difference + half), n)
