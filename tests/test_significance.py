"""Verdict statistics by hand, against brute force, and on data whose truth is known."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest

from genrec_bench.analysis import draws
from genrec_bench.analysis.classical import McNemar, TTest
from genrec_bench.analysis.ranking import all_pairs
from genrec_bench.analysis.significance import Comparison, compare_ranks, compare_values, detectable, holm, verdict
from genrec_bench.core.errors import UserError

# The method card's example of five values each.
CARD_A = [[0.0332, 0.0341, 0.0336, 0.0329, 0.0338]]
CARD_B = [[0.0318, 0.0330, 0.0322, 0.0315, 0.0321]]


def values(seed: int, seeds: int, users: int, *, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two methods whose users have something in common; the first is better by `effect`."""
    random = np.random.default_rng(seed)
    common = random.normal(size=users)
    return tuple(common + random.normal(size=(seeds, users)) + extra for extra in (effect, 0.0))


def test_holm_on_the_card() -> None:
    """(.004, .02, .03, .2): 4 * .004, 3 * .02, 2 * .03 and .2; order kept, never decreasing."""
    assert holm([0.004, 0.02, 0.03, 0.2]) == pytest.approx([0.016, 0.06, 0.06, 0.2], abs=1e-15)
    assert holm([0.2, 0.03, 0.004, 0.02]) == pytest.approx([0.2, 0.06, 0.016, 0.06], abs=1e-15)
    assert holm([0.01, 0.04, 0.02]) == pytest.approx([0.03, 0.04, 0.04], abs=1e-15)


def test_holm_at_its_limits() -> None:
    assert holm([]) == [] and holm([0.3]) == [0.3] and holm(np.array([0.9, 0.8])) == [1.0, 1.0]
    assert holm([0.02, 0.02]) == [0.04, 0.04]
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([0.5, wrong])


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_the_step_down_procedure_rejects(seed: int) -> None:
    random = np.random.default_rng(seed)
    p = random.random(7) ** 3
    rejected = set()
    for place, i in enumerate(np.argsort(p)):
        if p[i] > 0.05 / (7 - place):
            break
        rejected.add(int(i))
    assert {i for i, q in enumerate(holm(p)) if q <= 0.05} == rejected


def test_effect_size_and_means_on_the_card() -> None:
    result = compare_values(np.array(CARD_A), np.array(CARD_B), num_permutations=99)
    assert result.difference == pytest.approx(0.0014, abs=1e-15) and result.d_z == pytest.approx(6.5996632911, abs=1e-9)
    assert result.mean_b == pytest.approx(0.03212, abs=1e-15) and result.mean_a == pytest.approx(0.03352, abs=1e-15)
    assert (result.n_seeds, result.n_users) == (1, 5)
    # SD = .0014 / 6.5996632911; (1.959964 + .841621) * SD / sqrt(5)
    assert result.minimum_detectable == pytest.approx(2.8015852 * 0.0014 / 6.5996632911 / math.sqrt(5), rel=1e-7)


