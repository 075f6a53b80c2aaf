"""The report of a comparison: who is compared with whom, what it says, and that equal records give equal bytes."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from genrec_bench.analysis.significance import compare_ranks, compare_values, detectable, holm
from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.metrics.base import expected_values
from genrec_bench.reporting.comparison import render_comparison
from genrec_bench.reporting.families import Test
from genrec_bench.reporting.matching import Rows
from genrec_bench.reporting.pairs import compared
from genrec_bench.results.records import RunRecord
from tests.small_records import record_of, suite_record

USERS = 200
SASREC = "SASRec (RecBole, CE)"
RATES = {"popularity": 0.05, "item_knn": 0.1, "sasrec": 0.3, "tiger": 0.3}
FEW = {"num_permutations": 499}


def fresh(seed: int, dataset: str = "ml-100k", label: str = "Mine", **changes: Any) -> RunRecord:
    """A run of TIGER with an objective that no suite has."""
    return record_of(dataset, "tiger", seed, label=label, objective=({"name": "dpo", "beta": 0.7, "weight": 2.0},),
                     **changes)


def stored(*methods: str, seeds: tuple[int, ...] = (0, 1, 2), dataset: str = "ml-100k") -> list[RunRecord]:
    unseeded = ("popularity", "item_knn")
    return [record_of(dataset, m, s) for m in methods for s in (seeds[:1] if m in unseeded else seeds)]


def made_up(rate_new: float = 0.3, ties: int = 1) -> Callable[[RunRecord], Rankings]:
    """Ranks in which a share of targets is in the list: of the first users, and others by seed."""
    def ranks(record: RunRecord) -> Rankings:
        spec = record.config.get("baseline") or {"name": record.config["objectives"][0]["name"]}
        rate = {**RATES, "cross_entropy": RATES["tiger"]}.get(spec["name"], rate_new)
        random = np.random.default_rng(record.seed + 10 * sum(map(ord, spec["name"])))
        places = np.where(random.random(USERS) < rate, random.integers(1, 11, size=USERS), 0)
        return Rankings(places, np.full(USERS, ties), places)

    return ranks


def text_of(tmp_path: Path, new: list[RunRecord], baselines: list[RunRecord], ranks=None, **options: Any) -> str:
    told = render_comparison(new, baselines, ranks or made_up(), tmp_path, **{**FEW, **options})
    return told.path.read_text(encoding="utf-8")


def rows_of(tmp_path: Path) -> list[dict[str, str]]:
    with open(tmp_path / "comparison.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_better_worse_and_no_difference(tmp_path: Path) -> None:
    new, baselines = [fresh(s) for s in range(3)], stored("popularity", "sasrec", "tiger")
    told = render_comparison(new, baselines, made_up(0.3), tmp_path, **FEW)
    lines = told.sentences
    assert told.path == tmp_path / "comparison.md" and len(lines) == 3
    assert re.fullmatch(r"Mine is better than Popularity \(ml-100k, 3 seeds, baseline not seeded\): NDCG@10 0\.\d{4} "
                        r"against 0\.\d{4}, \+0\.\d{4} \[\+0\.\d{4}, \+0\.\d{4}\], p = 0\.006\.", lines[0])
    for line, other in zip(lines[1:], (SASREC, "TIGER + cross-entropy"), strict=True):
        assert re.fullmatch(rf"No difference detected between Mine and {re.escape(other)} \(ml-100k, 3 seeds\): .*; "
                            r"a difference of 0\.\d{4} would have got a verdict in about 4 of 5 cases\.", line)
    told = render_comparison(new, baselines, made_up(0.0), tmp_path, **FEW)
    assert [line.split(" (")[0] for line in told.sentences[1:]] == ["Mine is worse than SASRec",
                                                                    "Mine is worse than TIGER + cross-entropy"]


def test_the_summary_counts_what_has_no_verdict(tmp_path: Path) -> None:
    new, records = [fresh(s) for s in range(3)], stored("popularity", "sasrec", "tiger")
    (line,) = render_comparison(new, records, made_up(0.3), tmp_path, **FEW).summary
    assert re.fullmatch(r"Mine on ml-100k, profile quick: better than Popularity; no difference detected from 2 of 3 "
                        r"\(a difference of 0\.\d{4} would have got a verdict in about 4 of 5 cases\)\.", line)
    (line,) = render_comparison(new, records, made_up(0.0), tmp_path, **FEW).summary
    assert f"worse than {SASREC} and TIGER + cross-entropy" in line
    (line,) = render_comparison([fresh(9)], records, made_up(0.0), tmp_path, **FEW).summary
    assert line.endswith(f"; no seed in common with {SASREC} and TIGER + cross-entropy.")


def test_what_would_have_been_detected_is_of_the_whole_family(tmp_path: Path) -> None:
    """No less than the difference of one uncorrected test, and more the more methods are tested."""
    new, records, ranks = [fresh(0)], stored("popularity", "sasrec", "tiger", seeds=(0,)), made_up(0.3)
    a, b = (expected_values("ndcg", ranks(r), 10)[None] for r in (new[0], records[1]))
    sizes = []
    for count, some in ((1, records[1:2]), (3, records)):
        text = text_of(tmp_path, new, some, ranks)
        row = next(r for r in rows_of(tmp_path) if r["against"] == SASREC)
        sizes.append(float(row["detectable"]))
        assert sizes[-1] == detectable(compare_values(a, b, num_permutations=499), count)
        assert f"none detected (≥ {sizes[-1]:.4f})" in text
    assert float(row["minimum_detectable"]) - 1e-12 <= sizes[0] < sizes[1]


def test_the_verdict_stands_first_and_the_rest_in_order(tmp_path: Path) -> None:
    text = text_of(tmp_path, [fresh(0), fresh(1)], stored("popularity", "sasrec", "tiger", seeds=(0, 1)),
                   missing=[("BERT4Rec", "python benchmark.py --suite apao --baselines bert4rec")])
    paragraphs = text.split("\n\n")
    assert paragraphs[0] == "# Mine against the stored baselines"
    assert re.match(r"\*\*Mine on ml-100k, profile quick:\*\* better than Popularity; no difference detected from "
                    r"SASRec \(RecBole, CE\) and TIGER \+ cross-entropy \(a difference of 0\.\d{4} would have got a "
                    r"verdict in about 4 of 5 cases\)\.", paragraphs[1])
    heads = [p.splitlines()[0] for p in paragraphs if p.startswith("#")]
    assert heads[1:] == ["## Mine on ml-100k, profile quick", "## How this was computed",
                         "## Baselines without a record"]
    assert "- BERT4Rec: `python benchmark.py --suite apao --baselines bert4rec`" in text
    assert "499 times" in text and "seeds 0, 1." in text and "all 3 comparisons" in text
    assert "With 2 seeds it is somewhat too narrow" in text


def test_the_numbers_are_those_of_the_statistics(tmp_path: Path) -> None:
    """Without ties they are those of the ranks; p is Holm-corrected over the report; ratios are of medians."""
    new, baselines, ranks = [fresh(s) for s in range(3)], stored("popularity", "sasrec"), made_up(0.35)
    text_of(tmp_path, new, baselines, ranks, seed=7)
    rows = {row["against"]: row for row in rows_of(tmp_path)}
    a, b = (np.stack([ranks(r).ranks for r in side]) for side in (new, baselines[1:]))
    expected = compare_ranks(a, b, metric="ndcg", k=10, num_permutations=499, seed=7)
    row = rows[SASREC]
    assert [float(row[k]) for k in ("difference", "low", "high", "p_value", "d_z", "minimum_detectable")] == [
        expected.difference, *expected.interval, expected.p_value, expected.d_z, expected.minimum_detectable]
    assert float(row["recall"]) == pytest.approx((a > 0).mean())
    p = sorted(float(r["p_value"]) for r in rows.values())
    assert sorted(float(r["p_holm"]) for r in rows.values()) == pytest.approx([2 * p[0], max(2 * p[0], p[1])])
    assert row["users"] == "200" and row["seeds"] == "0 1 2" and float(row["train_seconds_ratio"]) == 1.0
    assert rows["Popularity"]["train_seconds_ratio"] == "", "nothing was trained"


def test_ties_are_worth_their_expected_value(tmp_path: Path) -> None:
    new, baselines, ranks = [fresh(0)], stored("sasrec", seeds=(0,)), made_up(0.35, ties=3)
    text_of(tmp_path, new, baselines, ranks)
    a, b = (expected_values("ndcg", ranks(r), 10)[None] for r in (new[0], baselines[0]))
    expected = compare_values(a, b, num_permutations=499)
    assert float(rows_of(tmp_path)[0]["difference"]) == expected.difference
    assert "With one seed it cannot" in (tmp_path / "comparison.md").read_text()


def test_only_common_seeds_are_compared_and_said_so(tmp_path: Path) -> None:
    text = text_of(tmp_path, [fresh(s) for s in (1, 2, 5)], stored("sasrec", seeds=(0, 1, 2)))
    assert rows_of(tmp_path)[0]["seeds"] == "1 2"
    assert f"Left out against {SASREC}: Mine's 5 and {SASREC}'s 0." in text
    text = text_of(tmp_path, [fresh(5)], stored("sasrec", "popularity"))
    assert f"Mine was not compared with {SASREC}: they have no seed in common" in text and "no common seed" in text
    assert [r["against"] for r in rows_of(tmp_path)] == ["Popularity"], "an unseeded run stands against every seed"


def with_identity(record: RunRecord, **parts: Any) -> RunRecord:
    return dataclasses.replace(record, identity={**record.identity, **parts})


def test_other_data_evaluation_or_profile_is_not_compared(tmp_path: Path) -> None:
    base = record_of("ml-100k", "sasrec", 0)
    others = [record_of("apao_office", "sasrec", 0), record_of("ml-100k", "sasrec", 0, profile="paper"),
              with_identity(base, split_fingerprint="of other rows")]
    (tmp_path / "differences.png").write_bytes(b"of an earlier comparison")
    text = text_of(tmp_path, [fresh(0)], others)
    assert "no stored baseline has the same data, split, evaluation and profile" in text
    assert rows_of(tmp_path) == [] and not (tmp_path / "differences.png").exists()
    one = with_identity(fresh(0), split_fingerprint="a" * 64)
    same, other = (with_identity(base, split_fingerprint=c * 64) for c in "ab")
    assert "no stored baseline" in text_of(tmp_path, [one], [other])
    assert "split `aaaaaaaaaaaa`" in text_of(tmp_path, [one], [same]) and len(rows_of(tmp_path)) == 1


def test_a_baseline_without_seeds_stands_in_every_profile(tmp_path: Path) -> None:
    stored = [record_of("apao_office", m, 0, profile="paper") for m in ("popularity", "sasrec")]
    text_of(tmp_path, [fresh(0, "apao_office", profile="quick")], stored)
    assert [r["against"] for r in rows_of(tmp_path)] == ["Popularity"]


def test_a_generative_baseline_says_what_it_shares(tmp_path: Path) -> None:
    llama = record_of("ml-100k", "tiger", 0, label="Llama + cross-entropy", backbone={"name": "llama"})
    text = text_of(tmp_path, [fresh(0)], [*stored("tiger", "sasrec", seeds=(0,)), llama])
    cells = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in text.splitlines() if line[:1] == "|"}
    assert cells["TIGER + cross-entropy"] == "same backbone" and cells[SASREC] == "not generative"
    assert cells["Llama + cross-entropy"] == "differs in backbone (llama instead of tiger)"
    faster = fresh(0, overrides={"training": {"learning_rate": 0.01}})
    assert "same backbone; differs in training" in text_of(tmp_path, [faster], stored("tiger", seeds=(0,)))


def test_cost_counts_the_first_stage_and_marks_other_machines(tmp_path: Path) -> None:
    passes = {"histories_with_gradient": 999, "positions_with_gradient": 60, "positions_without_gradient": 15}
    one = fresh(0)
    one = dataclasses.replace(one, timings={**one.timings, "train_seconds": 30.0, "first_stage_seconds": 60.0},
                              training={**one.training, "passes": passes},
                              provenance={**one.provenance, "device": "cuda"})
    (other,) = stored("tiger", seeds=(0,))
    other = dataclasses.replace(other, training={**other.training, "passes": {"positions_with_gradient": 100}})
    text = text_of(tmp_path, [one], [other])
    assert "3.00 † (positions 0.75)" in text and "not a fair ratio" in text
    here = dataclasses.replace(one, provenance=other.provenance)
    assert "†" not in text_of(tmp_path, [here], [other]) and "3.00 (positions 0.75)" in text_of(
        tmp_path, [here], [other])


def test_several_new_methods_and_datasets_are_one_family(tmp_path: Path) -> None:
    new = [fresh(0), fresh(0, "apao_office"), fresh(0, overrides={"decoding": {"temperature": 2.0}})]
    baselines = stored("sasrec", seeds=(0,)) + stored("sasrec", seeds=(0,), dataset="apao_office")
    text = text_of(tmp_path, new, baselines + new)
    assert "all 3 comparisons" in text and "## Described only" in text
    titles = [line for line in text.splitlines() if line.startswith("## Mine")]
    assert len(titles) == len(set(titles)) == 3
    told = [row["declared"] for row in rows_of(tmp_path)]
    assert text.startswith("# Mine") and sorted(told) == ["no", "no", "yes", "yes", "yes"]


def test_equal_records_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    new, baselines = [fresh(s) for s in range(2)], stored("popularity", "sasrec", "tiger", seeds=(0, 1))
    for name, order in (("a", 1), ("b", -1)):
        render_comparison(new[::order], baselines[::order], made_up(), tmp_path / name, **FEW)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["comparison.csv", "comparison.md", "comparison.tex", "differences.png", "differences.svg"]
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_smoke_means_nothing_and_no_run_is_refused(tmp_path: Path) -> None:
    text = text_of(tmp_path, [fresh(0, profile="smoke")], [record_of("ml-100k", "sasrec", 0, profile="smoke")])
    assert "Profile smoke only shows that everything works" in text.split("\n\n")[1]
    with pytest.raises(UserError, match="no run of the new objective"):
        render_comparison([], stored("sasrec"), made_up(), tmp_path)


# Which methods carry a verdict

def pairs_of(new: list[RunRecord], records: list[RunRecord], ranks: Callable[[RunRecord], Rankings] | None = None,
             block: int = 0) -> dict[str, Test]:
    """Pairs by the stored method's label, without a report."""
    blocks = compared(new, records, ranks or by_label(), num_permutations=199, seed=0)
    return {pair.against.label: pair for pair in blocks[block][1]}


