"""Leave-one-out against sequences split by hand and against a naive loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.contracts import Instances, Interactions
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.datasets.parsed import Parsed
from genrec_bench.experiments.config import RunConfig
from genrec_bench.running.workspace import Workspace
from genrec_bench.splits.base import summary, with_valid_users
from genrec_bench.splits.last_n import LastN
from genrec_bench.splits.leave_one_out import LeaveOneOut


def _interactions(*sequences: list[int], num_items: int = 10) -> Interactions:
    return Interactions("hand", tuple(f"u{n}" for n in range(len(sequences))), tuple(map(str, range(num_items))),
                        tuple(np.array(s, dtype=np.int64) for s in sequences))


def _rows(instances: Instances) -> list[tuple[int, list[int], int]]:
    return [(int(instances.users[n]), instances.history(n).tolist(), int(instances.targets[n]))
            for n in range(len(instances))]


def test_split_derived_by_hand():
    """Users [1 2 3 4 5 6] and [7 8 9], histories of at most 2.

    Test: the last item after the ones before it; valid: the one before; train: x2 = 2, x3 = 3, x4 = 4 of the first
    user (L - 3 = 3 rows), none of the second (L = 3).
    """
    split = LeaveOneOut(max_history=2).split(_interactions([1, 2, 3, 4, 5, 6], [7, 8, 9]))
    assert _rows(split.train) == [(0, [1], 2), (0, [1, 2], 3), (0, [2, 3], 4)]
    assert _rows(split.valid) == [(0, [3, 4], 5), (1, [7], 8)]
    assert _rows(split.test) == [(0, [4, 5], 6), (1, [7, 8], 9)]
    assert [s.tolist() for s in split.train_sequences] == [[1, 2, 3, 4], []]
    assert summary(split, None) == {"users": 2, "items": 10, "interactions": 9, "train": 3, "valid": 2, "test": 2,
                                    "distinct_semantic_ids": None}


def test_thinned_split_derived_by_hand():
    """One target a user of [1 2 3 4 5 6]: 4, with its 2 newest items; training then sees 2, 3, 4 and nothing older."""
    config = LeaveOneOut(max_history=2, train_targets_per_user=1)
    split = config.split(_interactions([1, 2, 3, 4, 5, 6], [7, 8, 9, 0]))
    assert _rows(split.train) == [(0, [2, 3], 4), (1, [7], 8)]
    assert [s.tolist() for s in split.train_sequences] == [[2, 3, 4], [7, 8]]
    full = LeaveOneOut(max_history=2).split(_interactions([1, 2, 3, 4, 5, 6], [7, 8, 9, 0]))
    assert _rows(split.test) == _rows(full.test) and _rows(split.valid) == _rows(full.valid)


def _naive(sequence: list[int], config: LeaveOneOut) -> tuple[list, tuple, tuple]:
    """The rule as the data's documentation words it, counting from 1."""
    x = [None, *sequence]
    length = len(sequence)
    cut = config.max_history
    train = [(x[1:i][-cut:], x[i]) for i in range(2, length - 1)]
    if config.train_targets_per_user:
        train = train[-config.train_targets_per_user:]
    return train, (x[1:length - 1][-cut:], x[length - 1]), (x[1:length][-cut:], x[length])


@pytest.mark.parametrize("max_history", [1, 3, 20])
@pytest.mark.parametrize("targets", [0, 1, 4])
def test_split_equals_naive_loop(max_history: int, targets: int):
    random = np.random.default_rng(max_history * 10 + targets)
    sequences = [random.integers(0, 40, size=n).tolist() for n in random.integers(3, 30, size=60)]
    config = LeaveOneOut(max_history=max_history, train_targets_per_user=targets)
    split = config.split(_interactions(*sequences, num_items=40))
    expected = [_naive(s, config) for s in sequences]
    assert _rows(split.train) == [(u, h, t) for u, (rows, _, _) in enumerate(expected) for h, t in rows]
    assert _rows(split.valid) == [(u, *valid) for u, (_, valid, _) in enumerate(expected)]
    assert _rows(split.test) == [(u, *test) for u, (_, _, test) in enumerate(expected)]
    for sequence, seen, (rows, _, _) in zip(sequences, split.train_sequences, expected, strict=True):
        span = len(rows[0][0]) + len(rows) if rows else 0
        assert seen.tolist() == (sequence[:-2][-span:] if span else [])


