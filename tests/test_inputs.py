"""Batches and token ids: every row once, like lengths together, no PAD inside a history."""

from __future__ import annotations

import math

import numpy as np
import pytest

from genrec_bench.batches import TokenisedInstances, decoding_batches, training_batches
from genrec_bench.contracts import EOS, PAD, Instances, SemanticIds
from genrec_bench.core.errors import UserError
from genrec_bench.objectives.base import check_needs
from genrec_bench.objectives.cross_entropy import CrossEntropy


@pytest.mark.parametrize("bucket_steps", [1, 3, 100])
@pytest.mark.parametrize(("rows", "batch_size", "accumulation"), [(1, 8, 2), (100, 8, 3), (64, 8, 8), (7, 100, 1)])
def test_training_batches_hold_every_row_once(rows: int, batch_size: int, accumulation: int, bucket_steps: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 20, size=rows)
    steps = list(training_batches(lengths, batch_size=batch_size, accumulation=accumulation, bucket_steps=bucket_steps,
                                  generator=np.random.default_rng(1)))
    assert len(steps) == math.ceil(rows / (batch_size * accumulation))
    assert sorted(np.concatenate([b for step in steps for b in step]).tolist()) == list(range(rows))
    for step in steps:
        assert len(step) <= accumulation and all(1 <= len(b) <= batch_size for b in step)
        assert all((np.diff(lengths[b]) >= 0).all() for b in step)


def test_buckets_hold_rows_of_like_length() -> None:
    """All rows in one pool: the passes cut the sorted lengths into stretches that do not overlap."""
    lengths = np.random.default_rng(0).integers(1, 20, size=96)
    steps = list(training_batches(lengths, batch_size=8, accumulation=2, bucket_steps=6,
                                  generator=np.random.default_rng(1)))
    spans = sorted((lengths[b].min(), lengths[b].max()) for step in steps for b in step)
    assert len(spans) == 12 and all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
    longest = [lengths[step[0]].max() for step in steps]
    assert longest != sorted(longest)  # in no order of length


def test_a_step_holds_the_same_rows_however_it_is_cut() -> None:
    lengths = np.random.default_rng(0).integers(1, 20, size=50)
    cuts = [[sorted(np.concatenate(step).tolist()) for step in
             training_batches(lengths, batch_size=size, accumulation=16 // size, generator=np.random.default_rng(3))]
            for size in (16, 8, 2)]
    assert cuts[0] == cuts[1] == cuts[2]


def test_decoding_batches_hold_every_row_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 20, size=53)
    batches = decoding_batches(lengths, 8)
    assert sorted(np.concatenate(batches).tolist()) == list(range(53)) and max(map(len, batches)) == 8


def instances(histories: list[list[int]], targets: list[int]) -> Instances:
    return Instances(np.arange(len(targets)), np.array(targets), histories)


def test_ragged_ids_leave_no_pad_inside_a_history() -> None:
    """Codes (0,0) (1) (0,1): tokens [2,4] [3] [2,5]."""
    ids = SemanticIds.from_codes(np.array([[0, 0], [1, -1], [0, 1]]))
    data = TokenisedInstances(instances([[0, 1, 2], [1], [1, 1], []], [2, 1, 0, 1]), ids, (EOS,), "cpu")
    assert data.histories(np.arange(4)).tolist() == [
        [2, 4, 3, 2, 5, EOS], [3, EOS, PAD, PAD, PAD, PAD], [3, 3, EOS, PAD, PAD, PAD], [EOS, PAD, PAD, PAD, PAD, PAD]]
    assert data.histories(np.array([1])).tolist() == [[3, EOS]]
    assert data.targets(np.array([0, 1])).tolist() == [[2, 5], [3, PAD]]
    bare = TokenisedInstances(data.instances, ids, (), "cpu")
    assert bare.histories(np.array([2, 1])).tolist() == [[3, 3], [3, PAD]]


@pytest.mark.parametrize("seed", range(4))
def test_random_histories_equal_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    codes = random.integers(0, 3, size=(12, 3))
    if seed % 2:
        codes = np.where(np.arange(3) < random.integers(1, 4, size=12)[:, None], codes, -1)
    ids = SemanticIds.from_codes(codes, (3, 3, 3))
    histories = [random.integers(0, 12, size=int(random.integers(1, 8))).tolist() for _ in range(20)]
    data = TokenisedInstances(instances(histories, [0] * 20), ids, (EOS,), "cpu")
    rows = random.permutation(20)[:9]
    plain = [[int(t) for i in histories[r] for t in ids.tokens[i] if t != PAD] + [EOS] for r in rows]
    width = max(map(len, plain))
    assert data.histories(rows).tolist() == [h + [PAD] * (width - len(h)) for h in plain]


def test_a_need_that_nobody_provides_is_refused() -> None:
    class Wanting(CrossEntropy):
        needs = frozenset({"negative"})

    with pytest.raises(UserError, match="unknown need 'negative'.*Did you mean 'negatives'"):
        check_needs([Wanting()])