def test_ranks_by_hand() -> None:
    """Ranks {1, 4, 11, 25}: NDCG@10 .3576691395, Recall@10 .5; rank 11 is outside the list."""
    a, b = np.array([[1, 4, 11, 25]]), np.array([[0, 0, 0, 0]])
    ndcg = compare_ranks(a, b, metric="ndcg", k=10, num_permutations=19, seed=0)
    assert ndcg.difference == pytest.approx(0.3576691395, abs=1e-10) and ndcg.mean_b == 0.0
    assert compare_ranks(a, b, metric="recall", k=10, num_permutations=19, seed=0).difference == 0.5
    assert compare_ranks(a, b, metric="mrr", k=20, num_permutations=19, seed=0).mean_a == pytest.approx(
        (1 + 1 / 4 + 1 / 11) / 4)
    wide = compare_ranks(a, b, metric="ndcg", k=20, num_permutations=19, seed=0)
    assert wide.difference == pytest.approx(0.4274048759, abs=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_p_values_approach_all_sign_flips(seed: int) -> None:
    """Ten users: all 1024 flips by brute force; the sampled share lies within 4 standard errors."""
    a, b = values(seed, 3, 10, effect=0.4)
    per_user = (a - b).mean(axis=0)
    means = [abs(np.dot(signs, per_user)) for signs in itertools.product((-1, 1), repeat=10)]
    exact = np.mean(np.array(means) >= abs(per_user.sum()) - 1e-12)
    got = compare_values(a, b, num_permutations=20_000, num_resamples=1).p_value
    assert got == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_a_flip_that_gives_the_same_mean_is_a_hit() -> None:
    """One user: both signs are as far from 0. Two equal users: half of the flips are."""
    one = compare_ranks(np.array([[1]]), np.array([[0]]), metric="recall", k=1, num_permutations=99, seed=0)
    assert one.p_value == 1.0 and math.isnan(one.d_z) and math.isnan(one.minimum_detectable)
    two = compare_values(np.array([[0.1, 0.1]]), np.zeros((1, 2)), num_permutations=20_000)
    assert two.p_value == pytest.approx(0.5, abs=0.02) and two.d_z == math.inf and two.minimum_detectable == 0.0


def test_equal_methods() -> None:
    ranks = np.random.default_rng(0).integers(0, 30, size=(3, 50))
    result = compare_ranks(ranks, ranks, metric="ndcg", k=10, num_permutations=99, seed=0)
    same = result.mean_a
    hits = int(((ranks >= 1) & (ranks <= 10)).sum())
    assert hits > 0 and result == Comparison(
        0.0, 1.0, (0.0, 0.0), 0.0, 50, 3, 0.0, same, same, TTest(0.0, 1.0, 0.0, 0.0, (0.0, 0.0), 3),
        (McNemar(0, 0, 1.0),) * 3)


@pytest.mark.parametrize("effect", [0.3, -0.3])
def test_a_planted_effect_is_found_with_its_sign(effect: float) -> None:
    a, b = values(1, 3, 800, effect=effect)
    result = compare_values(a, b, num_permutations=999)
    low, high = result.interval
    assert result.p_value == 0.001 and low < result.difference < high and low * high > 0 and low * effect > 0
    assert low < effect < high and result.d_z * effect > 0 and result.minimum_detectable < abs(effect)


def test_swapping_the_methods_turns_the_sign_only() -> None:
    a, b = values(2, 2, 60, effect=0.1)
    one, other = compare_values(a, b, num_permutations=499), compare_values(b, a, num_permutations=499)
    assert other.difference == -one.difference and other.d_z == -one.d_z and other.p_value == one.p_value
    assert other.minimum_detectable == pytest.approx(one.minimum_detectable, rel=1e-12)
    assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]), abs=0.02)


def test_the_order_of_users_changes_no_bit() -> None:
    a, b = values(3, 3, 70)
    a[:, :20] = b[:, :20]
    order = np.random.default_rng(0).permutation(70)
    assert compare_values(a, b, seed=5) == compare_values(a[:, order], b[:, order], seed=5)
    a, b = np.random.default_rng(1).integers(0, 40, size=(2, 3, 70))
    one, other = (compare_ranks(*x, metric="ndcg", k=10, num_permutations=99, seed=5)
                  for x in ((a, b), (a[:, order], b[:, order])))
    assert one == other and len(one.mcnemar) == 3 and one.paired_t.n == 3


def test_a_seed_repeats_and_another_draws_anew() -> None:
    a, b = values(4, 3, 40, effect=0.1)
    one, again, other = (compare_values(a, b, num_permutations=499, seed=s) for s in (0, 0, 1))
    assert one == again and one.interval != other.interval and one.p_value != other.p_value


def test_one_unseeded_row_stands_against_every_seed() -> None:
    a, b = values(5, 3, 40)
    one, repeated = compare_values(a, b[:1]), compare_values(a, np.repeat(b[:1], 3, axis=0))
    assert one.mean_b == pytest.approx(repeated.mean_b, abs=1e-15)
    assert replace(one, mean_b=0.0) == replace(repeated, mean_b=0.0)
    with pytest.raises(ValueError, match="3 seeds and b 2"):
        compare_values(a, b[:2])
    with pytest.raises(ValueError, match="1 seeds and b 3"):
        compare_values(a[:1], b)


def test_the_interval_is_that_of_a_naive_two_level_bootstrap() -> None:
    a, b = values(6, 4, 30)
    random, means = np.random.default_rng(0), []
    for _ in range(4000):
        users = random.integers(30, size=30)
        means.append(np.mean([(a - b)[s, users].mean() for s in random.integers(4, size=4)]))
    expected = np.quantile(means, [0.025, 0.975])
    assert compare_values(a, b).interval == pytest.approx(tuple(expected), abs=0.03)


def test_users_without_a_difference_count() -> None:
    """One user of ten differs by 1: that user is drawn Binomial(10, .1) times; at most 2 times in 93.0%, 3 in 98.7%."""
    one = np.eye(10)[:1]
    assert compare_values(one, np.zeros((1, 10)), num_permutations=9).interval == pytest.approx((0.0, 0.3), abs=1e-15)
    some = values(8, 3, 60)[0] * (np.arange(60) < 9)
    random, means = np.random.default_rng(0), []
    for _ in range(4000):
        users = random.integers(60, size=60)
        means.append(np.mean([some[s, users].mean() for s in random.integers(3, size=3)]))
    got = compare_values(some, np.zeros((1, 60)), num_permutations=9).interval
    assert got == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.03)


