"""Masked softmax loss: cross-entropy over the tokens that can still become an item."""

from __future__ import annotations

import math
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

AVERAGES = ("item", "batch")


def msl_loss(logits: Tensor, targets: Tensor, valid: Tensor, *, tau: float | Tensor, skip_forced: bool = False,
             average: str = "item", eos: bool = False) -> Tensor:
    """Mean negative log-probability over an item's tokens, normalised over the valid ones. MSL (SIGIR'25).

    logits: (B, T, V). targets: (B, T) token ids; a level does not count where the target is PAD and PAD is no valid
    token. valid: (B, T, V) bool, True at the target's own tokens. tau: temperature that divides the logits.
    skip_forced: average over the tokens that have an alternative only; forced ones (a single valid token) cost 0 and
    have no gradient either way. eos: EOS behind an item counts as one more forced token. average: "item" = over each
    item's tokens; "batch" = what an item's tokens cost, times B by the tokens that count in the batch, so that the mean
    of the result is the mean over the batch's tokens.
    Returns (B,), unreduced; 0 where nothing counts.
    Raises: UserError for another average.
    Differs from the paper: none known; the formula is that of its released code, which has average = "batch".
    """
    if average not in AVERAGES:
        raise unknown("average", average, AVERAGES, "msl_loss")
    tokens = targets[:, :, None]
    counts = (targets != PAD) | valid.gather(2, tokens)[:, :, 0]
    scores = (logits / tau).masked_fill(~valid, -math.inf)
    scores = scores.masked_fill(~counts[:, :, None], 0.0)  # a row of -inf alone has no softmax
    losses = -F.log_softmax(scores, dim=2).gather(2, tokens)[:, :, 0]
    if skip_forced:
        counts = counts & (valid.sum(dim=2) > 1)
    costs = losses.masked_fill(~counts, 0.0).sum(dim=1)
    counted = counts.sum(dim=1) + int(eos and not skip_forced)
    if average == "batch":
        return len(costs) * costs / counted.sum().clamp(min=1)
    return costs / counted.clamp(min=1)


def adaptive_temperature(tau: Tensor, logits: Tensor, targets: Tensor, valid: Tensor, *, eta: float, rate: float,
                         low: float, high: float) -> Tensor:
    """The next temperature, from the first level's logits of a batch. MSL's adaptive temperature, as released.

    With d = mean logit of the targets - mean logit of all valid tokens, v = the (unbiased) variance of the latter and
    c = log(eta * number of valid tokens): t = (d + sqrt(max(d^2 - 2 c v, 0))) / (2 c), clipped to low..high; then
    (1 - rate) * tau + rate * t.
    tau: () the temperature so far. logits, valid: (B, T, V), targets: (B, T), of which the first level is read; it has
    the same valid tokens in every row. Returns () of tau's type, without gradient.
    Differs from the paper: taken from the released code. Where c <= 0 (no more than 1/eta valid tokens) the equation
    has no positive solution and t is `low`, as the released clipping makes it for c < 0.
    """
    tau, first, valid = tau.detach(), logits[:, 0].detach().to(tau.dtype), valid[:, 0]
    count = valid.sum().to(tau.dtype)
    mean = first.masked_fill(~valid, 0.0).sum() / count
    variance = (first - mean).masked_fill(~valid, 0.0).square().sum() / (count - 1)
    distance = first.gather(1, targets[:, :1]).mean() - mean
    c = torch.log(eta * count / len(first))
    solution = (distance + (distance.square() - 2 * c * variance).clamp(min=0).sqrt()) / (2 * c)
    solution = torch.where(c > 0, solution.clamp(low, high), low)
    return (1 - rate) * tau + rate * solution


@objectives.register("msl")
@dataclass(frozen=True)
class Msl(Objective):
    """Cross-entropy over the valid next tokens of the trie, at a fixed or an adaptive temperature."""

    group = "cross-entropy family"

    # APAO tries 1, 2 and 3 and does not say which was best; its released script has 2.
    tau: float = setting(1.0, "temperature that divides the logits", low=0.01)
    skip_forced: bool = setting(False, "average over the tokens that have an alternative only; with `adaptive` always, "
                                       "as in MSL's released code")
    # In the trie nothing but EOS can follow an item, so that it has a loss of 0 and no gradient.
    eos: bool = setting(False, "EOS counts as one more token in the mean, as in APAO's released code")
    # The code takes the mean over all tokens of a forward pass, whose items have unequal numbers of them.
    average: str = setting("item", "over the tokens of each item and then over items, or over all tokens of a forward "
                                   "pass, as MSL's released code", choices=AVERAGES)
    adaptive: bool = setting(False, "temperature from the first level's logits, the loss multiplied by it")
    initial_tau: float = setting(1.5, "adaptive: the temperature training starts with", low=0.01)
    eta: float = setting(0.25, "adaptive: share of the valid first tokens that count as competitors", low=0.0,
                         high=1.0)
    rate: float = setting(0.05, "adaptive: weight of the newest estimate in the moving average", low=0.0, high=1.0)
    lowest_tau: float = setting(1.5, "adaptive: lowest estimate", low=0.01)
    highest_tau: float = setting(5.0, "adaptive: highest estimate", low=0.01)

    needs = frozenset({"trie"})

    @property
    def couples_rows(self) -> bool:
        """The adaptive temperature is estimated over the batch, and a batch's tokens may be averaged together."""
        return self.adaptive or self.average == "batch"

    def check(self) -> None:
        """Refuse what would have no effect, and bounds in the wrong order. Raises: UserError."""
        if self.eos and (self.skip_forced or self.adaptive):
            which = "adaptive" if self.adaptive else "skip_forced"
            raise UserError(f"objective msl: eos = true has no effect with {which} = true: EOS is a token without an "
                            "alternative, and those do not count then.")
        if self.adaptive and self.tau != Msl.tau:
            raise UserError(f"objective msl: tau = {self.tau} has no effect with adaptive = true; "
                            "initial_tau is the temperature to start with.")
        if self.lowest_tau > self.highest_tau:
            raise UserError(f"objective msl: lowest_tau = {self.lowest_tau} must not be greater than "
                            f"highest_tau = {self.highest_tau}.")

    def initial_state(self, depth: int) -> dict[str, Tensor]:
        """The adaptive temperature, () float64."""
        return {"tau": torch.tensor(self.initial_tau, dtype=torch.float64)} if self.adaptive else {}

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        batch = inputs.logits, inputs.targets, inputs.valid
        if not self.adaptive:
            return msl_loss(*batch, tau=self.tau, skip_forced=self.skip_forced, average=self.average, eos=self.eos)
        tau = adaptive_temperature(inputs.state["tau"], *batch, eta=self.eta, rate=self.rate, low=self.lowest_tau,
                                   high=self.highest_tau)
        inputs.state["tau"] = tau
        return tau * msl_loss(*batch, tau=tau, skip_forced=True, average=self.average)
