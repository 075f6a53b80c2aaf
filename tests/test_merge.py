"""Merging from several folders: what moves, what stays, and what is refused before anything moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.evaluate import score
from genrec_bench.results import diagnoses, test_users
from genrec_bench.results import merge as merging
from genrec_bench.results.index import index_text
from genrec_bench.results.merge import Merged
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.results.test_users import UserFacts, path_of, write_users
from tests.small_records import record_of, stored
from tests.test_diagnoses import diagnosis

SPLIT = "ab" * 32
STORED = Rankings(*(np.array([1, 0, 3]) for _ in range(3)))  # what `stored` writes
RECORDS = [replace(record_of("ml-100k", "tiger", seed), identity={"split_fingerprint": SPLIT}, metrics=score(STORED))
           for seed in range(3)]
FACTS = UserFacts(SPLIT, np.arange(3), np.array([3, 4, 5]), np.array([7, 0, 9]), np.array([5, 6, 7]), np.full(3, 5),
                  np.full(3, -1))
WRONG = replace(RECORDS[1], metrics={**RECORDS[1].metrics, "ndcg@10": 0.25, "old@1": 0.5})


def merge(into: RecordStore, *sources: RecordStore) -> Merged:
    return merging.merge([source.root for source in sources], into.root)


def refused(into: RecordStore, *sources: RecordStore) -> str:
    """The message of a merge that leaves every file as it was."""
    folders = [store.root for store in (into, *sources)]
    before = contents(*folders)
    with pytest.raises(UserError) as caught:
        merge(into, *sources)
    assert contents(*folders) == before and "\n" not in str(caught.value)
    return str(caught.value)


def contents(*folders: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()}


def with_ranks(folder: Path, record: RunRecord, *places: int) -> RecordStore:
    store = RecordStore(folder)
    store.write(record, *[Rankings(*(np.array(places) for _ in range(3)))] * 2)
    return store


# Several folders

def test_several_folders_at_once(tmp_path: Path) -> None:
    """Seed 1 is in both, with equal numbers and other timings: the first is taken."""
    one = stored(tmp_path / "a", RECORDS[:2])
    other = stored(tmp_path / "b", [replace(RECORDS[1], timings={"total_seconds": 9.0}), RECORDS[2]])
    target = RecordStore(tmp_path / "c")
    assert merge(target, one, other) == Merged(moved=3, known=0, diagnoses=0)
    assert target.read_all() == sorted(RECORDS, key=lambda r: r.run_id)
    assert not contents(one.root, other.root)
    assert (target.root / "index.csv").read_text() == index_text(target)


def test_the_result_does_not_depend_on_the_order_of_folders(tmp_path: Path) -> None:
    for name, order in (("c", (0, 1)), ("d", (1, 0))):
        sources = [stored(tmp_path / f"{name}{n}", part) for n, part in enumerate((RECORDS[:1], RECORDS[1:]))]
        merge(RecordStore(tmp_path / name), *(sources[n] for n in order))
    one, other = ({p.relative_to(tmp_path / n): b for p, b in contents(tmp_path / n).items()} for n in "cd")
    assert one == other and len(one) == 7


def test_the_diagnosis_of_most_users_is_taken_wherever_it_is(tmp_path: Path) -> None:
    one, other = (stored(tmp_path / name, RECORDS[:1]) for name in "ab")
    target = RecordStore(tmp_path / "c")
    diagnoses.write(diagnoses.path_of(one, RECORDS[0]), diagnosis(RECORDS[0].run_id, users=3))
    diagnoses.write(diagnoses.path_of(other, RECORDS[0]), diagnosis(RECORDS[0].run_id, users=5))
    assert merge(target, one, other) == Merged(moved=1, known=0, diagnoses=1)
    assert diagnoses.find(target, RECORDS[0]).num_users == 5 and not contents(one.root, other.root)


def test_two_folders_that_disagree_are_refused(tmp_path: Path) -> None:
    one, other = stored(tmp_path / "a", RECORDS), stored(tmp_path / "b", [WRONG])
    message = refused(RecordStore(tmp_path / "c"), one, other)
    assert all(word in message for word in (WRONG.run_id, str(one.root), str(other.root), "ndcg@10: 0."))
    assert message.endswith("so one of them was changed: delete the wrong one, or both and run again.")


def test_two_versions_may_both_be_right(tmp_path: Path) -> None:
    """What differs is named, whether the other is a source or the target."""
    one, other = ({**RECORDS[1].provenance, "torch": torch, "commit": commit, "threads": 1}
                  for torch, commit in (("2.12.0", "a" * 40), ("2.13.0", "b" * 40)))
    known, second = (stored(tmp_path / name, [replace(record, provenance=made)]) for name, record, made in
                     (("a", RECORDS[1], one), ("b", WRONG, other)))
    for message in (refused(RecordStore(tmp_path / "c"), known, second), refused(known, second)):
        assert ("made in two ways (torch 2.12.0 there, 2.13.0 here; commit aaaaaaaaaa there, bbbbbbbbbb here) and both "
                "may be right") in message and "merge into another folder" in message


def test_mistakes_are_named_before_anything_moves(tmp_path: Path) -> None:
    one, target = stored(tmp_path / "a", RECORDS), stored(tmp_path / "c", RECORDS[:1])
    (tmp_path / "empty").mkdir()
    for sources, words in (((one, RecordStore(tmp_path / "none")), f"no folder of records at {tmp_path / 'none'}"),
                           ((one, target), "same folder"), ((RecordStore(tmp_path / "empty"),), "no records below")):
        assert words in refused(target, *sources)


@pytest.mark.parametrize("there", [(1, 2, 0), (1, 0)])
def test_other_ranks_in_the_target_are_refused(tmp_path: Path, there: tuple[int, ...]) -> None:
    """Other ranks of users, or ranks of fewer users, under equal metrics."""
    source, target = stored(tmp_path / "a", RECORDS[:1]), with_ranks(tmp_path / "c", RECORDS[0], *there)
    assert "with other numbers (other ranks). Nothing was moved." in refused(target, source)


def test_folders_one_inside_the_other_are_told_apart(tmp_path: Path) -> None:
    """Records are read from everything below a folder; what is below two belongs to the inner one."""
    outer, inner = stored(tmp_path, RECORDS[:2]), stored(tmp_path / "inner", RECORDS[2:])
    target = RecordStore(tmp_path / "into")
    merge(target, outer, inner)
    assert target.read_all() == sorted(RECORDS, key=lambda r: r.run_id)
    merge(outer, inner := stored(tmp_path / "inner", RECORDS[:1]), target)
    assert outer.read_all() == sorted(RECORDS, key=lambda r: r.run_id)
    assert not inner.read_all() and not target.read_all()


def test_a_folder_named_twice_is_read_once(tmp_path: Path) -> None:
    one = stored(tmp_path / "a", RECORDS)
    assert merge(RecordStore(tmp_path / "c"), one, RecordStore(tmp_path / "a" / ".." / "a")).moved == 3


# Users

def test_facts_about_users_are_taken_along(tmp_path: Path) -> None:
    source, target = stored(tmp_path / "a", RECORDS), RecordStore(tmp_path / "c")
    write_users(path_of(source, "ml-100k", SPLIT), FACTS)
    merge(target, source)
    found = test_users.find_users(target, "ml-100k", SPLIT)
    assert found.target_count.tolist() == [7, 0, 9] and not contents(source.root)
    again = stored(tmp_path / "a", RECORDS)
    write_users(path_of(again, "ml-100k", SPLIT), replace(FACTS, target_count=np.array([1, 1, 1])))
    before = contents(target.root)
    assert merge(target, again) == Merged(moved=0, known=3, diagnoses=0)
    assert contents(target.root) == before and not contents(source.root)


@pytest.mark.parametrize("where", ["a", "c"])
def test_a_damaged_file_of_users_stops_a_merge(tmp_path: Path, where: str) -> None:
    source, target = stored(tmp_path / "a", RECORDS), stored(tmp_path / "c", RECORDS[:1])
    path = path_of(RecordStore(tmp_path / where), "ml-100k", SPLIT)
    path.write_bytes(b"nothing")
    assert f"{path} is not a file of users" in refused(target, source)


# Metrics and ranks of one run

@pytest.mark.parametrize("metric", ["ndcg@10", "recall@10", "mrr@10"])
@pytest.mark.parametrize("factor", [1.1, 1 - 1e-7, 0.0])
def test_metrics_that_are_not_those_of_the_ranks_are_refused(tmp_path: Path, metric: str, factor: float) -> None:
    told = RECORDS[1].metrics[metric] * factor
    source = stored(tmp_path / "a", [RECORDS[0], replace(RECORDS[1], metrics={**RECORDS[1].metrics, metric: told})])
    assert f"run {RECORDS[1].run_id} in {source.root} has {metric} = {told}, but its ranks give" in refused(
        RecordStore(tmp_path / "c"), source)


def test_a_tie_is_worth_the_mean_over_its_places_and_rounding_is_no_difference(tmp_path: Path) -> None:
    """Places 1; none; 3, 4 and 5 in equal parts: recall@10 = 2/3, NDCG@10 by hand."""
    ndcg = (1 + (1 / np.log2(4) + 1 / np.log2(5) + 1 / np.log2(6)) / 3) / 3
    for n, (told, outcome) in enumerate(((ndcg, merge), (ndcg + 5e-10, merge), (ndcg - 5e-9, refused))):
        record = replace(RECORDS[0], metrics={"ndcg@10": told, "recall@10": 2 / 3, "valid_ndcg@10": 0.9})
        assert outcome(RecordStore(tmp_path / f"c{n}"), stored(tmp_path / f"a{n}", [record]))
