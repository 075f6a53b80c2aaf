"""The tables of `export`: every number of every record once, unrounded, in each kind of file."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from pyarrow.parquet import read_table

from genrec_bench import api
from genrec_bench.cli import main
from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.core.seeds import MAX_SEED
from genrec_bench.evaluate import score
from genrec_bench.metrics.base import expected_values
from genrec_bench.reporting.matching import of_suite
from genrec_bench.results.export import Exported, export
from genrec_bench.results.frame import KEY, METRIC, RUN, USER
from genrec_bench.results.records import RecordStore
from genrec_bench.results.test_users import ARRAYS, UserFacts, path_of, write_users
from tests.small_records import all_records, record_of, stored

SPLIT = "ab" * 32
KNN = replace(record_of("apao_office", "item_knn", 0), identity={"split_fingerprint": SPLIT})
TIGER = record_of("ml-100k", "tiger", 2)


def lines(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture()
def results(tmp_path: Path) -> Path:
    stored(tmp_path / "results", [TIGER])
    ranks = Rankings(np.array([1, 0, 7, 300]), np.array([2, 1, 1, 1]), np.array([1, 0, 5, 12]))
    store = RecordStore(tmp_path / "results")
    store.write(KNN, ranks, replace(ranks, ranks=ranks.ranks // 2))
    write_users(path_of(store, "apao_office", SPLIT),
                UserFacts(SPLIT, np.arange(4), np.array([3, 4, 5, 20]), np.array([7, 0, 9, 1]), np.array([5, 6, 7, 70]),
                          np.array([0, 1, 2, 3]), np.array([1, 0, -1, 1])))
    return store.root


# Metrics

def test_every_metric_once_and_unrounded(tmp_path: Path) -> None:
    records = all_records()
    stored(tmp_path / "r", records)
    assert export(tmp_path / "r", tmp_path / "runs.csv").runs == len(records)
    found = lines(tmp_path / "runs.csv")
    assert list(found[0]) == [*KEY, *METRIC]
    key = {("valid", "item"): "valid_", ("test", "item"): "", ("test", "id"): "id_", ("valid", "id"): "valid_id_"}
    values = {(row["run_id"], f"{key[row['part'], row['level']]}{row['metric']}@{row['k']}"): float(row["value"])
              for row in found}
    assert values == {(r.run_id, name): value for r in records for name, value in r.metrics.items()}
    assert len(values) == len(found) and {row["history"] for row in found} == {"kept"}
    assert [row["run_id"] for row in found] == sorted(row["run_id"] for row in found)


def test_the_largest_seed_fits_into_both_kinds_of_file(tmp_path: Path) -> None:
    record = record_of("ml-100k", "tiger", MAX_SEED)
    stored(tmp_path / "r", [record])
    for ending in ("csv", "parquet", "jsonl"):
        export(tmp_path / "r", tmp_path / f"x.{ending}")
    assert set(read_table(tmp_path / "x.parquet")["seed"].to_pylist()) == {MAX_SEED} == {
        int(line["seed"]) for line in lines(tmp_path / "x.csv")}


@pytest.mark.parametrize(("per", "columns"), [("metric", KEY | METRIC), ("run", RUN), ("user", USER)])
def test_all_kinds_of_file_say_the_same(results: Path, tmp_path: Path, per: str, columns: dict[str, str]) -> None:
    for ending in ("csv", "parquet", "jsonl"):
        export(results, tmp_path / f"x.{ending}", per=per)
    table = read_table(tmp_path / "x.parquet")
    assert table.column_names == list(columns)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert rows == table.to_pylist()
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == lines(tmp_path / "x.csv")
    pandas.testing.assert_frame_equal(api.frame(results, per=per).astype(object), table.to_pandas().astype(object),
                                      check_dtype=False)


def test_equal_records_give_equal_bytes(results: Path, tmp_path: Path) -> None:
    for ending in ("csv", "parquet", "jsonl"):
        for name in "ab":
            export(results, tmp_path / f"{name}.{ending}", per="user")
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


# Users

def test_one_line_a_user_with_what_is_known_of_them(results: Path, tmp_path: Path) -> None:
    assert export(results, tmp_path / "users.csv", per="user") == Exported(lines=7, runs=2)
    found = lines(tmp_path / "users.csv")
    assert list(found[0]) == list(USER)
    assert [tuple(row.values())[1:] for row in found if row["run_id"] == KNN.run_id] == [
        ("0", "0", "1", "2", "1", "0", "2", "1", "3", "7", "5", "0", "1"),
        ("1", "1", "0", "1", "0", "0", "1", "0", "4", "0", "6", "1", "0"),
        ("2", "2", "7", "1", "5", "3", "1", "5", "5", "9", "7", "2", "-1"),
        ("3", "3", "300", "1", "12", "150", "1", "12", "20", "1", "70", "3", "1")]
    unknown = [row for row in found if row["run_id"] == TIGER.run_id]
    assert [row["rank"] for row in unknown] == ["1", "0", "3"]
    assert {row[name] for row in unknown for name in ("history_length", "target_count", "user_count")} == {""}


def test_the_metrics_of_a_run_follow_from_its_users(tmp_path: Path) -> None:
    """For two runs: whoever reads the table gets the record's numbers."""
    folder, draw = tmp_path / "some", np.random.default_rng(0)
    some = []
    for seed in range(2):
        ranks = Rankings(draw.integers(0, 21, 50), draw.integers(1, 4, 50), draw.integers(0, 21, 50))
        some.append(replace(record_of("ml-100k", "tiger", seed), metrics=score(ranks)))
        RecordStore(folder).write(some[-1], ranks, ranks)
    export(folder, tmp_path / "users.parquet", per="user")
    table = pandas.read_parquet(tmp_path / "users.parquet")
    for record in some:
        own = table[table["run_id"] == record.run_id].sort_values("row")
        ranks = Rankings(*(own[name].to_numpy() for name in ("rank", "ties", "id_rank")))
        assert expected_values("ndcg", ranks, 10).mean() == pytest.approx(record.metrics["ndcg@10"], abs=1e-12)


