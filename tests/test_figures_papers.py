"""The papers' measured figures, drawn from records with made-up numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.contracts import Rankings, digest
from genrec_bench.metrics.base import expected_values
from genrec_bench.reporting import pages
from genrec_bench.reporting.figures import costs, runs, scores, sweeps
from genrec_bench.reporting.figures.base import Picture, plates, status
from genrec_bench.reporting.figures.charts import Chart
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import Row, Suite, effective, load_suite
from genrec_bench.results.records import RecordStore, RunRecord
from tests.small_records import SEEDS, record_of

USERS = 200
MEASURED = {"apao": ["1b", "1c", "2a", "2b", "3", "4", "5"], "bear": ["3", "4", "5", "6", "7", "8", "9"],
            "rankgr": ["4", "5"]}


@cache
def suite_of(name: str) -> Suite:
    return load_suite(name)


def run_of(suite: Suite, label: str, seed: int = 0, *, dataset: str = "ml-100k", seconds: float = 2.5,
           positions: int = 1200, profile: str = "quick") -> RunRecord:
    """A run of a suite's row, on any dataset."""
    row = next(row for row in suite.rows if row.label == label)
    record = record_of(dataset, "tiger", seed, row=row.source, profile=profile)
    ranks = ranks_of(record.run_id)
    metrics = {f"{side}{name}@{k}": float(expected_values(name, ranks, k).mean()) for side, name, k in
               product(("", "valid_"), ("hr", "recall", "ndcg", "mrr"), (5, 10, 20))}
    training = {**record.training, "passes": {"positions_with_gradient": positions, "positions_without_gradient": 0}}
    return replace(record, metrics=metrics, training=training, tokenizer={**record.tokenizer, "levels": 4},
                   timings={**record.timings, "seconds_per_epoch": seconds})


def hash_of(*parts: object) -> int:
    return int(digest(repr(parts))[:15], 16)


def ranks_of(run_id: str) -> Rankings:
    ranks = np.random.default_rng(int(run_id, 16)).integers(0, 40, USERS)
    ranks[ranks > 20] = 0
    return Rankings(ranks, np.where(ranks, 1, 0), ranks)


def material_of(suite: Suite, folder: Path | None, records: list[RunRecord]) -> ReportData:
    if folder is not None:
        store = RecordStore(folder)
        for record in records:
            store.write(record, ranks_of(record.run_id), ranks_of(record.run_id))
    return ReportData.of(suite, records, folder)


def labels_of(suite: Suite, *words: str, backbone: str = "") -> list[str]:
    return [r.label for r in suite.rows if r.label and r.label.startswith(backbone)
            and any(word in r.label for word in words)]


def all_seeds(suite: Suite, labels: list[str], **more) -> list[RunRecord]:
    return [run_of(suite, label, seed, **more) for label in labels for seed in SEEDS]


def drawn(key: str, material: ReportData) -> Chart | str | None:
    """The chart of a figure by its key, of the first block."""
    return next(p for p in plates(material.suite) if p.key == f"figure:{key}").draw(material, material.blocks[0])


def at(chart: Chart, mark: str, **where: object) -> list[dict]:
    """The points of one mark with these values."""
    return [p for p in chart.points if p["mark"] == mark and all(p[k] == v for k, v in where.items())]


def states(material: ReportData, paper: str) -> dict[str, str]:
    """What is said of each figure of a paper, by number."""
    with pages.drawing([(material, plates(material.suite, paper))]) as of:
        return {number: text for number, _, text in status(material, paper, of(material))}


def test_every_measured_figure_has_a_plate_and_a_state():
    suite = suite_of("apao")
    material = material_of(suite, None, all_seeds(suite, ["TIGER + cross-entropy", "TIGER + APAO-Pointwise"]))
    for paper, numbers in MEASURED.items():
        assert [p.number for p in plates(paper=paper)] == list(states(material, paper)) == numbers
        assert all(text.startswith("not drawn: ") for text in states(material, paper).values())
    text = states(material, "apao")["3"]
    assert "TIGER + APAO-Pointwise, weight = 0.05, 0.2, 0.3, 0.4; " in text
    assert "--row 'TIGER + APAO-Pointwise, weight = 0.05'" in text
    assert states(material, "rankgr")["4"] == "not drawn: suite apao has no row with rsp"


def test_status_says_of_what_a_figure_is_drawn():
    suite = suite_of("bear-sid")
    material = material_of(suite, None, [run_of(suite, "TIGER + BEAR")])
    block, of = material.blocks[0], {p.key: p for p in plates(suite)}
    drawn_before = [(of["figure:bear-9"], block, Picture("drawn", {".svg": b""})),
                    (of["figure:results"], block, Picture("ours")), (of["figure:bear-5"], block, Picture("no runs"))]
    said = {number: text for number, _, text in status(material, "bear", drawn_before)}
    assert said["9"] == "drawn for ml-100k, profile quick"
    assert said["5"] == "not drawn: ml-100k, profile quick: no runs"
    assert said["7"] == "not drawn: no run on data and backbone that it is about"


