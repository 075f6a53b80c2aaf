"""Our own figures: what is drawn, of which rows, with which intervals; and the statistics of many methods at once."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.analysis.pruning import wilson
from genrec_bench.analysis.ranking import AllPairs, all_pairs, mean_interval
from genrec_bench.analysis.significance import compare_values, holm
from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.reporting.figures import bands, costs, curves, runs, scores, tested
from genrec_bench.reporting.figures.bands import FEW
from genrec_bench.reporting.figures.base import plates
from genrec_bench.reporting.figures.charts import Chart
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.results.test_users import UserFacts, path_of, write_users
from tests.small_records import SEEDS, apao, record_of, suite_record
from tests.small_records import stored as stored_records

USERS = 160
SASREC = "SASRec (RecBole, CE)"
FINGERPRINT = "ab" * 32


def methods(seed: int, count: int, seeds: int = 3, users: int = 200, better: float = 0.0) -> list[np.ndarray]:
    """Values like those of NDCG: most are 0, users have something in common; the first method is better."""
    random = np.random.default_rng(seed)
    common = random.random(users)
    found = []
    for m in range(count):
        hit = random.random((seeds, users)) < 0.3 * common + (better if m == 0 else 0.0)
        found.append(np.where(hit, 1 / np.log2(1 + random.integers(1, 11, (seeds, users))), 0.0))
    return found


# --- every two of many methods ---

@pytest.mark.parametrize("seed", range(3))
def test_p_values_of_pairs_approach_all_sign_flips(seed: int) -> None:
    """Eight users: all 256 flips of each pair by brute force, then Holm; shares lie within 5 standard errors."""
    values = [v[:, :8] for v in methods(seed, 3, users=8, better=0.5)]
    flips = np.array(list(itertools.product((-1.0, 1.0), repeat=8)))
    exact = []
    for a, b in itertools.combinations(values, 2):
        difference = (a - b).mean(axis=0)
        exact.append(float((np.abs(flips @ difference) >= abs(difference.sum()) - 1e-9).mean()))
    found = all_pairs(values, num_permutations=9_999, num_resamples=10)
    wanted = holm(exact)
    for (i, j), p in zip(itertools.combinations(range(3), 2), wanted, strict=True):
        assert found.p_holm[i, j] == found.p_holm[j, i] == pytest.approx(p, abs=5 * 3 * 0.5 / 100)
    assert (np.diag(found.p_holm) == 1.0).all() and not np.diag(found.apart).any()


@pytest.mark.parametrize("seed", range(3))
def test_two_methods_are_compared_as_by_compare_values(seed: int) -> None:
    a, b = methods(seed, 2, better=0.08)
    one, pair = compare_values(a, b), all_pairs([a, b], num_resamples=10_000)
    assert pair.p_holm[0, 1] == pytest.approx(one.p_value, abs=0.02)
    assert pair.means[0].value - pair.means[1].value == pytest.approx(one.difference, abs=1e-12)
    alone = compare_values(a, np.zeros_like(a)).interval
    assert (pair.means[0].low, pair.means[0].high) == pytest.approx(alone, abs=0.1 * (alone[1] - alone[0]))


def test_a_difference_needs_both_the_test_and_the_interval() -> None:
    """Seeds that contradict each other: over users the test is sure, over seeds the interval is not."""
    values = np.zeros((2, 400))
    values[0, :100] = 1.0
    other = np.zeros((2, 400))
    other[1, 100:180] = 0.9
    found = all_pairs([values, other])
    assert found.p_holm[0, 1] <= 0.05 and not found.apart[0, 1]
    sure = all_pairs([np.repeat(values[:1], 2, axis=0), np.zeros((2, 400))])
    assert sure.apart[0, 1] and sure.means[0].value == 0.25


@pytest.mark.parametrize("seed", range(4))
def test_order_of_users_and_repeated_rows_change_nothing(seed: int) -> None:
    values = methods(seed, 4, better=0.1)
    values[3] = values[3][:1]  # not seeded
    found = all_pairs(values, num_permutations=499, num_resamples=200)
    order = np.random.default_rng(seed).permutation(200)
    for other in ([v[:, order] for v in values], [*values[:3], np.repeat(values[3], 3, axis=0)]):
        same = all_pairs(other, num_permutations=499, num_resamples=200)
        assert np.array_equal(same.p_holm, found.p_holm) and np.array_equal(same.apart, found.apart)
        for a, b in zip(same.means, found.means, strict=True):
            assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12)


def test_equal_methods_are_never_apart_and_families_rarely_err() -> None:
    value = methods(1, 1)[0]
    same = all_pairs([value, value.copy()])
    assert same.p_holm[0, 1] == 1.0 and same.together() == [(0, 1)]
    wrong = sum(all_pairs(methods(s, 4, seeds=1, users=80), num_permutations=399, num_resamples=100).apart.any()
                for s in range(200))
    assert wrong <= 20  # of 200 families at 5%: more than 20 has a probability of 0.001


@pytest.mark.parametrize("values", [[np.ones((1, 3))], [np.ones((1, 3)), np.ones((1, 4))],
                                    [np.ones((2, 3)), np.ones((3, 3))], [np.ones(3), np.ones(3)],
                                    [np.ones((1, 0)), np.ones((1, 0))]])
def test_methods_that_cannot_be_compared_are_refused(values: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least two|same users|must be"):
        all_pairs(values)


@pytest.mark.parametrize("seed", range(8))
def test_sets_without_a_difference_by_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    upper = np.triu(random.random((6, 6)) < 0.4, 1)
    apart = upper | upper.T
    free = [set(c) for size in range(1, 7) for c in itertools.combinations(range(6), size)
            if not any(apart[i, j] for i, j in itertools.combinations(c, 2))]
    largest = sorted(tuple(sorted(c)) for c in free if len(c) > 1 and not any(c < other for other in free))
    mean = mean_interval(np.ones((1, 2)), num_resamples=1)
    assert AllPairs((mean,) * 6, np.ones((6, 6)), apart).together() == largest


def test_interval_of_a_mean() -> None:
    """All 0: Wilson's limit for none of the users; else close to the normal one for users alone."""
    nothing = mean_interval(np.zeros((3, 50)))
    assert (nothing.value, nothing.low, nothing.high) == (0.0, *wilson(0, 50)) and nothing.n == 50
    values = methods(3, 1, seeds=1, users=2000)[0]
    found, error = mean_interval(values, num_resamples=4_000), values.std(ddof=1) / 2000 ** 0.5
    assert found.value == pytest.approx(values.mean()) and found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert mean_interval(np.ones((2, 9))).low == pytest.approx(1.0)


