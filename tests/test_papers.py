"""Printed numbers: complete, and equal to the checked transcription where that is at hand."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from genrec_bench.core.errors import UserError
from genrec_bench.experiments import suite_files
from genrec_bench.experiments.grid import row_config
from genrec_bench.experiments.suite_files import FOLDERS, load_suite, suite_names
from genrec_bench.reporting.papers import CHANGE, COLUMNS, FACTS, IMPROVEMENT, load_paper, paper_names
from tests.small_jobs import papers_data

CELLS = {"apao": {"1": 240, "2": 16, "3": 24, "4": 32, "5": 32},
         "bear": {"1": 16, "2": 256, "3": 128, "4": 128, "5": 12},
         "rankgr": {"1": 8, "2": 100, "3": 40, "4": 70, "5": 4}}
ROWS = {("apao", 1): 13, ("apao", 3): 12, ("bear", 2): 15, ("bear", 3): 6, ("bear", 4): 6, ("bear", 5): 3,
        ("rankgr", 2): 10, ("rankgr", 3): 10, ("rankgr", 4): 4}
CE = {"table": 1, "backbone": "TIGER", "method": "CE"}
TOY = {"table": 2, "backbone": "BIGRec/Llama-3.2-3B", "dataset": "bear_toy"}
AMAZON = {"table": 3, "dataset": "rankgr_amazon", "backbone": "Qwen2.5-0.5B-Instruct"}
VALUES = [("apao", {**CE, "dataset": "apao_office", "metric": "ndcg@10"}, 0.0292),
          ("apao", {**CE, "dataset": "Office", "metric": "hr@20"}, 0.1013),
          ("apao", {**CE, "dataset": "ml-100k", "metric": "ndcg@10"}, None),
          ("apao", {**CE, "dataset": "apao_office", "metric": "ndcg@5"}, None),
          ("apao", {**CE, "dataset": "apao_grocery", "method": IMPROVEMENT, "metric": "recall@10"}, 0.0519),
          ("apao", {"table": "2", "dataset": "Grocery", "backbone": "", "method": "", "metric": "n_items"}, 8713),
          ("bear", {**TOY, "method": "BEAR", "metric": "recall@10"}, 0.0574),
          ("bear", {**TOY, "method": "SFT", "metric": "ndcg@5"}, 0.0122),
          ("rankgr", {**AMAZON, "method": "RankGR", "metric": "hr@20"}, 0.0227)]
# What the numbers of APAO's protocol are called in ours.
TRAINING = ("learning_rate", "warmup_ratio", "epochs", "patience", "batch_size", "accumulation")
SETTINGS = {**{f"training.{name}": name for name in TRAINING},
            "split.max_history": "max_history", "decoding.num_beams": "num_beams"}
OF_BACKBONES = {"tiger": {"width": "width", "num_layers": "tiger_encoder_layers", "num_heads": "tiger_heads",
                          "head_width": "tiger_head_width"}, "llama": {"width": "width", "num_layers": "llama_layers"}}


def transcription(key: str) -> list[dict[str, str]]:
    """The checked transcription of a paper's tables; skips the test where it is not at hand."""
    beside = papers_data() or Path(__file__).resolve().parents[2] / "shared" / "datasets"
    path = beside.parent / "papers" / f"{key}.csv"
    if not path.is_file():
        pytest.skip("the transcription is not beside the repository")
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("key", paper_names())
def test_equals_the_transcription(key):
    """Every cell, in its order, and no other; what the transcription flags has a note here."""
    ours, theirs = suite_files.paper_table(key, COLUMNS), transcription(key)
    assert [{k: row[k] for k in COLUMNS[:-1]} for row in ours] == [{k: row[k] for k in COLUMNS[:-1]} for row in theirs]
    assert all(mine["note"] for mine, other in zip(ours, theirs, strict=True) if "flag=" in other["note"])


@pytest.mark.parametrize("key", paper_names())
def test_every_paper_is_whole(key):
    paper = load_paper(key)
    assert Counter(c.table for c in paper.reported) == CELLS[key] and list(paper.layouts) == list(CELLS[key])
    assert {c.dataset for c in paper.reported} - {"Taobao online"} == set(paper.datasets.values())
    assert paper.url.startswith("https://") or (key, paper.link) == ("rankgr", paper.title)  # without an address
    assert {t: len(paper.rows(t)) for name, t in ROWS if name == key} == {
        t: n for (name, t), n in ROWS.items() if name == key}
    for number, layout in paper.layouts.items():
        cells, parts = paper.of(number), (*layout.blocks, *layout.rows, *layout.columns)
        assert len({tuple(getattr(c, part) for part in parts) for c in cells}) == len(cells)
        methods = {c.method for c in cells}
        assert set(layout.own) < methods and bool(layout.own) == (IMPROVEMENT in methods)
        assert (layout.base in methods) == (layout.base is not None)
    facts = suite_files.paper_table(f"{key}_facts", FACTS)
    assert {f["kind"] for f in facts} == {"stated", "not stated", "finding"}
    assert all(f["value"] and (f["source"] or f["kind"] != "stated") for f in facts)
    assert {c.note.partition(":")[0] for c in paper.reported if c.note} <= {name for name, *_ in paper.findings}


