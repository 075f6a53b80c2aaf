"""BEAR and its straightforward objective: the card's numbers, naive loops and limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genrec_bench.core.errors import UserError
from genrec_bench.objectives.base import ObjectiveInputs
from genrec_bench.objectives.bear import Bear, bear_regulariser, bear_released_loss
from genrec_bench.objectives.bear_beam import BearBeam, beam_retention_regulariser
from tests import card

torch.set_num_threads(1)

FLAT, TRIE = 4.4570410529, 3.0969917887  # summed cross-entropy of i0
REGULARISER = [-2.3603713453, -3.8246947766, -2.2406496056, -2.3827874731]  # flat, B = 2, of i0, i2, i3, i5
THRESHOLDS = [-1.5059501777, -2.6286883870, -4.1885128728]


def near(value: torch.Tensor, expected: object, error: float = 1e-9) -> bool:
    expected = expected.detach() if isinstance(expected, torch.Tensor) else expected
    return value.detach().flatten().tolist() == pytest.approx(np.ravel(expected).tolist(), rel=0, abs=error)


def sft(logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Summed cross-entropy, (B,)."""
    scores = logits if valid is None else logits.masked_fill(~valid, -math.inf)
    return -F.log_softmax(scores, dim=2).gather(2, targets[:, :, None]).sum((1, 2))