def by_label(ties: int = 1) -> Callable[[RunRecord], Rankings]:
    """Ranks that depend on label and seed alone."""
    def ranks(record: RunRecord) -> Rankings:
        random = np.random.default_rng([record.seed, *record.label.encode()])
        places = np.where(random.random(USERS) < 0.3, random.integers(1, 15, size=USERS), 0)
        return Rankings(places, np.full(USERS, ties), places)

    return ranks


def suite_rows(*labels: str, seeds: tuple[int, ...] = (0, 1, 2), **changes: Any) -> list[RunRecord]:
    return [suite_record(label, s, 0.05, **changes) for label in labels for s in seeds]


CORE = ("TIGER + cross-entropy", "TIGER + APAO-Pointwise", "TIGER + MSL")
VARIANTS = ("TIGER + cross-entropy, trie decoding", "TIGER + APAO-Pointwise, as released")


def test_the_family_is_what_the_suites_declare() -> None:
    """Baselines and the backbone's rows outside the full grid; Holm is made over these alone."""
    records = suite_rows(*CORE, *VARIANTS, "Llama + cross-entropy") + stored("popularity", "sasrec")
    pairs = pairs_of([fresh(s) for s in range(3)], records)
    assert {label for label, pair in pairs.items() if pair.declared} == {*CORE, "Popularity", SASREC}
    family = [p for p in pairs.values() if p.declared]
    assert [p.p_holm for p in family] == holm([p.comparison.p_value for p in family])
    assert all(pairs[label].comparison is not None and pairs[label].p_holm == 1.0 for label in VARIANTS)
    llama = fresh(0, backbone={"name": "llama", "width": 64})
    assert {label for label, p in pairs_of([llama], records).items() if p.declared} == {
        "Llama + cross-entropy", "Popularity", SASREC}


