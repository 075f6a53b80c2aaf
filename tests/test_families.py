"""Declared comparisons: who is tested against whom, what is corrected together, and what carries no verdict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.analysis.significance import compare_values, holm
from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import backbones, datasets, metrics
from genrec_bench.experiments import suite_files
from genrec_bench.metrics.base import expected_values
from genrec_bench.reporting import rows, verdicts
from genrec_bench.reporting.families import Tested
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Family, Suite, load_suite
from genrec_bench.reporting.tables import missing_note
from genrec_bench.results.records import RecordStore, RunRecord
from tests.small_records import record_of, suite_record, table_rows

USERS = 200
CE, POINTWISE, PAIRWISE = ("TIGER + cross-entropy", "TIGER + APAO-Pointwise", "TIGER + APAO-Pairwise")
FAMILY = Family("claim", ("APAO-Pointwise", "APAO-Pairwise"), "cross-entropy", ("tiger",), ("ml-100k", "apao_yelp"))


def runs(seeds: Sequence[int] = (0, 1, 2), label: str = CE, **changes) -> list[RunRecord]:
    row = next(row for row in load_suite("apao").rows if row.label == label)
    return [record_of("ml-100k", "tiger", seed, row=row.source, **changes) for seed in seeds]


def kept(folder: Path, records: Sequence[RunRecord], share: float) -> list[RunRecord]:
    """Store records whose users are hit at place 1 with a probability, the same users for the same seed."""
    for record in records:
        hit = np.random.default_rng(record.seed).random(USERS) < share
        ranks = Rankings(hit.astype(int), np.ones(USERS, dtype=int), hit.astype(int))
        RecordStore(folder).write(record, ranks, ranks)
    return list(records)


def families_of(records: Sequence[RunRecord], folder: Path, *families: Family) -> tuple[Tested, ...]:
    suite = load_suite("apao")
    return ReportData.of(Suite("apao", suite.title, None, suite.rows, families=families), records, folder).families


def test_one_common_seed_is_no_test(tmp_path):
    """Two trained networks are not two methods: the comparison is counted as not made, and says why."""
    records = [*kept(tmp_path, runs((0, 1)), 0.2), *kept(tmp_path, runs((1,), POINTWISE), 0.5)]
    one, = families_of(records, tmp_path, FAMILY)
    assert one.tests == () and ("ml-100k, TIGER", "one common seed (1) and APAO-Pairwise not run") not in one.absent
    assert ("ml-100k, TIGER", "one common seed (1)") in one.absent


def test_planted_differences_get_their_verdicts_and_numbers(tmp_path):
    """Shares 0.2, 0.5 and 0.2 of the same uniform draws: pointwise is better for users between, pairwise equal."""
    records = [*kept(tmp_path, runs(), 0.2), *kept(tmp_path, runs(label=POINTWISE), 0.5),
               *kept(tmp_path, runs(label=PAIRWISE), 0.2)]
    one, = families_of(records, tmp_path, FAMILY)
    assert [(t.group.label, t.against.label, t.verdict) for t in one.tests] == [
        ("TIGER + APAO-Pointwise", "TIGER + cross-entropy", "better"),
        ("TIGER + APAO-Pairwise", "TIGER + cross-entropy", None)]
    store = RecordStore(tmp_path)
    a, b = (np.stack([expected_values("ndcg", store.read_ranks(r), 10) for r in rows])
            for rows in (runs(label=POINTWISE), runs()))
    assert one.tests[0].comparison == compare_values(a, b)
    assert [t.p_holm for t in one.tests] == holm([t.comparison.p_value for t in one.tests])
    assert one.tests[1].comparison.difference == 0.0 and one.tests[1].p_holm == 1.0
    assert one.absent == (("apao_yelp", "no run"),)
    turned, = families_of(records, tmp_path, replace(FAMILY, rows=("cross-entropy",), against="APAO-Pointwise"))
    assert [t.verdict for t in turned.tests] == ["worse"]


def test_rows_without_ranks_a_common_seed_or_runs_are_not_tested(tmp_path):
    one, = families_of([*kept(tmp_path, runs(), 0.2), *kept(tmp_path, runs((3,), POINTWISE), 0.5)], tmp_path, FAMILY)
    assert one.tests == () and ("ml-100k, TIGER", "no common seed") in one.absent
    whole = [*kept(tmp_path, runs(), 0.2), *kept(tmp_path, runs(label=POINTWISE), 0.5)]
    one, = families_of(whole, tmp_path, FAMILY)
    assert [t.group.label for t in one.tests] == ["TIGER + APAO-Pointwise"]
    assert one.absent == (("ml-100k, TIGER", "APAO-Pairwise not run"), ("apao_yelp", "no run"))
    one, = families_of([*whole, *runs(label=PAIRWISE)], tmp_path, FAMILY)
    assert ("ml-100k, TIGER", "APAO-Pairwise without ranks") in one.absent
    one, = families_of(whole, tmp_path / "elsewhere", FAMILY)
    both = "APAO-Pointwise without ranks and cross-entropy without ranks"
    assert one.tests == () and ("ml-100k, TIGER", both) in one.absent
    facts = verdicts.facts([one], None)
    assert facts["untested"] == [("claim", "quick")] and not facts["table"]
    assert ("ml-100k, TIGER", f"{both}; APAO-Pairwise not run") in facts["absent"][0][2]


def test_one_test_user_is_not_tested(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "USERS", 1)
    one, = families_of([*kept(tmp_path, runs(), 0.2), *kept(tmp_path, runs(label=POINTWISE), 0.5)], tmp_path, FAMILY)
    alone = "with one test user, who allows no test"
    assert not one.tests and ("ml-100k, TIGER", f"APAO-Pointwise {alone} and cross-entropy {alone}") in one.absent


def test_a_row_with_more_seeds_makes_no_other_incomplete(tmp_path):
    """Seed 4 is not of the profile: that run is left out, which is said, and nobody lacks it. Two of three have it:
    then it counts, and the third is incomplete."""
    records = [*kept(tmp_path, runs((0, 1, 2, 4)), 0.2), *kept(tmp_path, runs(label=POINTWISE), 0.5),
               *kept(tmp_path, runs(label=PAIRWISE), 0.2)]
    one, = families_of(records, tmp_path, FAMILY)
    assert one.tests[0].seeds == (0, 1, 2) and one.tests[0].comparison.n_seeds == 3
    without, = families_of([r for r in records if r.seed != 4], tmp_path, FAMILY)
    assert one.tests[0].comparison == without.tests[0].comparison
    block, = arrange(load_suite("apao"), records)
    assert block.left_out == ("seed 4 of TIGER + cross-entropy",) and "Left out, as most rows" in missing_note(block)
    more, = families_of([*records, *kept(tmp_path, runs((4,), POINTWISE), 0.5)], tmp_path, FAMILY)
    assert [(t.seeds, t.left) for t in more.tests] == [((0, 1, 2, 4), ((), ())), ((0, 1, 2), ((), (4,)))]
    assert [t.whole for t in more.tests] == [True, False]
    two = [r for r in records if r.label != PAIRWISE and r.seed != 4]
    unranked, = families_of([*two, *runs((5,), POINTWISE)], tmp_path, FAMILY)
    assert (unranked.tests[0].left, unranked.tests[0].comparison) == (((5,), ()), without.tests[0].comparison)


def test_seeds_are_those_of_the_data_whatever_the_suite(tmp_path):
    """MSL has one seed where cross-entropy, of another suite, has three: MSL is incomplete there too."""
    msl = [suite_record("TIGER + MSL", 0, 0.03)]
    sft = next(row for row in load_suite("bear-sid").rows if row.label == "TIGER + SFT (summed cross-entropy)")
    other = [record_of("ml-100k", "tiger", seed, row=sft.source) for seed in (0, 1, 2)]
    alone, = arrange(load_suite("apao"), msl)
    beside, = arrange(load_suite("apao"), [*msl, *other])
    assert alone.missing(alone.groups[0]) == () and beside.missing(beside.groups[0]) == (1, 2)


def test_profiles_are_corrected_apart_and_smoke_says_nothing(tmp_path):
    records = []
    for profile in ("quick", "paper", "smoke"):
        records += kept(tmp_path, runs(profile=profile), 0.2)
        records += kept(tmp_path, runs(label=POINTWISE, profile=profile), 0.3)
    found = families_of(records, tmp_path, FAMILY)
    assert [one.profile for one in found] == ["paper", "quick"]
    assert all(one.tests[0].p_holm == one.tests[0].comparison.p_value for one in found)


def test_a_row_whose_settings_were_changed_is_another(tmp_path):
    other = runs(label=POINTWISE, overrides={"apao": {"eta": 3e-5}})
    records = [*kept(tmp_path, runs(), 0.2), *kept(tmp_path, other, 0.5)]
    assert [one.tests for one in families_of(records, tmp_path, FAMILY)] == [()]


def test_a_baseline_without_seeds_stands_against_every_seed(tmp_path):
    knn = [record_of("ml-100k", "item_knn", 0)]
    records = [*kept(tmp_path, runs(), 0.2), *kept(tmp_path, knn, 0.6)]
    one, = families_of(records, tmp_path, replace(FAMILY, rows=("cross-entropy",), against="item_knn"))
    assert (one.tests[0].verdict, one.tests[0].comparison.n_seeds) == ("worse", 3)


def test_the_words_of_the_report(tmp_path):
    records = [*kept(tmp_path, runs(), 0.2), *kept(tmp_path, runs(label=POINTWISE), 0.5),
               *kept(tmp_path, runs(label=PAIRWISE), 0.2)]
    found = families_of(records, tmp_path, FAMILY)
    facts = verdicts.facts(found, None)
    cells = table_rows("\n" + facts["table"], "")
    assert cells[f"{POINTWISE} over cross-entropy"][0] == "ml-100k, quick"
    assert [row[4:6] for row in cells.values()] == [["2 of 4", "**better** (short runs)"],
                                                    ["2 of 4", "no difference detected"]]
    assert facts["absent"] == [("claim", "quick", [("apao_yelp", "no run")])] and not facts["across"]
    text = render("tests", **facts, nothing=verdicts.NOTHING)
    assert "With fewer than 5 seeds a verdict is on these trained networks" in text
    rows = verdicts.tests_csv(found).splitlines()
    assert len(rows) == 3 and rows[0] == ",".join(verdicts.CSV_HEADER) and rows[1].endswith(",better")


def test_the_same_comparison_on_several_data_sets(tmp_path):
    """The mean of both relative differences; half the width is the root of the sum of squares over two."""
    records = []
    for dataset, share in (("ml-100k", 0.5), ("apao_yelp", 0.3)):
        for label, of in ((CE, 0.2), (POINTWISE, share)):
            row = next(row for row in load_suite("apao").rows if row.label == label)
            records += kept(tmp_path, [record_of(dataset, "tiger", seed, row=row.source, profile="quick")
                                       for seed in (0, 1, 2)], of)
    one, = families_of(records, tmp_path, FAMILY)
    first, second = (t.comparison for t in one.tests)
    cells = table_rows("\n" + verdicts.facts([one], None)["across"], "")[f"{POINTWISE} over cross-entropy"]
    mean = (first.difference / first.mean_b + second.difference / second.mean_b) / 2
    half = np.hypot(*((c.interval[1] - c.interval[0]) / 2 / c.mean_b for c in (first, second))) / 2
    assert cells[:3] == ["quick", "2", f"{100 * mean:+.1f} [{100 * (mean - half):+.1f}, {100 * (mean + half):+.1f}]"]
    assert cells[-3:] == ["2", "0", "0"]


@pytest.mark.parametrize("name", [n for n in suite_files.suite_names() if not load_suite(n).includes])
def test_the_families_of_the_suites(name):
    """Every name that a family uses is registered, no comparison is declared twice, and none is with itself."""
    suite = load_suite(name)
    networks = [row for row in suite.rows if not row.baseline]
    assert suite.families or len(networks) <= 1, "networks that stand beside each other are compared"
    pairs = [(row, f.against, b, d, f.metric) for f in suite.families for row in f.rows for b in f.backbones
             for d in f.datasets]
    assert len(set(pairs)) == len(pairs)
    for family in suite.families:
        assert set(family.datasets) <= set(datasets.names()) and set(family.backbones) <= set(backbones.names())
        assert family.measure in metrics.names() and family.metric == "ndcg@10" and family.against not in family.rows


SUITE = """
[suite]
name = "mine"
title = "Mine"