def random_batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits with gradient, targets and valid tokens (the target's always among them) of a random shape."""
    random = np.random.default_rng(seed)
    users, depth, vocab = (int(n) for n in random.integers((2, 1, 5), (6, 5, 12)))
    targets = torch.from_numpy(random.integers(vocab, size=(users, depth)))
    valid = torch.from_numpy(random.random((users, depth, vocab)) < 0.5).scatter(2, targets[:, :, None], True)
    return torch.from_numpy(3 * random.normal(size=(users, depth, vocab))).requires_grad_(), targets, valid


def naive_margins(logits: list[float], target: int, valid: list[bool], num_beams: int, few: str) -> float | None:
    """log beta_t - log P(y_t) of one step by sorting, None where it does not count."""
    total = math.log(sum(math.exp(z) for z, v in zip(logits, valid, strict=True) if v))
    ordered = sorted((z - total for z, v in zip(logits, valid, strict=True) if v), reverse=True)
    if len(ordered) < num_beams and few == "skip":
        return None
    return ordered[min(num_beams, len(ordered)) - 1] - (logits[target] - total)


def test_regulariser_on_the_card() -> None:
    """i0, flat, B = 2: margins -0.5, 0, 0, so log sigmoid(-0.5) - 2 log 2 = -2.3603713453."""
    logits, targets = card.logits(), card.tokens()
    values = bear_regulariser(logits, targets, num_beams=2, xi=1.0)
    assert values.shape == (6,) and values.dtype == torch.float64
    assert near(values[[0, 2, 3, 5]], REGULARISER)
    assert float(values[0]) == pytest.approx(-math.log1p(math.exp(0.5)) - 2 * math.log(2), abs=1e-12)
    trie = bear_regulariser(logits, targets, num_beams=2, xi=1.0, valid=card.valid())
    assert near(trie[:1], REGULARISER[:1])
    assert near((sft(logits, targets) + 0.5 * values)[:1], [3.2768553802])
    assert near((sft(logits, targets, card.valid()) + 0.5 * trie)[:1], [1.9168061160])


@pytest.mark.parametrize(("few", "expected"), [("skip", -1.1711006659), ("min", -2.5573950271)])
def test_fewer_children_than_beams_on_the_card(few: str, expected: float) -> None:
    """B = 3; i0's nodes have 3, 2 and 2 children: `skip` counts the first alone, `min` -0.5..., 0, 0."""
    values = bear_regulariser(card.logits(), card.tokens(), num_beams=3, xi=1.0, valid=card.valid(), few_children=few)
    assert near(values[:1], [expected])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("few", ["skip", "min"])
def test_regulariser_equals_a_naive_loop(seed: int, few: str) -> None:
    logits, targets, valid = random_batch(seed)
    everything = torch.ones_like(valid)
    for num_beams in (1, 2, 3, 20):
        for mask, given in ((valid, valid), (everything, None)):
            for direction in ("log_sigmoid", "softplus"):
                values = bear_regulariser(logits, targets, num_beams=num_beams, xi=0.7, valid=given, few_children=few,
                                          direction=direction)
                steps = zip(logits.flatten(0, 1).tolist(), targets.flatten().tolist(), mask.flatten(0, 1).tolist(),
                            strict=True)
                margins = [naive_margins(*step, num_beams, few) for step in steps]
                added = [0.0 if d is None else -math.log1p(math.exp(-d / 0.7)) if direction == "log_sigmoid"
                         else math.log1p(math.exp(d / 0.7)) for d in margins]
                assert near(values, np.reshape(added, targets.shape).sum(1), 1e-10)


def test_one_beam_and_the_best_token_is_margin_0() -> None:
    logits, _, _ = random_batch(1)
    best = logits.argmax(dim=2)
    assert near(bear_regulariser(logits, best, num_beams=1, xi=0.3), [-best.shape[1] * math.log(2)] * len(best), 1e-12)


def test_more_beams_than_children_adds_nothing() -> None:
    logits, targets, valid = random_batch(2)
    for given in (valid, None):
        values = bear_regulariser(logits, targets, num_beams=50, xi=1.0, valid=given)
        assert not values.any() and not torch.autograd.grad(values.sum(), logits)[0].any()


def test_a_forced_token_has_no_gradient() -> None:
    logits, targets, _ = random_batch(3)
    valid = torch.zeros_like(logits, dtype=torch.bool).scatter(2, targets[:, :, None], True)
    for few, num_beams in (("skip", 2), ("min", 2), ("skip", 1)):
        values = bear_regulariser(logits, targets, num_beams=num_beams, xi=1.0, valid=valid, few_children=few)
        assert not torch.autograd.grad(values.sum(), logits)[0].any()
    losses = bear_released_loss(logits, targets, valid, num_beams=2, xi=1.0, weight=0.5, tau=1.0)
    assert not losses.any() and not torch.autograd.grad(losses.sum(), logits)[0].any()


def test_a_step_without_valid_token_adds_nothing_whatever_its_logits() -> None:
    logits, targets, valid = random_batch(4)
    wild, ended = logits.detach().clone(), valid.clone()
    wild[0], ended[0] = math.nan, False
    wild[1:].masked_fill_(~valid[1:], math.nan)
    wild.requires_grad_()
    for compute in (lambda z, v: bear_regulariser(z, targets, num_beams=2, xi=1.0, valid=v, few_children="min"),
                    lambda z, v: bear_regulariser(z, targets, num_beams=1, xi=1.0, valid=v, detach_threshold=False)):
        values = compute(wild, ended)
        assert values[0] == 0 and torch.equal(values[1:], compute(logits, valid)[1:])
        gradient = torch.autograd.grad(values.sum(), wild)[0]
        assert torch.isfinite(gradient).all() and not gradient[~ended].any()


def test_without_detaching_the_normaliser_cancels() -> None:
    """The gradient is sigmoid(-margin / xi) / xi * (e_B - e_y): 0 where the target is the B-th token itself."""
    logits, targets, _ = random_batch(5)
    values = bear_regulariser(logits, targets, num_beams=2, xi=0.6, detach_threshold=False)
    gradient = torch.autograd.grad(values.sum(), logits)[0]
    second = logits.detach().topk(2, dim=2).indices[:, :, 1]
    margins = logits.detach().gather(2, second[:, :, None]) - logits.detach().gather(2, targets[:, :, None])
    hot = F.one_hot(second, logits.shape[2]) - F.one_hot(targets, logits.shape[2])
    assert near(gradient, torch.sigmoid(-margins / 0.6) / 0.6 * hot, 1e-12)
    assert hot.abs().sum(2).eq(0).any()


def test_a_detached_threshold_is_a_log_probability() -> None:
    """grad(SFT + lambda reg) = sum over t of (1 + lambda / xi * sigmoid(-margin_t / xi)) grad(-log P(y_t))."""
    for seed in range(4):
        logits, targets, valid = random_batch(seed)
        xi, scale = 0.8, 0.45
        whole = sft(logits, targets, valid) + scale * bear_regulariser(logits, targets, num_beams=2, xi=xi, valid=valid)
        logps = F.log_softmax(logits.masked_fill(~valid, -math.inf), dim=2)
        own = logps.gather(2, targets[:, :, None])[:, :, 0]
        second = logps.detach().topk(2, dim=2).values[:, :, 1]
        weights = 1 + scale / xi * torch.sigmoid((own.detach() - second) / xi) * (valid.sum(2) >= 2)
        expected = torch.autograd.grad(-(weights * own).sum(), logits)[0]
        assert near(torch.autograd.grad(whole.sum(), logits)[0], expected, 1e-12)


def test_the_released_loss_is_the_additive_one_normalised() -> None:
    """With w = lambda / xi and no skipped step, its gradient is the additive form's over the sum of the weights."""
    logits, targets, valid = random_batch(0)
    valid, xi, w = torch.ones_like(valid), 0.8, 0.45
    released = bear_released_loss(logits, targets, valid, num_beams=2, xi=xi, weight=w, tau=1.0).mean()
    additive = sft(logits, targets) + xi * w * bear_regulariser(logits, targets, num_beams=2, xi=xi)
    logps = F.log_softmax(logits.detach(), dim=2)
    lead = logps.gather(2, targets[:, :, None])[:, :, 0] - logps.topk(2, dim=2).values[:, :, 1]
    total = (1 + w * torch.sigmoid(lead / xi)).sum()
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (released, additive.sum() / total)]
    assert near(gradients[0], gradients[1], 1e-12)


