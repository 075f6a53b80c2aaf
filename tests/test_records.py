"""The store of records: what counts as finished, and what a half pair does."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_bench.cli import main
from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.core.provenance import _cpu, portable, provenance
from genrec_bench.results import diagnoses, test_users
from genrec_bench.results.records import Damaged, OtherEngine, RecordStore, RunRecord, read_ranks, read_record
from tests.test_diagnoses import diagnosis

NAME = "0123456789abcdef"
RECORD = RunRecord(NAME, "fedcba9876543210", "Mine", "smoke", {"dataset": {"name": "toy"}, "seed": 3},
                   identity={"split_fingerprint": "ab" * 32}, data={}, tokenizer={}, metrics={"ndcg@10": 1 / 3},
                   training={}, timings={}, provenance={})
RANKS = Rankings(np.array([1, 0, 20]), np.array([1, 1, 2]), np.array([1, 0, 300]))
ARRAYS = {f"{part}{name}": getattr(RANKS, name) for part in ("", "unseen_") for name in ("ranks", "ties", "id_ranks")}


@pytest.fixture()
def store(tmp_path: Path) -> RecordStore:
    store = RecordStore(tmp_path / "store")
    store.write(RECORD, RANKS, RANKS)
    return store


def equal(one: Rankings, other: Rankings) -> bool:
    return all(np.array_equal(getattr(one, f), getattr(other, f)) for f in ("ranks", "ties", "id_ranks"))


def test_what_is_written_is_read(store: RecordStore) -> None:
    assert store.find(NAME) == store.path(RECORD) and store.read(NAME) == RECORD and store.read_all() == [RECORD]
    assert equal(store.read_ranks(RECORD), RANKS)
    assert sorted(p.name for p in store.root.rglob("*") if p.is_file()) == [f"{NAME}.json", f"{NAME}.ranks.npz"]


@pytest.mark.parametrize("lost", [f"{NAME}.json", f"{NAME}.ranks.npz"])
def test_half_a_pair_is_no_record_and_is_made_whole(lost: str, store: RecordStore) -> None:
    """Both files are written again, so that they are of one run."""
    (store.root / "toy" / lost).unlink()
    assert store.find(NAME) is None and store.read_all() == []
    with pytest.raises(UserError, match="no record"):
        store.read(NAME)
    again = replace(RECORD, timings={"total_seconds": 2.0})
    store.write(again, RANKS, RANKS)
    assert store.read_all() == [again] and store.read(NAME) == again and equal(store.read_ranks(again), RANKS)


def test_a_whole_pair_stays(store: RecordStore) -> None:
    before = store.path(RECORD).read_bytes(), store.ranks_bytes(RECORD)
    store.write(replace(RECORD, timings={"total_seconds": 2.0}), RANKS, RANKS)
    assert (store.path(RECORD).read_bytes(), store.ranks_bytes(RECORD)) == before
    store.remove(RECORD)
    assert store.find(NAME) is None and not [p for p in store.root.rglob("*") if p.is_file()]


@pytest.mark.parametrize("keep", [0, 40, -30])
@pytest.mark.parametrize(("ending", "words"), [("ranks.npz", "is not a file of ranks"),
                                               ("json", "is not a run record")])
def test_a_damaged_pair_is_no_record_and_is_written_again(keep: int, ending: str, words: str, store: RecordStore,
                                                          capsys: Any) -> None:
    path = store.root / "toy" / f"{NAME}.{ending}"
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(Damaged, match=f"{NAME}.{ending} {words}"):
        (read_ranks if ending == "ranks.npz" else read_record)(path)
    assert store.find(NAME) is None and words in store.damage(NAME) and not capsys.readouterr().err
    assert store.read_all() == [] and f"left out: {path} {words}" in capsys.readouterr().err
    store.write(RECORD, RANKS, RANKS)
    assert path.read_bytes() == whole and store.read_all() == [RECORD] and not store.damage(NAME)


def test_a_damaged_half_of_ranks_is_seen(store: RecordStore) -> None:
    """Arrays of other lengths, and a byte that is not what was written."""
    path = store.root / "toy" / f"{NAME}.ranks.npz"
    whole = path.read_bytes()
    np.savez(path, **{**ARRAYS, "ties": RANKS.ties[:2]})
    assert "shapes (3,), (2,), (3,)" in store.damage(NAME)
    at = whole.index(b"PK\x01\x02") - 3  # in the last array
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1:])
    assert store.find(NAME) is None and store.damage(NAME)


# Where records are

def test_a_renamed_folder_is_read_rightly(store: RecordStore) -> None:
    diagnoses.write(diagnoses.path_of(store, RECORD), diagnosis(NAME))
    fingerprint = "ab" * 32
    users = test_users.UserFacts(fingerprint, *(np.array([1, 2, 3]) for _ in test_users.ARRAYS))
    test_users.write_users(test_users.path_of(store, "toy", fingerprint), users)
    (store.root / "of machine").mkdir()
    (store.root / "toy").rename(store.root / "of machine" / "B")
    for fresh in (store, RecordStore(store.root)):
        (record,) = fresh.read_all()
        assert record == RECORD and record.path == store.root / "of machine" / "B" / f"{NAME}.json" == fresh.find(NAME)
        assert equal(fresh.read_ranks(record), RANKS) and diagnoses.find(fresh, record).run_id == NAME
        assert test_users.find_users(fresh, "toy", fingerprint).num_rows == 3
    fresh.remove(record)
    assert fresh.find(NAME) is None


def test_folders_that_hold_no_records_are_not_read(store: RecordStore) -> None:
    for name in ("work", "cache", "reports", "deep/work"):
        RecordStore(store.root / name / "x").write(RECORD, RANKS, RANKS)
    assert store.find(NAME) == store.path(RECORD) and store.read_all() == [RECORD]
    RecordStore(store.root / "deep" / "er").write(replace(RECORD, run_id="f" * 16), RANKS, RANKS)
    assert [r.run_id for r in store.read_all()] == [NAME, "f" * 16] and store.find("f" * 16)


def test_two_files_of_one_name_are_an_error_that_names_both(store: RecordStore, tmp_path: Path, capsys: Any) -> None:
    """Two machines' results side by side: neither may be taken for the other."""
    other = store.root / "B" / "toy"
    RecordStore(other.parent).write(RECORD, *[replace(RANKS, ranks=RANKS.ranks + 1)] * 2)
    fresh, names = RecordStore(store.root), [str(f / f"{NAME}.json") for f in (store.root / "toy", other)]
    for ask in (fresh.read_all, lambda: fresh.find(NAME), lambda: fresh.read(NAME)):
        with pytest.raises(UserError) as caught:
            ask()
        assert all(name in str(caught.value) for name in names)
    for verb in (["report"], ["export", "--users", "--to", str(tmp_path / "x.csv")],
                 ["merge", "--into", str(tmp_path / "into")]):
        assert main([*verb, "--results", str(store.root)]) == 2
        told = capsys.readouterr()
        assert all(name in told.err for name in names) and "Traceback" not in told.err and not told.out
    (other / f"{NAME}.ranks.npz").write_bytes(b"")
    assert RecordStore(store.root).find(NAME) == store.path(RECORD)