def test_only_the_rows_own_settings_are_an_opponent(tmp_path: Path) -> None:
    """Of two SASRec runs, and of two of a generative row, the ones with other settings are described, in any order."""
    rows = [*stored("sasrec"), *suite_rows("TIGER + MSL")]
    changed = [*(record_of("ml-100k", "sasrec", s, overrides={"sasrec": {"hidden_size": 32}}) for s in range(3)),
               *(suite_record("TIGER + MSL", s, 0.2, overrides={"msl": {"tau": 3.0}}) for s in range(3))]
    for records in ([*rows, *changed], [*changed[::-1], *rows[::-1]]):
        pairs = pairs_of([fresh(s) for s in range(3)], records)
        assert {(p.against.records[0].method, p.declared) for p in pairs.values()} == {
            *((r.method, True) for r in rows), *((r.method, False) for r in changed)}
        assert {label for label, p in pairs.items() if p.declared} == {SASREC, "TIGER + MSL"}
        assert {label for label, p in pairs.items() if not p.declared} == {
            f"{r.label} (other settings, {r.method[:8]})" for r in changed}
        assert [p.p_holm for p in pairs.values() if p.declared] == [
            p.p_holm for p in pairs_of([fresh(s) for s in range(3)], rows).values()]


@pytest.mark.parametrize(("overrides", "what"), [
    ({"training": {"epochs": 60}}, "epochs 60 instead of 4"),
    ({"training": {"epochs": 60, "batch_size": 32}}, "epochs 60 instead of 4, batch_size 32 instead of 64"),
    ({"training": {"patience": 9}}, "patience 9 instead of 3")])
