"""APAO: losses on every prefix of the target, weighed by how badly each prefix does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrec_bench.core.errors import DoesNotFit, UserError, unknown
from genrec_bench.core.lazy import F, torch
from genrec_bench.core.registry import objectives
from genrec_bench.core.settings import setting
from genrec_bench.objectives.base import Objective, ObjectiveInputs, prefix_sums

if TYPE_CHECKING:
    from torch import Tensor

RULES = ("eq17", "algorithm1", "released", "uniform")
RELEASED_EPSILON = 1e-12


def apao_pointwise_losses(target_token_logps: Tensor, is_token: Tensor | None = None) -> Tensor:
    """Mean negative log-probability of the first m tokens, for m = 1..T. APAO (arXiv 2603.02730), Eq. 12.

    target_token_logps: (B, T) in nats; is_token: (B, T) bool for semantic IDs of unequal length, None = all count.
    Returns (B, T), 0 at levels without a token.
    Differs from the paper: none.
    """
    if is_token is None:
        is_token = torch.ones_like(target_token_logps, dtype=torch.bool)
    losses = -prefix_sums(target_token_logps.masked_fill(~is_token, 0.0)) / _lengths(target_token_logps)
    return losses.masked_fill(~is_token, 0.0)


def apao_pairwise_losses(target_token_logps: Tensor, negative_token_logps: Tensor, keep: Tensor, *,
                         divide_by_length: bool, scale: Tensor | None = None) -> Tensor:
    """Softmax loss of the target's prefix of length m among those of the negatives, for m = 1..T.

    APAO (arXiv 2603.02730), Eq. 13-14 (= Eq. 25): log(1 + sum over negatives of exp(S_m(negative) - S_m(target))).
    target_token_logps: (B, T), negative_token_logps: (B, N, T), in nats. keep: (B, N, T) bool, the negatives that
    count at each length. divide_by_length: loss m is divided by m. scale: (B, T) or None, multiplies the negatives'
    summed probability. Returns (B, T); 0 with gradient 0 where no negative counts.
    Differs from the paper: Algorithm 1 and the released code divide by m, Eq. 14 and 24 do not; only the released
    code scales; both add 1e-12 to a sum of probabilities (`released_pairwise_losses`), which nothing here needs.
    """
    # the lowest finite number rather than -inf: a row that keeps no negative has gradient 0 instead of NaN
    lowest = torch.finfo(negative_token_logps.dtype).min
    lead = prefix_sums(negative_token_logps) - prefix_sums(target_token_logps)[:, None]
    mass = lead.masked_fill(~keep, lowest).logsumexp(dim=1)
    if scale is not None:
        mass = mass + scale.to(mass.dtype).log()
    losses = -F.logsigmoid(-mass)  # softplus, exact where F.softplus turns linear
    return losses / _lengths(losses) if divide_by_length else losses


def released_pairwise_losses(target_token_logps: Tensor, negative_token_logps: Tensor, keep: Tensor, *,
                             divide_by_length: bool, scale: Tensor | None = None) -> Tensor:
    """`apao_pairwise_losses` as the released code computes it: on probabilities, with 1e-12 in the denominator.

    Arguments and result as there. Where the target's prefix is less likely than about 1e-12 the epsilon outweighs
    the negatives. Where its probability is 0 in the input's precision (below exp(-103) in float32), the whole level
    of the batch reads 0 and its gradient is NaN. Only for comparison with that code.
    Source: yuyq18/APAO, T5_APAO_Pairwise, forward; the epsilon also in Algorithm 1, line 32.
    """
    target = prefix_sums(target_token_logps).exp()
    negatives = prefix_sums(negative_token_logps).exp().masked_fill(~keep, 0.0).sum(dim=1)
    if scale is not None:
        negatives = negatives * scale.to(negatives.dtype)
    losses = -(target / (target + negatives + RELEASED_EPSILON)).log()
    if divide_by_length:
        losses = losses / _lengths(losses)
    # what the code's nan_to_num does to the mean of a batch
    return torch.where(losses.sum(dim=0).isfinite(), losses, 0.0)


def prefix_weights(weights: Tensor, losses: Tensor, *, eta: float, rule: str) -> Tensor:
    """The next weights of the prefix lengths. APAO (arXiv 2603.02730), Eq. 16-17.

    weights: (T,) of the step before; losses: (T,) batch means, not negative; eta: step size.
    rule: "eq17" multiplies each weight by exp(eta * loss); "algorithm1" takes the loss as a share of all losses;
    "released" starts from those shares instead of `weights`; "uniform" is 1/T. All are normalised to sum to 1.
    Returns (T,) without gradient. With all losses 0, "released" is 1/T and the first two return `weights`.
    Raises: UserError for another rule.
    Differs from the paper: only "eq17" is its equation; Algorithm 1 and the released code disagree with it and with
    each other.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES, "prefix_weights")
    weights, losses = weights.detach(), losses.detach()
    uniform = torch.full_like(weights, 1.0 / len(weights))
    if rule == "uniform":
        return uniform
    if rule == "released":
        return torch.where(losses.any(), torch.softmax(losses.log() + eta * losses, dim=0), uniform)
    if rule == "algorithm1":
        losses = losses / losses.sum().clamp(min=torch.finfo(losses.dtype).tiny)
    return torch.softmax(weights.log() + eta * losses, dim=0)