def test_a_copy_under_another_name_is_left_out(store: RecordStore, capsys: Any) -> None:
    for ending in ("json", "ranks.npz"):
        (store.root / "toy" / f"copy.{ending}").write_bytes((store.root / "toy" / f"{NAME}.{ending}").read_bytes())
    assert store.read_all() == [RECORD] and f"copy.json holds run {NAME}" in capsys.readouterr().err


def test_merge_compares_ranks_not_how_they_are_packed(store: RecordStore, tmp_path: Path, capsys: Any) -> None:
    target = RecordStore(tmp_path / "target")
    target.write(RECORD, RANKS, RANKS)
    path = target.root / "toy" / f"{NAME}.ranks.npz"
    np.savez(path, **ARRAYS)
    assert path.read_bytes() != store.ranks_bytes(RECORD)
    assert main(["merge", "--results", str(store.root), "--into", str(target.root)]) == 0
    assert "0 records moved" in capsys.readouterr().out and store.find(NAME) is None
    store.write(RECORD, replace(RANKS, ties=RANKS.ties + 1), replace(RANKS, ties=RANKS.ties + 1))
    assert main(["merge", "--results", str(store.root), "--into", str(target.root)]) == 2
    assert "other ranks" in capsys.readouterr().err and store.find(NAME)


