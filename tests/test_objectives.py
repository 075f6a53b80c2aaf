"""Losses by hand, against naive loops and at their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genrec_bench.objectives.base import ObjectiveInputs
from genrec_bench.objectives.cross_entropy import CrossEntropy, cross_entropy_loss

# The method card's flat token log-probabilities of its six items.
CARD = [[-1.0059501777, -1.9404441610, -1.5106467142], [-1.0059501777, -1.9404441610, -1.1106467142],
        [-1.0059501777, -0.7404441610, -0.8425797720], [-1.5059501777, -1.1227382092, -1.5598244858],
        [-1.5059501777, -1.4227382092, -0.9964987893], [-1.8059501777, -1.2266280237, -1.1985533848]]


def test_cross_entropy_on_the_card() -> None:
    """i0: (1.0059501777 + 1.9404441610 + 1.5106467142) / 3 = 4.4570410529 / 3 = 1.4856803510."""
    losses = cross_entropy_loss(torch.tensor(CARD, dtype=torch.float64))
    assert losses.shape == (6,) and losses.dtype == torch.float64
    assert float(losses[0]) == pytest.approx(1.4856803510, abs=1e-9)
    assert losses.tolist() == pytest.approx([-sum(row) / 3 for row in CARD], abs=1e-12)


def test_uniform_logits_cost_log_v() -> None:
    for vocab in (2, 9, 1026):
        inputs = ObjectiveInputs(torch.ones(3, 4, dtype=torch.long), torch.full((3, 4, vocab), 0.7).double())
        assert CrossEntropy().loss(inputs).tolist() == pytest.approx([math.log(vocab)] * 3, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_cross_entropy_equals_a_naive_loop_over_ragged_targets(seed: int) -> None:
    random = np.random.default_rng(seed)
    users, depth, vocab = 7, 4, 11
    lengths = random.integers(1, depth + 1, size=users)
    targets = np.where(np.arange(depth) < lengths[:, None], random.integers(1, vocab, size=(users, depth)), 0)
    logits = random.normal(size=(users, depth, vocab)) * 3
    expected = []
    for user in range(users):
        total = 0.0
        for level in range(lengths[user]):
            row = logits[user, level]
            total -= row[targets[user, level]] - math.log(sum(math.exp(z) for z in row))
        expected.append(total / lengths[user])
    losses = CrossEntropy().loss(ObjectiveInputs(torch.tensor(targets), torch.tensor(logits)))
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)


def test_pad_has_no_weight_and_no_gradient_whatever_stands_there() -> None:
    targets = torch.tensor([[3, 4, 0], [5, 0, 0]])
    plain = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wild = plain.clone()
    wild[0, 2], wild[1, 1:] = 1e6, -1e6
    results = []
    for values in (plain, wild):
        logits = values.clone().requires_grad_()
        losses = CrossEntropy().loss(ObjectiveInputs(targets, logits))
        losses.sum().backward()
        results.append((losses.detach(), logits.grad))
    assert torch.equal(results[0][0], results[1][0])
    for losses, gradient in results:
        assert torch.isfinite(losses).all()
        assert not gradient[0, 2].any() and not gradient[1, 1:].any() and gradient[1, 0].any()


def test_masked_entries_of_the_pure_function_do_not_count() -> None:
    logps = torch.tensor([[-1.0, -2.0, -math.inf], [-4.0, math.nan, 7.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert cross_entropy_loss(logps, mask).tolist() == [1.5, 4.0]
    assert cross_entropy_loss(logps, torch.zeros_like(mask)).tolist() == [0.0, 0.0]
    assert torch.equal(cross_entropy_loss(logps[:, :1], mask[:, :1]), cross_entropy_loss(logps[:, :1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept_and_inputs_are_not_changed(dtype: torch.dtype) -> None:
    logps = torch.tensor(CARD, dtype=dtype)
    before = logps.clone()
    assert cross_entropy_loss(logps).dtype == dtype
    assert cross_entropy_loss(logps, torch.ones(6, 3, dtype=torch.bool)).dtype == dtype
    assert torch.equal(logps, before)


def test_very_unlikely_tokens_stay_finite_with_gradients() -> None:
    """Log-probabilities of -300, whose probabilities float32 cannot hold."""
    logits = torch.zeros(2, 3, 4)
    logits[:, :, 1] = -300.0
    logits.requires_grad_()
    losses = CrossEntropy().loss(ObjectiveInputs(torch.ones(2, 3, dtype=torch.long), logits))
    assert losses.tolist() == pytest.approx([300 + math.log(3)] * 2)
    losses.sum().backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[:, :, 1] < 0).all()


def test_the_gradient_is_softmax_minus_one_hot() -> None:
    """Of the mean over T tokens: (softmax - one-hot) / T."""
    logits = torch.randn(1, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    targets = torch.tensor([[3, 1]])
    CrossEntropy().loss(ObjectiveInputs(targets, logits)).sum().backward()
    expected = (logits.detach().softmax(-1) - torch.nn.functional.one_hot(targets, 5)) / 2
    torch.testing.assert_close(logits.grad, expected, atol=1e-14, rtol=0)