def test_an_unequal_budget_has_no_verdict(tmp_path: Path, overrides: dict[str, Any], what: str) -> None:
    """However much better it is: everything is described, and the first line says why."""
    new = [fresh(s, overrides=overrides) for s in range(3)]
    told = render_comparison(new, stored("popularity", "sasrec", "tiger"), made_up(0.9), tmp_path, **FEW)
    assert told.summary == (f"Mine on ml-100k, profile quick: no verdict, unequal budget: {what}.",)
    assert not told.sentences and [row["verdict"] for row in rows_of(tmp_path)] == [""] * 3
    assert all(row["declared"] == "no" and not row["p_value"] for row in rows_of(tmp_path))
    assert "better" not in told.path.read_text(encoding="utf-8").split("## How")[0]


def test_networks_of_one_budget_have_verdicts_and_the_baselines_of_another_none(tmp_path: Path) -> None:
    """`compare --set training.epochs=60` beside cross-entropy with 60 epochs and SASRec with the profile's."""
    longer = {"training": {"epochs": 60}}
    new = [fresh(s, overrides=longer) for s in range(3)]
    equal = [record_of("ml-100k", "tiger", s, overrides=longer) for s in range(3)]
    told = render_comparison(new, [*stored("item_knn", "sasrec", "tiger"), *equal], made_up(0.9), tmp_path, **FEW,
                             rows=Rows(overrides=longer))
    assert told.summary == ("Mine on ml-100k, profile quick: better than TIGER + cross-entropy; no verdict on "
                            "baselines, unequal budget: epochs 60 instead of 4.",)
    assert [row["against"] for row in rows_of(tmp_path) if row["declared"] == "yes"] == ["TIGER + cross-entropy"]
    assert len(rows_of(tmp_path)) == 4


