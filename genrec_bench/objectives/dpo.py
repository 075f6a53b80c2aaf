"""Direct preference optimisation: the target before one sampled item; and what its relatives share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrec_bench.core.lazy import F, torch
from genrec_bench.core.registry import objectives
from genrec_bench.core.settings import setting
from genrec_bench.objectives.base import Objective, ObjectiveInputs

if TYPE_CHECKING:
    from torch import Tensor


def dpo_loss(target_logps: Tensor, negative_logps: Tensor, reference_target_logps: Tensor,
             reference_negative_logps: Tensor, *, beta: float) -> Tensor:
    """-log sigmoid of beta times how much more the target gained over the reference than the negative did.

    Rafailov et al. 2023 (arXiv 2305.18290), Eq. 7. All (B,), log-probabilities of whole items (sums over their tokens,
    nats); any shapes that broadcast will do, such as (B, 1) against (B, N). Returns (B,), unreduced.
    Differs from the paper: none.
    """
    margin = (target_logps - reference_target_logps) - (negative_logps - reference_negative_logps)
    return -F.logsigmoid(beta * margin)


@dataclass(frozen=True)
class PreferenceObjective(Objective):
    """Base of objectives that compare whole items: the target with sampled negatives, each against a reference.

    Negatives that are the target itself do not count; a row that has no others costs 0.
    """

    group = "preference losses"

    beta: float = setting(1.0, "how much a difference of log-probabilities counts (APAO tries 0.5, 1 and 2)", low=0.0)
    num_negatives: int = setting(100, "sampled negatives a row (APAO: 100)", low=1)
    # APAO's one-stage variant (its Table 3) does not say which reference it has.
    reference: str = setting("initial", "frozen network to compare with: of the weights training starts from, of the "
                                        "first stage's, or none (a constant)",
                             choices=("initial", "first_stage", "none"))

    @property
    def needs(self) -> frozenset[str]:
        """No reference, no passes of a frozen network."""
        return frozenset({"negatives"} if self.reference == "none" else {"negatives", "reference"})

    def keep(self, inputs: ObjectiveInputs) -> Tensor:
        """(B, N) bool: the negatives that count."""
        return inputs.is_other

    def scores(self, inputs: ObjectiveInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities of targets (B,) and negatives (B, N), then the reference's: 0 where there is none."""
        target = inputs.target_token_logps.sum(dim=1)
        negatives = inputs.negative_token_logps.sum(dim=2)
        if "reference" not in self.needs:
            return target, negatives, torch.zeros_like(target), torch.zeros_like(negatives)
        return (target, negatives, inputs.reference_target_token_logps.sum(dim=1),
                inputs.reference_negative_token_logps.sum(dim=2))

    def mean_of_pairs(self, inputs: ObjectiveInputs) -> Tensor:
        """(B,) mean of `dpo_loss` over the pairs of the target and each negative that counts; 0 without one."""
        target, negatives, reference_target, reference_negatives = self.scores(inputs)
        losses = dpo_loss(target[:, None], negatives, reference_target[:, None], reference_negatives, beta=self.beta)
        keep = self.keep(inputs)
        return losses.masked_fill(~keep, 0.0).sum(dim=1) / keep.sum(dim=1).clamp(min=1)


@objectives.register("dpo")
@dataclass(frozen=True)
class Dpo(PreferenceObjective):
    """One pair of target and negative a row; with more negatives the mean of the pairs' losses."""

    # APAO has 100 negatives "for all methods", but a pair has one; the mean of 100 pairs costs as much as S-DPO.
    num_negatives: int = setting(1, "sampled negatives a row, each in a pair with the target", low=1)

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        return self.mean_of_pairs(inputs)