def test_a_large_xi_is_more_cross_entropy() -> None:
    """Weights become constant: the gradient is (1 + lambda / (2 xi)) that of the sum."""
    logits, targets, _ = random_batch(1)
    xi, scale = 1e9, 4e8
    whole = sft(logits, targets) + scale * bear_regulariser(logits, targets, num_beams=2, xi=xi)
    plain = torch.autograd.grad(sft(logits, targets).sum(), logits)[0]
    assert near(torch.autograd.grad(whole.sum(), logits)[0], 1.2 * plain, 1e-8)


@pytest.mark.parametrize(("weight", "expected"), [(0.5, 1.0313646594), (0.0, 1.0344082204)])
def test_released_loss_on_the_card(weight: float, expected: float) -> None:
    """i0 and i4, B = 2: weights 1.3112296656 and four times 1.25; i4's last token is forced."""
    batch = card.logits()[[0, 4]], card.tokens()[[0, 4]], card.valid()[[0, 4]]
    losses = bear_released_loss(*batch, num_beams=2, xi=1.0, weight=weight, tau=1.0)
    assert losses.shape == (2,) and float(losses.mean()) == pytest.approx(expected, abs=1e-9)
    costs = sft(*batch)
    if weight == 0.0:
        assert near(losses.mean(), costs.sum() / 5, 1e-12) and near(costs.sum() / 6, .8620068503)


@pytest.mark.parametrize("seed", range(4))
def test_released_loss_equals_a_naive_loop(seed: int) -> None:
    logits, targets, valid = random_batch(seed)
    num_beams, xi, weight, tau, costs, weights = 3, 0.9, 1.7, 2.0, [], []
    for row, target, mask in zip(logits.flatten(0, 1).tolist(), targets.flatten().tolist(),
                                 valid.flatten(0, 1).tolist(), strict=True):
        scaled = [z / tau for z in row]
        margin = naive_margins(scaled, target, mask, num_beams, "min")
        if sum(mask) > 1:
            mass = sum(math.exp(z) for z, v in zip(scaled, mask, strict=True) if v)
            costs.append(math.log(mass) - scaled[target])
            weights.append(1 + weight / (1 + math.exp(margin / xi)))
    losses = bear_released_loss(logits, targets, valid, num_beams=num_beams, xi=xi, weight=weight, tau=tau)
    assert float(losses.mean().detach()) == pytest.approx(np.average(costs, weights=weights), abs=1e-10)


