"""The data of the leaderboard, from tiny records: values, intervals, differences, what is missing and what it costs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_bench.analysis import pruning
from genrec_bench.analysis.ranking import mean_interval
from genrec_bench.contracts import Rankings
from genrec_bench.reporting import claims
from genrec_bench.reporting.html import embedded, html_page
from genrec_bench.reporting.leaderboard import board
from genrec_bench.reporting.markdown import Source
from genrec_bench.results.records import RecordStore, RunRecord
from tests import golden_report
from tests.small_diagnoses import diagnosis_of, stored_beside
from tests.small_records import record_of, suite_record

LABELS = {"ce": "TIGER + cross-entropy", "point": "TIGER + APAO-Pointwise", "msl": "TIGER + MSL"}


def board_of(folder: Path) -> dict[str, Any]:
    return board(Source(RecordStore(folder).read_all(), folder).materials("all"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return golden_report.stored_in(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def blocks(folder) -> list[dict[str, Any]]:
    return board_of(folder)["blocks"]


@pytest.fixture(scope="module")
def lines(blocks) -> dict[str, dict[str, Any]]:
    return {line["label"]: line for line in blocks[1]["lines"]}


def hits(label: str) -> np.ndarray:
    """(seeds, users) of NDCG@10 as `golden_report` draws the ranks: 1 for a target at place 1."""
    return np.stack([np.random.default_rng(seed).random(golden_report.USERS) < golden_report.SHARES[label]
                     for seed in golden_report.SEEDS]).astype(float)


def told(value: float, low: float, high: float) -> list[float]:
    return [round(number, 4) for number in (value, low, high)]


def test_blocks_that_decide_come_first_and_each_method_stands_once(blocks):
    assert [(b["dataset"], b["profile"], b["decides"], b["seeds"]) for b in blocks] == [
        ("apao_office", "paper", True, (0, 1, 2)), ("ml-100k", "quick", False, (0, 1, 2))]
    labels = [line["label"] for line in blocks[1]["lines"]]
    assert sorted(labels) == sorted({"Item-kNN", "SASRec (RecBole, CE)", *LABELS.values()})
    assert labels[0] == LABELS["point"] and labels[-1] == LABELS["msl"]  # the best first, what has no mean last
    assert blocks[1]["title"].startswith("quick: ")


def test_scores_are_means_over_seeds_and_users_with_their_intervals(lines):
    for label in ("TIGER + cross-entropy", "TIGER + APAO-Pointwise"):
        e = mean_interval(hits(label))
        expected = told(hits(label).mean(), e.low, e.high)
        scores = lines[label]["scores"]
        assert scores["item"]["ndcg@10"] == scores["item"]["unseen_recall@10"] == scores["id"]["ndcg@10"] == expected


def test_the_difference_is_that_of_the_declared_comparison(folder, lines):
    """NDCG minus cross-entropy's over the same users and seeds; the report's own numbers and verdict."""
    test = next(t for m in Source(RecordStore(folder).read_all(), folder).materials("apao") for one in m.families
                for t in one.tests if (t.group.label, t.against.label) == (LABELS["point"], LABELS["ce"]))
    scores, gap = lines[LABELS["point"]]["scores"]["item"], (hits(LABELS["point"]) - hits(LABELS["ce"])).mean()
    assert scores["difference"] == told(gap, *test.comparison.interval) and scores["verdict"] == "better (short runs)"
    assert scores["unseen_difference"][0] == round(gap, 4)
    assert "difference" not in lines[LABELS["ce"]]["scores"]["item"]
    assert "difference" not in lines["SASRec (RecBole, CE)"]["scores"]["item"]  # on no backbone
    assert lines[LABELS["point"]]["against"] == lines[LABELS["ce"]]["against"] == LABELS["ce"]


def test_a_row_with_a_missing_seed_has_no_mean(lines):
    line = lines[LABELS["msl"]]
    assert line["missing"] == (2,) and line["scores"] == {"item": {}, "id": {}}
    assert [run["scores"]["item"]["ndcg@10"] for run in line["runs"]] == [0.03, 0.03]


def test_groups_come_from_the_objectives_and_settings_from_the_name(lines):
    assert {label: line["groups"] for label, line in lines.items()} == {
        "Item-kNN": ["baselines"], "SASRec (RecBole, CE)": ["baselines"], LABELS["ce"]: ["cross-entropy family"],
        LABELS["msl"]: ["cross-entropy family"], LABELS["point"]: ["prefix-aware losses"]}
    settings = lines[LABELS["point"]]["settings"]
    assert {"objectives.1.name = apao", "objectives.1.eta = 1e-05", "training.epochs = 4"} <= set(settings)
    assert not [text for text in settings if "version" in text or "fingerprint" in text]


def test_costs_and_what_the_runs_of_a_line_left(lines, folder):
    line = lines[LABELS["ce"]]
    assert line["cost"]["steps"] == 300 and line["cost"]["positions_with_gradient"] == 100
    run = line["runs"][1]
    assert (run["seed"], run["best"], len(run["curve"]), run["machine"]) == (1, 11, 12, ["cpu", "a CPU", 1])
    assert run["files"] == [f"ml-100k/{run['id']}.json", f"ml-100k/{run['id']}.ranks.npz"]
    assert all((folder / name).is_file() for name in run["files"])


def test_time_of_a_second_stage_holds_that_of_the_first(tmp_path):
    first = suite_record(LABELS["ce"], 0, 0.03)
    second = suite_record("TIGER + CE → CE", 0, 0.03, after=first)
    second = replace(second, timings={**second.timings, "total_seconds": 40.0})
    lines = written(tmp_path, [first, second])
    assert lines["TIGER + CE → CE"]["seconds"] == 70.0 and lines[LABELS["ce"]]["seconds"] is None


def written(folder: Path, records: list[RunRecord]) -> dict[str, dict[str, Any]]:
    """The lines of records whose users have their target at places 1, 4 and, of one, nowhere."""
    ranks = Rankings(np.array([1, 4, 0]), np.array([1, 2, 1]), np.array([1, 3, 0]))
    for record in records:
        RecordStore(folder).write(record, ranks, ranks)
    return {line["label"]: line for block in board_of(folder)["blocks"] for line in block["lines"]}


def test_item_and_semantic_ids_count_ties_otherwise(tmp_path):
    """Places 4 and 5 in equal parts for items, place 3 for the ID; equal ranks differ by nothing."""
    lines = written(tmp_path, [suite_record(LABELS[key], seed, 0.03) for key in ("ce", "point") for seed in (0, 1, 2)])
    scores = lines[LABELS["point"]]["scores"]
    assert scores["item"]["ndcg@10"][0] == round((1 + (1 / np.log2(5) + 1 / np.log2(6)) / 2) / 3, 4)
    assert scores["id"]["ndcg@10"][0] == round((1 + 1 / np.log2(4)) / 3, 4)
    assert scores["id"]["difference"] == [0.0, 0.0, 0.0] and scores["item"]["recall@10"][0] == 0.6667


def test_what_a_beam_loses_stands_where_it_was_diagnosed(tmp_path):
    records = [suite_record(LABELS["ce"], seed, 0.03) for seed in (0, 1, 2)]
    store = RecordStore(tmp_path)
    written(tmp_path, records)
    stored_beside(store, records)
    e = pruning.pruning_rate([diagnosis_of(r) for r in records], records[0].config["decoding"]["normaliser"], k=20,
                             beam=20)
    line = board_of(tmp_path)["blocks"][0]["lines"][0]
    assert line["lost"] == told(e.value, e.low, e.high)
    assert line["runs"][0]["files"][-1].endswith(".diagnosis.npz")


def test_long_curves_are_thinned_and_keep_the_best_and_the_last(tmp_path):
    record = suite_record(LABELS["ce"], 0, 0.03)
    curve = [{"epoch": e, "loss": 1 / e, "valid_ndcg@10": e / 1000} for e in range(1, 202)]
    record = replace(record, training={**record.training, "curve": curve, "best_epoch": 77})
    kept = written(tmp_path, [record])[LABELS["ce"]]["runs"][0]["curve"]
    epochs = [point[0] for point in kept]
    assert len(epochs) <= 52 and 77 in epochs and epochs[-1] == 201 and kept[0] == [5, 0.2, 0.005]


def test_nothing_that_a_record_says_leaves_the_data(tmp_path):
    """A label that would end the script stays text, and is read back as it was."""
    label = "</script><script>alert(1)</script><!--"
    record = replace(record_of("ml-100k", "item_knn", 0), label=label)
    assert list(written(tmp_path, [record])) == [label]
    claim = {"claim": label, "about": "", "estimate": 0.01, "interval": (-0.02, 0.04), "data": "ml-100k",
             "profile": "quick", "seeds": 3, "answer": None, "minimum_detectable": 0.03}
    page = html_page("T", board_of(tmp_path), {}, [claim])
    assert "alert(1)</script>" not in page and page.count("</script>") == 2 and "[-0.0200, +0.0400]" in page
    inside = page.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(inside)["blocks"][0]["lines"][0]["label"] == label


def test_claims_stand_as_texts_that_say_where_and_whether_that_decides(folder):
    found = claims.lines(Source(RecordStore(folder).read_all(), folder).materials("all"))
    measured = [line for line in found if line["data"]]
    assert {(line["data"], line["profile"]) for line in measured} == {("ml-100k", "quick (decides nothing)")}
    assert measured[0]["about"].startswith("APAO, 5.2, Table 1. TIGER + APAO-Pointwise over cross-entropy: NDCG@10.")
    assert measured[0]["estimate"].endswith(" %") and measured[0]["interval"][0] == "[" and measured[0]["seeds"] == 3
    assert {line["answer"] for line in found if not line["data"]} >= {"cannot tell: not run"}
    assert "decides nothing" in html_page("T", board_of(folder), {}, found)


def test_equal_records_give_equal_bytes_and_numbers_must_be_numbers(folder):
    assert html_page("T", board_of(folder), {"a.md": "A"}) == html_page("T", board_of(folder), {"a.md": "A"})
    with pytest.raises(ValueError, match="Out of range float"):
        embedded({"value": float("nan")})
