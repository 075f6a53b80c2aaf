"""Cross-entropy on the codes of the target item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrec_bench.core.errors import unknown
from genrec_bench.core.lazy import torch
from genrec_bench.core.registry import objectives
from genrec_bench.core.settings import setting
from genrec_bench.objectives.base import Objective, ObjectiveInputs

if TYPE_CHECKING:
    from torch import Tensor

REDUCTIONS = ("mean", "sum")


def cross_entropy_loss(target_token_logps: Tensor, is_token: Tensor | None = None, *,
                       reduction: str = "mean") -> Tensor:
    """Negative log-probability of an item, mean or sum over its tokens. APAO (arXiv 2603.02730), Eq. 2-4.

    target_token_logps: (B, T) in nats; is_token: (B, T) bool for semantic IDs of unequal length, None = all count.
    reduction: "mean", or "sum" as in BEAR's Eq. 2.1. Returns (B,), unreduced.
    Raises: UserError for another reduction.
    Differs from the paper: none. (APAO's released code also averages over a fifth token, EOS: append it here.)
    """
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS, "cross_entropy_loss")
    if is_token is not None:
        target_token_logps = target_token_logps.masked_fill(~is_token, 0.0)
    if reduction == "sum":
        return -target_token_logps.sum(dim=1)
    if is_token is None:
        return -target_token_logps.mean(dim=1)
    return -target_token_logps.sum(dim=1) / is_token.sum(dim=1).clamp(min=1)


@objectives.register("cross_entropy")
@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Token-level cross-entropy over the whole vocabulary, the reference of every comparison."""

    group = "cross-entropy family"

    reduction: str = setting("mean", "over an item's tokens: mean (APAO, Eq. 2-4) or sum (BEAR's SFT, Eq. 2.1)",
                             choices=REDUCTIONS)
    eos: bool = setting(False, "EOS counts as one more token: APAO's released code, not its equations")

    @property
    def needs(self) -> frozenset[str]:
        """EOS costs one more position of the target."""
        return frozenset({"eos"} if self.eos else ())

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        logps, is_token = inputs.target_token_logps, inputs.is_token
        if self.eos:
            logps = torch.cat([logps, inputs.eos_logps[:, None]], dim=1)
            is_token = torch.cat([is_token, torch.ones_like(is_token[:, :1])], dim=1)
        return cross_entropy_loss(logps, is_token, reduction=self.reduction)
