"""A/A comparisons, simulated nulls, parts of the variance and answers: by hand, by brute force, on planted data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from genrec_bench.analysis.claims import NOT_SEEN, OPEN, SEEN, SMALLER, answer
from genrec_bench.analysis.noise import (
    Components,
    components,
    pooled,
    self_comparison,
    simulated_nulls,
    splits,
    study_results,
    swapped,
)
from genrec_bench.analysis.significance import DETECTABLE, compare_values, verdict


def runs(seed: int, seeds: int, users: int, *, shift: float = 0.0) -> np.ndarray:
    """(seeds, users) values like those of NDCG, mostly 0, of users who are hit with probabilities of their own."""
    random = np.random.default_rng(seed)
    chance = 0.4 * random.random(users) + shift * random.standard_normal((seeds, 1))
    return np.where(random.random((seeds, users)) < chance, 1 / np.log2(1 + random.integers(1, 11, (seeds, users))), 0)


# --- A/A ---

@pytest.mark.parametrize(("seeds", "count"), [(2, 1), (3, 3), (4, 3), (5, 15), (6, 10), (7, 70), (10, 126)])
def test_splits_are_all_pairs_of_halves(seeds, count):
    size = seeds // 2
    wanted = {frozenset([frozenset(a), frozenset(b)]) for a in itertools.combinations(range(seeds), size)
              for b in itertools.combinations(range(seeds), size) if not set(a) & set(b)}
    found = splits(seeds)
    assert {frozenset(map(frozenset, pair)) for pair in found} == wanted and len(found) == len(wanted) == count
    assert all(half == sorted(half) for pair in found for half in pair)


def test_of_many_splits_some_are_taken_in_a_fixed_order():
    """Of 12 seeds 462: at equal steps, the first one first, none twice. Of 40 no list of all could be made."""
    found = splits(12, 100)
    assert len({tuple(first) for first, _ in found}) == len(found) == 100 and found[0][0] == [0, 1, 2, 3, 4, 5]
    every = splits(12, 462)
    assert found == [every[462 * place // 100] for place in range(100)] and len(splits(40)) == 126
    with pytest.raises(ValueError, match="one seed"):
        splits(1)


def test_a_method_against_itself_by_hand():
    """Means 1, 2, 3, 6: halves differ by 3, 2 and 1; their variance is 14/3, and so is the mean square of 3, 2 and 1.
    The 95 % point of 1, 2, 3 is 2.9; Student's t of 3 degrees is 3.1824463."""
    found = self_comparison(np.array([[0.0, 2.0], [2.0, 2.0], [3.0, 3.0], [5.0, 7.0]]))
    assert found.differences == pytest.approx((-3.0, -2.0, 1.0)) and (found.size, found.n_seeds) == (2, 4)
    assert found.sd == pytest.approx(math.sqrt(14 / 3)) and found.seed_sd == pytest.approx(math.sqrt(14 / 3))
    assert (found.largest, found.middle, found.mean) == pytest.approx((3.0, 2.9, 3.0))
    assert found.floor(8) == pytest.approx(math.sqrt(14 / 3 * 2 / 8))
    assert found.half_width(8) == pytest.approx(3.1824463 * math.sqrt(14 / 12), rel=1e-7)
    with pytest.raises(ValueError, match="at least 4 seeds"):
        self_comparison(np.zeros((3, 5)))


@pytest.mark.parametrize("seeds", [4, 5, 6, 7])
def test_all_splits_together_vary_by_the_noise_floor(seeds):
    found = self_comparison(runs(seeds, seeds, 50), num=9)
    assert found.sd == pytest.approx(found.floor(found.size), rel=1e-12)


def test_splits_are_compared_as_methods_are():
    values = runs(1, 4, 300)
    values[:2] += 0.2  # one of three splits has to be told apart
    found = self_comparison(values, num=199)
    wanted = [compare_values(values[[0, i]], values[[j for j in (1, 2, 3) if j != i]], num_permutations=199,
                             num_resamples=199) for i in (1, 2, 3)]
    assert found.differences == tuple(c.difference for c in wanted)
    assert found.verdicts == sum(verdict(c, c.p_value) is not None for c in wanted) == 1


def test_equal_runs_have_no_noise():
    values = np.repeat(runs(2, 1, 80), 5, axis=0)
    found, nulls = self_comparison(values, num=99), simulated_nulls(values, studies=20, num=99)
    assert set(found.differences) == {0.0} and found.sd == found.floor(5) == found.half_width(5) == 0.0
    assert (found.verdicts, nulls.significant, nulls.verdicts) == (0, 0, 0)


# --- simulated nulls ---

def test_studies_are_tested_as_by_compare_values():
    """The same studies one by one: p-values and ends of intervals lie within the error of 1,999 draws."""
    values = runs(3, 5, 400)
    studies = swapped(values, 12)
    p, interval = study_results(studies, 400, 1_999)
    for place, study in enumerate(studies):
        whole = np.zeros((len(study), 400))
        whole[:, :study.shape[1]] = study
        one = compare_values(whole, np.zeros_like(whole), num_permutations=1_999, num_resamples=1_999, seed=place)
        assert p[place] == pytest.approx(one.p_value, abs=5 * math.sqrt(2 * 0.25 / 1_999))
        width = one.interval[1] - one.interval[0]
        assert interval[:, place] == pytest.approx(one.interval, abs=0.08 * width)


