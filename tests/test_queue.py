"""A suite of blocks: what it runs and in which order, that every trained run is diagnosed, and what is wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genrec_bench.core.errors import UserError
from genrec_bench.experiments import grid, queue, suite_files
from genrec_bench.experiments.grid import Selection
from genrec_bench.reporting.rows import load_suite
from genrec_bench.running.suites import prepare_all
from genrec_bench.running.workspace import Workspace
from tests.test_cli import MAX_ERROR_LINES, TINY, call, files, records

MINE = """
[suite]
name = "mine"
title = "Mine"
includes = ["apao", "bear-sid"]
diagnose = 40

[[block]]
why = "first"
suite = "apao"
profile = "smoke"
datasets = ["ml-100k"]
rows = ["TIGER + CE → CE"]
baselines = ["popularity"]
seeds = [1]

[[block]]
why = "then"
suite = "bear-sid"
profile = "smoke"
datasets = ["ml-100k", "apao_office"]
rows = ["TIGER + BEAR"]
baselines = ["item_knn"]
"""


@pytest.fixture()
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GENREC_BENCH_DATA", raising=False)
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def test_blocks_are_parts_in_order_and_what_is_asked_for_takes_their_place(mine: Path) -> None:
    first, then = queue.selections(Selection(str(mine), queue.OWN))
    assert (first.suite, first.profile, first.datasets, first.seeds) == ("apao", "smoke", ("ml-100k",), (1,))
    assert (then.rows, then.baselines, then.seeds) == (("TIGER + BEAR",), ("item_knn",), None)
    asked = queue.selections(Selection(str(mine), "quick", ("apao_beauty",), seeds=(7,)))
    assert {(s.profile, s.datasets, s.seeds) for s in asked} == {("quick", ("apao_beauty",), (7,))}
    assert queue.selections(Selection("apao", "smoke")) == [Selection("apao", "smoke")]
    assert queue.profile_of(str(mine), None) == queue.OWN and queue.profile_of("apao", None) == "quick"


def test_runs_stand_in_the_order_of_blocks_and_data_that_are_not_there_are_left_out(mine: Path, tmp_path: Path,
                                                                                    capsys: Any) -> None:
    items = prepare_all(Selection(str(mine), queue.OWN), Workspace(tmp_path / "results"), keep=False)
    assert [(p.config.label, p.config.seed) for p in items] == [
        ("Popularity", 0), ("TIGER + CE → CE: first stage", 1), ("TIGER + CE → CE", 1), ("Item-kNN", 0),
        ("TIGER + BEAR", 0)]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert told == ["left out: apao_office: no files there (--data-dir, GENREC_BENCH_DATA)"]
    mine.write_text(MINE.replace('"ml-100k", ', "").replace('"ml-100k"', '"apao_beauty"'))
    with pytest.raises(UserError, match="no files of its datasets are there: apao_beauty, apao_office"):
        prepare_all(Selection(str(mine), queue.OWN), Workspace(tmp_path / "results"), keep=False)


def test_every_trained_run_is_diagnosed_when_it_ends(mine: Path, toy_folder: Path, tmp_path: Path,
                                                     capsys: Any) -> None:
    results = tmp_path / "results"
    words = ["--suite", mine, "--datasets", toy_folder, "--seeds", "0", *TINY, "--set", "training.epochs=1", "--set",
             "second_stage.epochs=1", "--results", results]
    assert call("plan", *words) == 0
    plan = capsys.readouterr().out
    assert "first" in plan and "then" in plan and "TIGER" not in plan
    assert call("run", *words, "--jobs", "1") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if ", seed 0: " in line]
    trained = [n for n, line in enumerate(said) if "TIGER" in line and "NDCG@10" in line]
    assert len(trained) == 3 and all("beam 20 loses" in said[n + 1] for n in trained), said
    made = records(results)
    assert len(made) == 5 and len(list(results.rglob("*.diagnosis.npz"))) == 3
    assert not list(results.glob("work/*/diagnosis"))
    asked = [w for w in words if w not in ("--jobs", "2")]
    assert call("diagnose", *asked, "--users", "40") == 0 and "3 of 3 runs are diagnosed" in capsys.readouterr().err
    before = files(results / "toy")
    assert call("run", *words, "--jobs", "2") == 0 and files(results / "toy") == before
    assert call("plan", *words) == 0 and "5 done" in capsys.readouterr().out
    next(results.rglob("*.diagnosis.npz")).unlink()
    assert call("run", *words, "--jobs", "2") == 0 and len(list(results.rglob("*.diagnosis.npz"))) == 3
    gone = next(results.rglob("*.diagnosis.npz"))
    gone.unlink()
    (results / "work" / gone.name.partition(".")[0] / "best.safetensors").unlink()
    assert call("run", *words) == 0 and "not diagnosed, for its weights are not here" in capsys.readouterr().err
    assert (results / "reports/apao/report.md").is_file() and (results / "reports/bear-sid/report.md").is_file()


WRONG = {
    "suite": ('suite = "bear-sid"', 'suite = "bear-sit"', ["mine.toml, block 2", "'bear-sit'", "'bear-sid'"]),
    "row": ("TIGER + BEAR", "TIGER + BAER", ["mine.toml, block 2", "'TIGER + BAER'", "'TIGER + BEAR'"]),
    "baseline": ('["item_knn"]', '["item_nkn"]', ["mine.toml, block 2", "'item_nkn'", "'item_knn'"]),
    "profile": ('"smoke"\ndatasets = ["ml-100k", ', '"smok"\ndatasets = ["ml-100k", ', ["'smok'", "'smoke'"]),
    "key": ("why = \"then\"", "wy = \"then\"", ["mine.toml, block 2", "'wy'", "'why'"]),
    "dataset": ('"apao_office"', '"apao_offise"', ["mine.toml, block 2", "'apao_offise'", "'apao_office'"]),
    "no dataset": ('datasets = ["ml-100k", "apao_office"]', "datasets = []", ["mine.toml, block 2, datasets"]),
    "nothing": ('rows = ["TIGER + BEAR"]\nbaselines = ["item_knn"]', "", ["mine.toml, block 2", "no rows"]),
    "one table": ("[[block]]\nwhy = \"first\"", "[block]\nwhy = \"first\"", ["mine.toml"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_in_a_block_is_one_line_before_any_work(case: str, mine: Path, tmp_path: Path, capsys: Any) -> None:
    old, new, held = WRONG[case]
    assert MINE.count(old) == 1
    mine.write_text(MINE.replace(old, new))
    assert call("--suite", mine, "--results", tmp_path / "results") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) <= MAX_ERROR_LINES
    assert all(word in error for word in held), error
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("words", [("--row", "TIGER + BEAR"), ("--baselines", "none"), ("--objectives", "bear"),
                                   ("--grid", "full")])
def test_rows_of_a_queue_are_not_chosen(words: tuple[str, str], mine: Path, tmp_path: Path, capsys: Any) -> None:
    assert call("--suite", mine, *words, "--results", tmp_path / "results") == 2
    error = capsys.readouterr().err
    assert f"Leave {words[0]} out" in error and "apao, bear-sid" in error


def test_a_queue_has_no_cost_of_a_grid_and_no_trials(mine: Path, tmp_path: Path, capsys: Any) -> None:
    for words in (("plan", "--save"), ("tune", "--trials", "2")):
        assert call(words[0], "--suite", mine, *words[1:], "--results", tmp_path / "results") == 2
        assert "is a queue" in capsys.readouterr().err


def test_our_queue_names_what_exists() -> None:
    """Every block has its why, and its runs can be named; block 1 answers with the profile's five seeds."""
    parts = queue.blocks("evidence")
    assert len(parts) > 5 and all(part.why for part in parts)
    for part in queue.selections(Selection("evidence", queue.OWN)):
        configs = grid.expand(part)
        assert {c.profile for c in configs} == {part.profile}
        assert {c.label for c in configs} >= set(part.rows)
    first = grid.expand(queue.selections(Selection("evidence", queue.OWN))[0])
    assert {c.seed for c in first if c.label == "TIGER + cross-entropy"} == {0, 1, 2, 3, 4}
    assert suite_files.load_suite("evidence")["suite"]["diagnose"] == 1000


def test_our_queue_has_what_its_rows_are_compared_with() -> None:
    """A row of a declared comparison is the other side of one, or has one beside it on the same data and profile."""
    parts = queue.selections(Selection("evidence", queue.OWN))
    runs = {(c.profile, c.dataset.name, c.baseline.name if c.baseline else c.label)
            for part in parts for c in grid.expand(part)}
    families = [family for suite in {part.suite for part in parts} for family in load_suite(suite).families]
    alone = []
    for profile, data, label in runs:
        backbone, _, name = label.partition(" + ")
        against = {g for f in families if name in f.rows and data in f.datasets
                   for g in (f.against, f"{backbone} + {f.against}")}  # a baseline, or a row on the same backbone
        reference = any(name == f.against for f in families)
        if against and not reference and not any((profile, data, other) in runs for other in against):
            alone.append((profile, data, label))
    assert not alone
