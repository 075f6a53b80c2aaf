"""Facts about the test users of a split: counted by hand and by a loop, written once, the same for equal splits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.contracts import Instances, Interactions, Split
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.config import RunConfig
from genrec_bench.results import test_users
from genrec_bench.results.records import RecordStore
from genrec_bench.results.test_users import ARRAYS, UserFacts, facts_of, find_users, keep_users, path_of, read_users
from genrec_bench.running import runner
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.splits.order import transitions
from tests.small_jobs import Quiet, made_of, toy, write_toy

FACTS = UserFacts("ab" * 32, np.array([0, 0, 1]), np.array([3, 0, 20]), np.array([7, 70_000, 0]), np.array([5, 0, 1]),
                  np.array([0, 5, 2]), np.array([-1, 0, 1]))


def same(one: UserFacts, other: UserFacts) -> bool:
    return one.fingerprint == other.fingerprint and all(np.array_equal(getattr(one, n), getattr(other, n))
                                                        for n in ARRAYS)


# Counting

def test_counts_by_hand() -> None:
    """Training sees all but the last two items of a user; the third user has too few for a training row."""
    split = LeaveOneOut(max_history=3).split(made_of([[0, 1, 2, 3, 1], [1, 1, 0, 2], [2, 0, 1]], 5))
    # training sequences 0 1 2 | 1 1 | none: item 0 once, 1 three times, 2 once, 3 and 4 never; targets 1, 2, 1
    facts = facts_of(split)
    assert facts.history_length.tolist() == [3, 3, 2] and facts.num_rows == 3
    assert facts.target_count.tolist() == [3, 1, 3] and facts.user_count.tolist() == [3, 2, 0]
    assert facts.fingerprint == split.fingerprint


@pytest.mark.parametrize("seed", range(6))
def test_counts_of_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    config = LeaveOneOut(max_history=int(random.integers(1, 8)), train_targets_per_user=int(random.integers(0, 4)),
                         max_users=int(random.integers(0, 30)))
    split = config.split(toy(seed=seed))
    facts = facts_of(split)
    for row, (user, target) in enumerate(zip(split.test.users, split.test.targets, strict=True)):
        assert facts.history_length[row] == len(split.test.history(row)) <= config.max_history
        assert facts.target_count[row] == sum(int(i == target) for s in split.train_sequences for i in s)
        assert facts.user_count[row] == len(split.train_sequences[user])


def test_how_a_target_is_reached_by_hand() -> None:
    """Training pairs 0>1 1>2 2>3, 4>0, 5>1; a row a test target, by its history and target.

    0: history ends in 0, target 1 follows it. 1: 0 1 2 5 with target 3: not after 5, but after 2. 2: 0 with target 2:
    over 1. 3: 0 with target 4: the other way round. 4: 6 and 7 share a title word. 5: 6 and 8 do not.
    """
    texts = ("a0", "b1", "c2", "d3", "e4", "f5", "the red lamp", "a lamp\nlong", "the kite\nlamp")
    data = replace(made_of([[0]], 9), item_texts=texts)
    rows = [([7, 0], 1), ([0, 1, 2, 5], 3), ([7, 0], 2), ([7, 0], 4), ([6], 7), ([6], 8)]
    histories = [history for history, _ in rows]
    test = Instances(np.arange(6), np.array([target for _, target in rows]), histories, histories)
    split = Split(data, test, test, test, ([0, 1, 2, 3], [4, 0], [], [5, 1], [], [8]))
    assert test_users.reaches(split).tolist() == [0, 1, 2, 3, 4, 5]
    assert transitions(split).sum() == 5
    bare = replace(split, interactions=replace(data, item_texts=None))
    assert test_users.reaches(bare).tolist() == [0, 1, 2, 3, 5, 5]


# The file

def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x" / "a.users.npz"
    test_users.write_users(path, FACTS)
    found = read_users(path)
    assert same(found, FACTS) and found.target_count.dtype == np.int64
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with np.load(path) as file:
        assert sorted(file.files) == sorted(["about", *ARRAYS]) and file["target_count"].dtype == np.int32
        assert json.loads(str(file["about"])) == {"schema": 2, "split_fingerprint": "ab" * 32, "rows": 3}


def test_equal_splits_give_equal_bytes(tmp_path: Path) -> None:
    """Whatever the dataset is called."""
    for name, interactions in (("one", toy()), ("other", replace(toy(), name="renamed"))):
        keep_users(RecordStore(tmp_path), name, LeaveOneOut(max_history=5).split(interactions))
    one, other = sorted(tmp_path.glob("*/*.users.npz"))
    assert one.name == other.name and one.read_bytes() == other.read_bytes()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    store, split = RecordStore(tmp_path), LeaveOneOut().split(toy())
    assert find_users(store, "toy", split.fingerprint) is None
    path = path_of(store, "toy", split.fingerprint)
    test_users.write_users(path, replace(FACTS, fingerprint=split.fingerprint, made_of=test_users._sources(split)))
    keep_users(store, "toy", split)
    assert path.name == f"{split.fingerprint[:16]}.users.npz"
    assert same(find_users(store, "toy", split.fingerprint), replace(FACTS, fingerprint=split.fingerprint))
    told = replace(split, interactions=replace(split.interactions, item_texts=("a title",) * split.num_items))
    assert told.fingerprint == split.fingerprint
    keep_users(store, "toy", told)  # with texts targets are reached in another way
    assert same(find_users(store, "toy", split.fingerprint), test_users.facts_of(told))


def test_another_splits_file_is_refused(tmp_path: Path) -> None:
    store, other = RecordStore(tmp_path), "ab" * 8 + "cd" * 24
    test_users.write_users(path_of(store, "toy", other), FACTS)
    with pytest.raises(UserError, match="users of another split, abab"):
        find_users(store, "toy", other)


def broken(path: Path, how: str) -> None:
    about = {"schema": 2, "split_fingerprint": "ab" * 32, "rows": 3}
    arrays = {name: getattr(FACTS, name) for name in ARRAYS}
    if how in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[:{"cut": -40, "empty": 0}[how]])
        return
    if how == "other length":
        arrays["user_count"] = arrays["user_count"][:2]
    elif how == "fractions":
        arrays["target_count"] = arrays["target_count"] / 2
    elif how == "lacks an array":
        del arrays["history_length"]
    elif how == "about is a list":
        about = [1]
    elif how == "no fingerprint":
        del about["split_fingerprint"]
    elif how == "schema in words":
        about["schema"] = "one"
    np.savez(path, **arrays, **({} if how == "no about" else {"about": np.array(json.dumps(about))}))


@pytest.mark.parametrize("how", ["cut", "empty", "other length", "fractions", "lacks an array", "about is a list",
                                 "no fingerprint", "schema in words", "no about"])
def test_a_damaged_file_is_named(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.users.npz"
    test_users.write_users(path, FACTS)
    broken(path, how)
    with pytest.raises(UserError) as caught:
        read_users(path)
    assert str(path) in str(caught.value) and "is not a file of users" in str(caught.value)


def test_another_schema_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.users.npz"
    test_users.write_users(path, FACTS)
    monkeypatch.setattr(test_users, "SCHEMA", 3)
    with pytest.raises(UserError, match="its schema is 2, this version reads 3"):
        read_users(path)


# Who writes it

def test_a_run_writes_it_and_so_does_a_finished_one(tmp_path: Path, toy_interactions: Interactions) -> None:
    folder = tmp_path / "data"
    write_toy(folder, toy_interactions)
    dataset = registry.datasets.build({"name": "folder", "path": str(folder), "label": "mine"})
    config = RunConfig("Popularity", "smoke", dataset, 0, split=LeaveOneOut(max_history=4),
                       baseline=registry.baselines.build({"name": "popularity"}))
    workspace = runner.Workspace(tmp_path / "results")
    prepared = workspace.prepare(config)
    assert not list(workspace.results.rglob("*.users.npz"))
    record = runner.run_one(prepared, workspace, Quiet())
    path = path_of(workspace.store, record.dataset, record.split_fingerprint)
    first = path.read_bytes()
    assert same(find_users(workspace.store, "mine", prepared.split.fingerprint), facts_of(prepared.split))
    assert find_users(workspace.store, "mine", prepared.split.fingerprint).num_rows == record.data["test"]
    path.unlink()
    runner.run_one(prepared, workspace, Quiet())
    assert path.read_bytes() == first
