"""The index of records: what a row says, and that it depends on records alone."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genrec_bench.cli import main
from genrec_bench.results import diagnoses
from genrec_bench.results.frame import facts
from genrec_bench.results.index import HEADER, NAME, index_text, write_index
from genrec_bench.results.records import RunRecord
from tests.small_records import all_records, record_of, stored, suite_record
from tests.test_diagnoses import diagnosis


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row(tmp_path: Path) -> None:
    record = replace(record_of("ml-100k", "tiger", 1), identity={"split_fingerprint": "0123456789abcdef" * 4})
    store = stored(tmp_path, [record])
    diagnoses.write(diagnoses.path_of(store, record), diagnosis(record.run_id))
    (row,) = rows(index_text(store))
    assert tuple(row) == HEADER
    ranks = tmp_path / "ml-100k" / f"{record.run_id}.ranks.npz"
    told = {"run_id": record.run_id, "dataset": "ml-100k", "profile": "quick", "method": "TIGER + cross-entropy",
            "backbone": "tiger", "objectives": "cross_entropy", "seed": "1", "split": "0123456789abcdef",
            "users": "943", "device": "cpu", "threads": "1", "commit": "0123456789abcdef", "dirty": "false",
            "diagnosis": "true", "ranks_sha256": hashlib.sha256(ranks.read_bytes()).hexdigest()}
    assert {k: row[k] for k in told} == told
    assert [float(row[k]) for k in ("ndcg@10", "recall@10", "id_ndcg@10")] == \
        [record.metrics[k] for k in ("ndcg@10", "recall@10", "id_ndcg@10")]


def test_what_a_record_does_not_state_is_an_empty_cell(tmp_path: Path) -> None:
    record = replace(record_of("ml-100k", "item_knn", 0), provenance={}, data={}, metrics={"mrr@10": 0.5})
    (row,) = rows(index_text(stored(tmp_path, [record])))
    empty = ("backbone", "objectives", "ndcg@10", "recall@10", "id_ndcg@10", "users", "device", "threads",
             "commit", "dirty")
    assert {row[name] for name in empty} == {""} and row["diagnosis"] == "false" and row["method"] == "Item-kNN"


def test_stages_and_objectives_in_their_order() -> None:
    first = suite_record("TIGER + cross-entropy", 0, 0.1)
    second = suite_record("TIGER + CE → DMPO", 0, 0.1, after=first)
    assert facts(second)["objective"] == "cross_entropy > dmpo"
    config = {**first.config, "objectives": [{"name": "b"}, {"name": "a", "weight": 2.0}],
              "uses": [{"take": "weights", "run": {"objectives": [{"name": "c"}]}}]}
    assert facts(replace(first, config=config))["objective"] == "c > b + a"
    assert facts(record_of("ml-100k", "sasrec", 0))["objective"] is None


def test_equal_records_give_equal_bytes_in_whatever_order_they_came(tmp_path: Path) -> None:
    records = all_records()
    one, other = stored(tmp_path / "a", records), stored(tmp_path / "b", records[::-1])
    assert index_text(one) == index_text(other)
    keys = [[row[k] for k in ("dataset", "profile", "method", "seed", "run_id")] for row in rows(index_text(one))]
    assert keys == sorted(keys) and len(keys) == len(records)


def test_seeds_are_sorted_as_numbers(tmp_path: Path) -> None:
    store = stored(tmp_path, [record_of("ml-100k", "tiger", seed) for seed in (10, 9, 2)])
    assert [row["seed"] for row in rows(index_text(store))] == ["2", "9", "10"]


def test_a_file_that_says_the_same_stays(tmp_path: Path) -> None:
    store = stored(tmp_path, [record_of("ml-100k", "tiger", 0)])
    path = write_index(store)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert write_index(store) == path == tmp_path / "index.csv"
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    stored(tmp_path, [record_of("ml-100k", "tiger", 1)])
    write_index(store)
    assert len(rows(path.read_text())) == 2 and path.read_text() == index_text(store)


def test_an_index_that_is_not_records_is_no_record(tmp_path: Path) -> None:
    store = stored(tmp_path, [record_of("ml-100k", "tiger", 0)])
    write_index(store)
    found: list[RunRecord] = store.read_all()
    assert len(found) == 1


def test_merge_writes_it_again_on_request(tmp_path: Path, capsys: Any) -> None:
    store = stored(tmp_path / "a", [record_of("ml-100k", "tiger", 0)])
    assert main(["merge", "--index", "--into", str(store.root)]) == 0
    assert str(store.root / NAME) in capsys.readouterr().out
    assert (store.root / NAME).read_text() == index_text(store)
    assert main(["merge", "--index", "--into", str(tmp_path / "b")]) == 2
    assert "no records below" in capsys.readouterr().err and not (tmp_path / "b").exists()


@pytest.mark.parametrize("dirty", [True, False])
def test_runs_made_with_changed_files_are_marked(tmp_path: Path, dirty: bool) -> None:
    record = record_of("ml-100k", "tiger", 0)
    store = stored(tmp_path, [replace(record, provenance={**record.provenance, "dirty": dirty})])
    assert rows(index_text(store))[0]["dirty"] == str(dirty).lower()