def test_labels_are_swapped_user_by_user_and_seed_by_seed():
    values = runs(4, 4, 500)
    found = swapped(values, 200)
    for place, (first, second) in enumerate(splits(4)):
        moved = (values != values[0]).any(axis=0)
        gap = (values[first] - values[second])[:, moved]
        of_split = found[place::3]
        assert (np.abs(of_split) == np.abs(gap)).all()
        signs = np.sign(of_split)[:, gap != 0.0]
        assert abs(signs.mean()) < 4 / math.sqrt(signs.size)
    assert (found == swapped(values, 200)).all() and (found != swapped(values, 200, seed=1)).any()


@pytest.mark.parametrize("seeds", [4, 5])
def test_nulls_are_rejected_at_their_level(seeds):
    """p keeps 5 % within four standard errors, whether or not seeds differ; verdicts are fewer, as all is noise."""
    for shift in (0.0, 0.05):
        found = simulated_nulls(runs(5, seeds, 600, shift=shift), studies=600)
        share, error = found.share(found.significant)
        assert share == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 600))
        assert error == pytest.approx(math.sqrt(share * (1 - share) / 600)) and found.verdicts < found.significant


# --- parts of the variance ---

def test_parts_by_hand():
    """Users' means 1.5 and 5.5, seeds' 2 and 5; what is left is 1, -1, -1, 1: noise 4 / 1, users 8 - 4 / 2, seeds
    4.5 - 4 / 2."""
    parts = components(np.array([[1.0, 3.0], [2.0, 8.0]]))
    assert (parts.users, parts.noise, parts.seeds) == pytest.approx((6.0, 4.0, 2.5))
    assert parts.detectable(2, 2) == pytest.approx(DETECTABLE * math.sqrt(6 / 2 + 4 / 4 + 2.5 / 2))
    assert parts.detectable(math.inf, 3) == pytest.approx(DETECTABLE * math.sqrt(2.0))
    assert components(np.array([[1.0, -1.0], [-1.0, 1.0]])) == Components(0.0, 4.0, 0.0)
    assert pooled([parts, Components(0.0, 2.0, 0.5)]) == Components(3.0, 3.0, 1.5)
    for wrong in (np.zeros((1, 5)), np.zeros((5, 1)), np.zeros(5)):
        with pytest.raises(ValueError, match="at least two of each"):
            components(wrong)


def test_planted_parts_are_found():
    """The mean over 300 tables of 5 seeds and 200 users; the part of seeds varies most, as it has 4 degrees."""
    random, found = np.random.default_rng(0), []
    for _ in range(300):
        found.append(components(random.normal(scale=2.0, size=200) + random.normal(scale=3.0, size=(5, 200))
                                + random.normal(scale=1.5, size=(5, 1))))
    parts = pooled(found)
    assert parts.users == pytest.approx(4.0, rel=0.03) and parts.noise == pytest.approx(9.0, rel=0.01)
    assert parts.seeds == pytest.approx(2.25, abs=4 * 2.25 * math.sqrt(2 / 4 / 300))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_what_these_data_could_detect_is_what_a_comparison_says(seeds):
    """Of the same seeds and users, but for the part of whole seeds, which a test over users does not see."""
    random = np.random.default_rng(seeds)
    a, b = random.normal(size=400) + random.normal(size=(seeds, 400)), random.normal(size=(seeds, 400))
    parts, one = components(a - b), compare_values(a, b, num_permutations=1, num_resamples=1)
    wanted = math.sqrt(one.minimum_detectable**2 + DETECTABLE**2 * parts.seeds / seeds)
    assert parts.detectable(seeds, 400) == pytest.approx(wanted, rel=1e-12) and parts.users > 0.5


# --- answers to a claim ---

@pytest.mark.parametrize(("low", "high", "wanted"), [
    (0.01, 0.05, SEEN), (0.01, 0.09, SEEN), (0.01, 0.0499, SMALLER), (0.0, 0.05, OPEN), (-0.02, 0.2, OPEN),
    (0.0, 0.0499, NOT_SEEN), (-0.1, -0.01, NOT_SEEN), (0.2, 0.3, SEEN)])
def test_answers_to_a_gain_of_ten_per_cent(low, high, wanted):
    """Half of the claim is 0.05, which still counts as reached; a lower end of 0 is no gain. A loss is the mirror."""
    assert answer(low, high, 0.1) == answer(-high, -low, -0.1) == wanted


@pytest.mark.parametrize("wrong", [(0.0, 0.1, 0.0), (0.2, 0.1, 0.1), (math.nan, 0.1, 0.1), (0.0, math.inf, 0.1)])
def test_what_is_no_claim_has_no_answer(wrong):
    with pytest.raises(ValueError, match="a claim other than 0"):
        answer(*wrong)
