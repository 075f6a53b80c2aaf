"""Textbook tests on the method card's numbers, against plain formulas and scipy, and at their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from genrec_bench.analysis.classical import McNemar, TTest, mcnemar, one_sample_t, paired_t
from genrec_bench.analysis.significance import compare_ranks, compare_values, holm

# The method card's example: five seeds of a method and of the baseline, whose mean is .03212.
A = [0.0332, 0.0341, 0.0336, 0.0329, 0.0338]
B = [0.0318, 0.0330, 0.0322, 0.0315, 0.0321]


def hits(only_a: int, only_b: int, both: int = 7, neither: int = 11) -> tuple[np.ndarray, np.ndarray]:
    counts = (only_a, only_b, both, neither)
    return (np.repeat([True, False, True, False], counts), np.repeat([False, True, True, False], counts))


def test_one_sample_on_the_card() -> None:
    result = one_sample_t(A, 0.0321)
    assert result.t == pytest.approx(6.6643902133, abs=1e-9) and result.p_value == pytest.approx(0.0026337751, abs=1e-9)
    assert result.difference == pytest.approx(0.00142, abs=1e-15) and result.n == 5


def test_paired_on_the_card() -> None:
    result = paired_t(A, B)
    assert (result.t, result.p_value) == pytest.approx((14.7572957475, 0.0001227284), abs=1e-9)
    assert result.d_z == pytest.approx(6.5996632911, abs=1e-9) and result.difference == pytest.approx(0.0014, abs=1e-15)
    # The 97.5% point of t with 4 degrees is 2.7764451052 (any table); the standard error is .0014 / 14.757...
    half = 2.7764451052 * 0.0014 / 14.7572957475
    assert result.interval == pytest.approx((0.0014 - half, 0.0014 + half), abs=1e-12)


def test_mcnemar_and_holm_on_the_card() -> None:
    result = mcnemar(*hits(30, 18))
    assert (result.only_a, result.only_b) == (30, 18) and result.p_value == pytest.approx(0.1114028911, abs=1e-9)
    assert holm([0.004, 0.02, 0.03, 0.2]) == pytest.approx([0.016, 0.06, 0.06, 0.2], abs=1e-15)


@pytest.mark.parametrize("seed", range(6))
def test_t_tests_against_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = random.integers(2, 9)
    a, b = random.normal(size=n), random.normal(0.3, size=n)
    for ours, theirs in ((paired_t(a, b), stats.ttest_rel(a, b)), (one_sample_t(a, 0.2), stats.ttest_1samp(a, 0.2))):
        assert (ours.t, ours.p_value) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-9)
        shift = 0.2 if ours.difference == pytest.approx(a.mean() - 0.2) else 0.0  # scipy gives the mean's own interval
        assert ours.interval == pytest.approx(np.array(theirs.confidence_interval(0.95)) - shift, rel=1e-9, abs=1e-12)


def test_p_is_the_area_of_both_tails() -> None:
    """The density of t with n - 1 degrees, integrated beyond |t| by quadrature."""
    result = paired_t([1.0, 2.0, 4.0, 3.5], [0.5, 2.5, 2.0, 2.0])
    differences = [0.5, -0.5, 2.0, 1.5]
    mean = sum(differences) / 4
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / 3)
    assert result.d_z == pytest.approx(mean / deviation) and result.t == pytest.approx(mean / (deviation / 2))
    scale = math.gamma(2) / (math.sqrt(3 * math.pi) * math.gamma(1.5))
    tail, _ = integrate.quad(lambda t: scale * (1 + t * t / 3) ** -2, result.t, math.inf)
    assert result.p_value == pytest.approx(2 * tail, rel=1e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (5, 0), (3, 4), (6, 6), (9, 2), (1, 40)])
def test_mcnemar_counts_coin_throws(only_a: int, only_b: int) -> None:
    """Throws of a fair coin that are no more even than those seen, counted one by one."""
    n, few = only_a + only_b, min(only_a, only_b)
    exact = sum(math.comb(n, i) for i in range(n + 1) if min(i, n - i) <= few) / 2**n
    result = mcnemar(*hits(only_a, only_b))
    assert result.p_value == pytest.approx(exact, rel=1e-12)
    assert result.p_value == pytest.approx(stats.binomtest(only_a, n).pvalue, rel=1e-9)
    assert mcnemar(*hits(only_a, only_b, both=0, neither=900)) == result
    assert mcnemar(*hits(only_a, only_b)[::-1]) == McNemar(only_b, only_a, result.p_value)


def test_without_a_discordant_user_nothing_is_known() -> None:
    assert mcnemar(*hits(0, 0)) == McNemar(0, 0, 1.0)
    assert mcnemar(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)) == McNemar(0, 0, 1.0)
    assert mcnemar(*hits(20_000, 18_000)).p_value < 1e-20


def test_one_seed_has_no_scatter() -> None:
    assert paired_t([0.1], [0.2]) is None and one_sample_t([0.1], 0.2) is None


def test_equal_values() -> None:
    same = TTest(0.0, 1.0, 0.0, 0.0, (0.0, 0.0), 3)
    assert paired_t(A[:3], A[:3]) == same and one_sample_t([0.3] * 3, 0.3) == same
    assert paired_t([0.1 + 0.2, 0.3, 0.3], [0.3, 0.1 + 0.2, 0.3]) == same  # .1 + .2 is not .3 in binary


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_same_difference_at_every_seed(side: float) -> None:
    """Nothing varies: the test is infinitely sure, also where rounding makes the differences unequal."""
    for result in (paired_t(np.array(B) + side * 0.001, B), one_sample_t([side] * 5, 0.0)):
        assert result.t == result.d_z == side * math.inf and result.p_value == 0.0
        assert result.interval == (result.difference, result.difference) and result.difference * side > 0


def test_swapping_the_sides_turns_the_sign_only() -> None:
    one, other = paired_t(A, B), paired_t(B, A)
    assert (other.t, other.d_z, other.difference) == (-one.t, -one.d_z, -one.difference)
    assert other.p_value == one.p_value and other.interval == (-one.interval[1], -one.interval[0])


def test_a_constant_baseline_is_a_baseline_without_variance() -> None:
    """The papers' own test is a paired one against the same number at every seed, so it finds more than a fair one."""
    assert one_sample_t(A, 0.0321) == paired_t(A, [0.0321] * 5)
    fair = stats.ttest_ind(A, B, equal_var=False)  # knows that the baseline's seeds differ too
    assert one_sample_t(A, np.mean(B)).p_value < fair.pvalue


