"""Grades: each by hand, against a second reading of the rules, and at the limits."""

import math
import random
from types import SimpleNamespace

import pytest

from genrec_bench.reporting.load import summarise
from genrec_bench.reporting.printed import DIRECTIONAL, EXACT, GRADES, NOT_REPRODUCED, STATISTICAL, _order, grade

AS_PRINTED, OTHERWISE = ("as printed", True), ("otherwise", False)


def graded(values, printed, *, digits=4, order=None, counted=False):
    return grade(summarise(values), printed, digits=digits, order=order, counted=counted)[0]


def test_exact_by_hand():
    """Mean 0.0292, SD 0.0002, so SE 0.000115; with half of 0.0001 a printed number may lie 0.000165 away."""
    values = [0.0290, 0.0292, 0.0294]
    assert graded(values, 0.0292) == graded(values, 0.0293) == graded(values, 0.0291) == EXACT
    assert graded(values, 0.0294) == NOT_REPRODUCED
    assert graded(values, 0.0294, digits=3) == EXACT  # half a unit is then 0.0005
    assert graded(values, 0.02936) == EXACT and graded(values, 0.02937) == NOT_REPRODUCED
    assert graded([0.03, 0.03], 0.03005) == EXACT and graded([0.03, 0.03], 0.0301) == NOT_REPRODUCED


def test_one_seed_is_exact_only_of_what_is_counted():
    assert graded([0.0292], 0.0292) == NOT_REPRODUCED
    assert graded([0.0292], 0.0292, order=AS_PRINTED) == DIRECTIONAL
    assert graded([0.0044868], 0.0045, counted=True) == EXACT
    assert graded([4904], 4905, digits=0, counted=True) == NOT_REPRODUCED


def test_statistical_needs_five_seeds():
    """Five seeds -2, -1, 0, 1, 2 around 10: SD 1.5811, SE 0.7071, so 13 is outside SE + 0.5 and inside 2 SD."""
    values = [8.0, 9.0, 10.0, 11.0, 12.0]
    assert graded(values, 13.0, digits=0) == STATISTICAL
    assert graded(values, 10.0 + 2 * math.sqrt(2.5), digits=0) == STATISTICAL
    assert graded(values, 13.2, digits=0) == graded(values[:4], 12.9, digits=0) == NOT_REPRODUCED


@pytest.mark.parametrize("seed", range(20))
def test_against_a_second_reading_of_the_rules(seed):
    rng = random.Random(seed)
    values = [round(rng.gauss(0.03, 0.0004), 6) for _ in range(rng.randint(1, 8))]
    printed, order = round(rng.gauss(0.03, 0.0005), 4), rng.choice([AS_PRINTED, OTHERWISE, None])
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else None
    wanted = DIRECTIONAL if order is AS_PRINTED else NOT_REPRODUCED
    if len(values) >= 5 and mean - 2 * spread <= printed <= mean + 2 * spread:
        wanted = STATISTICAL
    if len(values) >= 2 and abs(mean - printed) <= spread / math.sqrt(len(values)) + 0.00005:
        wanted = EXACT
    assert graded(values, printed, order=order) == wanted
    found = [GRADES.index(graded(values, mean + gap)) for gap in (0.0001, 0.0005, 0.001, 0.004)]
    assert found == sorted(found)  # a nearer number has no worse grade


def a_cell(ours, printed, first=0):
    return SimpleNamespace(reported=SimpleNamespace(value=printed), values=dict(enumerate(ours, first)))


@pytest.mark.parametrize(("known", "others", "wanted"), [
    ([(0.03, 0.0319), (0.01, 0.0275)], 2, ("order as printed among 2 of 2 others", True)),
    ([(0.01, 0.0319), (0.01, 0.0275)], 2, ("another order than printed among 2 of 2 others", False)),
    ([(0.02, 0.0319), (0.01, 0.0275)], 4, ("order as printed among 2 of 4 others", True)),  # a tie agrees
    ([(0.03, 0.0319), (0.01, 0.0275)], 5, ("order as printed among 2 of 5 others", False)),  # fewer than half
    ([(0.03, 0.0319)], 1, ("order as printed among 1 of 1 others", False)),
    ([], 6, ("order as printed among 0 of 6 others", False))])
def test_an_order_needs_half_of_the_others_and_two(known, others, wanted):
    """Ours is 0.02 and printed 0.0292."""
    cell = a_cell([0.02], 0.0292)
    assert _order(cell, [cell, *(a_cell([ours], value) for ours, value in known)], others) == wanted


@pytest.mark.parametrize(("first", "wanted"), [(0, ("order as printed among 1 of 2 others", False)),
                                               (1, ("another order than printed among 1 of 2 others", False)),
                                               (3, ("order as printed among 0 of 2 others", False))])
def test_an_order_is_that_of_common_seeds(first, wanted):
    """Printed 0.03 against 0.02. Over all seeds 0.02 is below 0.03; over the seeds 0 and 1 it is 0.045, above; over the
    seeds 1 and 2 it is -0.005, below; a row without a common seed says nothing."""
    cell = a_cell([0.07, 0.02, -0.03], 0.03)
    assert _order(cell, [cell, a_cell([0.03, 0.03], 0.02, first)], 2) == wanted
