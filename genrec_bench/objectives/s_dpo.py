"""Softmax DPO: the target before all sampled items at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrec_bench.core.lazy import F
from genrec_bench.core.registry import objectives
from genrec_bench.core.settings import setting
from genrec_bench.objectives.base import ObjectiveInputs
from genrec_bench.objectives.dpo import PreferenceObjective

if TYPE_CHECKING:
    from torch import Tensor


def s_dpo_loss(target_logps: Tensor, negative_logps: Tensor, reference_target_logps: Tensor,
               reference_negative_logps: Tensor, *, beta: float, keep: Tensor | None = None) -> Tensor:
    """-log softmax of the target among the target and its negatives, of beta times each one's gain over the reference.

    Chen et al. 2024 (NeurIPS'24); APAO (arXiv 2603.02730), Eq. 23, as softplus(logsumexp(beta (d_j - d_target))), which
    neither overflows nor underflows.
    target_logps, reference_target_logps: (B,), negative_logps, reference_negative_logps: (B, N), log-probabilities of
    whole items (sums over their tokens, nats). keep: (B, N) bool, False = the negative has no weight and no gradient;
    None = all count. Returns (B,), unreduced; 0 without gradient where no negative is kept.
    Differs from the paper: none. (Its released code takes the log of a sum of exponentials, which overflows at 88.)
    """
    gains = beta * (negative_logps - reference_negative_logps - (target_logps - reference_target_logps)[:, None])
    if keep is not None:
        gains = gains.masked_fill(~keep, -math.inf)
    return -F.logsigmoid(-gains.logsumexp(dim=1))


@objectives.register("s_dpo")
@dataclass(frozen=True)
class SDpo(PreferenceObjective):
    """The target against a softmax over its negatives."""

    limits = (({"num_negatives": 1}, {"name": "dpo"}),)

    # Negatives are drawn with replacement and one that is drawn twice counts twice; APAO does not say.
    mask_duplicates: bool = setting(False, "a negative counts once a row, however often it was drawn")

    def keep(self, inputs: ObjectiveInputs) -> Tensor:
        keep = super().keep(inputs)
        if not self.mask_duplicates:
            return keep
        ids = inputs.negative_ids
        return keep & ~(ids[:, :, None] == ids[:, None, :]).tril(-1).any(dim=2)

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        return s_dpo_loss(*self.scores(inputs), beta=self.beta, keep=self.keep(inputs))