def test_the_comparison_holds_both_tests() -> None:
    """(seeds, users) ranks of 2 x 4 users; hits within 10 by hand."""
    a, b = np.array([[1, 0, 11, 3], [2, 5, 0, 0]]), np.array([[0, 0, 4, 10], [2, 0, 0, 0]])
    result = compare_ranks(a, b, metric="recall", k=10, num_permutations=9, seed=0)
    assert result.mcnemar == (McNemar(1, 1, 1.0), McNemar(1, 0, 1.0))
    assert result.paired_t == paired_t([0.5, 0.5], [0.5, 0.25])
    values = compare_values(a == 1, b == 4, num_permutations=9)
    assert values.mcnemar == () and values.paired_t == paired_t([0.25, 0.0], [0.25, 0.0])
    assert compare_ranks(a[:1], b[:1], metric="ndcg", k=10, num_permutations=9, seed=0).paired_t is None


def test_an_unseeded_side_is_a_constant() -> None:
    a, b = np.random.default_rng(0).random((3, 20)), np.full((1, 20), 0.5)
    got, expected = compare_values(a, b, num_permutations=9).paired_t, one_sample_t(a.mean(axis=1), 0.5)
    assert (got.t, got.p_value) == pytest.approx((expected.t, expected.p_value), rel=1e-9)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="5 values and b 4"):
        paired_t(A, B[:4])
    for wrong in ([], [math.nan, 1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="row of finite numbers"):
            paired_t(wrong, wrong)
    with pytest.raises(ValueError, match="constant must be"):
        one_sample_t(A, math.inf)
    yes = np.array([True, False])
    for a, b in ((yes, yes[:1]), (yes.astype(int), yes), (yes[None], yes[None])):
        with pytest.raises(ValueError, match="booleans"):
            mcnemar(a, b)
