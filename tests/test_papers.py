"""Printed numbers: complete, and equal to the checked transcription where that is at hand."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from genrec_bench.errors import UserError
from genrec_bench.reporting.papers import IMPROVEMENT, load_paper, paper_names

TRANSCRIPTION = Path(__file__).resolve().parents[2] / "shared" / "papers" / "apao.csv"


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
    assert Counter(c.table for c in paper.reported) == {"1": 240, "2": 16, "4": 32}
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


def test_unknown_paper_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'apao'"):
        load_paper("apoa")


def test_equals_the_transcription():
    if not TRANSCRIPTION.exists():
        pytest.skip("the transcription is not beside the repository")
    with open(TRANSCRIPTION, newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["table"] in ("1", "2", "4")]
    paper = load_paper("apao")
    assert len(rows) == len(paper.reported)
    for row in rows:
        metric = row["metric"].lower() + (f"@{row['k']}" if row["k"] else "")
        blank = {"-": ""}
        assert paper.cell(table=row["table"], dataset=row["dataset"], metric=metric,
                          backbone=blank.get(row["backbone"], row["backbone"]),
                          method=blank.get(row["method"], row["method"])) == float(row["value"]), row