def test_very_unlikely_tokens_stay_finite_with_gradients() -> None:
    for dtype in (torch.float32, torch.float64):
        logits = torch.zeros(1, 2, 5, dtype=dtype)
        logits[:, :, 1] = -300.0
        logits.requires_grad_()
        targets, valid = torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2, 5, dtype=torch.bool)
        for values in (bear_regulariser(logits, targets, num_beams=2, xi=0.25),
                       bear_regulariser(logits, targets, num_beams=2, xi=0.25, direction="softplus"),
                       bear_released_loss(logits, targets, valid, num_beams=5, xi=0.25, weight=1.0, tau=1.0)):
            assert values.dtype == dtype and torch.isfinite(values).all()
            assert torch.isfinite(torch.autograd.grad(values.sum(), logits)[0]).all()


def test_softplus_pushes_where_a_token_is_behind() -> None:
    """Shares of the largest push: 1 - sigmoid at margins -6, -1, 0, 1, 6 for log_sigmoid, sigmoid for softplus."""
    for direction, expected in (("log_sigmoid", [.99753, .73106, .5, .26894, .00247]),
                                ("softplus", [.00247, .26894, .5, .73106, .99753])):
        scores = torch.zeros(5, 1, dtype=torch.float64, requires_grad=True)
        thresholds = torch.tensor([[-6.0], [-1.0], [0.0], [1.0], [6.0]], dtype=torch.float64)
        values = beam_retention_regulariser(scores, thresholds, xi=1.0, direction=direction)
        assert near(-torch.autograd.grad(values.sum(), scores)[0], expected, 1e-5)


def test_unknown_choices_name_the_wrong_word() -> None:
    batch = card.logits(), card.tokens()
    with pytest.raises(UserError, match="skipp"):
        bear_regulariser(*batch, num_beams=2, xi=1.0, few_children="skipp")
    with pytest.raises(UserError, match="softplsu"):
        bear_regulariser(*batch, num_beams=2, xi=1.0, direction="softplsu")


@pytest.mark.parametrize("settings", [{}, {"vocabulary": "trie"}, {"vocabulary": "trie", "few_children": "min"},
                                      {"direction": "softplus", "detach_threshold": False}])
def test_class_is_the_regulariser_of_the_targets(settings: dict) -> None:
    """Shifted by two reserved tokens that nothing can reach, the card's numbers stay."""
    given = {k: v for k, v in settings.items() if k != "vocabulary"}
    raw = bear_regulariser(card.logits(), card.tokens(), num_beams=2, xi=0.5,
                           valid=card.valid() if "vocabulary" in settings else None, **given)
    losses = Bear(num_beams=2, xi=0.5, **settings).loss(card.inputs(range(6)))
    assert near(losses, raw, 1e-12)


def test_released_class_on_the_card() -> None:
    losses = Bear(form="released", num_beams=2, weight_released=0.5).loss(card.inputs([0, 4]))
    assert losses.shape == (2,) and float(losses.mean()) == pytest.approx(1.0313646594, abs=1e-9)


@pytest.mark.parametrize(("reduction", "total"), [("mean", 2.9434123614), ("sum", 5.7594563132)])
def test_bear_on_s_dpo_on_the_card(reduction: str, total: float) -> None:
    """S-DPO (beta 1, negatives i2, i3, i5) 2.7155760582 + 0.5 (reg of i0 - mean or sum of theirs)."""
    inputs = card.inputs([0], [[2, 3, 5]])
    objective = Bear(num_beams=2, on="target_minus_negatives", negatives_reduction=reduction)
    gain = card.token_logps().sum(1) - card.reference_logps()
    s_dpo = F.softplus((gain[[2, 3, 5]] - gain[0]).logsumexp(0))
    assert near(s_dpo + 0.5 * objective.loss(inputs), [total])
    own, others = REGULARISER[0], REGULARISER[1:]
    assert near(objective.loss(inputs), [own - sum(others) / (3 if reduction == "mean" else 1)])


