"""BEAR: every token of the target against the B-th best token of its step.

Source: "Towards Beam-Search-Aware Optimization", WWW 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrec_bench.contracts import PAD
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.lazy import F, torch
from genrec_bench.core.registry import objectives
from genrec_bench.core.settings import setting
from genrec_bench.objectives.base import Objective, ObjectiveInputs

if TYPE_CHECKING:
    from torch import Tensor

FEW_CHILDREN = ("skip", "min")
DIRECTIONS = ("log_sigmoid", "softplus")


def valid_logps(logits: Tensor, valid: Tensor) -> Tensor:
    """Log-probabilities over the valid tokens only: other tokens come last, and rows without any mean nothing.

    logits: (..., V), valid: (..., V) bool. Returns (..., V) in nats; values at other tokens have no weight.
    """
    return F.log_softmax(logits.masked_fill(~valid, torch.finfo(logits.dtype).min), dim=-1)


def pruning_margins(logps: Tensor, targets: Tensor, valid: Tensor, *, num_beams: int, few_children: str,
                    detach_threshold: bool) -> tuple[Tensor, Tensor]:
    """How far the target's token is behind the B-th best valid token of its step. BEAR, Eq. 3.3.

    logps: (..., T, V) in nats, see `valid_logps`; targets: (..., T); valid: (..., T, V) bool. With fewer than
    `num_beams` valid tokens, `few_children` "skip" does not count the step, "min" takes the least likely valid token;
    without any, it never counts. Returns the margins (..., T) and which of them count, (..., T) bool; the others are 0.
    Raises: UserError for another `few_children`.
    Differs from the paper: it says neither what happens with fewer than B tokens nor whether the threshold has a
    gradient.
    """
    if few_children not in FEW_CHILDREN:
        raise unknown("few_children", few_children, FEW_CHILDREN, "pruning_margins")
    children = valid.sum(dim=-1)
    best = logps.topk(min(num_beams, logps.shape[-1]), dim=-1).values
    last = children.clamp(min=1, max=best.shape[-1]) - 1
    thresholds = best.gather(-1, last[..., None])[..., 0]
    if detach_threshold:
        thresholds = thresholds.detach()
    counts = children >= (num_beams if few_children == "skip" else 1)
    margins = thresholds - logps.gather(-1, targets[..., None])[..., 0]
    return margins.masked_fill(~counts, 0.0), counts


def retention_penalty(margins: Tensor, *, xi: float, direction: str) -> Tensor:
    """What a margin adds to the loss; any shape in and out.

    direction: "log_sigmoid" = log sigmoid(margin / xi), BEAR's Eq. 3.4; "softplus" = log(1 + exp(margin / xi)).
    Raises: UserError for another direction.
    Differs from the paper: "softplus" is ours. The paper's term has no lower bound, and its gradient is largest for
    tokens that are safe already and vanishes for those far behind; the other way round it penalises violations.
    """
    if direction not in DIRECTIONS:
        raise unknown("direction", direction, DIRECTIONS, "retention_penalty")
    return F.logsigmoid(margins / xi) if direction == "log_sigmoid" else -F.logsigmoid(-margins / xi)


def bear_regulariser(logits: Tensor, targets: Tensor, *, num_beams: int, xi: float, valid: Tensor | None = None,
                     few_children: str = "skip", detach_threshold: bool = True,
                     direction: str = "log_sigmoid") -> Tensor:
    """Sum over tokens of log sigmoid((log beta_t - log P(y_t)) / xi). BEAR (WWW 2026), Eq. 3.4.

    beta_t is the `num_beams`-th largest probability of step t. logits: (..., T, V), targets: (..., T) any token ids.
    valid: (..., T, V) bool, the tokens that compete and over which P is normalised, None = all; a step without valid
    token, such as padding, adds 0. few_children, detach_threshold: see `pruning_margins`; direction: see
    `retention_penalty`. Returns (...), in the dtype of logits.
    Raises: UserError for another `few_children` or `direction`.
    Differs from the paper: only by those choices; the threshold is detached as in the released code.
    """
    if valid is None:
        valid = torch.ones_like(logits, dtype=torch.bool)
    margins, counts = pruning_margins(valid_logps(logits, valid), targets, valid, num_beams=num_beams,
                                      few_children=few_children, detach_threshold=detach_threshold)
    return retention_penalty(margins, xi=xi, direction=direction).masked_fill(~counts, 0.0).sum(dim=-1)


def bear_released_loss(logits: Tensor, targets: Tensor, valid: Tensor, *, num_beams: int, xi: float, weight: float,
                       tau: float) -> Tensor:
    """Cross-entropy over the valid tokens, in which safer tokens weigh more: BEAR as released.

    A token weighs 1 + weight * sigmoid((log P(y_t) - log beta_t) / xi), without gradient; weights are divided by
    their sum over the batch's tokens that are not forced. P is the softmax of logits / tau over the valid tokens,
    beta_t its `num_beams`-th largest value, or the least where fewer are valid.
    logits: (B, T, V), targets: (B, T), valid: (B, T, V) bool. Returns (B,) whose mean is the loss; forced tokens and
    steps without valid token have no weight.
    Source: Tiny-Snow/BEAR-WWW-2026, train_bear.py, compute_loss.
    Differs from the paper: its Eq. 3.5 is a sum that has the same gradient up to the normalisation, with
    lambda = xi * weight. The code's 1e-8 in the denominator is left out.
    """
    logps = valid_logps(logits / tau, valid)
    margins, _ = pruning_margins(logps, targets, valid, num_beams=num_beams, few_children="min", detach_threshold=True)
    free = valid.sum(dim=-1) > 1
    weights = (1.0 + weight * torch.sigmoid(-margins.detach() / xi)).masked_fill(~free, 0.0)
    weights = weights / weights.sum().clamp(min=1.0)  # a weight is at least 1, so only an empty sum is changed
    costs = -logps.gather(-1, targets[..., None])[..., 0].masked_fill(~free, 0.0)
    return len(logits) * (weights * costs).sum(dim=1)


@objectives.register("bear")
@dataclass(frozen=True)
class Bear(Objective):
    """BEAR's regulariser alone (form paper), or the whole loss of its released code (form released).

    BEAR, Eq. 3.4. The paper's objective (Eq. 3.5) is a sum of two, with its lambda as a weight:
    `objective = [{ name = "cross_entropy", reduction = "sum" }, { name = "bear", weight = lambda }]`; with `s_dpo`
    first and `on = "target_minus_negatives"` it is BEAR on S-DPO (Fig. 7). form = released is used by itself.
    Differs from the paper: none at the defaults but the detached threshold, on which it is silent.
    """

    group = "beam-aware losses"

    # The code is not the paper's sum: it weighs the tokens of a masked softmax loss and normalises the weights, so
    # that w there corresponds to lambda / xi, and only relative weights matter.
    form: str = setting("paper", "paper = Eq. 3.4; released = the whole re-weighted masked softmax loss of the code",
                        choices=("paper", "released"))
    num_beams: int = setting(10, "beam width (B)", low=1)
    xi: float = setting(1.0, "temperature of the sigmoid (xi; 0.25 to 3 in the paper)", low=1e-3)
    # "All possible next tokens" and "valid next tokens" are both in the paper; the code takes the valid ones.
    vocabulary: str = setting("flat", "form paper: which tokens compete, all or those the trie allows",
                              choices=("flat", "trie"))
    # The paper does not say; where no more tokens exist than beams, none can be pruned.
    few_children: str = setting("skip", "form paper: with fewer than B tokens, leave the step out or take the least "
                                        "likely one as threshold (as the code)", choices=FEW_CHILDREN)
    detach_threshold: bool = setting(True, "form paper: no gradient through the B-th token (as the code)")
    direction: str = setting("log_sigmoid", "form paper: Eq. 3.4, or softplus, which penalises violations (ours)",
                             choices=DIRECTIONS)
    on: str = setting("target", "form paper: whose tokens; with negatives, theirs enter with a minus (Fig. 7)",
                      choices=("target", "target_minus_negatives"))
    # Fig. 7 does not say which. In a mean, steps that all negatives share with the target cancel; in a sum over N
    # they are pushed down N - 1 times, unless mask_shared leaves them out.
    negatives_reduction: str = setting("mean", "over the negatives of a row", choices=("mean", "sum"))
    mask_shared: bool = setting(False, "leave out the negatives' steps whose prefix is the target's as well")
    num_negatives: int = setting(100, "negatives a row (N)", low=1)
    weight_released: float = setting(1.0, "form released: w (= lambda / xi of the paper)", low=0.0)
    tau: float = setting(1.0, "form released: temperature of the softmax", low=1e-3)

    @property
    def needs(self) -> frozenset[str]:
        """The trie where only valid tokens compete, negatives where their tokens count."""
        trie = self.form == "released" or self.vocabulary == "trie"
        return frozenset({"trie"} if trie else ()) | frozenset({"negatives"} if self.on != "target" else ())

    @property
    def couples_rows(self) -> bool:
        """The released form normalises its weights over the batch."""
        return self.form == "released"

    def check(self) -> None:
        """Refuse for the released form what its code does not have. Raises: UserError."""
        if self.form == "released" and (self.on != "target" or self.direction != "log_sigmoid"):
            raise UserError(f"objective bear: form = released has on = target and direction = log_sigmoid only, got "
                            f"on = {self.on}, direction = {self.direction}; with form = paper all are allowed.")

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        if self.form == "released":
            return bear_released_loss(inputs.logits, inputs.targets, inputs.valid, num_beams=self.num_beams,
                                      xi=self.xi, weight=self.weight_released, tau=self.tau)
        valid = inputs.valid if self.vocabulary == "trie" else _all_tokens(inputs.targets, inputs.logits)
        target = self._regulariser(inputs.logits, inputs.targets, valid)
        return target if self.on == "target" else target - self._of_negatives(inputs)

    def _of_negatives(self, inputs: ObjectiveInputs) -> Tensor:
        """(B,) mean or sum of the regulariser along each negative's own path; the target among them counts too."""
        tokens, logits = inputs.negatives, inputs.negative_logits
        valid = inputs.negative_valid if self.vocabulary == "trie" else _all_tokens(tokens, logits)
        if self.mask_shared:
            nodes = inputs.catalogue.nodes
            shared = nodes[inputs.negative_ids] == nodes[inputs.target_ids][:, None]
            valid = valid & ~shared[..., None]
        values = self._regulariser(logits, tokens, valid)
        return values.mean(dim=1) if self.negatives_reduction == "mean" else values.sum(dim=1)

    def _regulariser(self, logits: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        return bear_regulariser(logits, tokens, num_beams=self.num_beams, xi=self.xi, valid=valid,
                                few_children=self.few_children, detach_threshold=self.detach_threshold,
                                direction=self.direction)


def _all_tokens(tokens: Tensor, logits: Tensor) -> Tensor:
    """(..., T, V) bool: every token competes, at the steps that have one."""
    return (tokens != PAD)[..., None].expand_as(logits)
