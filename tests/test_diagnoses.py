"""The file of a diagnosis: what is written is read, damage is named, samples are the same for all runs of a split."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_bench.cli import main
from genrec_bench.core.errors import UserError
from genrec_bench.results import diagnoses
from genrec_bench.results.diagnoses import Diagnosis, sample_rows
from genrec_bench.results.records import RecordStore
from tests.small_records import record_of, stored

USERS, LEVELS, BEAMS = 4, 3, (5, 20)
RECORD = replace(record_of("ml-100k", "tiger", 0), metrics={"recall@10": 2 / 3})  # that of the ranks in `stored`


def diagnosis(run_id: str = RECORD.run_id, users: int = USERS, **changes: Any) -> Diagnosis:
    """Random facts."""
    random = np.random.default_rng(users)
    sample = sample_rows("split", 9, limit=users, drawn=users)
    shapes = {"token_rank/flat": (LEVELS,), "token_rank/trie": (LEVELS,)}
    for n in ("flat", "trie"):
        shapes |= {f"{n}/{name}": shape for name, shape in
                   {"rank": (), "prefix_rank": (LEVELS,), "survived": (2,), "beam_rank": (2,), "retained": (2, LEVELS),
                    "top_size": (), "needed": ()}.items()}
    arrays = {name: random.integers(0, 200, size=(users, *shape), dtype=np.uint8) for name, shape in shapes.items()}
    about = {"schema": 1, "run_id": run_id, "beams": list(BEAMS), "normalisers": ["flat", "trie"], "top": 20,
             "cap": 100, "levels": LEVELS, "sample": sample.about,
             "catalogue": {"items": 6, "ids": 6, "prefixes": [3, 5, 6], "nodes": 9},
             "decoding": {"normaliser": "flat", "num_beams": 20, "temperature": 1.0}, "versions": {"numpy": "1"}}
    return Diagnosis({**about, **changes}, {**arrays, "rows": sample.rows})


def same(one: Diagnosis, other: Diagnosis) -> bool:
    return one.about == other.about and one.arrays.keys() == other.arrays.keys() and all(
        np.array_equal(one.arrays[k], other.arrays[k]) and one.arrays[k].dtype == other.arrays[k].dtype
        for k in one.arrays)


# The file

def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.diagnosis.npz"
    diagnoses.write(path, diagnosis())
    found = diagnoses.read(path)
    assert same(found, diagnosis()) and [p.name for p in tmp_path.iterdir()] == [path.name]
    assert (found.levels, found.beams, found.num_users) == (LEVELS, BEAMS, USERS) and found.beam(20) == 1
    assert found.of("trie", "rank").dtype == np.int64 and found.token_rank("flat").shape == (USERS, LEVELS)
    with pytest.raises(ValueError, match="beam 10 was not diagnosed; there are 5, 20"):
        found.beam(10)
    with pytest.raises(ValueError, match="normaliser 'other'"):
        found.of("other", "rank")


def test_equal_diagnoses_give_equal_bytes(tmp_path: Path) -> None:
    """Whatever the order in which facts were gathered."""
    one, other = tmp_path / "a.npz", tmp_path / "b.npz"
    diagnoses.write(one, diagnosis())
    first = diagnosis()
    diagnoses.write(other, Diagnosis(dict(reversed(first.about.items())), dict(reversed(first.arrays.items()))))
    assert one.read_bytes() == other.read_bytes()


def test_it_stands_beside_its_record_and_is_no_record(tmp_path: Path) -> None:
    store = stored(tmp_path, [RECORD])
    assert diagnoses.find(store, RECORD) is None
    diagnoses.write(diagnoses.path_of(store, RECORD), diagnosis())
    assert (tmp_path / "ml-100k" / f"{RECORD.run_id}.diagnosis.npz").is_file()
    assert same(diagnoses.find(store, RECORD), diagnosis()) and [r.run_id for r in store.read_all()] == [RECORD.run_id]


def test_another_runs_diagnosis_is_refused(tmp_path: Path) -> None:
    store = stored(tmp_path, [RECORD])
    diagnoses.write(diagnoses.path_of(store, RECORD), diagnosis("fedcba9876543210"))
    with pytest.raises(UserError, match="diagnosis of run fedcba9876543210"):
        diagnoses.find(store, RECORD)


def broken(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[:len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not an archive")
    else:
        first = diagnosis()
        about: Any = json.dumps(first.about)
        arrays = dict(first.arrays)
        if how == "no about":
            np.savez(path, **arrays)
            return
        if how == "about is no JSON":
            about = "{"
        elif how == "about is a list":
            about = "[1]"
        elif how == "no beams":
            about = json.dumps({k: v for k, v in first.about.items() if k != "beams"})
        elif how == "an array is missing":
            del arrays["trie/needed"]
        elif how == "other shape":
            arrays["flat/rank"] = arrays["flat/rank"][:-1]
        elif how == "fractions":
            arrays["flat/rank"] = arrays["flat/rank"] / 2
        np.savez(path, about=np.array(about), **arrays)


@pytest.mark.parametrize("how", ["cut", "empty", "text", "no about", "about is no JSON", "about is a list", "no beams",
                                 "an array is missing", "other shape", "fractions"])
def test_a_damaged_file_is_named(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.diagnosis.npz"
    diagnoses.write(path, diagnosis())
    broken(path, how)
    with pytest.raises(UserError) as caught:
        diagnoses.read(path)
    assert str(path) in str(caught.value) and "is not a diagnosis" in str(caught.value)


def test_another_schema_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "x.diagnosis.npz"
    diagnoses.write(path, diagnosis(schema=2))
    with pytest.raises(UserError, match=r"is not a diagnosis \(its schema is 2\)"):
        diagnoses.read(path)


def test_arrays_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    wrong = diagnosis(levels=LEVELS + 1)
    with pytest.raises(ValueError, match="token_rank/flat is uint8 \\(4, 3\\), expected integers \\(4, 4\\)"):
        diagnoses.write(tmp_path / "x.npz", wrong)
    assert not list(tmp_path.iterdir())


# The sample

def test_few_rows_are_all_taken() -> None:
    found = sample_rows("a", 7, limit=7, drawn=3)
    assert found.rows.tolist() == list(range(7)) and found.rows.dtype == np.int32
    assert {k: found.about[k] for k in ("users", "of", "rule")} == {"users": 7, "of": 7, "rule": "all"}
    assert len(sample_rows("a", diagnoses.LIMIT).rows) == diagnoses.LIMIT
    users = np.repeat(np.arange(30), 4)
    several = sample_rows("a", 120, limit=30, drawn=9, users=users)
    assert users[several.rows].tolist() == list(range(30)), "one row a user"
    fewer = sample_rows("a", 120, limit=20, drawn=9, users=users)
    assert len(set(users[fewer.rows])) == 9 and set(fewer.rows) < set(several.rows)
    assert len(sample_rows("a", diagnoses.LIMIT + 1).rows) == diagnoses.DRAWN


def test_of_many_rows_some_are_drawn_by_the_split_alone() -> None:
    found = sample_rows("a", 100, limit=50, drawn=20)
    assert found.rows.tolist() == sorted(set(found.rows.tolist())) and len(found.rows) == 20
    assert 0 <= found.rows.min() and found.rows.max() < 100
    assert {k: found.about[k] for k in ("users", "of", "rule")} == {"users": 20, "of": 100, "rule": "drawn"}
    again, other = sample_rows("a", 100, limit=50, drawn=20), sample_rows("b", 100, limit=50, drawn=20)
    assert np.array_equal(found.rows, again.rows) and found.about == again.about
    assert not np.array_equal(found.rows, other.rows)
    assert set(sample_rows("a", 100, limit=10, drawn=10).rows.tolist()) < set(found.rows.tolist())


def test_every_row_is_drawn_about_as_often() -> None:
    """Over 400 splits each of 20 rows is in a sample of 5 about 100 times; the standard deviation is 8.7."""
    counts = np.zeros(20)
    for number in range(400):
        counts[sample_rows(f"split {number}", 20, limit=5, drawn=5).rows] += 1
    assert counts.sum() == 2000 and abs(counts - 100).max() < 4.5 * 8.7


def test_the_hash_names_rows_and_split() -> None:
    hashes = {sample_rows(name, rows, limit, drawn).about["sha256"] for name, rows, limit, drawn in
              (("a", 9, 9, 9), ("b", 9, 9, 9), ("a", 8, 9, 9), ("a", 9, 5, 5), ("a", 9, 5, 4))}
    assert len(hashes) == 5 and sample_rows("a", 9, 20).about["sha256"] in hashes


# Merging

def merged(source: RecordStore, target: RecordStore) -> int:
    return main(["merge", "--results", str(source.root), "--into", str(target.root)])


def test_merge_takes_a_diagnosis_along(tmp_path: Path, capsys: Any) -> None:
    source, target = stored(tmp_path / "a", [RECORD]), RecordStore(tmp_path / "b")
    diagnoses.write(diagnoses.path_of(source, RECORD), diagnosis())
    assert merged(source, target) == 0 and "Diagnoses taken along: 1." in capsys.readouterr().out
    assert same(diagnoses.find(target, RECORD), diagnosis()) and not list(source.root.rglob("*.npz"))


def test_a_record_merged_before_gets_its_diagnosis_later(tmp_path: Path) -> None:
    source, target = stored(tmp_path / "a", [RECORD]), stored(tmp_path / "b", [RECORD])
    diagnoses.write(diagnoses.path_of(source, RECORD), diagnosis())
    assert merged(source, target) == 0
    assert same(diagnoses.find(target, RECORD), diagnosis()) and not list(source.root.rglob("*.npz"))


@pytest.mark.parametrize(("there", "kept"), [(3, 4), (5, 5)])
def test_the_diagnosis_of_more_users_stays(tmp_path: Path, there: int, kept: int) -> None:
    source, target = stored(tmp_path / "a", [RECORD]), stored(tmp_path / "b", [RECORD])
    diagnoses.write(diagnoses.path_of(source, RECORD), diagnosis())
    diagnoses.write(diagnoses.path_of(target, RECORD), diagnosis(users=there))
    assert merged(source, target) == 0
    assert diagnoses.find(target, RECORD).num_users == kept


def test_a_damaged_diagnosis_stops_a_merge_before_anything_moves(tmp_path: Path, capsys: Any) -> None:
    source, target = stored(tmp_path / "a", [RECORD]), RecordStore(tmp_path / "b")
    diagnoses.path_of(source, RECORD).write_bytes(b"nothing")
    assert merged(source, target) == 2 and "is not a diagnosis" in capsys.readouterr().err
    assert source.find(RECORD.run_id) and not target.root.exists()