def _lengths(like: Tensor) -> Tensor:
    """(T,) 1..T, of the same kind."""
    return torch.arange(1, like.shape[-1] + 1, dtype=like.dtype, device=like.device)


@objectives.register("apao")
@dataclass(frozen=True)
class Apao(Objective):
    """The weighed sum of APAO's prefix losses, without cross-entropy. arXiv 2603.02730, Eq. 10.

    The paper's objective (Eq. 11, 18, 19) is a sum of two, with its beta as a weight:
    `objective = [{ name = "cross_entropy" }, { name = "apao", weight = beta }]`. Weights are moved before they are used
    (Algorithm 1, lines 13-14), by the mean losses of the batch; a level counts in its mean where a row has a token.
    Differs from the paper: none at the defaults, which follow its equations. The preset "algorithm1" follows its
    pseudo-code, "released" its code, whose scripts moreover leave eta at 0.
    """

    group = "prefix-aware losses"

    form: str = setting("pointwise", "loss of a prefix: its own likelihood (Eq. 12) or against negatives (Eq. 14)",
                        choices=("pointwise", "pairwise"))
    eta: float = setting(1e-4, "step size of the weights (eta, Eq. 17; Table 5: 5e-6 to 5e-4)", low=0.0)
    # Eq. 17 puts the losses themselves into the exponent, Algorithm 1 their shares; both carry the weights on. The
    # code makes them anew at each step from the shares, so that eta hardly matters there. hard_max is what Eq. 15
    # asks for before Eq. 16 softens it; static is ours: it tells whether moving the weights matters.
    weights: str = setting("eq17", "rule of the weights: eq17, algorithm1 and released as those say, uniform = 1/T, "
                                   "hard_max = only the prefix with the largest loss, static = static_weights",
                           choices=(*RULES, "hard_max", "static"))
    static_weights: tuple[float, ...] = setting((), "one weight a level, used as they are (weights = static)", low=0.0)
    # Algorithm 1 (line 33) and the code divide, Eq. 14 and 24 do not; it decides which prefix has the largest loss.
    divide_by_length: bool = setting(False, "pairwise: divide the loss of prefix m by m")
    # In the code alone. The +1 is the target, counted among the valid candidates.
    negative_scale: bool = setting(False, "pairwise: multiply the negatives' probability by (P_m - 1) / (k_m + 1), "
                                          "P_m distinct prefixes of the catalogue, k_m negatives that count")
    # Fig. 2 leaves out one prefix and does not say what becomes of its weight.
    drop_prefix: int = setting(0, "length of the prefix whose loss is left out, 0 = none (Fig. 2)", low=0)
    renormalise: bool = setting(True, "with drop_prefix: the other weights are scaled to sum to 1")
    num_negatives: int = setting(100, "pairwise: negatives a row (N)", low=1)
    # "Each mini-batch" (Algorithm 1, line 4) may be a pass, as in the code, or a step of several accumulated ones.
    update: str = setting("forward", "when weights move: in every training pass, or in the last one of each optimiser "
                                     "step", choices=("forward", "step"))
    # Algorithm 1 has the epsilon but not the rest.
    released_numerics: bool = setting(False, "pairwise: probabilities instead of log-probabilities, with 1e-12 in the "
                                             "denominator and infinite losses read as 0, as the code")

    @property
    def needs(self) -> frozenset[str]:
        """Negatives for the pairwise form, nothing for the other."""
        return frozenset({"negatives"}) if self.form == "pairwise" else frozenset()

    @property
    def couples_rows(self) -> bool:
        """Weights follow the batch's mean losses, and the code's numerics drop a level for the whole batch."""
        return self.weights not in ("uniform", "static") or self.released_numerics

    def check(self) -> None:
        """Refuse static weights without that rule, and the rule without them. Raises: UserError."""
        if (self.weights == "static") != bool(self.static_weights):
            raise UserError(f"objective apao: weights = {self.weights} and static_weights = "
                            f"{list(self.static_weights)} do not fit; give static_weights with weights = static only.")

    def check_depth(self, depth: int) -> None:
        """Refuse settings that name other levels. Raises: DoesNotFit."""
        if self.drop_prefix > depth:
            raise DoesNotFit(f"objective apao: drop_prefix = {self.drop_prefix} is too large; semantic IDs have "
                             f"{depth} levels, so allowed are 0 to {depth}.")
        if self.weights == "static" and len(self.static_weights) != depth:
            raise DoesNotFit(f"objective apao: static_weights has {len(self.static_weights)} values; semantic IDs have "
                             f"{depth} levels, so it must have {depth}.")

    def initial_state(self, depth: int) -> dict[str, Tensor]:
        """`weights`: (T,) float64, 1/T or the static ones."""
        weights = self.static_weights if self.weights == "static" else [1.0 / depth] * depth
        return {"weights": torch.tensor(weights, dtype=torch.float64)}

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        losses = self._prefix_losses(inputs)
        before = inputs.state["weights"]
        means = losses.detach().to(before.dtype).sum(dim=0) / inputs.is_token.sum(dim=0).clamp(min=1)
        moves = self.update == "forward" or inputs.closes_step
        weights = inputs.state["weights"] = self._moved(before, means) if moves else before
        return (losses * self._used(weights).to(losses.dtype)).sum(dim=1)

    def _prefix_losses(self, inputs: ObjectiveInputs) -> Tensor:
        """(B, T), 0 where the target has no token."""
        if self.form == "pointwise":
            return apao_pointwise_losses(inputs.target_token_logps, inputs.is_token)
        keep, scale = inputs.keep, None
        if self.negative_scale:
            scale = (inputs.catalogue.num_prefixes - 1) / (keep.sum(dim=1, dtype=torch.float64) + 1)
        compute = released_pairwise_losses if self.released_numerics else apao_pairwise_losses
        losses = compute(inputs.target_token_logps, inputs.negative_token_logps, keep,
                         divide_by_length=self.divide_by_length, scale=scale)
        return losses.masked_fill(~inputs.is_token, 0.0)

    def _moved(self, weights: Tensor, means: Tensor) -> Tensor:
        """The weights after a batch with these mean losses."""
        if self.weights == "static":
            return weights
        if self.weights == "hard_max":
            worst = (means * self._kept(means)).argmax()
            return F.one_hot(worst, len(means)).to(weights.dtype)
        return prefix_weights(weights, means, eta=self.eta, rule=self.weights)

    def _used(self, weights: Tensor) -> Tensor:
        """The weights as they enter the loss."""
        if not self.drop_prefix:
            return weights
        rest = weights * self._kept(weights)
        return rest / rest.sum().clamp(min=torch.finfo(rest.dtype).tiny) if self.renormalise else rest

    def _kept(self, like: Tensor) -> Tensor:
        """(T,) 1 for the levels whose loss counts, 0 for the dropped one."""
        return (_lengths(like) != self.drop_prefix).to(like.dtype)
