"""Cross-entropy on the codes of the target item."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genrec_bench.objectives.base import Objective, ObjectiveInputs
from genrec_bench.registry import objectives


def cross_entropy_loss(target_token_logps: Tensor, is_token: Tensor | None = None) -> Tensor:
    """Mean negative log-probability over the tokens of an item. APAO (arXiv 2603.02730), Eq. 2-4.

    target_token_logps: (B, T) in nats; is_token: (B, T) bool for semantic IDs of unequal length, None = all count.
    Returns (B,), unreduced.
    Differs from the paper: none. (APAO's released code also averages over a fifth token, EOS.)
    """
    if is_token is None:
        return -target_token_logps.mean(dim=1)
    kept = target_token_logps.masked_fill(~is_token, 0.0)
    return -kept.sum(dim=1) / is_token.sum(dim=1).clamp(min=1)


@objectives.register("cross_entropy")
@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Token-level cross-entropy over the whole vocabulary, the reference of every comparison."""

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        return cross_entropy_loss(inputs.target_token_logps, inputs.is_token)
