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

from genrec_bench.analysis.significance import compare_ranks, compare_values
from genrec_bench.config import EvaluationConfig
from genrec_bench.contracts import Rankings
from genrec_bench.errors import UserError
from genrec_bench.metrics.base import expected_values
from genrec_bench.records import RunRecord
from genrec_bench.reporting.comparison import render_comparison
from tests.small_records import record_of

USERS = 200
RATES = {"popularity": 0.05, "item_knn": 0.1, "sasrec": 0.3, "tiger": 0.3}
FEW = {"num_permutations": 499}


def fresh(seed: int, dataset: str = "ml-100k", label: str = "Mine", **changes: Any) -> RunRecord:
    """A run of TIGER with another objective."""
    return record_of(dataset, "tiger", seed, label=label, objective=({"name": "mine", "scale": 2.0},), **changes)


def stored(*methods: str, seeds: tuple[int, ...] = (0, 1, 2), dataset: str = "ml-100k") -> list[RunRecord]:
    unseeded = ("popularity", "item_knn")
    return [record_of(dataset, m, s) for m in methods for s in (seeds[:1] if m in unseeded else seeds)]


def made_up(rate_new: float = 0.3, ties: int = 1) -> Callable[[RunRecord], Rankings]:
    """Ranks in which a share of targets is in the list: of the first users, and others by seed."""
    def ranks(record: RunRecord) -> Rankings:
        spec = record.config.get("baseline") or {"name": record.config["objective"][0]["name"]}
        rate = {**RATES, "cross_entropy": RATES["tiger"]}.get(spec["name"], rate_new)
        random = np.random.default_rng(record.seed + 10 * sum(map(ord, spec["name"])))
        places = np.where(random.random(USERS) < rate, random.integers(1, 11, size=USERS), 0)
        return Rankings(places, np.full(USERS, ties), places)

    return ranks


def text_of(tmp_path: Path, new: list[RunRecord], baselines: list[RunRecord], ranks=None, **options: Any) -> str:
    path, _ = render_comparison(new, baselines, ranks or made_up(), tmp_path, **{**FEW, **options})
    return path.read_text(encoding="utf-8")


def rows_of(tmp_path: Path) -> list[dict[str, str]]:
    with open(tmp_path / "comparison.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_better_worse_and_no_difference(tmp_path: Path) -> None:
    new, baselines = [fresh(s) for s in range(3)], stored("popularity", "sasrec", "tiger")
    path, lines = render_comparison(new, baselines, made_up(0.3), tmp_path, **FEW)
    assert path == tmp_path / "comparison.md" and len(lines) == 3
    assert re.fullmatch(r"Mine is better than Popularity \(ml-100k, 3 seeds, baseline not seeded\): NDCG@10 0\.\d{4} "
                        r"against 0\.\d{4}, \+0\.\d{4} \[\+0\.\d{4}, \+0\.\d{4}\], p = 0\.0060\.", lines[0])
    for line, other in zip(lines[1:], ("SASRec", "TIGER + cross-entropy"), strict=True):
        assert re.fullmatch(rf"No difference detected between Mine and {re.escape(other)} \(ml-100k, 3 seeds\): .*; "
                            r"this data could have detected a difference of 0\.\d{4}\.", line)
    _, lines = render_comparison(new, baselines, made_up(0.0), tmp_path, **FEW)
    assert [line.split(" (")[0] for line in lines[1:]] == ["Mine is worse than SASRec",
                                                           "Mine is worse than TIGER + cross-entropy"]


def test_the_verdict_stands_first_and_the_rest_in_order(tmp_path: Path) -> None:
    text = text_of(tmp_path, [fresh(0), fresh(1)], stored("popularity", "sasrec", "tiger", seeds=(0, 1)),
                   missing=[("BERT4Rec", "python benchmark.py --suite apao --baselines bert4rec")])
    paragraphs = text.split("\n\n")
    assert paragraphs[0] == "# Mine against the stored baselines"
    assert re.match(r"\*\*Mine on ml-100k, profile quick:\*\* better than Popularity; no difference detected from "
                    r"SASRec and TIGER \+ cross-entropy \(this data could have detected a difference of 0\.\d{4}\)\.",
                    paragraphs[1])
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
    rows = {row["baseline"]: row for row in rows_of(tmp_path)}
    a, b = (np.stack([ranks(r).places for r in side]) for side in (new, baselines[1:]))
    expected = compare_ranks(a, b, metric="ndcg", k=10, num_permutations=499, seed=7)
    row = rows["SASRec"]
    assert [float(row[k]) for k in ("difference", "low", "high", "p_value", "d_z", "minimum_detectable")] == [
        expected.difference, *expected.interval, expected.p_value, expected.d_z, expected.minimum_detectable]
    assert float(row["recall@10_new"]) == pytest.approx((a > 0).mean())
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
    assert "Only seeds that both have are compared. Left out against SASRec: Mine's 5 and SASRec's 0." in text
    text = text_of(tmp_path, [fresh(5)], stored("sasrec", "popularity"))
    assert "Mine was not compared with SASRec: they have no seed in common" in text and "no common seed" in text
    assert [r["baseline"] for r in rows_of(tmp_path)] == ["Popularity"], "an unseeded run stands against every seed"


def with_identity(record: RunRecord, **parts: Any) -> RunRecord:
    own = {k: v for k, v in record.config.items() if k not in ("label", "profile")}
    return dataclasses.replace(record, identity={**own, **parts})


def test_other_data_evaluation_or_profile_is_not_compared(tmp_path: Path) -> None:
    base = record_of("ml-100k", "sasrec", 0)
    others = [record_of("apao_office", "sasrec", 0), record_of("ml-100k", "sasrec", 0, profile="paper"),
              record_of("ml-100k", "sasrec", 0, evaluation=EvaluationConfig(max_k=10))]
    (tmp_path / "differences.png").write_bytes(b"of an earlier comparison")
    text = text_of(tmp_path, [fresh(0)], others)
    assert "no stored baseline has the same data, split, evaluation and profile" in text
    assert rows_of(tmp_path) == [] and not (tmp_path / "differences.png").exists()
    one = with_identity(fresh(0), split_fingerprint="a" * 64)
    same, other = (with_identity(base, split_fingerprint=c * 64) for c in "ab")
    assert "no stored baseline" in text_of(tmp_path, [one], [other])
    assert "split `aaaaaaaaaaaa`" in text_of(tmp_path, [one], [same]) and len(rows_of(tmp_path)) == 1


def test_a_baseline_without_seeds_stands_in_every_profile(tmp_path: Path) -> None:
    text_of(tmp_path, [fresh(0)], [record_of("ml-100k", m, 0, profile="paper") for m in ("popularity", "sasrec")])
    assert [r["baseline"] for r in rows_of(tmp_path)] == ["Popularity"]


def test_a_generative_baseline_says_what_it_shares(tmp_path: Path) -> None:
    llama = record_of("ml-100k", "tiger", 0, label="Llama + cross-entropy", backbone={"name": "llama"})
    text = text_of(tmp_path, [fresh(0)], [*stored("tiger", "sasrec", seeds=(0,)), llama])
    cells = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in text.splitlines() if line[:1] == "|"}
    assert cells["TIGER + cross-entropy"] == "same backbone" and cells["SASRec"] == "not generative"
    assert cells["Llama + cross-entropy"] == "differs in backbone (llama instead of tiger)"
    longer = dataclasses.replace(fresh(0), config={**fresh(0).config, "training": {"epochs": 5}})
    assert "same backbone; differs in training" in text_of(tmp_path, [longer], stored("tiger", seeds=(0,)))