def test_the_rate_and_the_network_are_no_budget(tmp_path: Path) -> None:
    changed = [fresh(s, overrides={"training": {"learning_rate": 0.1}, "tiger": {"width": 128}}) for s in range(3)]
    told = render_comparison(changed, stored("sasrec", "tiger"), made_up(0.9), tmp_path, **FEW)
    assert "better than SASRec (RecBole, CE) and TIGER + cross-entropy" in told.summary[0]


def test_what_is_described_has_no_p_value(tmp_path: Path) -> None:
    new, records = [fresh(s) for s in range(2)], suite_rows("TIGER + cross-entropy", *VARIANTS, seeds=(0, 1))
    told = render_comparison(new, records, by_label(), tmp_path, **FEW)
    text = told.path.read_text(encoding="utf-8")
    before, after = text.split("## Described only: Mine on ml-100k, profile quick")
    table = after.split("## How")[0]
    assert all(label in table and label not in before for label in VARIANTS) and "p =" not in table
    assert len(told.sentences) == 1 and "detected from 1 of 1" in told.summary[0]
    assert "all 1 comparisons of the family" in text
    for row in rows_of(tmp_path):
        told = row["declared"] == "yes"
        assert [bool(row[k]) for k in ("p_value", "p_holm", "paired_t", "verdict", "detectable")] == [told] * 5
        assert told == (row["against"] == "TIGER + cross-entropy") and row["difference"] and row["low"]


