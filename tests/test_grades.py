"""Grades: each by hand, against a second reading of the rules, and at the limits."""

import math
import random
from itertools import combinations

import pytest

from genrec_bench.reporting.grades import (
    DIRECTIONAL,
    EXACT,
    GRADES,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    NOT_RUN,
    STATISTICAL,
    Order,
    grade,
    grade_count,
    known_reasons,
    order_of,
)
from genrec_bench.reporting.load import Summary, summarise
from tests.small_records import apao

AS_PRINTED, OTHERWISE = Order(True, 3, 6), Order(False, 6, 6)


def graded(values, printed, *, digits=4, order=None, reason="", known=()):
    return grade(summarise(values), printed, digits=digits, order=order, reason=reason, known=known).name


def test_exact_by_hand():
    """Mean 0.0292, SD 0.0002, so SE 0.000115; with half of 0.0001 a printed number may lie 0.000165 away."""
    values = [0.0290, 0.0292, 0.0294]
    assert graded(values, 0.0292) == graded(values, 0.0293) == graded(values, 0.0291) == EXACT
    assert graded(values, 0.0294) == NOT_REPRODUCED
    assert graded(values, 0.0294, digits=3) == EXACT  # half a unit is then 0.0005
    assert graded(values, 0.02936) == EXACT and graded(values, 0.02937) == NOT_REPRODUCED


def test_equal_seeds_leave_half_a_unit():
    assert graded([0.03, 0.03], 0.03005) == EXACT
    assert graded([0.03, 0.03], 0.0301) == NOT_REPRODUCED


def test_one_seed_is_never_exact():
    assert graded([0.0292], 0.0292) == NOT_REPRODUCED
    assert graded([0.0292], 0.0292, order=AS_PRINTED) == DIRECTIONAL


def test_statistical_needs_five_seeds():
    """Five seeds -2, -1, 0, 1, 2 around 10: SD 1.5811, SE 0.7071, so 13 is outside SE + 0.5 and inside 2 SD."""
    values = [8.0, 9.0, 10.0, 11.0, 12.0]
    assert graded(values, 13.0, digits=0) == STATISTICAL
    assert graded(values, 10.0 + 2 * math.sqrt(2.5), digits=0) == STATISTICAL
    assert graded(values, 13.2, digits=0) == NOT_REPRODUCED
    assert graded(values[:4], 12.9, digits=0) == NOT_REPRODUCED


def test_directional_is_the_last_resort():
    values = [0.0250, 0.0252]
    assert graded(values, 0.0292, order=AS_PRINTED) == DIRECTIONAL
    assert graded(values, 0.0292, order=OTHERWISE) == graded(values, 0.0292, order=None) == NOT_REPRODUCED
    assert graded([0.0291, 0.0293], 0.0292, order=OTHERWISE) == EXACT


@pytest.mark.parametrize(("known", "others", "name", "why"), [
    (6, 6, DIRECTIONAL, "as printed to 6 of the 6 others"),
    (3, 6, DIRECTIONAL, "as printed to 3 of the 6 others; the rest was not run, or not comparably"),
    (2, 6, NOT_REPRODUCED, "order known to 2 of the 6 others only; choices that may matter: ledger: apao/weights"),
    (3, 7, NOT_REPRODUCED, "order known to 3 of the 7 others only; choices that may matter: ledger: apao/weights"),
    (2, 3, DIRECTIONAL, "as printed to 2 of the 3 others; the rest was not run, or not comparably"),
    (1, 1, NOT_REPRODUCED, "order known to 1 of the 1 others only; choices that may matter: ledger: apao/weights"),
    (0, 6, NOT_REPRODUCED, "order known to 0 of the 6 others only; choices that may matter: ledger: apao/weights"),
    (0, 0, NOT_REPRODUCED, "choices that may matter: ledger: apao/weights")])
def test_an_order_needs_half_of_the_others_and_two(known, others, name, why):
    found = grade(summarise([0.02, 0.021]), 0.03, digits=4, order=Order(True, known, others), reason="",
                  known=["apao/weights"])
    assert (found.name, found.why) == (name, why)