def test_cost_counts_the_first_stage_and_marks_other_machines(tmp_path: Path) -> None:
    passes = {"histories_with_gradient": 999, "positions_with_gradient": 60, "positions_without_gradient": 15}
    one = fresh(0)
    one = dataclasses.replace(one, timings={**one.timings, "train_seconds": 30.0, "first_stage_seconds": 60.0},
                              training={**one.training, "passes": passes, "first_stage": {"passes": passes}},
                              provenance={**one.provenance, "device": "cuda"})
    (other,) = stored("tiger", seeds=(0,))
    other = dataclasses.replace(other, training={**other.training, "passes": {"positions_with_gradient": 100}})
    text = text_of(tmp_path, [one], [other])
    assert "3.00 † (positions 1.50)" in text and "not a fair ratio" in text
    here = dataclasses.replace(one, provenance=other.provenance)
    assert "†" not in text_of(tmp_path, [here], [other]) and "3.00 (positions 1.50)" in text_of(
        tmp_path, [here], [other])


def test_several_new_methods_and_datasets_are_one_family(tmp_path: Path) -> None:
    new = [fresh(0), fresh(0, "apao_office"), fresh(0, label="Mine", decoding=None)]
    baselines = stored("sasrec", seeds=(0,)) + stored("sasrec", seeds=(0,), dataset="apao_office")
    text = text_of(tmp_path, new, baselines + new)
    assert "all 5 comparisons" in text, "each of the two on ml-100k also stands against the other"
    titles = [line for line in text.splitlines() if line.startswith("## Mine")]
    assert len(titles) == len(set(titles)) == 3
    assert text.startswith("# Mine") and len(rows_of(tmp_path)) == 5


def test_equal_records_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    new, baselines = [fresh(s) for s in range(2)], stored("popularity", "sasrec", "tiger", seeds=(0, 1))
    for name, order in (("a", 1), ("b", -1)):
        render_comparison(new[::order], baselines[::order], made_up(), tmp_path / name, **FEW)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["comparison.csv", "comparison.md", "differences.png", "differences.svg"]
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_smoke_means_nothing_and_no_run_is_refused(tmp_path: Path) -> None:
    text = text_of(tmp_path, [fresh(0, profile="smoke")], [record_of("ml-100k", "sasrec", 0, profile="smoke")])
    assert "Profile smoke only shows that everything works" in text.split("\n\n")[1]
    with pytest.raises(UserError, match="no run of the new objective"):
        render_comparison([], stored("sasrec"), made_up(), tmp_path)