def test_negatives_that_are_the_target_cancel_it() -> None:
    for settings in ({}, {"vocabulary": "trie"}):
        assert near(Bear(num_beams=2, on="target_minus_negatives", **settings).loss(card.inputs([0], [[0, 0]])), [0.0])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_shared_steps_can_be_left_out(reduction: str) -> None:
    """i1 shares two steps with i0, i2 one, i5 none; the rest of each is its own regulariser."""
    objective = Bear(num_beams=2, on="target_minus_negatives", negatives_reduction=reduction, mask_shared=True)
    logits, targets = card.logits(), card.tokens()
    rest = [float(bear_regulariser(logits[i:i + 1, m:], targets[i:i + 1, m:], num_beams=2, xi=1.0))
            for i, m in ((1, 2), (2, 1), (5, 0))]
    assert near(objective.loss(card.inputs([0], [[1, 2, 5]])),
                [REGULARISER[0] - sum(rest) / (3 if reduction == "mean" else 1)])


def with_thresholds(inputs: ObjectiveInputs) -> ObjectiveInputs:
    """The batch with made-up thresholds, some of them missing."""
    values = -torch.arange(inputs.targets.numel(), dtype=torch.float64).view(inputs.targets.shape) % 7
    inputs.beam_thresholds = values.masked_fill(values == -3, -math.inf)
    return inputs


@pytest.mark.parametrize("objective", [
    Bear(num_beams=2), Bear(num_beams=2, vocabulary="trie", few_children="min", detach_threshold=False),
    Bear(num_beams=2, on="target_minus_negatives", mask_shared=True),
    Bear(num_beams=2, on="target_minus_negatives", vocabulary="trie"), Bear(form="released", num_beams=2),
    BearBeam(), BearBeam(normaliser="trie", direction="softplus"),
], ids=repr)
def test_padding_adds_nothing(objective: Bear | BearBeam) -> None:
    """Whatever the logits at PAD, the same bits and no gradient there."""
    for seed in range(3):
        inputs, wild = with_thresholds(card.random_inputs(seed)), with_thresholds(card.random_inputs(seed))
        pads = (inputs.targets == 0)[..., None], (inputs.negatives.flatten(1) == 0)[..., None]
        wild.logits = torch.where(pads[0], 1e6, inputs.logits.detach()).requires_grad_()
        wild.node_logits = torch.where(pads[1], -1e6, inputs.node_logits.detach()).requires_grad_()
        losses = objective.loss(wild)
        assert losses.shape == (5,) and torch.equal(losses, objective.loss(inputs))
        leaves = [wild.logits, wild.node_logits]
        for gradient, pad in zip(torch.autograd.grad(losses.sum(), leaves, allow_unused=True), pads, strict=True):
            assert gradient is None or (torch.isfinite(gradient).all() and not (gradient * pad).any())


def beam_thresholds(num_beams: int, *, normaliser: str = "flat") -> list[float]:
    """The B-th best score of a beam search over the card's items at each length, -inf where fewer stand."""
    scores = card.logits()
    if normaliser == "trie":
        scores = scores.masked_fill(~card.valid(), -math.inf)
    logps = F.log_softmax(scores, 2).gather(2, card.tokens()[:, :, None])[:, :, 0].cumsum(1).tolist()
    beam, thresholds = {()}, []
    for m in range(1, 4):
        found = {item[:m]: row[m - 1] for item, row in zip(card.ITEMS, logps, strict=True) if item[:m - 1] in beam}
        kept = sorted(found, key=found.__getitem__, reverse=True)[:num_beams]
        thresholds.append(found[kept[-1]] if len(kept) == num_beams else -math.inf)
        beam = set(kept)
    return thresholds


