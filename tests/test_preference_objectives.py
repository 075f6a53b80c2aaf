"""DPO, DMPO and S-DPO: by hand, against naive loops and at their limits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.suite_files import load_presets
from genrec_bench.objectives.base import ObjectiveInputs
from genrec_bench.objectives.cross_entropy import CrossEntropy
from genrec_bench.objectives.dmpo import Dmpo, dmpo_loss
from genrec_bench.objectives.dpo import Dpo, PreferenceObjective, dpo_loss
from genrec_bench.objectives.s_dpo import SDpo, s_dpo_loss
from tests import card

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

NEGATIVES = [2, 3, 5]  # the card's; its target is i0
MULTIPLE = [dmpo_loss, s_dpo_loss]
CLASSES = [Dpo, Dmpo, SDpo]


def card_scores(negatives: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores of i0 and of some negatives, then of the reference: (1,), (1, N), (1,), (1, N)."""
    logps, reference = card.token_logps().sum(dim=1), card.reference_logps()
    return logps[:1], logps[None, negatives], reference[:1], reference[None, negatives]


def random_scores(seed: int, users: int = 4, count: int = 5, scale: float = 3.0) -> list[Tensor]:
    """Log-probabilities of targets and negatives with gradients, then of a reference without."""
    random = np.random.default_rng(seed)
    scores = [torch.from_numpy(-scale * random.exponential(size=shape)) for shape in ((users,), (users, count)) * 2]
    return [scores[0].requires_grad_(), scores[1].requires_grad_(), *scores[2:]]