[[family]]
name = "claim"
rows = ["loud"]
against = "cross-entropy"
backbones = ["tiger"]
datasets = ["ml-100k"]

[[row]]
label = "TIGER + cross-entropy"
backbone = { name = "tiger" }
objective = [{ name = "cross_entropy" }]

[[row]]
label = "TIGER + loud"
backbone = { name = "tiger" }
objective = [{ name = "cross_entropy", reduction = "sum" }]
"""


@pytest.mark.parametrize(("old", "new", "message"), [
    ('rows = ["loud"]', 'rows = ["lound"]', r"unknown row 'lound' in .*family 1, rows\. Did you mean 'loud'"),
    ('against = "cross-entropy"', 'against = "cross_entropy"', r"family 1, against.*Did you mean 'cross-entropy'"),
    ('against = "cross-entropy"', 'against = "loud"', r"family 1, against"),
    ('datasets = ["ml-100k"]', 'datasets = ["ml-100k"]\nmetric = "ndcg"', "metric 'ndcg' is not a name with a length"),
    ("[[family]]", "[family]", r"Write \[\[family\]\] with two brackets"),
    ('backbones = ["tiger"]', "", "backbones"), ('name = "claim"', 'name = "claim"\nrow = ["loud"]', "rows"),
])
def test_a_mistake_in_a_family_is_named(tmp_path, old, new, message):
    (tmp_path / "mine.toml").write_text(SUITE)
    assert load_suite("mine", tmp_path).families[0].rows == ("loud",)
    (tmp_path / "mine.toml").write_text(SUITE.replace(old, new, 1))
    suite_files._parsed.cache_clear()
    rows._loaded.cache_clear()
    with pytest.raises(UserError, match=message):
        load_suite("mine", tmp_path)
