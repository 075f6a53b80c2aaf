"""BEAR's straightforward objective: every prefix of the target against the B-th prefix that beam search keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from genrec_bench.core.lazy import torch
from genrec_bench.core.registry import objectives
from genrec_bench.core.settings import setting
from genrec_bench.objectives.base import Objective, ObjectiveInputs, prefix_sums
from genrec_bench.objectives.bear import DIRECTIONS, retention_penalty, valid_logps

if TYPE_CHECKING:
    from torch import Tensor


def beam_retention_regulariser(target_prefix_logps: Tensor, thresholds: Tensor, *, xi: float,
                               direction: str = "log_sigmoid") -> Tensor:
    """Sum over prefixes of log sigmoid((threshold_m - S_m) / xi). BEAR (WWW 2026), objective 3.1.

    target_prefix_logps: (B, T), S_m = log-probability of the target's first m tokens. thresholds: (B, T), that of the
    B-th prefix a beam search keeps at this length, without gradient; -inf where there is none: the prefix adds 0.
    direction: see `retention_penalty`. Returns (B,).
    Raises: UserError for another direction.
    Differs from the paper: it gives a product of indicators and no form that has a gradient; this is the form of its
    Eq. 3.4 on prefixes.
    """
    counts = thresholds != -torch.inf
    margins = (thresholds.detach() - target_prefix_logps).masked_fill(~counts, 0.0)
    return retention_penalty(margins, xi=xi, direction=direction).masked_fill(~counts, 0.0).sum(dim=1)


@objectives.register("bear_beam")
@dataclass(frozen=True)
class BearBeam(Objective):
    """The regulariser of objective 3.1, for which every training batch is decoded. BEAR (WWW 2026), Sec. 3.1.

    Thresholds come from a search in eval mode; a target within the beam may be the B-th prefix itself. Used as
    `objective = [{ name = "cross_entropy", reduction = "sum" }, { name = "bear_beam", weight = lambda }]`.
    Differs from the paper: see `beam_retention_regulariser`.
    """

    group = "beam-aware losses"
    version: ClassVar[int] = 2  # the search adds up in another order since 1, which moves the last bits of its scores

    num_beams: int = setting(10, "beam width (B)", low=1)
    xi: float = setting(1.0, "temperature of the sigmoid (xi; 0.25 to 3 in the paper)", low=1e-3)
    normaliser: str = setting("flat", "scores of the search and of the target: over all tokens, or over those the trie "
                                      "allows", choices=("flat", "trie"))
    direction: str = setting("log_sigmoid", "as Eq. 3.4, or softplus, which penalises violations (ours)",
                             choices=DIRECTIONS)

    @property
    def needs(self) -> frozenset[str]:
        """The beam, and the trie where it normalises."""
        return frozenset({"beam", "trie"} if self.normaliser == "trie" else {"beam"})

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        logps = inputs.target_token_logps
        if self.normaliser == "trie":
            logps = valid_logps(inputs.logits, inputs.valid).gather(2, inputs.targets[:, :, None])[:, :, 0]
            logps = logps.masked_fill(~inputs.is_token, 0.0)
        thresholds = inputs.beam_thresholds.masked_fill(~inputs.is_token, -torch.inf)
        return beam_retention_regulariser(prefix_sums(logps), thresholds, xi=self.xi, direction=self.direction)