@pytest.mark.parametrize(("setting", "base", "values"), [
    ("apao.weight", "TIGER + APAO-Pointwise", [0.05, 0.1, 0.2, 0.3, 0.4]),
    ("apao.eta", "Llama + APAO-Pairwise", [5e-6, 1e-5, 3e-5, 5e-5, 1e-4, 5e-4])])
def test_a_sweep_has_the_row_itself_and_each_value_once_in_order(setting, base, values):
    found = {s.base.label: s for s in sweeps.sweeps(suite_of("apao"), setting, "apao_beauty")}
    assert len(found) == 4  # two forms on two backbones
    sweep = found[base]
    assert list(sweep.rows) == values and sweep.rows[sweep.own][0].label == base


def test_sweeps_against_a_naive_search_for_rows_that_differ_in_one_setting():
    suite = suite_of("bear-sid")
    for setting, path in (("bear.weight", "objective.1.weight"), ("bear.xi", "objective.1.xi")):
        pairs = {(a.label, b.label) for a in suite.rows for b in suite.rows
                 if a.label and b.label and a.wanted != b.wanted
                 and a.stages == b.stages == (("cross_entropy", "bear"),) and a.wanted.keys() == b.wanted.keys()
                 and [k for k in a.wanted if a.wanted[k] != b.wanted[k]] == [path]}
        found = {(a.label, b.label) for s in sweeps.sweeps(suite, setting, "ml-100k") for x, y in
                 product(s.rows, repeat=2) if x != y for a in s.rows[x] for b in s.rows[y]}
        assert pairs and found == pairs


def test_a_row_with_other_best_values_is_no_point_of_the_sweep():
    suite = suite_of("apao")
    base = next(r for r in suite.rows if r.label == "TIGER + APAO-Pointwise")
    best = base.best["apao_office"]  # weight 0.3 and eta 1e-4, where the sweep holds eta at 1e-5
    assert best["objective.1.eta"] != base.wanted["objective.1.eta"]
    office = next(s for s in sweeps.sweeps(suite, "apao.weight", "apao_office") if s.base is base)
    assert base not in [row for rows in office.rows.values() for row in rows]
    assert office.rows[0.1][0].label == "TIGER + APAO-Pointwise, weight = 0.1"
    assert sweeps.printed_best(office, "apao_office") == best["objective.1.weight"]
    assert sweeps.printed_best(office, "ml-100k") is None


def test_ablation_rows_share_weight_and_eta_with_their_whole_method():
    suite = suite_of("apao")
    for dataset, form in product(("ml-100k", "apao_beauty", "apao_office"), ("APAO-Pointwise", "APAO-Pairwise")):
        record = run_of(suite, "Llama + cross-entropy", dataset=dataset)
        block = material_of(suite, None, [record]).blocks[0]
        parts, dropped = (scores.lines_of(key, suite, block, "llama", form) for key in ("apao-2a", "apao-2b"))
        assert list(parts) == ["Whole method", "Without adaptive weights", "Without cross-entropy",
                               "Without prefix loss (cross-entropy)"]
        whole, uniform, alone, plain = (weights(row, dataset) for row, in parts.values())
        assert uniform == whole[:1] and alone == whole and plain == []
        assert list(dropped) == ["Whole method", *(f"Without prefixes of length {n}" for n in (1, 2, 3, 4))]
        assert [weights(row, dataset) for row, in dropped.values()] == [whole] * 5
        short = material_of(suite, None, [replace(record, tokenizer={"levels": 3})]).blocks[0]
        assert len(scores.lines_of("apao-2b", suite, short, "llama", form)) == 1 + 3


def weights(row: Row, dataset: str) -> list[float]:
    """Weight and eta of a row on a dataset."""
    settings = effective(row, dataset)
    return [settings[path] for key in ("weight", "eta") if (path := runs.path_of(row, f"apao.{key}"))]


def test_numbers_of_runs_by_hand():
    assert costs.ratios({0: 3.0, 1: 8.0, 2: 5.0}, {0: 2.0, 1: 2.0, 3: 1.0}) == [1.5, 4.0]
    mean, low, high = costs.geometric([1.0, 4.0])  # logs 0 and 2 ln 2: mean ln 2, SD sqrt(2) ln 2
    assert (mean, low, high) == pytest.approx((2.0, 2 ** (1 - math.sqrt(2)), 2 ** (1 + math.sqrt(2))))
    assert costs.geometric([3.0]) == pytest.approx((3.0, 3.0, 3.0))
    assert runs.listed(["A", "B, x = 1", "B, x = 2", "B, y = 3", "C"]) == "A; B, x = 1, 2; B, y = 3; C"
    row = Row({"backbone": {"name": "llama"}, "objective": [{"name": "bear"}], "decoding": {"num_beams": 3}}, "L")
    assert runs.path_of(row, "bear.weight") == "objective.weight" and runs.path_of(row, "bear.eta") is None
    assert runs.path_of(row, "decoding.num_beams") == "decoding.num_beams" and runs.path_of(row, "apao.eta") is None


