"""Printed numbers: complete, and equal to the checked transcription where that is at hand."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from genrec_bench.declared import load_suite, suite_names
from genrec_bench.errors import UserError
from genrec_bench.reporting.papers import IMPROVEMENT, load_paper, paper_names
from tests.small_jobs import papers_data

# canonical names of the transcription -> ours; with one target a test case HitRatio@K is Recall@K
METRICS = {"hr": "recall"}
UNITS = {"fraction_from_percent": "fraction", "relative_fraction_from_percent": "relative", "s": "seconds"}


def transcription(key: str) -> Path:
    """The checked transcription of a paper's tables; skips the test where it is not at hand."""
    beside = papers_data() or Path(__file__).resolve().parents[2] / "shared" / "datasets"
    path = beside.parent / "papers" / f"{key}.csv"
    if not path.is_file():
        pytest.skip("the transcription is not beside the repository")
    return path


@pytest.mark.parametrize("key", paper_names())
def test_every_paper_file_loads(key):
    paper = load_paper(key)
    assert paper.key == key and paper.title and paper.url.startswith("https://")
    assert all(fact["source"] and fact["value"] != "" for fact in paper.protocol.values())
    cells = [(c.table, c.dataset, c.backbone, c.method, c.metric) for c in paper.reported]
    assert len(cells) == len(set(cells))
    assert {c.dataset for c in paper.reported} == set(paper.datasets.values())


def test_apao_has_every_cell_of_its_tables():
    paper = load_paper("apao")
    assert Counter(c.table for c in paper.reported) == {"1": 240, "2": 16, "3": 24, "4": 32, "5": 32}
    assert sum(c.method == IMPROVEMENT for c in paper.reported) == 32
    assert sum(bool(c.flag) for c in paper.reported) == 2
    assert len(paper.rows(1)) == 13 and (("TIGER", "MSL") in paper.rows(1)) and ("Llama", "MSL") not in paper.rows(1)
    assert paper.metrics(1) == ["recall@10", "recall@20", "ndcg@10", "ndcg@20"]


def test_apao_spot_values():
    paper = load_paper("apao")
    ce = {"table": 1, "backbone": "TIGER", "method": "CE"}
    assert paper.cell(**ce, dataset="apao_office", metric="ndcg@10") == 0.0292
    assert paper.cell(**ce, dataset="Office", metric="hr@20") == 0.1013
    assert paper.cell(**ce, dataset="apao_yelp", metric="recall@10") == 0.0384
    assert paper.cell(**ce, dataset="ml-100k", metric="ndcg@10") is None
    assert paper.cell(**ce, dataset="apao_office", metric="ndcg@5") is None
    assert paper.cell(table="2", dataset="apao_grocery", backbone="", method="", metric="n_items") == 8713
    flagged = paper.find(table=1, dataset="apao_grocery", backbone="TIGER", method=IMPROVEMENT, metric="recall@10")
    assert flagged.value == 0.0519 and flagged.unit == "relative" and "A7" in flagged.flag


def test_apao_best_settings_lie_in_the_grids_it_states():
    paper = load_paper("apao")
    best = [c for c in paper.reported if c.table == "5"]
    assert {c.unit for c in best} == {"hyperparameter"} and paper.metrics(5) == ["beta", "eta"]
    for cell in best:
        assert cell.value in paper.protocol[f"{cell.metric}_grid"]["value"]
    assert paper.cell(table=5, dataset="apao_yelp", backbone="TIGER", method="APAO-Pairwise", metric="eta") == 5e-6


def test_apao_table_3_repeats_cells_of_table_1():
    paper = load_paper("apao")
    shared = [c for c in paper.reported if c.table == "3" and "stage" not in c.method]
    assert len(shared) == 12
    for cell in shared:
        assert cell.value == paper.cell(table=1, dataset=cell.dataset, backbone=cell.backbone, method=cell.method,
                                        metric=cell.metric)


def test_bear_has_every_cell_of_its_tables():
    paper = load_paper("bear")
    assert Counter(c.table for c in paper.reported) == {"1": 16, "2": 256, "3": 128, "4": 128, "5": 12}
    assert sum(c.method == IMPROVEMENT for c in paper.reported) == 80
    assert sum(bool(c.flag) for c in paper.reported) == 9
    assert [len(paper.rows(t)) for t in (2, 3, 4, 5)] == [15, 6, 6, 3]
    main = {"table": 2, "backbone": "BIGRec/Llama-3.2-3B", "dataset": "bear_toy"}
    assert paper.cell(**main, method="BEAR", metric="hr@10") == 0.0574
    assert paper.cell(**main, method="SFT", metric="ndcg@5") == 0.0122


@pytest.mark.parametrize("table", [2, 3, 4])
def test_bear_improvements_recompute_from_the_cells(table):
    """BEAR over the best other row of the same backbone family, to the two printed decimals of a percentage."""
    paper = load_paper("bear")
    printed = [c for c in paper.reported if c.table == str(table) and c.method == IMPROVEMENT]
    for cell in printed:
        column = {c.method: c.value for c in paper.reported if (c.table, c.dataset, c.metric) ==
                  (cell.table, cell.dataset, cell.metric) and (table == 2 or c.backbone == cell.backbone)}
        rest = max(v for m, v in column.items() if m not in (IMPROVEMENT, "BEAR"))
        assert cell.value == pytest.approx(column["BEAR"] / rest - 1, abs=0.5001e-4)


@pytest.mark.parametrize("name", suite_names())
def test_the_rows_of_a_suite_are_rows_of_its_paper(name):
    suite = load_suite(name)
    rows = [row for row in suite.get("row", ()) if "paper_row" in row]
    assert not rows or suite["suite"]["paper"]
    for row in rows:
        paper, place = load_paper(suite["suite"]["paper"]), row["paper_row"]
        assert (place["backbone"], place["method"]) in paper.rows(place.get("table", 1)), row["label"]
        where = {"backbone": place["backbone"], "method": place["method"], "table": row.get("best")}
        assert "best" not in row or all(paper.cell(**where, dataset=dataset, metric=metric) is not None
                                        for dataset in paper.datasets for metric in ("beta", "eta"))


def test_every_row_that_apao_prints_is_in_its_suite():
    rows = load_suite("apao")["row"]
    stated = {(str(place.get("table", 1)), place["backbone"], place["method"])
              for place in (row["paper_row"] for row in rows if "paper_row" in row)}
    paper = load_paper("apao")
    assert {("1", *row) for row in paper.rows(1)} <= stated
    assert {("3", *row) for row in paper.rows(3)} - {("3", *row) for row in paper.rows(1)} <= stated


def test_unknown_paper_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'apao'"):
        load_paper("apoa")


@pytest.mark.parametrize("key", ["apao", "bear"])
def test_equals_the_transcription(key):
    """Every cell of the transcription is in the paper's file, and no other."""
    blank = {"-": ""}
    with open(transcription(key), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = {}
    for row in rows:
        name = row["metric"].lower()
        metric = METRICS.get(name, name) + (f"@{row['k']}" if row["k"] else "")
        place = (row["table"], row["dataset"], blank.get(row["backbone"], row["backbone"]),
                 blank.get(row["method"], row["method"]), metric)
        wanted[place] = (float(row["value"]), UNITS.get(row["unit"], row["unit"]))
    found = {(c.table, c.dataset, c.backbone, c.method, c.metric): (c.value, c.unit) for c in load_paper(key).reported}
    assert len(wanted) == len(rows) and found == wanted