def test_max_users_keeps_the_first_users_and_the_whole_catalogue(toy_interactions: Interactions):
    full = LeaveOneOut().split(toy_interactions)
    split = LeaveOneOut(max_users=7).split(toy_interactions)
    assert split.interactions.user_ids == toy_interactions.user_ids[:7]
    assert len(split.test) == len(split.valid) == len(split.train_sequences) == 7
    assert split.num_items == toy_interactions.num_items
    assert _rows(split.train) == [row for row in _rows(full.train) if row[0] < 7]
    assert LeaveOneOut(max_users=999).split(toy_interactions).fingerprint == full.fingerprint


def test_some_users_validate_for_all_runs(toy_interactions: Interactions, tmp_path: Path):
    """The rows of the others are gone, nothing else is; the same users whatever the seed of a run."""
    data = registry.datasets.build({"name": "ml-100k"})
    workspace = Workspace(tmp_path, _parsed={data: Parsed(toy_interactions)})
    whole, few, again = (workspace.split(RunConfig("a", "quick", data, seed, LastN(test_targets=1, valid_targets=2,
                                                                                   valid_users=users)))
                         for users, seed in ((0, 0), (7, 0), (7, 1)))
    kept = np.unique(few.valid.users)
    assert len(kept) == 7 and np.array_equal(few.valid.users, np.repeat(kept, 2)) and few is again
    rows = np.flatnonzero(np.isin(whole.valid.users, kept))
    assert np.array_equal(few.valid.targets, whole.valid.targets[rows])
    assert all(np.array_equal(a, whole.valid.seen[row]) for a, row in zip(few.valid.seen, rows, strict=True))
    assert few.test.targets.tolist() == whole.test.targets.tolist()
    assert few.fingerprint != whole.fingerprint and with_valid_users(whole, 10**6) is whole


def test_fingerprint_follows_content_only(toy_interactions: Interactions):
    base = LeaveOneOut().split(toy_interactions).fingerprint
    assert LeaveOneOut().split(replace(toy_interactions, name="other")).fingerprint == base
    assert LeaveOneOut(max_history=3).split(toy_interactions).fingerprint != base
    larger = replace(toy_interactions, item_ids=(*toy_interactions.item_ids, "30"))
    assert LeaveOneOut().split(larger).fingerprint != base
    swapped = [s.copy() for s in toy_interactions.sequences]
    swapped[3][0] = (swapped[3][0] + 1) % 30
    assert LeaveOneOut().split(replace(toy_interactions, sequences=tuple(swapped))).fingerprint != base


def test_the_fingerprint_follows_items_that_the_rows_have_cut():
    """Two data sets that differ in an old item only: equal rows, other items to take out of a ranking."""
    config = LeaveOneOut(max_history=2, train_targets_per_user=1)
    one, other, third = (config.split(_interactions([old, 2, 3, 4, 5, 6], [7, 8, 9, 0])) for old in (1, 0, 1))
    assert all(_rows(getattr(one, part)) == _rows(getattr(other, part)) for part in ("train", "valid", "test"))
    assert one.fingerprint != other.fingerprint and one.fingerprint == third.fingerprint
    assert one.test.seen[0].tolist() != other.test.seen[0].tolist()


def test_the_fingerprint_is_of_the_users_kept(toy_interactions: Interactions):
    split = LeaveOneOut(max_users=7).split(toy_interactions)
    more = replace(toy_interactions, user_ids=toy_interactions.user_ids[:9], sequences=toy_interactions.sequences[:9])
    assert split.fingerprint == LeaveOneOut(max_users=7).split(more).fingerprint
    assert split.fingerprint != LeaveOneOut().split(more).fingerprint


def test_arrays_are_int64(toy_interactions: Interactions):
    split = LeaveOneOut(train_targets_per_user=2).split(toy_interactions)
    for part in (split.train, split.valid, split.test):
        assert {a.dtype for a in (part.users, part.targets, part.histories.values)} == {np.dtype(np.int64)}
        assert part.lengths.min() >= 1


def test_too_short_sequences_are_refused():
    with pytest.raises(UserError, match="'u1' has 2 interactions"):
        LeaveOneOut().split(_interactions([1, 2, 3, 4], [5, 6]))
    with pytest.raises(UserError, match="no user has a training row"):
        LeaveOneOut().split(_interactions([1, 2, 3], [4, 5, 6]))