def test_positions_and_seconds_are_those_of_an_epoch():
    suite = suite_of("bear-sid")
    record = run_of(suite, "TIGER + BEAR", 1, positions=1200, seconds=7.0)  # 12 epochs
    group = material_of(suite, None, [record]).blocks[0].groups[0]
    assert costs.per_epoch(group, costs.POSITIONS) == {(1,): 100.0}
    (key, seconds), = costs.per_epoch(group, costs.SECONDS).items()
    assert (key[0], seconds) == (1, 7.0)
    elsewhere = replace(record, provenance={**record.provenance, "commit": "another"})
    other = material_of(suite, None, [elsewhere]).blocks[0].groups[0]
    assert costs.ratios(costs.per_epoch(other, costs.SECONDS), costs.per_epoch(group, costs.SECONDS)) == []
    assert costs.ratios(costs.per_epoch(other, costs.POSITIONS), costs.per_epoch(group, costs.POSITIONS)) == [1.0]
    unknown = replace(record, training={"epochs": 12}, timings={})
    group = material_of(suite, None, [unknown]).blocks[0].groups[0]
    assert costs.per_epoch(group, costs.POSITIONS) == costs.per_epoch(group, costs.SECONDS) == {}


def test_differences_are_paired_by_user(tmp_path):
    suite = suite_of("bear-sid")
    material = material_of(suite, tmp_path, all_seeds(suite, ["TIGER + SFT (summed cross-entropy)", "TIGER + BEAR"]))
    sft, bear = material.blocks[0].groups
    found = runs.interval(material, bear, "hr@5", sft)
    hits = [np.mean([r.metrics["hr@5"] for r in group.records]) for group in (bear, sft)]
    assert found.value == pytest.approx(hits[0] - hits[1]) and found.low < found.value < found.high
    assert runs.interval(material, bear, "hr@5", bear).high == 0.0
    around = runs.interval(material, bear, "hr@5")
    assert around.value == pytest.approx(hits[0]) and 0 < around.low < around.value < around.high < 1
    assert runs.interval(ReportData.of(suite, list(bear.records)), bear, "hr@5") is None
    assert runs.interval(ReportData.of(suite, list(bear.records)), bear, "hr@5", bear) is None


def test_missing_rows_are_named_with_a_command(tmp_path):
    suite = suite_of("bear-sid")
    records = all_seeds(suite, ["TIGER + SFT (summed cross-entropy)"]) + [run_of(suite, "TIGER + CE → S-DPO + BEAR")]
    material = material_of(suite, None, records)
    assert drawn("bear-7", material) == (
        "it needs complete runs of TIGER + CE → S-DPO; TIGER + CE → S-DPO + BEAR (`python benchmark.py run --suite "
        "bear-sid --datasets ml-100k --profile quick --row 'TIGER + CE → S-DPO'`, and so on for each)")
    assert all(isinstance(drawn(key, material), str) for key in ("bear-5", "bear-8", "bear-9"))
    assert drawn("bear-7", material_of(suite, None, [run_of(suite, "TIGER + BEAR", profile="smoke")])) is None


def test_the_sweep_figure_shows_means_star_and_missing_seeds(tmp_path):
    suite = suite_of("bear-sid")
    labels = ["TIGER + BEAR", "TIGER + SFT (summed cross-entropy)", *labels_of(suite, "xi = ")]
    records = [r for r in all_seeds(suite, labels) if (r.label, r.seed) != ("TIGER + BEAR, xi = 1", 2)]
    chart = drawn("bear-8", material_of(suite, tmp_path, records))
    means = {xi: np.mean([r.metrics["ndcg@10"] for r in records if r.label == label]) for xi, label in
             {2.75: "TIGER + BEAR", **{xi: f"TIGER + BEAR, xi = {xi:g}" for xi in (0.25, 0.5, 2.0, 3.0)}}.items()}
    best = max(means, key=means.get)
    for metric in ("valid_ndcg@10", "ndcg@10"):
        shown = {p["at"]: p["value"] for p in at(chart, "mean", quantity=metric)}
        assert shown == pytest.approx(means) and list(shown) == sorted(means)
        star, = at(chart, "best", quantity=metric)
        assert star["at"] == best and star["value"] == pytest.approx(means[best])
    assert {p["method"] for p in at(chart, "level")} == {"SFT (summed cross-entropy)", sweeps.ZERO}
    assert len(at(chart, "mean", quantity=sweeps.DIFFERENCE)) == 4  # all complete rows but the base
    assert list(chart.at) == ["TIGER, ξ"] and list(chart.at["TIGER, ξ"].ticks) == [0.25, 0.5, 1, 2, 2.75, 3]
    assert "TIGER + BEAR, xi = 1" in chart.caption and "weight = 0.1, 0.25, 0.5, 1, 2, 5" in chart.caption


