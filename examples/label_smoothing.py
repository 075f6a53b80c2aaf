"""Cross-entropy with label smoothing: a whole objective in one file."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genrec_bench.core.registry import objectives
from genrec_bench.core.settings import setting
from genrec_bench.objectives.base import Objective, ObjectiveInputs


@objectives.register("label_smoothing")
@dataclass(frozen=True)
class LabelSmoothing(Objective):
    """Cross-entropy with a share of the target's weight spread over the vocabulary."""

    search_space: ClassVar[dict] = {"epsilon": [0.05, 0.1, 0.2]}  # what compare --tune tries

    epsilon: float = setting(0.1, "share that is spread", low=0.0, high=1.0)

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """(B,) mean over the tokens of the target; PAD, where a semantic ID is shorter, has no weight."""
        spread = inputs.logits.log_softmax(dim=-1).mean(dim=-1).masked_fill(~inputs.is_token, 0.0)
        smooth = (1 - self.epsilon) * inputs.target_token_logps + self.epsilon * spread
        return -smooth.sum(dim=1) / inputs.is_token.sum(dim=1)
