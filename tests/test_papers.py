"""Printed numbers: complete, and equal to the checked transcription where that is at hand."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from genrec_bench.core.errors import UserError
from genrec_bench.experiments.suite_files import load_suite, suite_names
from genrec_bench.reporting import papers
from genrec_bench.reporting.papers import CHANGE, IMPROVEMENT, load_paper, paper_names
from tests.small_jobs import papers_data

# canonical names of the transcription -> ours; with one target a test case HitRatio@K is Recall@K
METRICS = {"hr": "recall"}
UNITS = {"fraction_from_percent": "fraction", "relative_fraction_from_percent": "relative", "s": "seconds"}


def transcription(key: str) -> list[dict[str, str]]:
    """The checked transcription of a paper's tables; skips the test where it is not at hand."""
    beside = papers_data() or Path(__file__).resolve().parents[2] / "shared" / "datasets"
    path = beside.parent / "papers" / f"{key}.csv"
    if not path.is_file():
        pytest.skip("the transcription is not beside the repository")
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def place_of(row: dict[str, str]) -> tuple[str, str, str, str, str]:
    """Where a line of the transcription is in ours: table, dataset, backbone, method, metric."""
    name, method = row["metric"].lower(), row["method"].replace("-", "", row["method"] == "-")
    metric = METRICS.get(name, name) + (f"@{row['k']}" if row["k"] else "")
    change = row["unit"].startswith("relative") and method != IMPROVEMENT
    return (row["table"], row["dataset"], row["backbone"].replace("-", "", row["backbone"] == "-"),
            method + CHANGE * change, metric)


@pytest.mark.parametrize("key", paper_names())
def test_every_paper_file_loads(key):
    paper = load_paper(key)
    assert paper.key == key and paper.title
    assert paper.url.startswith("https://") or (key, paper.url) == ("rankgr", "")  # a preprint without an address
    assert all(fact["source"] and fact["value"] != "" for fact in paper.protocol.values())
    cells = [(c.table, c.dataset, c.backbone, c.method, c.metric) for c in paper.reported]
    assert len(cells) == len(set(cells))
    laid_out = {layout.number for layout in paper.layouts}
    assert {c.dataset for c in paper.reported if c.table in laid_out} == set(paper.datasets.values())
    assert {c.table for c in paper.reported} - laid_out == ({"5"} if key == "rankgr" else set())  # an online test


@pytest.mark.parametrize("key", paper_names())
def test_a_layout_gives_every_cell_a_place_of_its_own(key):
    paper = load_paper(key)
    for layout in paper.layouts:
        cells = [c for c in paper.reported if c.table == layout.number]
        parts = (*layout.blocks, *layout.rows, *layout.columns)
        assert len(set(parts)) == len(parts)
        assert len({tuple(getattr(c, part) for part in parts) for c in cells}) == len(cells)
        methods = {c.method for c in cells}
        assert set(layout.own) < methods and bool(layout.own) == (IMPROVEMENT in methods)
        assert layout.base in methods if layout.base else not any(m.endswith(CHANGE) for m in methods)


@pytest.mark.parametrize(("wrong", "right"), [('kind = "score"', "scores"), ('rows = ["methd"]', "method"),
                                              ('colums = ["metric"]', "columns")])
def test_a_damaged_layout_is_named(wrong, right, tmp_path, monkeypatch):
    text = Path(papers.FOLDER / "apao.toml").read_text(encoding="utf-8")
    key = wrong.partition(" ")[0].replace("colums", "columns")
    start = text.index(f"{key} = ", text.index('number = "1"'))
    (tmp_path / "apao.toml").write_text(text[:start] + wrong + text[text.index("\n", start):], encoding="utf-8")
    monkeypatch.setattr(papers, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=f"table 1.*Did you mean '{right}'"):
        load_paper("apao")


def test_digits_are_those_of_the_column_even_where_a_number_ends_in_zero():
    paper = load_paper("apao")
    place = {"dataset": "Beauty", "backbone": "Llama", "method": "APAO-Pointwise"}
    assert paper.digits(paper.find(table=1, metric="ndcg@10", **place)) == 4  # 0.0300
    assert paper.digits(paper.find(table=2, dataset="Yelp", backbone="", method="", metric="n_users")) == 0
    bear = load_paper("bear")
    assert bear.digits(bear.find(table=1, dataset="Toy", backbone="", method="", metric="density")) == 6


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


def test_rankgr_has_every_cell_of_its_tables():
    paper = load_paper("rankgr")
    assert Counter(c.table for c in paper.reported) == {"1": 8, "2": 100, "3": 40, "4": 70, "5": 4}
    assert sum(c.relative for c in paper.reported) == 32 and sum(bool(c.flag) for c in paper.reported) == 6
    assert [len(paper.rows(t)) for t in (2, 3, 4)] == [10, 10, 4]
    assert paper.link == paper.title and load_paper("apao").link.endswith("](https://arxiv.org/abs/2603.02730)")
    assert {f["key"] for f in paper.findings} == {f"R{i}" for i in range(1, 13)}
    amazon = {"table": 3, "dataset": "rankgr_amazon", "backbone": "Qwen2.5-0.5B-Instruct"}
    assert paper.cell(**amazon, method="RankGR", metric="hr@20") == 0.0227
    assert paper.cell(**amazon, method="TIGER", metric="recall@500") == 0.0571


def test_rankgr_table_4_repeats_table_2_but_for_one_flagged_cell():
    """The full model is that of Table 2; without both parts it is FORGE, except for the cell of finding R1."""
    paper = load_paper("rankgr")
    place = {"dataset": "Taobao", "backbone": "Qwen2.5-0.5B-Instruct"}
    differing = []
    for ours, theirs in (("RankGR", "RankGR"), ("RankGR w/o Both", "FORGE")):
        for metric in paper.metrics(2):
            cell = paper.find(table=4, method=ours, metric=metric, **place)
            if cell.value != paper.cell(table=2, method=theirs, metric=metric, **place):
                differing.append((cell.method, cell.metric, cell.flag[:2]))
    assert differing == [("RankGR w/o Both", "hr_click@500", "R1")]


@pytest.mark.parametrize("key", paper_names())
def test_all_that_the_transcription_flags_is_flagged(key):
    flagged = {place_of(row) for row in transcription(key) if "flag=" in row["note"]}
    marked = {(c.table, c.dataset, c.backbone, c.method, c.metric): c.flag.partition(":")[0]
              for c in load_paper(key).reported if c.flag}
    assert flagged <= set(marked)
    assert set(marked.values()) <= {f["key"] for f in load_paper(key).findings}


@pytest.mark.parametrize("key", paper_names())
def test_equals_the_transcription(key):
    """Every cell of the transcription is in the paper's file, and no other."""
    rows = transcription(key)
    wanted = {place_of(row): (float(row["value"]), UNITS.get(row["unit"], row["unit"])) for row in rows}
    found = {(c.table, c.dataset, c.backbone, c.method, c.metric): (c.value, c.unit) for c in load_paper(key).reported}
    assert len(wanted) == len(rows) and found == wanted