def test_ratios_of_the_cost_figure_are_per_seed():
    suite, names = suite_of("bear-sid"), ["SFT (summed cross-entropy)", "BEAR", "objective (3.1)"]
    records = [run_of(suite, f"TIGER + {name}", seed, seconds=(seed + 1) * factor, positions=1200 * factor)
               for name, factor in zip(names, (1, 2, 8), strict=True) for seed in SEEDS]
    chart = drawn("bear-5", material_of(suite, None, records))
    for label in (costs.SECONDS, costs.POSITIONS):  # every seed has the same ratio
        assert [(p["note"], p["value"]) for p in at(chart, "mean", quantity=label)] == [
            ("1.00", pytest.approx(1)), ("2.00", pytest.approx(2)), ("8.00", pytest.approx(8))]
    printed, = at(chart, "printed")
    assert printed["value"] == costs.PRINTED_BEAM and printed["method"] == "objective (3.1)"
    assert "here B = 20" in chart.caption and "3 seeds" in chart.caption


def test_seconds_of_one_seed_are_not_drawn():
    suite, names = suite_of("bear-sid"), ["SFT (summed cross-entropy)", "BEAR", "objective (3.1)"]
    one = [run_of(suite, f"TIGER + {name}", seconds=factor, positions=600 * factor)
           for name, factor in zip(names, (1, 3, 8), strict=True)]
    material = material_of(suite, None, one)
    assert list(drawn("bear-5", material).values) == ["Decoder positions per epoch"]
    assert "Seconds are not drawn" in drawn("bear-5", material).caption
    plane = drawn("bear-9", material)
    shown = at(plane, "mean", quantity=costs.POSITIONS)
    assert [p["value"] for p in shown] == pytest.approx([1, 3, 8]) and not at(plane, "level", method=costs.BAND)
    several = [r for r in one if "3.1" not in r.label] + all_seeds(suite, ["TIGER + SFT (summed cross-entropy)"])
    records = {r.run_id: r for r in several + all_seeds(suite, ["TIGER + BEAR"])}
    plane = drawn("bear-9", material_of(suite, None, [*records.values(), *all_seeds(suite, ["TIGER + MSL"])]))
    assert [p["value"] for p in at(plane, "level", method=costs.BAND)] == [2.0, 10.0]


def test_an_incomplete_row_is_never_averaged(tmp_path):
    suite = suite_of("apao")
    labels = ["Llama + APAO-Pointwise", "Llama + APAO-Pointwise, uniform weights", "Llama + APAO-Pointwise without CE"]
    records = [r for r in all_seeds(suite, labels) if (r.label, r.seed) != (labels[2], 1)]
    chart = drawn("apao-2a", material_of(suite, tmp_path, records))
    assert list(dict.fromkeys(p["at"] for p in chart.points)) == [
        "Whole method", "Without adaptive weights", "Without cross-entropy (2 of 3 seeds)"]
    assert len(at(chart, "mean", quantity="score")) == 2 and len(at(chart, "incomplete")) == 2
    assert len(at(chart, "mean", quantity="difference")) == 1
    assert "Llama + APAO-Pointwise without CE; Llama + cross-entropy" in chart.caption


@pytest.mark.parametrize(("suite", "labels", "key"), [
    ("bear-sid", ["TIGER + CE → S-DPO", "TIGER + CE → S-DPO + BEAR"], "bear-7"),
    ("bear-sid", ["TIGER + SFT (summed cross-entropy)", "TIGER + BEAR", "TIGER + MSL"], "bear-9"),
    ("apao", ["Llama + APAO-Pairwise", *(f"Llama + APAO-Pairwise, drop_prefix = {n}" for n in (1, 2))], "apao-2b")])
def test_equal_records_give_equal_bytes(tmp_path, suite, labels, key):
    records = all_seeds(suite_of(suite), labels)
    first, second = (drawn(key, material_of(suite_of(suite), tmp_path, rs)) for rs in (records, records[::-1]))
    assert first.csv == second.csv and first.digest() == second.digest() and first.files() == second.files()
    assert isinstance(drawn(key, ReportData.of(suite_of(suite), records)), Chart)  # without ranks: scores alone