def test_beam_objective_on_the_card() -> None:
    """i0, B = 2: margins -0.5, 0.3177059518, 0.2685281801."""
    thresholds = beam_thresholds(2)
    assert thresholds == pytest.approx(THRESHOLDS, abs=1e-9)
    scores = card.token_logps()[:1].cumsum(1)
    given = torch.tensor([thresholds], dtype=torch.float64)
    assert near(given - scores, [-.5, .3177059518, .2685281801])
    assert near(beam_retention_regulariser(scores, given, xi=1.0), [-2.0888051755])
    assert near(BearBeam(num_beams=2).loss(card.inputs([0], beam_thresholds=given)), [-2.0888051755])


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
def test_the_first_level_is_that_of_bear(normaliser: str) -> None:
    """One parent, all of whose children are items' tokens here: the B-th prefix is the B-th token."""
    valid = None if normaliser == "flat" else card.valid()[:, :1]
    first = bear_regulariser(card.logits()[:, :1], card.tokens()[:, :1], num_beams=2, xi=0.7, valid=valid)
    thresholds = torch.full((6, 3), -math.inf, dtype=torch.float64)
    thresholds[:, 0] = beam_thresholds(2, normaliser=normaliser)[0]
    objective = BearBeam(num_beams=2, xi=0.7, normaliser=normaliser)
    assert near(objective.loss(card.inputs(range(6), beam_thresholds=thresholds)), first, 1e-12)


@pytest.mark.parametrize("num_beams", [1, 2, 3, 4, 5])
def test_no_margin_is_positive_where_the_item_survives(num_beams: int) -> None:
    thresholds, scores = torch.tensor(beam_thresholds(num_beams), dtype=torch.float64), card.token_logps().cumsum(1)
    beam = {()}
    for m in range(1, 4):
        found = {item[:m]: float(row[m - 1]) for item, row in zip(card.ITEMS, scores, strict=True)
                 if item[:m - 1] in beam}
        beam = set(sorted(found, key=found.__getitem__, reverse=True)[:num_beams])
    survives = [item in beam for item in card.ITEMS]
    assert ((thresholds - scores) <= 0).all(1).tolist() == survives


def test_a_beam_of_everything_adds_nothing() -> None:
    assert beam_thresholds(7) == [-math.inf] * 3
    inputs = card.inputs([0, 4], beam_thresholds=torch.full((2, 3), -math.inf, dtype=torch.float64))
    inputs.logits.requires_grad_()
    losses = BearBeam(num_beams=7).loss(inputs)
    assert not losses.any() and not torch.autograd.grad(losses.sum(), inputs.logits)[0].any()


def test_beam_regulariser_equals_a_naive_loop_and_thresholds_have_no_gradient() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        shape = tuple(random.integers(1, 6, size=2))
        scores, given = -random.exponential(size=shape) * 5, -random.exponential(size=shape) * 5
        given[random.random(shape) < 0.3] = -math.inf
        margins = [[(t - s) / 0.4 for t, s in zip(*rows, strict=True) if t > -math.inf]
                   for rows in zip(given.tolist(), scores.tolist(), strict=True)]
        thresholds = torch.from_numpy(given).requires_grad_()
        logps = torch.from_numpy(scores).requires_grad_()
        values = beam_retention_regulariser(logps, thresholds, xi=0.4, direction="log_sigmoid")
        assert near(values, [sum(-math.log1p(math.exp(-d)) for d in row) for row in margins], 1e-10)
        other = beam_retention_regulariser(logps, thresholds, xi=0.4, direction="softplus")
        assert near(other, [sum(math.log1p(math.exp(d)) for d in row) for row in margins], 1e-10)
        gradient, none = torch.autograd.grad(values.sum(), [logps, thresholds], allow_unused=True)
        assert none is None and torch.isfinite(gradient).all()


def test_needs_and_settings_that_do_not_fit() -> None:
    assert Bear().needs == frozenset() and Bear(vocabulary="trie").needs == {"trie"}
    assert Bear(form="released").needs == {"trie"} and Bear(form="released").couples_rows
    assert Bear(on="target_minus_negatives", vocabulary="trie").needs == {"trie", "negatives"}
    assert BearBeam().needs == {"beam"} and BearBeam(normaliser="trie").needs == {"beam", "trie"}
    with pytest.raises(UserError, match="form = released"):
        Bear(form="released", direction="softplus").check()