def log1p_exp(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def naive(name: str, gain: float, gains: list[float], beta: float) -> float:
    """A row's loss from the target's gain over the reference and its negatives'."""
    if not gains:
        return 0.0
    if name == "pairs":
        return sum(log1p_exp(beta * (g - gain)) for g in gains) / len(gains)
    if name == "dmpo":
        return log1p_exp(beta * (sum(gains) / len(gains) - gain))
    return math.log(1 + sum(math.exp(beta * (g - gain)) for g in gains))


def gains_of(scores: list[Tensor]) -> list[tuple[float, list[float]]]:
    target, negatives, reference, reference_negatives = (s.tolist() for s in scores)
    return [(target[b] - reference[b], [n - r for n, r in zip(negatives[b], reference_negatives[b], strict=True)])
            for b in range(len(target))]


def test_gains_over_the_reference_on_the_card() -> None:
    gains = card.token_logps().sum(dim=1) - card.reference_logps()
    assert gains.tolist() == pytest.approx([0.1429589471, 1.0429589471, 1.6110258892, 1.2114871272, 1.9748128237,
                                            2.0688684138], abs=1e-9)


@pytest.mark.parametrize(("beta", "expected"), [(0.5, 1.1260547065), (1.0, 1.6753821835), (2.0, 2.9878440757)])
def test_dpo_on_the_card(beta: float, expected: float) -> None:
    target, negatives, reference, reference_negatives = card_scores([2])
    loss = dpo_loss(target, negatives[:, 0], reference, reference_negatives[:, 0], beta=beta)
    assert loss.tolist() == pytest.approx([expected], abs=1e-9)
    assert Dpo(beta=beta).loss(card.inputs([0], [[2]])).tolist() == pytest.approx([expected], abs=1e-9)


@pytest.mark.parametrize(("beta", "expected"), [(0.5, 1.1326309166), (1.0, 1.6912065277), (2.0, 3.0247901339)])
def test_dmpo_on_the_card(beta: float, expected: float) -> None:
    assert dmpo_loss(*card_scores(NEGATIVES), beta=beta).tolist() == pytest.approx([expected], abs=1e-9)
    assert Dmpo(beta=beta).loss(card.inputs([0], [NEGATIVES])).tolist() == pytest.approx([expected], abs=1e-9)


def test_the_mean_of_pair_losses_and_the_released_dmpo_on_the_card() -> None:
    inputs = card.inputs([0], [NEGATIVES])
    assert float(Dpo(num_negatives=3).loss(inputs)) == pytest.approx(1.7003872225, abs=1e-9)
    released = settings.build(Dmpo, load_presets("dmpo")["released"], "objective dmpo")
    assert float(released.loss(card.inputs([0], [[2]]))) == pytest.approx(2.0116666239, abs=1e-9)
    free = ObjectiveInputs.from_logits(card.catalogue(), inputs.target_ids, inputs.logits, inputs.negative_ids,
                                       inputs.negative_logits)
    expected = Dpo(num_negatives=3, reference="none").loss(free)
    torch.testing.assert_close(released.loss(free), expected, atol=0, rtol=0)


@pytest.mark.parametrize(("beta", "expected"), [(0.5, 2.0027068441), (1.0, 2.7155760582), (2.0, 4.3227532955),
                                                (0.0, 1.3862943611)])
def test_s_dpo_on_the_card(beta: float, expected: float) -> None:
    assert s_dpo_loss(*card_scores(NEGATIVES), beta=beta).tolist() == pytest.approx([expected], abs=1e-9)
    assert SDpo(beta=beta).loss(card.inputs([0], [NEGATIVES])).tolist() == pytest.approx([expected], abs=1e-9)


def test_s_dpo_without_reference_and_beside_cross_entropy_on_the_card() -> None:
    """Reference-free over i2, i3, i5 and i1 it is APAO's Eq. 14 at the last level; one stage is CE + 0.1 S-DPO."""
    for negatives, expected in ((NEGATIVES, 2.3063047942), ([*NEGATIVES, 1], 2.4448734913)):
        inputs = card.inputs([0], [negatives], reference_target_token_logps=None,
                             reference_negative_token_logps=None)
        assert float(SDpo(reference="none").loss(inputs)) == pytest.approx(expected, abs=1e-9)
    inputs = card.inputs([0], [NEGATIVES])
    total = CrossEntropy().loss(inputs) + 0.1 * SDpo().loss(inputs)
    assert total.tolist() == pytest.approx([1.7572379568], abs=1e-9)


def test_the_gradient_of_s_dpo_is_a_softmax() -> None:
    """On the card's negatives beta p_j, on its target -beta (1 - p); the p as printed, and on random scores."""
    target, negatives, *reference = card_scores(NEGATIVES)
    scores = target.requires_grad_(), negatives.requires_grad_()
    gradients = torch.autograd.grad(s_dpo_loss(*scores, *reference, beta=1.0).sum(), scores)
    assert gradients[1].tolist() == [pytest.approx([0.2872193366, 0.1926177011, 0.4539961362], abs=1e-9)]
    assert gradients[0].tolist() == pytest.approx([0.0661668261 - 1], abs=1e-9)
    target, negatives, *reference = random_scores(0)
    gains = torch.cat([(target - reference[0])[:, None], negatives - reference[1]], dim=1)
    p = (1.7 * gains).softmax(dim=1).detach()
    gradients = torch.autograd.grad(s_dpo_loss(target, negatives, *reference, beta=1.7).sum(), (target, negatives))
    torch.testing.assert_close(gradients[0], -1.7 * (1 - p[:, 0]), atol=1e-12, rtol=0)
    torch.testing.assert_close(gradients[1], 1.7 * p[:, 1:], atol=1e-12, rtol=0)


def test_the_gradient_of_dpo() -> None:
    """-beta sigmoid(-beta margin) on the target, the opposite on the negative; of DMPO a K-th on each negative."""
    target, negatives, reference, reference_negatives = random_scores(1)
    one = negatives[:, 0]
    margin = (target - reference - one + reference_negatives[:, 0]).detach()
    loss = dpo_loss(target, one, reference, reference_negatives[:, 0], beta=0.8)
    gradients = torch.autograd.grad(loss.sum(), (target, one))
    torch.testing.assert_close(gradients[0], -0.8 * torch.sigmoid(-0.8 * margin), atol=1e-14, rtol=0)
    torch.testing.assert_close(gradients[1], -gradients[0], atol=1e-14, rtol=0)
    loss = dmpo_loss(target, negatives, reference, reference_negatives, beta=0.8)
    gradients = torch.autograd.grad(loss.sum(), (target, negatives))
    torch.testing.assert_close(gradients[1], (-gradients[0] / 5)[:, None].expand(4, 5), atol=1e-14, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_pure_functions_equal_naive_loops(seed: int) -> None:
    users, count, beta = 1 + seed, 1 + 2 * seed, 0.3 + 0.4 * seed
    scores = random_scores(seed, users, count)
    keep = torch.from_numpy(np.random.default_rng(seed).random((users, count)) < 0.6)
    for name, loss in (("dmpo", dmpo_loss), ("s_dpo", s_dpo_loss)):
        expected = [naive(name, gain, gains, beta) for gain, gains in gains_of(scores)]
        assert loss(*scores, beta=beta).tolist() == pytest.approx(expected, abs=1e-10)
        kept = [naive(name, gain, [g for g, k in zip(gains, row, strict=True) if k], beta)
                for (gain, gains), row in zip(gains_of(scores), keep.tolist(), strict=True)]
        assert loss(*scores, beta=beta, keep=keep).tolist() == pytest.approx(kept, abs=1e-10)
    pair = dpo_loss(scores[0], scores[1][:, 0], scores[2], scores[3][:, 0], beta=beta)
    expected = [naive("pairs", gain, gains[:1], beta) for gain, gains in gains_of(scores)]
    assert pair.tolist() == pytest.approx(expected, abs=1e-12)


def test_one_negative_makes_all_of_them_dpo() -> None:
    scores = random_scores(2, users=6, count=1)
    expected = dpo_loss(*(s.flatten() for s in scores), beta=1.3)
    for loss in MULTIPLE:
        torch.testing.assert_close(loss(*scores, beta=1.3), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize(("loss", "expected"), [(dmpo_loss, math.log(2)), (s_dpo_loss, math.log(6))])
def test_no_gain_and_no_beta(loss: Callable[..., Tensor], expected: float) -> None:
    """The policy is the reference, or beta is 0, where there is no gradient either: log 2, or log(1 + N)."""
    target, negatives, *reference = random_scores(3)
    assert loss(target, negatives, target, negatives, beta=1.4).tolist() == pytest.approx([expected] * 4, abs=1e-14)
    losses = loss(target, negatives, *reference, beta=0.0)
    assert losses.tolist() == pytest.approx([expected] * 4, abs=1e-14)
    assert not any(g.any() for g in torch.autograd.grad(losses.sum(), (target, negatives)))
    one = negatives[:, 0]
    assert dpo_loss(target, one, target, one, beta=3).tolist() == pytest.approx([math.log(2)] * 4, abs=1e-15)
    assert dpo_loss(target, one, *reference[:1], one, beta=0).tolist() == pytest.approx([math.log(2)] * 4, abs=1e-15)


@pytest.mark.parametrize("loss", MULTIPLE)
def test_a_constant_of_the_reference_and_the_order_of_negatives_change_nothing(loss: Callable[..., Tensor]) -> None:
    target, negatives, reference, reference_negatives = random_scores(4)
    plain, order = loss(target, negatives, reference, reference_negatives, beta=0.9), [3, 0, 4, 2, 1]
    for other in (loss(target, negatives, reference + 7, reference_negatives + 7, beta=0.9),
                  loss(target, negatives[:, order], reference, reference_negatives[:, order], beta=0.9)):
        torch.testing.assert_close(other, plain, atol=1e-12, rtol=0)


def test_dmpo_is_at_most_the_mean_of_the_pair_losses() -> None:
    """Jensen, softplus being convex; equal where all negatives gain alike."""
    target, negatives, reference, reference_negatives = random_scores(5, users=50, count=7)
    pairs = dpo_loss(target[:, None], negatives, reference[:, None], reference_negatives, beta=1.1).mean(dim=1)
    assert (dmpo_loss(target, negatives, reference, reference_negatives, beta=1.1) < pairs).all()
    same = negatives[:, :1].expand(-1, 7)
    alike = dmpo_loss(target, same, reference, torch.zeros_like(same), beta=1.1)
    torch.testing.assert_close(alike, dpo_loss(target, same[:, 0], reference, torch.zeros(50), beta=1.1))


def test_a_duplicate_adds_mass_to_s_dpo() -> None:
    """With the second negative twice: log(1 + a + 2 b + c)."""
    once, twice = s_dpo_loss(*card_scores([2, 3, 5]), beta=1.0), s_dpo_loss(*card_scores([2, 3, 5, 3]), beta=1.0)
    assert float(twice) == pytest.approx(float(once) + math.log1p(0.1926177011), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("loss", MULTIPLE)
def test_type_and_inputs_are_kept(loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    scores = [s.detach().to(dtype) for s in random_scores(6)]
    before = [s.clone() for s in scores]
    assert loss(*scores, beta=0.5).dtype == loss(*scores, beta=0.5, keep=scores[1] < 1).dtype == dtype
    assert dpo_loss(scores[0], scores[1][:, 0], scores[2], scores[3][:, 0], beta=0.5).dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(scores, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("depth", [300.0, 3e4])
@pytest.mark.parametrize("loss", [dpo_loss, *MULTIPLE])
def test_unlikely_items_stay_finite(loss: Callable[..., Tensor], dtype: torch.dtype, depth: float) -> None:
    """A target at -300, then negatives at -300, then both; the exponentials of either overflow or underflow."""
    shape = (3,) if loss is dpo_loss else (3, 1)
    target = torch.tensor([-depth, -1, -depth], dtype=dtype).requires_grad_()
    negatives = torch.tensor([-1, -depth, -depth], dtype=dtype).view(shape).requires_grad_()
    losses = loss(target, negatives, torch.zeros(3, dtype=dtype), torch.zeros(shape, dtype=dtype), beta=2.0)
    assert losses.tolist() == pytest.approx([2 * (depth - 1), 0, math.log(2)])
    for gradient, expected in zip(torch.autograd.grad(losses.sum(), (target, negatives)),
                                  ([-2, 0, -1], [2, 0, 1]), strict=True):
        assert gradient.flatten().tolist() == pytest.approx(expected)


def test_small_losses_keep_their_digits() -> None:
    """exp(-40) at a margin of 40, where 1 + exp(-40) is 1 in float64."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.tensor([-40.0], dtype=torch.float64)
    for value in (dpo_loss(zero, one, zero, zero, beta=1), *(f(zero, one[None], zero, zero[None], beta=1)
                                                            for f in MULTIPLE)):
        assert float(value) == pytest.approx(math.exp(-40), rel=1e-12)


@pytest.mark.parametrize("loss", MULTIPLE)
@pytest.mark.parametrize("wild", [0.0, math.nan, math.inf, -math.inf])
def test_masked_negatives_have_no_weight_and_no_gradient(loss: Callable[..., Tensor], wild: float) -> None:
    """Row 0 keeps all, row 1 the first two, row 2 none: loss 0 and no gradient at all."""
    scores = random_scores(7, users=3, count=4)
    keep = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    target = scores[0].detach().requires_grad_()
    negatives = scores[1].detach().masked_fill(~keep, wild).requires_grad_()
    losses = loss(target, negatives, scores[2], scores[3].masked_fill(~keep, wild), beta=1.2, keep=keep)
    expected = [loss(*(s[:1] for s in scores), beta=1.2),
                loss(scores[0][1:2], scores[1][1:2, :2], scores[2][1:2], scores[3][1:2, :2], beta=1.2)]
    assert losses.tolist() == pytest.approx([*(e.item() for e in expected), 0.0], abs=1e-12)
    gradients = torch.autograd.grad(losses.sum(), (target, negatives))
    assert all(torch.isfinite(g).all() for g in gradients) and gradients[0][:2].all() and gradients[0][2] == 0
    assert not gradients[1][~keep].any() and gradients[1][keep].all()


def naive_objective(objective: PreferenceObjective, inputs: ObjectiveInputs, row: int) -> float:
    """A row's loss from token log-probabilities, with loops."""
    free = objective.reference == "none" or getattr(objective, "form", "") == "released"
    ids = inputs.negative_ids[row].tolist()

    def gain(own: Tensor, reference: Tensor) -> float:
        return sum(own.tolist()) - (0.0 if free else sum(reference.tolist()))

    gains = []
    for n, number in enumerate(ids):
        duplicate = getattr(objective, "mask_duplicates", False) and number in ids[:n]
        if number != int(inputs.target_ids[row]) and not duplicate:
            gains.append(gain(inputs.negative_token_logps[row, n], inputs.reference_negative_token_logps[row, n]))
    pairs = isinstance(objective, Dpo) or getattr(objective, "form", "") == "released"
    name = "pairs" if pairs else "dmpo" if isinstance(objective, Dmpo) else "s_dpo"
    own = gain(inputs.target_token_logps[row], inputs.reference_target_token_logps[row])
    return naive(name, own, gains, objective.beta)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("objective", [
    Dpo(), Dpo(beta=0.4, num_negatives=9), Dpo(num_negatives=4, reference="none"), Dmpo(),
    Dmpo(num_negatives=5, beta=2.0), Dmpo(form="released"), Dmpo(reference="none"), SDpo(),
    SDpo(mask_duplicates=True), SDpo(beta=0.5, num_negatives=7),
    SDpo(num_negatives=12, mask_duplicates=True, reference="none"), SDpo(reference="first_stage")], ids=repr)
def test_objectives_equal_naive_loops_on_ragged_items(objective: PreferenceObjective, seed: int) -> None:
    """Among 25 sampled IDs some are the target and some are duplicates; those beyond its number have no gradient."""
    whole = card.random_inputs(seed, users=6, negatives=25)
    whole.negative_ids[0, 0] = whole.target_ids[0]
    inputs = whole.of(objective)
    expected = [naive_objective(objective, inputs, row) for row in range(6)]
    losses = objective.loss(inputs)
    assert losses.shape == (6,) and losses.tolist() == pytest.approx(expected, abs=1e-10)
    gradients = torch.autograd.grad(losses.sum(), (inputs.logits, inputs.node_logits))
    assert all(torch.isfinite(g).all() for g in gradients)
    assert not gradients[0][~inputs.is_token].any()
    unused = whole.negative_nodes[:, objective.num_negatives:].flatten(1)
    assert not gradients[1].gather(1, unused[:, :, None].expand(-1, -1, 8)).any()


@pytest.mark.parametrize("objective", [Dpo(), Dpo(num_negatives=3), Dmpo(), Dmpo(form="released"), SDpo()], ids=repr)
def test_a_row_whose_negatives_are_all_the_target_costs_nothing(objective: PreferenceObjective) -> None:
    inputs = card.random_inputs(0, users=2, negatives=3)
    inputs.negative_ids[0], inputs.negative_ids[1] = inputs.target_ids[0], (inputs.target_ids[1] + 1) % 3
    losses = objective.loss(inputs)
    assert losses[0] == 0 and losses[1] > 0
    for gradient in torch.autograd.grad(losses.sum(), (inputs.logits, inputs.node_logits)):
        assert not gradient[0].any() and gradient[1].any()


@pytest.mark.parametrize("cls", CLASSES)
def test_settings_and_needs(cls: type[PreferenceObjective]) -> None:
    assert cls().num_negatives == (1 if cls is Dpo else 100) and cls().beta == 1
    assert cls().needs == cls(reference="first_stage").needs == {"negatives", "reference"}
    assert cls(reference="none").needs == {"negatives"} == Dmpo(form="released").needs
    for values, message in (({"reference": "intial"}, "Did you mean 'initial'"), ({"beta": -1.0}, "beta must be"),
                            ({"num_negatives": 0}, "num_negatives must be")):
        with pytest.raises(UserError, match=message):
            settings.build(cls, values, f"objective {cls.name}")