# --- bands and fronts ---

def test_bands_by_hand() -> None:
    labels = [b.label.split("\n")[0] for b in bands.bands(np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0]))]
    assert labels == ["0", "1–2", "3–4", "5–6", "7–8"]
    assert [(b.low, b.high, b.users) for b in bands.bands(np.array([9, 3, 9, 9, 4, 9]))] == [
        (3, 4, 2), (9, 9, 4)]
    assert [b.label for b in bands.bands(np.full(1200, 7))] == ["7\nn = 1,200"]
    assert [b.label for b in bands.bands(np.array([0]))] == ["0\nn = 1\n(too few)"]


@pytest.mark.parametrize("seed", range(10))
def test_bands_hold_every_user_once(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.geometric(random.uniform(0.05, 0.9), size=150) - random.integers(2)
    found = bands.bands(counts)
    assert (np.sum([b.rows for b in found], axis=0) == 1).all()
    for band in found:
        assert counts[band.rows].min() == band.low and counts[band.rows].max() == band.high
        assert (band.low == 0) == (band.high == 0)
    assert all(a.high < b.low for a, b in itertools.pairwise(found)) and len(found) <= 5


# --- figures of made-up records ---

def made_up() -> list[RunRecord]:
    """ml-100k: baselines, cross-entropy, MSL and APAO-Pairwise with three seeds, APAO-Pointwise with two of them."""
    found = [record_of("ml-100k", m, s) for m in ("popularity", "item_knn", "sasrec")
             for s in (SEEDS if m == "sasrec" else (0,))]
    found = [r if r.label == SASREC else replace(r, timings={"train_seconds": 0.01}, training={}) for r in found]
    for label, value, positions in (("TIGER + cross-entropy", 0.03, (100, 0)), ("TIGER + MSL", 0.04, (100, 0)),
                                    ("TIGER + APAO-Pairwise", 0.05, (300, 100)),
                                    ("TIGER + APAO-Pointwise", 0.06, (100, 0))):
        seeds = SEEDS[:2] if label.endswith("Pointwise") else SEEDS
        found += [suite_record(label, s, value + 0.001 * s, positions=positions) for s in seeds]
    return [replace(r, identity={**r.identity, "split_fingerprint": FINGERPRINT}) for r in found]


def stored(folder: Path, users: int = USERS, facts: bool = True) -> ReportData:
    """The records with ranks: the better its mean, the more targets a method hits."""
    store, records = RecordStore(folder), made_up()
    for record in records:
        random = np.random.default_rng([record.seed, round(1e6 * record.metrics["ndcg@10"])])
        hit = random.random(users) < 6 * record.metrics["ndcg@10"]
        ranks = np.where(hit, random.integers(1, 11, users), 0)
        store.write(record, Rankings(ranks, np.ones(users, int), ranks), Rankings(ranks, np.ones(users, int), ranks))
    if facts:
        write_users(path_of(store, "ml-100k", FINGERPRINT), UserFacts(
            FINGERPRINT, np.arange(USERS), np.full(USERS, 10), np.arange(USERS) // 4, 5 + np.arange(USERS) % 40,
            np.full(USERS, 5), np.full(USERS, -1)))
    return ReportData.of(apao(), records, folder)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return stored(tmp_path_factory.mktemp("records"))


def at(chart: Chart, mark: str, **where: object) -> list[dict]:
    """The points of one mark with these values."""
    return [p for p in chart.points if p["mark"] == mark and all(p[k] == v for k, v in where.items())]


def test_forest_shows_every_declared_test_in_per_cent(material: ReportData) -> None:
    chart = tested.forest_figure(material, None)
    tests = [t for one in material.families for t in one.tests]
    # both forms against cross-entropy, MSL against it, all but MSL against SASRec; Pointwise on the two seeds it has
    assert [t.group.name for t in tests] == ["APAO-Pointwise", "APAO-Pairwise", "MSL", "cross-entropy",
                                             "APAO-Pointwise", "APAO-Pairwise"]
    shown = at(chart, "mean")
    assert [p["at"] for p in shown] == [t.group.name for t in tests]
    for p, t in zip(shown, tests, strict=True):
        c = t.comparison
        assert (p["value"], p["low"]) == pytest.approx((c.difference / c.mean_b, c.interval[0] / c.mean_b))
        assert p["note"].startswith("p ") and t.against.name in p["panel"]
    assert "6 tests in 3 families, 2 to 3 seeds" in chart.caption and not chart.note.endswith(".")
    assert tested.forest_figure(ReportData.of(apao(), made_up()), None) is None


def test_ranking_is_by_mean_and_of_complete_rows(material: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = tested.ranking_figure(material, material.blocks[0])
    shown = [p["at"] for p in at(chart, "mean")]
    groups = {g.name: g for g in material.blocks[0].groups}
    assert set(shown) == {"Popularity", "Item-kNN", SASREC, "cross-entropy", "MSL", "APAO-Pairwise"}
    means = [float(material.values(groups[name]).mean()) for name in shown]
    assert means == sorted(means, reverse=True)
    assert [p["note"] for p in at(chart, "mean")] == [f"{m:.4f}" for m in means]
    assert "TIGER + APAO-Pointwise" in chart.caption and "TIGER 15" in chart.caption  # 6 methods, 15 pairs
    assert "tables alone" not in chart.caption
    ordered = [g for g in material.blocks[0].groups if g.name in shown]
    joined = {}
    for p in at(chart, "join"):
        joined.setdefault(p["value"], set()).add(p["at"])
    pairs = all_pairs([material.values(g) for g in ordered])
    assert sorted(map(sorted, joined.values())) == sorted(sorted(ordered[i].name for i in c) for c in pairs.together())
    monkeypatch.setattr(tested, "MOST", 4)
    assert "2 more rows are in the tables alone" in tested.ranking_figure(material, material.blocks[0]).caption
    assert tested.ranking_figure(ReportData.of(apao(), made_up()), material.blocks[0]) is None


def test_ranking_that_allows_no_test_says_why(material: ReportData, monkeypatch: pytest.MonkeyPatch,
                                              tmp_path: Path) -> None:
    records = [r for r in made_up() if r.label == "TIGER + MSL"]
    alone = ReportData.of(apao(), records, stored_records(tmp_path, records).root)
    reason = tested.ranking_figure(alone, alone.blocks[0])
    assert "TIGER + cross-entropy" in reason and "--suite apao" in reason and "TIGER + MSL;" not in reason
    values = ReportData.values
    monkeypatch.setattr(ReportData, "values", lambda self, group: values(self, group)[:, :1])
    assert tested.ranking_figure(material, material.blocks[0]).endswith("one allows no test")


def test_the_plane_has_each_row_with_its_costs_the_cheapest_first(material: ReportData,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairwise: 300 with and 100 without gradient against 100 of cross-entropy; untrained rows have no seconds."""
    chart = costs.plane_figure(material, material.blocks[0])
    shown = [p["at"] for p in at(chart, "mean", quantity="ndcg@10", panel="TIGER")]
    assert sorted(shown[:2]) == ["MSL", "cross-entropy"] and shown[2:] == ["APAO-Pairwise"]
    assert {p["at"]: p["value"] for p in at(chart, "mean", quantity="positions")} == {
        "cross-entropy": 1.0, "MSL": 1.0, "APAO-Pairwise": 4.0}
    assert {p["at"]: p["value"] for p in at(chart, "mean", quantity="seconds")} == dict.fromkeys(
        [SASREC, "cross-entropy", "MSL", "APAO-Pairwise"], pytest.approx(30.0))
    msl, = at(chart, "mean", quantity="ndcg@10", at="MSL")
    assert (msl["value"], msl["low"]) == pytest.approx((0.041, 0.04)) and not at(chart, "seed")
    assert {p["at"] for p in at(chart, "mean", panel="Baselines")} == {"Popularity", "Item-kNN", SASREC}
    assert "cpu, 1 thread" in chart.caption and "TIGER + APAO-Pointwise" in chart.caption
    assert "not trained" in chart.caption and "are counted" in chart.caption and "tables alone" not in chart.caption
    monkeypatch.setattr(costs, "MOST", 2)
    assert "2 more rows are in the tables alone" in costs.plane_figure(material, material.blocks[0]).caption
    baselines = ReportData.of(apao(), [r for r in made_up() if "baseline" in r.config and r.config["baseline"]])
    assert costs.plane_figure(baselines, baselines.blocks[0]) is None


@pytest.mark.parametrize(("name", "fact"), bands.FACTS.items())
def test_bands_show_means_of_their_users(material: ReportData, name: str, fact: str) -> None:
    block = material.blocks[0]
    chart = bands.bands_figure(name, material, block)
    found = bands.bands(getattr(material.users(block), fact))
    assert list(chart.at.ticks.values()) == [b.label for b in found]
    assert {p["method"] for p in chart.points} == {g.name for g in block.groups} - {"APAO-Pointwise"}
    for group in block.groups:
        if shown := at(chart, "mean", method=group.name):
            whole = [material.values(group)[:, b.rows].mean() for b in found if b.users >= FEW]
            assert [p["value"] for p in shown] == pytest.approx(whole)
            assert all((p["low"] is None) == (p["value"] == 0) for p in shown)
    assert any(b.users < FEW for b in found) == (fact == "target_count")


def test_bands_need_facts_that_fit(tmp_path: Path) -> None:
    without = stored(tmp_path / "without", facts=False)
    reason = bands.bands_figure("history", without, without.blocks[0])
    assert "--suite apao --profile quick --datasets ml-100k" in reason
    other = stored(tmp_path / "other", users=USERS - 1)
    with pytest.raises(UserError, match="159 test rows.*160"):
        bands.bands_figure("popularity", other, other.blocks[0])
    alone = ReportData.of(apao(), made_up())
    assert bands.bands_figure("history", alone, alone.blocks[0]) is None


def test_a_panel_has_the_best_rows_in_validation(material: ReportData) -> None:
    """Of many rows cross-entropy and those with the highest validation; the baselines always."""
    block = material.blocks[0]
    chosen = bands.compared(replace(block, groups=tuple(
        replace(g, label=f"TIGER + {i}", row=replace(g.row, label=f"TIGER + {i}", stated={**g.row.stated, "n": i}))
        for g in block.groups if g.row.backbone and not block.missing(g) for i in range(4))
        + tuple(g for g in block.groups if not g.row.backbone)), "TIGER")
    assert len(chosen) == bands.MOST and [g.row.backbone for g in chosen[:3]] == [None] * 3
    scores = [g.mean("valid_ndcg@10") for g in chosen[3:]]
    assert scores == pytest.approx([0.031] + [0.051] * 4)


def test_groups_that_are_all_too_small_are_left_out_with_the_reason(tmp_path: Path) -> None:
    few = stored(tmp_path, users=FEW - 1, facts=False)
    ones = np.ones(FEW - 1, int)
    write_users(path_of(RecordStore(tmp_path), "ml-100k", FINGERPRINT), UserFacts(
        FINGERPRINT, np.arange(FEW - 1), ones, ones, ones, ones, -ones))
    plate = next(p for p in plates(few.suite) if p.key == "figure:history")
    assert plate.draw(few, few.blocks[0]) == "every group has fewer than 20 users"


def test_a_row_without_all_seeds_has_crosses_and_no_mean(material: ReportData) -> None:
    chart = scores.results_figure(material, material.blocks[0])
    name = "TIGER + APAO-Pointwise"
    alone = at(chart, "incomplete", method=name, quantity="ndcg@10")
    assert [p["value"] for p in alone] == pytest.approx([0.06, 0.061])
    assert not at(chart, "mean", method=name) and "crosses: " in chart.note
    mean, = at(chart, "mean", method="TIGER + MSL", quantity="ndcg@10")
    assert (mean["value"], mean["low"], mean["high"]) == pytest.approx((0.041, 0.040, 0.042))


def test_curves_have_deviations_and_crosses_for_single_seeds(material: ReportData) -> None:
    chart = curves.curves_figure(material, material.blocks[0])
    alone = at(chart, "incomplete", panel="TIGER", at=1)
    assert [p["value"] for p in alone] == pytest.approx([0.06, 0.061])
    first, = at(chart, "curve", method="cross-entropy", at=1)
    assert (first["low"], first["high"]) == pytest.approx((0.03, 0.032))  # 0.031 ± 0.001


def test_principal_rows_are_whole_and_plain(material: ReportData) -> None:
    block = material.blocks[0]
    own = runs.principal(block, "TIGER", 14)
    assert [g.name for g in own] == ["cross-entropy", "MSL", "APAO-Pairwise"]
    assert runs.principal(block, "TIGER", 2) == own[:2]
    full = replace(own[0], row=replace(own[0].row, grid="full", stated={**own[0].row.stated, "n": 1}))
    crowded = replace(block, groups=(full, *block.groups))
    assert full in runs.principal(crowded, "TIGER", 4) and full not in runs.principal(crowded, "TIGER", 3)