def test_an_order_that_is_turned_round_says_among_how_many():
    found = grade(summarise([0.02, 0.021]), 0.03, digits=4, order=Order(False, 1, 6), reason="")
    assert (found.name, found.why) == (NOT_REPRODUCED, "another order than printed among it and 1 of the 6 others; "
                                       "no choice is known that may matter")


def test_a_difference_names_the_ledger():
    found = grade(summarise([0.02, 0.021]), 0.03, digits=4, reason="", known=["apao/weights"])
    assert (found.name, found.why) == (NOT_REPRODUCED, "choices that may matter: ledger: apao/weights")
    assert graded([0.02, 0.021], 0.03) == NOT_REPRODUCED


def test_a_reason_stands_before_all_and_nothing_before_a_run():
    found = grade(summarise([0.0292, 0.0292]), 0.0292, digits=4, order=AS_PRINTED, reason="other data")
    assert (found.name, found.why) == (NOT_COMPARABLE, "other data")
    empty = Summary(None, None, 0)
    assert grade(empty, 0.0292, digits=4, order=AS_PRINTED, reason="other data").name == NOT_RUN


def test_counts():
    assert grade_count(0.0044868, 0.0045, digits=4, reason="").name == EXACT
    assert grade_count(4904, 4905, digits=0, reason="").name == NOT_REPRODUCED
    assert grade_count(4905, 4905, digits=0, reason="thinned").name == NOT_COMPARABLE


@pytest.mark.parametrize("seed", range(50))
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


@pytest.mark.parametrize("seed", range(20))
def test_a_nearer_number_has_no_worse_grade(seed):
    rng = random.Random(100 + seed)
    values = [rng.gauss(0.03, 0.001) for _ in range(rng.randint(2, 7))]
    mean = sum(values) / len(values)
    found = [GRADES.index(graded(values, mean + gap, order=OTHERWISE)) for gap in sorted(
        rng.uniform(0, 0.004) for _ in range(30))]
    assert found == sorted(found)


def test_order_by_hand():
    printed = {"CE": 0.0292, "MSL": 0.0319, "DPO": 0.0275}
    assert order_of("CE", {"CE": 0.02, "MSL": 0.03, "DPO": 0.01}, printed) == Order(True, 2, 2)
    assert order_of("CE", {"CE": 0.02, "MSL": 0.01, "DPO": 0.01}, printed) == Order(False, 2, 2)
    assert order_of("MSL", {"CE": 0.02, "MSL": 0.03, "DPO": 0.025}, printed).agrees  # DPO and CE are no matter
    assert order_of("CE", {"CE": 0.02, "MSL": 0.02}, printed) == Order(True, 1, 2)  # a tie agrees
    assert order_of("CE", {"CE": 0.02, "MSL": 0.01}, {"CE": 0.03, "MSL": 0.03}) == Order(True, 1, 1)
    assert order_of("CE", {"CE": 0.02}, printed) == Order(True, 0, 2)
    assert order_of("CE", {"CE": 0.02, "ours": 0.5}, printed) == Order(True, 0, 2)  # the paper prints no such method


@pytest.mark.parametrize("seed", range(20))
def test_every_order_agrees_where_all_pairs_do(seed):
    """All methods agree exactly where no pair is turned round; a pair that is turned round condemns both."""
    rng = random.Random(seed)
    names = "abcde"
    ours, printed = ({n: rng.randint(0, 4) for n in names} for _ in range(2))
    turned = {n for pair in combinations(names, 2) for n in pair
              if (ours[pair[0]] - ours[pair[1]]) * (printed[pair[0]] - printed[pair[1]]) < 0}
    assert {n for n in names if not order_of(n, ours, printed).agrees} == turned


def test_known_reasons_are_the_entries_of_the_objectives():
    rows = {row.label: row for row in apao().rows}
    found = known_reasons(rows["TIGER + APAO-Pairwise"])
    assert "apao/divide_by_length" in found and "cross_entropy/eos" in found and not any("dpo" in f for f in found)
    two_stages = known_reasons(rows["TIGER + CE → S-DPO"])
    assert {f.partition("/")[0] for f in two_stages} == {"cross_entropy", "s_dpo"}
    assert known_reasons(next(row for row in apao().rows if row.baseline)) == []
