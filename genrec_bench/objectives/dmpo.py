"""Direct multi-preference optimisation: the target before the average of sampled items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrec_bench.core.lazy import F
from genrec_bench.core.registry import objectives
from genrec_bench.core.settings import setting
from genrec_bench.objectives.base import ObjectiveInputs
from genrec_bench.objectives.dpo import PreferenceObjective

if TYPE_CHECKING:
    from torch import Tensor


def dmpo_loss(target_logps: Tensor, negative_logps: Tensor, reference_target_logps: Tensor,
              reference_negative_logps: Tensor, *, beta: float, keep: Tensor | None = None) -> Tensor:
    """-log sigmoid of beta times the target's gain over the reference minus the negatives' mean gain.

    Bai et al. 2024 (CIKM'24), as APAO (arXiv 2603.02730) describes it: the average is inside the sigmoid.
    target_logps, reference_target_logps: (B,), negative_logps, reference_negative_logps: (B, N), log-probabilities of
    whole items (sums over their tokens, nats). keep: (B, N) bool, False = the negative has no weight and no gradient;
    None = all count. Returns (B,), unreduced; 0 without gradient where no negative is kept: nothing is compared.
    Differs from the paper: none known. (Its released code has another form, see `Dmpo.form`.)
    """
    gains = negative_logps - reference_negative_logps
    if keep is None:
        return -F.logsigmoid(beta * (target_logps - reference_target_logps - gains.mean(dim=1)))
    mean = gains.masked_fill(~keep, 0.0).sum(dim=1) / keep.sum(dim=1).clamp(min=1)
    losses = -F.logsigmoid(beta * (target_logps - reference_target_logps - mean))
    return losses.masked_fill(~keep.any(dim=1), 0.0)


@objectives.register("dmpo")
@dataclass(frozen=True)
class Dmpo(PreferenceObjective):
    """One comparison a row: the target against the mean of its negatives."""

    limits = (({"num_negatives": 1}, {"name": "dpo"}), ({"form": "released", "num_negatives": 1},
                                                        {"name": "dpo", "reference": "none"}))

    # The released code passes the target's reference score in both slots, so that the reference cancels, and makes
    # rows of pairs instead of averaging inside the sigmoid. (It also adds a cross-entropy: an objective beside this.)
    form: str = setting("paper", "paper: the mean inside the sigmoid; released: mean of pair losses without reference",
                        choices=("paper", "released"))

    @property
    def needs(self) -> frozenset[str]:
        """The released form has no reference, whatever `reference` says."""
        return super().needs - ({"reference"} if self.form == "released" else set())

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        if self.form == "released":
            return self.mean_of_pairs(inputs)
        return dmpo_loss(*self.scores(inputs), beta=self.beta, keep=self.keep(inputs))
