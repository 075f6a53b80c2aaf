"""Dropout from 16-bit draws: on a CPU torch's own takes a seventh of a training step, drawn element by element.

Masks are another stream of torch's seeded generator than torch's own dropout would draw: the same seed and shapes give
the same bits. On other devices both functions are torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEVELS = 2 ** 16  # values of one draw
DRAWS = 4  # draws in a number of 64 bits


def is_cheap(x: Tensor, rate: float) -> bool:
    """Whether dropout of x is this file's own: on a CPU, where anything is dropped at all."""
    return rate > 0 and x.device.type == "cpu"


def dropped_levels(rate: float) -> int:
    """How many of the 65,536 values of a draw drop an element: at least 1, and not all; 6,554 for a rate of 0.1."""
    return min(max(round(rate * LEVELS), 1), LEVELS - 1)


def scale(rate: float) -> float:
    """What is kept is multiplied by this: 1 / the probability to keep, of the rate in 65,536ths."""
    return LEVELS / (LEVELS - dropped_levels(rate))


def noise(x: Tensor, rate: float) -> Tensor:
    """What dropout multiplies x by, 0 or `scale(rate)`: shape and dtype of x.

    An element is 0 with probability `dropped_levels(rate)` / 65,536. n elements take the next ceil(n / 4) numbers of
    64 bits from torch's generator.
    """
    numbers = torch.empty(-(-x.numel() // DRAWS), dtype=torch.int64)
    numbers.random_(torch.iinfo(torch.int64).min, None)  # without bounds the sign bit would always be 0
    draws = numbers.view(torch.int16)[:x.numel()].view(x.shape)
    kept = torch.empty(x.shape, dtype=x.dtype)
    return torch.ge(draws, dropped_levels(rate) - LEVELS // 2, out=kept).mul_(scale(rate))


def dropout(x: Tensor, rate: float) -> Tensor:
    """x with a share `rate` of its elements set to 0, the others scaled so that the mean stays.

    rate: in [0, 1); with 0 it is x itself.
    """
    return x * noise(x, rate) if is_cheap(x, rate) else F.dropout(x, rate, training=rate > 0)


def relu_dropout(x: Tensor, rate: float) -> Tensor:
    """`dropout` of ReLU(x); on a CPU one tensor is kept for the backward pass, not two."""
    return ReluDropout.apply(x, rate) if is_cheap(x, rate) else dropout(F.relu(x), rate)


class ReluDropout(torch.autograd.Function):
    """ReLU and dropout together: the result is above 0 exactly where both let an element through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        ctx.rate = rate
        result = noise(x, rate).mul_(x).clamp_min_(0)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        result, = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, result, 0).mul_(scale(ctx.rate)), None


class Dropout(nn.Module):
    """`dropout` while training, nothing in eval mode."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate) if self.training else x
