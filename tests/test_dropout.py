"""Dropout: shares, scale and gradients of the CPU's own masks, and that nothing changes where nothing is dropped."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.backbones.dropout import Dropout, dropout, dropped_levels, noise, relu_dropout, scale
from tests.test_tiger import VOCAB, candidates, histories, small

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
RATES = (0.01, 0.1, 0.3, 0.5, 0.9, 0.99)
BOTH = pytest.mark.parametrize("drop", [dropout, relu_dropout])


def seeded(drop: Callable[[Tensor, float], Tensor], x: Tensor, rate: float, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return drop(x, rate)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_rates_are_counted_in_65536ths() -> None:
    assert [dropped_levels(rate) for rate in (0.5, 0.1, 0.25, 0.99)] == [32768, 6554, 16384, 64881]
    assert [dropped_levels(rate) for rate in (1e-9, 1 - 1e-9)] == [1, 65535]
    assert scale(0.5) == 2.0 and scale(0.1) == 65536 / 58982 and scale(0.75) == 4.0


@pytest.mark.parametrize("rate", RATES)
def test_the_share_that_is_dropped(rate: float) -> None:
    """Within 5 standard deviations, also of every fourth element: each is another part of a 64-bit number."""
    mask = seeded(noise, torch.empty(100, 4000), rate)
    share = dropped_levels(rate) / 65536
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)])
    for elements in (mask.flatten(), *mask.view(-1, 4).unbind(1)):
        spread = math.sqrt(share * (1 - share) / len(elements))
        assert float((elements == 0).double().mean()) == pytest.approx(share, abs=5 * spread)


def test_a_mask_is_what_the_draws_say() -> None:
    """The 16-bit parts of the generator's next 64-bit numbers, in memory order, dropped where they are low."""
    x = torch.empty(3, 7)
    mask = seeded(noise, x, 0.3, seed=5)
    torch.manual_seed(5)
    drawn = [int(torch.empty(1, dtype=torch.int64).random_(-2 ** 63, None)) for _ in range(6)]
    parts = np.array(drawn, dtype=np.int64).view(np.int16)[:21].astype(int) + 32768
    expected = [0.0 if part < 19661 else 65536 / (65536 - 19661) for part in parts]
    assert mask.flatten().tolist() == pytest.approx(expected) and 0 < expected.count(0.0) < 21


def test_neighbours_are_dropped_independently() -> None:
    dropped = (seeded(noise, torch.empty(400_000), 0.3) == 0).double()
    for step in (1, 2, 3, 4, 5, 1000):
        both = float((dropped[step:] * dropped[:-step]).mean())
        assert both == pytest.approx(0.09, abs=5 * math.sqrt(0.09 / 400_000) + 1e-4), step


@pytest.mark.parametrize("rate", RATES)
def test_the_mean_is_kept(rate: float) -> None:
    """Of ones: each has variance p / (1 - p)."""
    mean = float(seeded(dropout, torch.ones(1000, 401), rate).double().mean())
    assert mean == pytest.approx(1.0, abs=5 * math.sqrt(rate / (1 - rate) / 401_000))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (5, 1), (3, 5, 7), (2, 0, 3), (4, 4)])
@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_result_and_gradient_are_mask_times_scale(shape: tuple[int, ...], rate: float) -> None:
    for seed in range(3):
        x, upstream = normal(*shape, seed=seed).requires_grad_(), normal(*shape, seed=seed + 10)
        mask = seeded(noise, x, rate, seed)
        assert mask.shape == x.shape and mask.dtype == x.dtype
        result = seeded(dropout, x, rate, seed)
        assert torch.equal(result, x * mask)
        assert torch.equal(torch.autograd.grad(result, x, upstream)[0], upstream * mask)
        result = seeded(relu_dropout, x, rate, seed)
        assert torch.equal(result, F.relu(x) * mask)
        torch.testing.assert_close(torch.autograd.grad(result, x, upstream)[0], upstream * mask * (x > 0))


@BOTH
def test_gradients_are_those_of_differences(drop: Callable[[Tensor, float], Tensor]) -> None:
    x = normal(4, 9).double()
    x = (x + x.sign() * 0.1).requires_grad_()  # none so near to 0 that a difference crosses the kink of ReLU
    assert torch.autograd.gradcheck(lambda x: seeded(drop, x, 0.4), (x,))


@BOTH
def test_the_input_is_left_as_it_is(drop: Callable[[Tensor, float], Tensor]) -> None:
    x = normal(6, 5)
    before = x.clone()
    assert not torch.equal(drop(x, 0.5), x) and torch.equal(x, before)


def test_relu_at_zero_and_at_values_that_are_not_finite() -> None:
    x = torch.tensor([0.0, -0.0, -1.0, math.nan]).repeat(50).requires_grad_()
    result = seeded(relu_dropout, x, 0.5)
    result[~result.isnan()].sum().backward()
    assert result.view(50, 4)[:, 3].isnan().all()  # a fault stays seen: the loop refuses such a loss
    assert result.view(50, 4)[:, :3].abs().sum() == 0 and x.grad.abs().sum() == 0


@BOTH
def test_the_seed_decides(drop: Callable[[Tensor, float], Tensor]) -> None:
    x = normal(50, 33)
    first, again, other = (seeded(drop, x, 0.2, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first == 0, other == 0)
    assert not torch.equal(first == 0, drop(x, 0.2) == 0)  # the next draws are others


def test_nothing_is_dropped_at_rate_zero_or_in_eval_mode() -> None:
    x = normal(4, 6)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert dropout(x, 0.0) is x and Dropout(0.0).train()(x) is x and Dropout(0.5).eval()(x) is x
    assert torch.equal(relu_dropout(x, 0.0), F.relu(x))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_module_drops_while_training() -> None:
    x = normal(40, 6)
    dropped = seeded(dropout, x, 0.5, seed=4)
    torch.manual_seed(4)
    assert torch.equal(Dropout(0.5).train()(x), dropped)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    x = normal(30, 7).to(dtype)
    for drop in (dropout, relu_dropout):
        assert seeded(drop, x, 0.3).dtype == dtype
    assert torch.equal(seeded(dropout, x, 0.3) == 0, seeded(noise, torch.empty(30, 7), 0.3) == 0)


def test_other_devices_keep_torchs_own() -> None:
    """The meta device computes shapes alone, so that a mask drawn on the CPU would not fit it."""
    x = torch.empty(3, 5, device="meta")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for drop in (dropout, relu_dropout):
        assert drop(x, 0.5).device.type == "meta" and drop(x, 0.5).shape == (3, 5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [1, 4])
def test_dropout_in_training_is_noise_around_the_network_without(count: int) -> None:
    """Of chains and of folded candidates: same seed same logits, another seed others, and a low rate changes little."""
    codes = candidates(count=count)
    exact = small().build(VOCAB, 0).train().token_logits(histories(), codes)
    some, little = (small(dropout=rate).build(VOCAB, 0).train() for rate in (0.3, 1e-9))
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(some.token_logits(histories(), codes))
    assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2], atol=1e-2)
    torch.manual_seed(0)
    torch.testing.assert_close(little.token_logits(histories(), codes), exact, atol=1e-3, rtol=1e-3)