def test_facts_of_other_users_are_refused(results: Path, tmp_path: Path) -> None:
    write_users(path_of(RecordStore(results), "apao_office", SPLIT), UserFacts(SPLIT, *(np.arange(3),) * len(ARRAYS)))
    with pytest.raises(UserError, match=f"run {KNN.run_id} has ranks of 4 rows"):
        export(results, tmp_path / "users.csv", per="user")
    assert [p.name for p in tmp_path.iterdir()] == ["results"]


# Which runs

def test_only_some_datasets_and_suites(tmp_path: Path) -> None:
    store = stored(tmp_path / "r", all_records())
    both, office = {"ml-100k", "apao_office"}, {"apao_office"}
    for datasets, suite, there in ((None, None, both), (["apao_office"], None, office), (None, "apao", both),
                                   (None, "all", both), (["apao_office"], "apao", office)):
        export(store.root, tmp_path / "x.csv", datasets=datasets, wanted=suite and of_suite(suite), force=True)
        assert {row["dataset"] for row in lines(tmp_path / "x.csv")} == there
    other = replace(TIGER, method="nobodys")
    store = stored(tmp_path / "s", [other, KNN])
    export(store.root, tmp_path / "y.csv", wanted=of_suite("apao"))
    assert {row["run_id"] for row in lines(tmp_path / "y.csv")} == {KNN.run_id}


# Mistakes

@pytest.mark.parametrize(("words", "told"), [
    (("--to", "x.xlsx"), "unknown ending '.xlsx' in the name of the file to write. Did you mean"),
    (("--to", "csv"), "unknown ending 'csv'"),
    (("--to", "no/such/x.csv"), "is not a folder"), (("--to", "there.csv"), "there already"),
    (("--to", "folder.csv"), "which is a folder"), (("--to", "x.csv", "--suite", "apo"), "'apao'"),
    (("--to", "x.csv", "--results", "nowhere"), "no records below nowhere"),
    (("--to", "x.csv", "--datasets", "ml-10k"), "Did you mean 'ml-100k'"),
    (("--to", "x.csv", "--suite", "apao", "--results", "odd"), "none of the 1 records below odd is one of those asked"),
    (("--to", "x.csv", "--user"), "--users"), (("--to", "x.csv", "--users", "--runs"), "not allowed with"),
    ((), "--to")])
def test_mistakes_leave_nothing_behind(results: Path, tmp_path: Path, words: tuple[str, ...], told: str, capsys: Any,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("mine")
    Path("folder.csv").mkdir()
    stored(Path("odd"), [replace(TIGER, method="nobodys")])
    before = sorted(p for p in tmp_path.rglob("*"))
    assert main(["export", "--results", str(results), *words]) == 2
    message = capsys.readouterr().err
    assert told in message and message.startswith("error: ") and len(message.splitlines()) == 1
    assert sorted(p for p in tmp_path.rglob("*")) == before and Path("there.csv").read_text() == "mine"


def test_the_command_says_what_it_wrote(results: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.csv").write_text("mine")
    assert main(["export", "--results", str(results), "--to", str(tmp_path / "x.csv"), "--force"]) == 0
    count = len(TIGER.metrics) + len(KNN.metrics)
    assert f"{count} lines of 2 runs" in capsys.readouterr().out and len(lines(tmp_path / "x.csv")) == count
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results", "x.csv"]
