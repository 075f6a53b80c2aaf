"""The training benchmark's arms do the same work, and its check finds where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import training
from benchmarks.corpora import Corpus, Setting
from benchmarks.harness import Goal, Unequal
from benchmarks.training import BETA, Step, beside, beside_float32
from benchmarks.training_reference import first_of_their_kind
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.experiments.config import TrainingConfig
from genrec_bench.objectives.apao import Apao
from genrec_bench.objectives.cross_entropy import CrossEntropy
from genrec_bench.splits.leave_one_out import LeaveOneOut

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
TIGER = TigerSettings(width=8, num_layers=2, num_heads=2, head_width=4, feed_forward_width=16)
LLAMA = LlamaSettings(width=8, num_layers=2, num_heads=2, head_width=4, feed_forward_width=16)
PLAIN = [(1.0, CrossEntropy())]
STEPS = {"eos": (TIGER, [(1.0, CrossEntropy(eos=True))], TrainingConfig()),
         "plain": (TIGER, PLAIN, TrainingConfig(batch_size=8)),
         "packed": (LLAMA, PLAIN, TrainingConfig(group_users=True)),
         "pairwise": (TIGER, [*PLAIN, (BETA, Apao(form="pairwise", weights="uniform", num_negatives=9))],
                      TrainingConfig(batch_size=4))}


def step_of(which: str) -> Step:
    """Of a tiny network on 20 random users."""
    random = np.random.default_rng(0)
    sequences = tuple(random.integers(0, 30, size=int(n)) for n in random.integers(4, 12, size=20))
    interactions = Interactions("tiny", tuple(map(str, range(20))), tuple(map(str, range(30))), sequences)
    ids = SemanticIds.from_codes(random.integers(0, 4, size=(30, 3)), (4, 4, 4))
    settings, objectives, config = STEPS[which]
    return Step(Corpus("tiny", LeaveOneOut().split(interactions), ids), settings, objectives, config)


@pytest.mark.parametrize("which", sorted(STEPS))
def test_losses_and_gradients_are_those_of_the_reference(tmp_path: Path, which: str,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    found = beside(Setting(None, tmp_path), which, step_of(which), "float32", Goal(1), rows=24, some=14, sizes=(7, 3))
    assert [arm.units for arm in found.arms] == [24, 14, 14] and found.goal is None
    assert all(np.isfinite(arm.run()) for arm in found.arms)
    found.equal()
    assert torch.get_default_dtype() == torch.float32

    compute = training.batch_loss
    monkeypatch.setattr(training, "batch_loss", lambda *args: 1.001 * compute(*args))
    with pytest.raises(Unequal, match="losses differ by"):
        found.equal()


@pytest.mark.parametrize("which", sorted(STEPS))
def test_bfloat16_trains_beside_float32(tmp_path: Path, which: str) -> None:
    found = beside_float32(Setting(None, tmp_path), which, step_of(which), 2.0, rows=24, size=6)
    losses = [arm.run() for arm in found.arms]
    assert losses[0] != losses[1]
    found.equal(*losses)
    with pytest.raises(Unequal, match="losses differ"):
        found.equal(2.0, 1.0)


def test_the_loops_keep_the_first_of_equal_prefixes() -> None:
    """Target 1 2: of 1 3, 1 3, 4 2, 1 2 only the third has a new first code; of two codes one is there twice."""
    keep = first_of_their_kind(np.array([[1, 2]]), np.array([[[1, 3], [1, 3], [4, 2], [1, 2]]]))
    assert keep.tolist() == [[[False, True], [False, False], [True, True], [False, False]]]


def test_rows_of_a_user_stay_together() -> None:
    """Whole users but for the last, where the loop groups them; plain rows come from more users."""
    cut = {}
    for which in ("plain", "packed"):
        step = step_of(which)
        every = step.corpus.split.train.users
        counts, all_counts = np.bincount(every[step.rows(24)], minlength=20), np.bincount(every, minlength=20)
        cut[which] = int(((counts > 0) & (counts < all_counts)).sum())
    assert cut["packed"] <= 1 < cut["plain"]
