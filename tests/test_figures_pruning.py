"""Figures of diagnoses: of how many seeds each row is, which rows count as best, and what is drawn of them."""

from __future__ import annotations

import pytest

from genrec_bench.analysis import pruning
from genrec_bench.reporting.figures import searched
from genrec_bench.reporting.figures.searched import fewer_seeds, fullest
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.pruning import Searched
from genrec_bench.reporting.pruning import searched as searched_of
from genrec_bench.reporting.report_data import ReportData
from tests.small_diagnoses import diagnosis_of
from tests.test_figures_papers import run_of, suite_of

CE, MSL, POINT, PAIR = (f"TIGER + {name}" for name in ("cross-entropy", "MSL", "APAO-Pointwise", "APAO-Pairwise"))
SFT = "TIGER + SFT (summed cross-entropy)"


def diagnosed(seeds: dict[str, int], skill: dict[str, float] | None = None, runs: int = 3,
              suite: str = "apao") -> Searched:
    """A block whose rows have so many `runs`, of which the first have a diagnosis. skill: the higher, the better."""
    records = [run_of(suite_of(suite), label, seed) for label in seeds for seed in range(runs)]
    found = {r.run_id: diagnosis_of(r, skill=(skill or {}).get(r.label, 2.0)) for r in records
             if r.seed < seeds[r.label]}
    (block,) = arrange(suite_of(suite), records)
    return searched_of(block, found)


def material_of(found: Searched, suite: str = "apao") -> ReportData:
    material = ReportData(suite_of(suite), (found.block,))
    material.__dict__["searched"] = {found.block.name: found}
    return material


@pytest.mark.parametrize(("seeds", "text"), [
    ({CE: 3, PAIR: 3}, ""),
    ({CE: 1, PAIR: 1}, ". Diagnosed: 1 of 3 seeds of each row"),
    ({CE: 3, PAIR: 1}, ". Diagnosed, of 3 seeds: TIGER: cross-entropy 3, APAO-Pairwise 1")])
def test_captions_say_of_how_many_seeds_a_row_is(seeds, text):
    found = diagnosed(seeds)
    assert fewer_seeds(found, found.families()) == text
    for draw in (searched.retention_figure, searched.beams_figure):
        assert draw(material_of(found), found.block).caption.endswith(text)
    assert ("Diagnosed" in searched.prefixes_figure(material_of(found), found.block).caption) == bool(text)
    caption = searched.cost_figure(material_of(found)).caption
    assert ("1 of 3 seeds of each row on ml-100k" in caption) == (seeds[CE] == 1)


def test_captions_of_bear_say_it_too():
    found = diagnosed({SFT: 2, "TIGER + BEAR": 1}, suite="bear-sid")
    text = searched.accuracy_figure(material_of(found, "bear-sid"), found.block).caption
    assert text.endswith("Diagnosed, of 3 seeds: TIGER: SFT (summed cross-entropy) 2, BEAR 1")


def test_the_best_row_is_one_of_those_with_most_seeds():
    """Pairwise finds far more, but of one seed; of MSL and cross-entropy, with two each, MSL is better."""
    found = diagnosed({CE: 2, MSL: 2, POINT: 2, PAIR: 1}, {PAIR: 9.0, MSL: 6.0, CE: 0.5}, runs=2)
    assert [r.group.label for r in fullest(found.rows)] == [CE, MSL, POINT]
    assert [r.group.label for r in searched.best_pair(found, "TIGER")] == [POINT, MSL]
    whole = diagnosed({CE: 2, MSL: 2, POINT: 2, PAIR: 2}, {PAIR: 9.0, MSL: 6.0, CE: 0.5}, runs=2)
    assert [r.group.label for r in searched.best_pair(whole, "TIGER")] == [PAIR, MSL]
    assert fullest([]) == []


def test_beams_are_those_of_cross_entropy_apao_and_the_best_other_row():
    found = diagnosed({label: 1 for label in (CE, MSL, "TIGER + CE → S-DPO", POINT, PAIR)}, {MSL: 6.0}, runs=1)
    chart = searched.beams_figure(material_of(found), found.block)
    shown = {p["method"] for p in chart.points if p["quantity"] == "ndcg@5"}
    assert shown == {"cross-entropy", "APAO-Pointwise", "APAO-Pairwise", "MSL"}
    assert all(p["low"] <= p["value"] <= p["high"] for p in chart.points if p["quantity"] == "ndcg@5")


def test_costs_by_hand():
    found = diagnosed({CE: 1}, runs=1)
    chart, row = searched.cost_figure(material_of(found)), found.rows[0]
    assert {p["method"]: p["value"] for p in chart.points} == {
        "one pass per item": 150 * 3, "all prefixes once": row.catalogue("nodes"),
        "least for an exact top list": row.estimate(pruning.needed).value, "beam search": row.beam_positions(20)}
    assert {p["panel"] for p in chart.points} == {"ml-100k, TIGER: 150 semantic IDs"} and not chart.lacks()
