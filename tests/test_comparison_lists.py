"""Lists from elsewhere: what they are compared with, and how files and seeds are matched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_bench.analysis.significance import compare_values
from genrec_bench.metrics.base import expected_values
from genrec_bench.reporting.comparison import render_comparison
from genrec_bench.reporting.pairs import beside, outside
from genrec_bench.reporting.rows import load_suite
from genrec_bench.results.records import RunRecord
from tests.small_records import record_of, suite_record
from tests.test_comparison import FEW, SASREC, VARIANTS, by_label, fresh, pairs_of, stored, suite_rows


def values_of(*records: RunRecord) -> np.ndarray:
    return np.stack([expected_values("ndcg", by_label()(r), 10) for r in records])


@pytest.mark.parametrize(("files", "seeds", "paired"), [
    (3, (0, 1, 2), ((1, 2, 3), (0, 1, 2))), (1, (0, 1, 2), ((1,), (0, 1, 2))), (3, (4,), ((1, 2, 3), (4,))),
    (2, (0, 1, 2), ((1, 2), (0, 1))), (3, (5, 7), ((1, 2), (5, 7))), (1, (2,), ((1,), (2,)))])
def test_files_are_matched_with_seeds_in_order(files: int, seeds: tuple[int, ...],
                                               paired: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """A single run of one side stands against each of the other; else as many of one side as of the other."""
    records = stored("sasrec", seeds=seeds)
    new = outside("Theirs", files, records)
    pair = pairs_of(new, records)[SASREC]
    assert (pair.group.seeds, pair.against.seeds) == paired
    a = values_of(*(r for r in new if r.seed in paired[0]))
    b = values_of(*(r for r in records if r.seed in paired[1]))
    count = max(len(a), len(b))
    a, b = (np.concatenate([side] * count) if len(side) == 1 else side for side in (a, b))
    assert pair.comparison == compare_values(a, b, num_permutations=199)
    assert pair.comparison.difference == pytest.approx(a.mean() - b.mean()) and pair.comparison.n_seeds == count


def test_lists_stand_beside_baselines_and_the_cross_entropy_of_every_backbone() -> None:
    """Other objectives, a summed cross-entropy, a second stage of it and variants are described."""
    plain = ("TIGER + cross-entropy", "Llama + cross-entropy")
    (first,) = suite_rows(plain[0], seeds=(0,))
    row = next(row for row in load_suite("bear-sid").rows if row.label == "TIGER + SFT (summed cross-entropy)")
    summed = [record_of("ml-100k", "tiger", 0, row=row.source)]
    records = suite_rows(*plain, *VARIANTS, "TIGER + MSL", "TIGER + APAO-Pointwise", seeds=(0,)) + summed
    records += [suite_record("TIGER + CE → CE", 0, 0.05, after=first), *stored("popularity", "sasrec", seeds=(0,))]
    taken, left = beside(records)
    pairs = pairs_of(outside("Theirs", 2, taken), taken)
    assert not left and len(pairs) == len(records)
    assert {label for label, p in pairs.items() if p.declared} == {*plain, "Popularity", SASREC}
    own = pairs_of([fresh(0)], records)
    assert {"TIGER + MSL", summed[0].label, "TIGER + CE → CE"} <= {label for label, p in own.items() if p.declared}


def test_lists_stand_beside_the_runs_of_one_split_and_profile() -> None:
    """Those of most methods; what is not seeded counts in every profile, and a method counts once."""
    def office(method: str, profile: str, seeds: int = 1, **changes: Any) -> list[RunRecord]:
        return [record_of("apao_office", method, s, profile=profile, **changes) for s in range(seeds)]

    quick = [*office("tiger", "quick", 2), *office("popularity", "quick")]
    paper = office("sasrec", "paper", 5)
    other = [*office("sasrec", "smoke"), *office("popularity", "smoke"), *office("item_knn", "smoke")]
    taken, left = beside([*quick, *paper])
    assert {r.run_id for r in taken} == {r.run_id for r in [*paper, quick[-1]]}, "the first of equals"
    assert [(m.label, m.records[0].profile) for m in left] == [("TIGER + cross-entropy", "quick")]
    for records in ([*quick, *paper, *other], [*other, *paper[::-1], *quick[::-1]]):
        taken, left = beside(records)
        assert {r.run_id for r in taken} == {r.run_id for r in other}
        assert sorted(m.label for m in left) == ["Popularity", SASREC, "TIGER + cross-entropy"]
        (where,) = {of.runs["where"].iloc[0] for of in left}
        assert where.startswith("apao_office, split ")
    new = outside("Theirs", 2, taken)
    assert [(r.profile, r.seed, r.config["split"]["max_users"]) for r in new] == [("smoke", 1, 100), ("smoke", 2, 100)]
    alone = [record_of("ml-100k", "popularity", 0)]
    assert {"Popularity": True} == {k: p.declared for k, p in pairs_of(outside("Theirs", 1, alone), alone).items()}


def test_lists_do_not_stand_beside_a_split_for_its_changed_runs() -> None:
    """Two rows weigh more than five methods that no suite has."""
    rows = [*suite_rows("TIGER + cross-entropy", seeds=(0,)), *stored("popularity")]
    trials = [record_of("ml-100k", "sasrec", 0, overrides={"sasrec": {"hidden_size": 8 * n},
                                                           "split": {"max_history": 7}}) for n in range(1, 6)]
    taken, left = beside([*trials, *rows])
    assert {r.run_id for r in taken} == {r.run_id for r in rows} and len(left) == 5
    assert {r.run_id for r in beside(trials)[0]} == {r.run_id for r in trials}


def test_the_report_of_lists_says_what_stands_beside_what(tmp_path: Path) -> None:
    records = suite_rows("TIGER + cross-entropy") + stored("popularity", "sasrec", seeds=(0, 1))
    new = outside("Theirs", 3, records)
    told = render_comparison(new, records, by_label(), tmp_path, notes=["A note."], **FEW)
    text, lines = told.path.read_text(encoding="utf-8"), told.sentences
    assert "each backbone's plain cross-entropy, trained in one stage. They are one family" in text
    assert "Theirs on ml-100k, beside profile quick" in text and "files 1, 2, 3." in text and "- A note." in text
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:4]] for line in text.splitlines()
             if line[:1] == "|"}
    assert cells["TIGER + cross-entropy"] == ["backbone tiger", "1 2 3 / 0 1 2"]
    assert cells["Popularity"] == ["not generative", "1 2 3 / –"] and cells[SASREC][1] == "1 2 / 0 1"
    assert f"As many runs of one side as of the other are compared. Left out against {SASREC}: Theirs's 3." in text
    assert any("(ml-100k, 3 files, 3 seeds of the baseline)" in line for line in lines)
    assert any("(ml-100k, 3 files, baseline not seeded)" in line for line in lines)