def test_nothing_declared_is_no_verdict(tmp_path: Path) -> None:
    told = render_comparison([fresh(0)], suite_rows(*VARIANTS, seeds=(0,)), by_label(), tmp_path, **FEW)
    text = told.path.read_text(encoding="utf-8")
    assert "no verdict: no row of a suite has a record for this profile and backbone yet" in text.split("\n\n")[1]
    assert not told.sentences and len(told.summary) == 1
    assert not (tmp_path / "differences.png").exists() and "differences.png" not in text


def test_one_test_user_allows_no_test_and_the_report_says_so(tmp_path: Path) -> None:
    def ranks(record: RunRecord) -> Rankings:
        return Rankings(*(np.array([n]) for n in (record.seed + ("mine" in str(record.config)), 1, 0)))

    new, records = [fresh(s) for s in (0, 1, 2)], [*stored("item_knn", "sasrec"), *suite_rows("TIGER + APAO-Pointwise")]
    told = render_comparison(new, records, ranks, tmp_path, **FEW)
    text, sheet = told.path.read_text(encoding="utf-8"), (tmp_path / "comparison.csv").read_text(encoding="utf-8")
    assert told.summary == ("Mine on ml-100k, profile quick: no verdict, for one test user allows no test.",)
    assert not told.sentences and not re.search(r"\b(nan|None)\b", text + sheet, re.I) and "no difference" not in text
    assert "Every stored method, for one test user allows no test: differences without a test." in text
    assert "Nothing was tested." in text and "1 seeds" not in text and len(rows_of(tmp_path)) == 3
    for row in rows_of(tmp_path):
        assert [row[k] for k in ("p_value", "d_z", "minimum_detectable", "detectable", "verdict")] == [""] * 5


def test_the_paired_t_is_that_of_the_seeds_means(tmp_path: Path) -> None:
    new, records, ranks = [fresh(s) for s in range(3)], stored("sasrec"), made_up(0.35)
    text = text_of(tmp_path, new, records, ranks)
    a, b = (np.array([expected_values("ndcg", ranks(r), 10).mean() for r in side]) for side in (new, records))
    expected = stats.ttest_rel(a, b)
    (row,) = rows_of(tmp_path)
    assert [float(row[k]) for k in ("paired_t", "paired_t_p")] == pytest.approx([expected.statistic, expected.pvalue])
    low, high = expected.confidence_interval(0.95)
    assert [float(row[k]) for k in ("paired_t_low", "paired_t_high")] == pytest.approx([low, high])
    assert f"t = {expected.statistic:+.2f}, p = {expected.pvalue:.3f}, n = 3" in text
    text_of(tmp_path, new[:1], records[:1], ranks)
    assert rows_of(tmp_path)[0]["paired_t"] == "", "one seed varies with nothing"
