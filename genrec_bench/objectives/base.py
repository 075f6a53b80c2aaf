"""What an objective gets and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from genrec_bench.contracts import PAD


@dataclass(frozen=True)
class ObjectiveInputs:
    """One batch as an objective sees it.

    targets: (B, T) token ids of the target items, PAD where a semantic ID is shorter. logits: (B, T, V)
    teacher-forced logits of the targets, float32, with gradient.
    """

    targets: Tensor
    logits: Tensor

    @cached_property
    def is_token(self) -> Tensor:
        """(B, T) bool: the target has a code at this level."""
        return self.targets != PAD

    @cached_property
    def target_token_logps(self) -> Tensor:
        """(B, T) natural-log probabilities of the target's tokens over the whole vocabulary, 0 at PAD."""
        logps = F.log_softmax(self.logits, dim=-1).gather(2, self.targets[:, :, None])[:, :, 0]
        return logps.masked_fill(~self.is_token, 0.0)


class Objective:
    """Base of objective plug-ins: frozen dataclasses whose fields are settings.

    `needs` names what `inputs.py` must prepare beyond the targets' logits; an unknown need is refused before any
    data is read. `version` is raised when the same settings give other numbers.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """(B,) loss a row, unreduced."""
        raise TypeError(f"{type(self).__name__} must define loss")