@pytest.mark.parametrize(("seeds", "users"), [(3, 5_000), (1, 30_000)])
def test_many_differences_are_resampled_in_blocks(seeds: int, users: int) -> None:
    """Independent normal differences: the deviation of the means is that of the two-way formula; 500 draws."""
    differences = np.random.default_rng(9).normal(size=(seeds, users))
    got = compare_values(differences, np.zeros((1, users)), num_permutations=1, num_resamples=500)
    expected = math.sqrt((1 / seeds + 2 * (1 - 1 / seeds) / seeds) / users)
    assert np.ptp(got.interval) == pytest.approx(2 * 1.959964 * expected, rel=0.2)


def test_seeds_that_disagree_widen_the_interval() -> None:
    users = np.random.default_rng(7).normal(size=200)
    steady = np.repeat(users[None], 4, axis=0)
    apart = steady + np.array([[-0.5], [0.5], [-0.5], [0.5]])
    zero = np.zeros((1, 200))
    narrow, wide = compare_values(steady, zero).interval, compare_values(apart, zero).interval
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_no_effect_is_rarely_found_and_mostly_covered() -> None:
    """200 studies of 3 seeds x 40 users without effect: about 5% found (2 to 9% is within 2.6 standard errors)."""
    found = covered = 0
    for seed in range(200):
        result = compare_values(*values(100 + seed, 3, 40), num_permutations=199, num_resamples=400)
        found += result.p_value <= 0.05
        covered += result.interval[0] <= 0.0 <= result.interval[1]
    assert 0.02 <= found / 200 <= 0.09 and covered / 200 >= 0.92


def test_the_minimum_detectable_difference_is_found_in_four_of_five_studies() -> None:
    size = compare_values(*values(0, 3, 100), num_permutations=1).minimum_detectable
    found = sum(compare_values(*values(500 + seed, 3, 100, effect=size), num_permutations=199,
                               num_resamples=1).p_value <= 0.05 for seed in range(150))
    assert 0.68 <= found / 150 <= 0.92


STUDY = Comparison(0.01, 0.2, (-0.01, 0.03), 0.1, 100, 3, 2.8015852 * 0.008, 0.05, 0.04)  # standard error 0.008


@pytest.mark.parametrize(("half", "num_tests", "expected"), [
    (0.02, 1, 0.02 + 0.8416212 * 0.008),  # the interval is wider than 1.96 * 0.008 = 0.01568
    (0.01, 1, (1.9599640 + 0.8416212) * 0.008),
    (0.01, 5, (2.5758293 + 0.8416212) * 0.008),  # .05 / 5 = .01, two-sided: z = 2.5758293
    (0.02, 5, (2.5758293 + 0.8416212) * 0.008),
    (0.03, 5, 0.03 + 0.8416212 * 0.008)])
def test_the_detectable_difference_by_hand(half: float, num_tests: int, expected: float) -> None:
    """Test and interval must both find it: the larger of z * SE and half the interval, and 0.84 SE for 80% power."""
    around = replace(STUDY, interval=(0.01 - half, 0.01 + half))
    assert detectable(around, num_tests) == pytest.approx(expected, rel=1e-6)


def test_one_test_of_one_seed_detects_nearly_the_minimum() -> None:
    result = compare_values(*values(12, 1, 2_000))
    assert detectable(result) == pytest.approx(result.minimum_detectable, rel=0.02)
    assert math.isnan(detectable(compare_values(np.ones((1, 1)), np.zeros((1, 1)), num_permutations=9)))
    with pytest.raises(ValueError, match="at least one test"):
        detectable(result, 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_detectable_difference_grows_with_the_family(seed: int) -> None:
    result = compare_values(*values(seed, 1 + seed, 80), num_permutations=1, num_resamples=400)
    sizes = [detectable(result, n) for n in (1, 2, 3, 10, 50, 1000)]
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]
    assert sizes[0] >= (1 - 0.1) * result.minimum_detectable  # 400 resamples know the interval within a tenth


@pytest.mark.parametrize(("seeds", "num_tests"), [(1, 1), (1, 5), (3, 1), (3, 20)])
def test_a_detectable_difference_gets_a_verdict_in_four_of_five_studies(seeds: int, num_tests: int) -> None:
    """160 studies with a planted difference of that size; 70 to 90% is within 3.2 standard errors."""
    def study(seed: int, effect: float) -> Comparison:
        return compare_values(*values(seed, seeds, 120, effect=effect), num_permutations=999, num_resamples=400)
    size = np.mean([detectable(study(seed, 0.0), num_tests) for seed in range(40)])
    found = sum(verdict(result, min(1.0, num_tests * result.p_value)) == "better"
                for result in (study(1_000 + seed, size) for seed in range(160)))
    assert 0.7 <= found / 160 <= 0.9