@pytest.mark.parametrize(("key", "place", "value"), VALUES)
def test_spot_values(key, place, value):
    assert load_paper(key).cell(**place) == value


@pytest.mark.parametrize(("wrong", "right"), [('kind = "score"', "scores"), ('rows = ["methd"]', "method"),
                                              ('colums = ["metric"]', "columns")])
def test_a_damaged_layout_is_named(wrong, right, tmp_path, monkeypatch):
    for path in FOLDERS["paper"].glob("apao*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = (tmp_path / "apao.toml").read_text(encoding="utf-8")
    (tmp_path / "apao.toml").write_text(text.replace("[table.1]\n", f"[table.1]\n{wrong}\n"), encoding="utf-8")
    monkeypatch.setitem(FOLDERS, "paper", tmp_path)
    with pytest.raises(UserError, match=f"table 1.*Did you mean '{right}'"):
        load_paper("apao")


def test_a_damaged_csv_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(FOLDERS, "paper", tmp_path)
    (tmp_path / "apao.csv").write_text("paper,table\nAPAO,1\n", encoding="utf-8")
    with pytest.raises(UserError, match="apao.csv: a line has other columns"):
        suite_files.paper_table("apao", COLUMNS)


def test_unknown_paper_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'apao'"):
        load_paper("apoa")


def test_digits_are_those_of_the_column_even_where_a_number_ends_in_zero():
    digits = {(key, c.table, c.unit): c.digits for key in paper_names() for c in load_paper(key).reported}
    assert digits["apao", "1", "fraction"] == digits["rankgr", "2", "fraction_from_percent"] == 4
    assert digits["apao", "2", "count"] == 0 and digits["bear", "1", "fraction_from_percent"] == 6


def test_apao_best_settings_lie_in_the_grids_it_states():
    grids = {f["name"]: {float(v) for v in f["value"].split("; ")} for f in suite_files.paper_table("apao_facts", FACTS)
             if f["name"] in ("beta_grid", "eta_grid")}
    assert all(c.value in grids[f"{c.metric}_grid"] for c in load_paper("apao").of(5))
    row = next(row for row in load_suite("apao")["row"] if row.get("label") == "TIGER + APAO-Pairwise")
    assert suite_files.best_values("apao", "apao_yelp", row) == {"weight": 0.05, "eta": 5e-6}
    assert suite_files.best_values("apao", "ml-100k", row) == {}


def test_profile_paper_is_what_apao_states():
    """So that a run which is what its row is under this profile may stand beside the printed numbers."""
    facts = {f["name"]: f["value"] for f in suite_files.paper_table("apao_facts", FACTS) if f["kind"] == "stated"}
    for row in (r for r in load_suite("apao")["row"] if "paper_row" in r):
        config = row_config({**row, "paper": "apao"}, "paper", "apao_office", "", {}).to_dict()
        wanted = {**SETTINGS, **{f"backbone.{k}": v for k, v in OF_BACKBONES[row["backbone"]["name"]].items()}}
        for place, fact in wanted.items():
            part, _, name = place.partition(".")
            assert config[part][name] == float(facts[fact]), (row["label"], place)
        for objective in config["objectives"]:
            assert objective["name"] == "dpo" or objective.get("num_negatives", 100) == int(facts["num_negatives"])
        assert (config["dataset"]["index"], config["tokenizer"]["name"]) == ("rq-kmeans", "given")


def test_tables_that_repeat_others():
    """APAO's Table 3 repeats 12 cells of Table 1; RankGR's Table 4 repeats Table 2 but for the misprint R1."""
    paper = load_paper("apao")
    shared = [c for c in paper.of(3) if "stage" not in c.method]
    assert len(shared) == 12 and all(c.value == paper.cell(
        table=1, dataset=c.dataset, backbone=c.backbone, method=c.method, metric=c.metric) for c in shared)
    paper, place = load_paper("rankgr"), {"dataset": "Taobao", "backbone": "Qwen2.5-0.5B-Instruct"}
    differing = [(ours, metric) for ours, theirs in (("RankGR", "RankGR"), ("RankGR w/o Both", "FORGE"))
                 for metric in paper.metrics(2) if paper.cell(table=4, method=ours, metric=metric, **place)
                 != paper.cell(table=2, method=theirs, metric=metric, **place)]
    assert differing == [("RankGR w/o Both", "hr_click@500")]
    assert sum(c.method.endswith(CHANGE) for c in paper.of(4)) == 30


@pytest.mark.parametrize("name", suite_names())
def test_the_rows_of_a_suite_are_rows_of_its_paper(name):
    suite = load_suite(name)
    for row in (row for row in suite.get("row", ()) if "paper_row" in row):
        paper, place = load_paper(suite["suite"]["paper"]), row["paper_row"]
        assert (place["backbone"], place["method"]) in paper.rows(place.get("table", 1)), row["label"]
        assert "best" not in row or all(suite_files.best_values(paper.key, d, row) for d in paper.datasets)


def test_every_row_that_apao_prints_is_in_its_suite():
    stated = {(place["backbone"], place["method"]) for row in load_suite("apao")["row"]
              if (place := row.get("paper_row"))}
    paper = load_paper("apao")
    assert {*paper.rows(1), *paper.rows(3)} <= stated