def test_a_half_pair_in_the_target_is_made_whole_by_merge(store: RecordStore, tmp_path: Path, capsys: Any) -> None:
    target = RecordStore(tmp_path / "target")
    target.write(RECORD, RANKS, RANKS)
    (target.root / "toy" / f"{NAME}.ranks.npz").unlink()
    assert main(["merge", "--results", str(store.root), "--into", str(target.root)]) == 0
    assert "1 records moved" in capsys.readouterr().out and equal(target.read_ranks(RECORD), RANKS)
    assert json.loads(target.path(RECORD).read_text())["label"] == "Mine"


def test_a_recorded_command_names_no_folder_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = provenance("cpu", 1, f"python benchmark.py --suite all --results {tmp_path}/results/local --seeds 0")
    assert made["command"] == "python benchmark.py --suite all --results results/local --seeds 0"


# Schemas

def of_schema(store: RecordStore, schema: Any) -> Path:
    """The record's file with another schema."""
    path = store.path(RECORD)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": schema}))
    return path


@pytest.mark.parametrize("schema", [2, 4])
def test_a_record_of_another_schema_is_left_out_and_never_written_over(schema: int, store: RecordStore,
                                                                       capsys: Any) -> None:
    """One line for a whole folder; whoever asks for that very run is told why it cannot be read."""
    path = of_schema(store, schema)
    before = path.read_bytes()
    for ask in (lambda: read_record(path), lambda: store.find(NAME), lambda: store.write(RECORD, RANKS, RANKS)):
        with pytest.raises(OtherEngine, match=f"{NAME}.json has record schema {schema}; this version reads 3"):
            ask()
    assert path.read_bytes() == before and not capsys.readouterr().err
    store.write(replace(RECORD, run_id="f" * 16), RANKS, RANKS)
    store.write(replace(RECORD, run_id="e" * 16), RANKS, RANKS)
    of_e = store.root / "toy" / f"{'e' * 16}.json"
    of_e.write_text(of_e.read_text().replace('"schema": 3', '"schema": 1'))
    assert [r.run_id for r in store.read_all()] == ["f" * 16]
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"left out: 2 records of another engine below {store.root}" in told


@pytest.mark.parametrize("schema", ["2", None, 2.5, [2]])
def test_a_schema_that_is_no_number_is_damage(schema: Any, store: RecordStore) -> None:
    with pytest.raises(Damaged, match="is not a run record"):
        read_record(of_schema(store, schema))


@pytest.mark.parametrize("text", ["[1]", '"text"', "{}"])
def test_a_file_that_is_no_record_is_named(text: str, store: RecordStore) -> None:
    store.path(RECORD).write_text(text)
    with pytest.raises(Damaged, match=f"{NAME}.json is not a run record"):
        read_record(store.path(RECORD))


def test_a_command_names_no_folder_of_one_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = (f"python x.py --suite {tmp_path}/mine.toml --data-dir /data/of mine/sets --results=/a/b/ --set "
             "c.d=/e/f,/g h/i")
    assert portable(given) == ("python x.py --suite mine.toml --data-dir .../of mine/sets --results=.../b --set "
                               "c.d=.../f,.../g h/i")


@pytest.mark.parametrize(("info", "wanted"), [
    ("processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel\t\t: 3\n",
     "AMD EPYC (family 25, model 17)"),
    ("model name : Some ARM\n", "Some ARM"),
    ("CPU part : 0xd0c\n", platform.processor() or platform.machine())])
def test_processors_of_one_name_are_told_apart(info: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(info)
    assert _cpu(tmp_path / "cpuinfo") == wanted
    assert _cpu(tmp_path / "none") == (platform.processor() or platform.machine())