def many_ranks(users: int) -> np.ndarray:
    """(3 methods, 2 seeds, users) ranks, two thirds of them hits; the second method is like the first for half."""
    random = np.random.default_rng(0)
    ranks = random.integers(0, 31, size=(3, 2, users))
    ranks[1] = np.where(random.random((2, users)) < 0.5, ranks[0], ranks[1])
    return ranks


def test_above_a_stated_size_draws_are_normal_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Already of 4,000 users, 2,000 draws each: p within 4 standard errors, ends within a tenth of the width."""
    ranks = many_ranks(4_000)
    options = {"num_permutations": 2_000, "num_resamples": 2_000}
    found = []
    for many in (1_000, 10**9):
        monkeypatch.setattr(draws, "MANY", many)
        pairs = [compare_ranks(ranks[0], ranks[other], metric="ndcg", k=20, **options) for other in (1, 2)]
        table = all_pairs([np.where(r > 0, 1 / np.log2(r + 2.0), 0.0) for r in ranks], **options)
        found.append(([(p.p_value, *p.interval, p.difference) for p in pairs],
                      [(e.low, e.high, e.value) for e in table.means], table.p_holm[np.triu_indices(3, 1)]))
    for (p, low, high, value), exact in zip(found[0][0], found[1][0], strict=True):
        assert 0.001 < p < 0.999 and p == pytest.approx(exact[0], abs=4 * math.sqrt(2 * p * (1 - p) / 2_000))
        assert value == exact[3] and (low, high) == pytest.approx(exact[1:3], abs=0.1 * (high - low))
    for (low, high, value), exact in zip(found[0][1], found[1][1], strict=True):
        assert value == exact[2] and (low, high) == pytest.approx(exact[:2], abs=0.1 * (high - low))
    assert found[0][2] == pytest.approx(found[1][2], abs=0.12)


def test_methods_that_are_equal_stay_so_in_normal_draws() -> None:
    ranks = many_ranks(40_000)[0]
    table = all_pairs([1.0 * (ranks > 0)] * 2, num_permutations=99, num_resamples=99)
    assert table.p_holm[0, 1] == 1.0 and not table.apart.any()
    drawn = draws.resampled(np.repeat(1.0 * (ranks[:1] > 0), 2, axis=0), 40_000, [slice(0, 1), slice(1, 2)], 99,
                            np.random.default_rng(0))
    assert drawn[:, 0] == pytest.approx(drawn[:, 1], abs=1e-12) and np.ptp(drawn[:, 0]) > 0.003


@pytest.mark.parametrize(("seeds", "users"), [(5, 5_000), (2, 500_000)])
def test_many_users_and_permutations_are_fast(seeds: int, users: int) -> None:
    a, b = many_ranks(users)[:2].repeat(3, axis=1)[:, :seeds]
    began = time.process_time()
    compare_ranks(a, b, metric="ndcg", k=10)
    assert time.process_time() - began < 4.0


ONE = np.ones((2, 3), dtype=np.int64)


@pytest.mark.parametrize(("a", "b", "message"), [
    (ONE, ONE[:, :2], "same seeds and users"), (ONE, ONE[:1], "same seeds and users"),
    (ONE[:, :0], ONE[:, :0], "at least one of each"), (ONE[0], ONE[0], r"\(seeds, users\)"),
    (ONE * np.array([1.0, np.nan, 1.0]), ONE, "value nan at row 0, user 1"), (ONE * 1.5, ONE, "integers"),
    (ONE - 2, ONE, "at least 0"),
])
def test_ranks_that_cannot_be_compared_are_refused(a: np.ndarray, b: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_ranks(a, b, metric="ndcg", k=10, num_permutations=9, seed=0)


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(UserError, match="unknown metric 'ndgc'. Did you mean 'ndcg'"):
        compare_ranks(ONE, ONE, metric="ndgc", k=10, num_permutations=9, seed=0)
    with pytest.raises(ValueError, match="k must be at least 1"):
        compare_ranks(ONE, ONE, metric="ndcg", k=0, num_permutations=9, seed=0)
    with pytest.raises(ValueError, match="at least one draw"):
        compare_ranks(ONE, ONE, metric="ndcg", k=10, num_permutations=0, seed=0)
    with pytest.raises(ValueError, match="3 users and b 2"):
        compare_values(ONE, ONE[:, :2])
    with pytest.raises(ValueError, match="value inf at row 1, user 2"):
        compare_values(ONE, np.array([[1, 1, 1], [1, 1, np.inf]]))
