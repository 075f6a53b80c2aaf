"""Losses of the target alone: by hand, against naive loops and at their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.suite_files import load_presets
from genrec_bench.objectives.base import ObjectiveInputs
from genrec_bench.objectives.catalogue import Catalogue
from genrec_bench.objectives.cross_entropy import CrossEntropy, cross_entropy_loss
from genrec_bench.objectives.msl import Msl, adaptive_temperature, msl_loss
from genrec_bench.trie import Trie
from tests import card

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

# The method card's flat token log-probabilities of its six items.
CARD = [[-1.0059501777, -1.9404441610, -1.5106467142], [-1.0059501777, -1.9404441610, -1.1106467142],
        [-1.0059501777, -0.7404441610, -0.8425797720], [-1.5059501777, -1.1227382092, -1.5598244858],
        [-1.5059501777, -1.4227382092, -0.9964987893], [-1.8059501777, -1.2266280237, -1.1985533848]]


def test_cross_entropy_on_the_card() -> None:
    """i0: (1.0059501777 + 1.9404441610 + 1.5106467142) / 3 = 4.4570410529 / 3 = 1.4856803510."""
    losses = cross_entropy_loss(torch.tensor(CARD, dtype=torch.float64))
    assert losses.shape == (6,) and losses.dtype == torch.float64
    assert float(losses[0]) == pytest.approx(1.4856803510, abs=1e-9)
    assert losses.tolist() == pytest.approx([-sum(row) / 3 for row in CARD], abs=1e-12)


def test_uniform_logits_cost_log_v() -> None:
    for vocab in (2, 9, 1026):
        inputs = ObjectiveInputs(torch.ones(3, 4, dtype=torch.long), torch.full((3, 4, vocab), 0.7).double())
        assert CrossEntropy().loss(inputs).tolist() == pytest.approx([math.log(vocab)] * 3, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_cross_entropy_equals_a_naive_loop_over_ragged_targets(seed: int) -> None:
    random = np.random.default_rng(seed)
    users, depth, vocab = 7, 4, 11
    lengths = random.integers(1, depth + 1, size=users)
    targets = np.where(np.arange(depth) < lengths[:, None], random.integers(1, vocab, size=(users, depth)), 0)
    logits = random.normal(size=(users, depth, vocab)) * 3
    expected = []
    for user in range(users):
        total = 0.0
        for level in range(lengths[user]):
            row = logits[user, level]
            total -= row[targets[user, level]] - math.log(sum(math.exp(z) for z in row))
        expected.append(total / lengths[user])
    losses = CrossEntropy().loss(ObjectiveInputs(torch.tensor(targets), torch.tensor(logits)))
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)


def test_pad_has_no_weight_and_no_gradient_whatever_stands_there() -> None:
    targets = torch.tensor([[3, 4, 0], [5, 0, 0]])
    plain = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wild = plain.clone()
    wild[0, 2], wild[1, 1:] = 1e6, -1e6
    results = []
    for values in (plain, wild):
        logits = values.clone().requires_grad_()
        losses = CrossEntropy().loss(ObjectiveInputs(targets, logits))
        losses.sum().backward()
        results.append((losses.detach(), logits.grad))
    assert torch.equal(results[0][0], results[1][0])
    for losses, gradient in results:
        assert torch.isfinite(losses).all()
        assert not gradient[0, 2].any() and not gradient[1, 1:].any() and gradient[1, 0].any()


def test_masked_entries_of_the_pure_function_do_not_count() -> None:
    logps = torch.tensor([[-1.0, -2.0, -math.inf], [-4.0, math.nan, 7.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert cross_entropy_loss(logps, mask).tolist() == [1.5, 4.0]
    assert cross_entropy_loss(logps, torch.zeros_like(mask)).tolist() == [0.0, 0.0]
    assert torch.equal(cross_entropy_loss(logps[:, :1], mask[:, :1]), cross_entropy_loss(logps[:, :1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept_and_inputs_are_not_changed(dtype: torch.dtype) -> None:
    logps = torch.tensor(CARD, dtype=dtype)
    before = logps.clone()
    assert cross_entropy_loss(logps).dtype == dtype
    assert cross_entropy_loss(logps, torch.ones(6, 3, dtype=torch.bool)).dtype == dtype
    assert torch.equal(logps, before)


def test_very_unlikely_tokens_stay_finite_with_gradients() -> None:
    """Log-probabilities of -300, whose probabilities float32 cannot hold."""
    logits = torch.zeros(2, 3, 4)
    logits[:, :, 1] = -300.0
    logits.requires_grad_()
    losses = CrossEntropy().loss(ObjectiveInputs(torch.ones(2, 3, dtype=torch.long), logits))
    assert losses.tolist() == pytest.approx([300 + math.log(3)] * 2)
    losses.sum().backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[:, :, 1] < 0).all()


def test_the_gradient_is_softmax_minus_one_hot() -> None:
    """Of the mean over T tokens: (softmax - one-hot) / T."""
    logits = torch.randn(1, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    targets = torch.tensor([[3, 1]])
    CrossEntropy().loss(ObjectiveInputs(targets, logits)).sum().backward()
    expected = (logits.detach().softmax(-1) - torch.nn.functional.one_hot(targets, 5)) / 2
    torch.testing.assert_close(logits.grad, expected, atol=1e-14, rtol=0)


def test_cross_entropy_as_a_sum_and_with_eos_on_the_card() -> None:
    logps = card.token_logps()[:1]
    assert float(cross_entropy_loss(logps, reduction="sum")) == pytest.approx(4.4570410529, abs=1e-9)
    inputs = card.inputs([0], eos_logps=torch.tensor([-0.01], dtype=torch.float64))
    assert float(CrossEntropy().loss(inputs)) == pytest.approx(1.4856803510, abs=1e-9)
    assert float(CrossEntropy(reduction="sum").loss(inputs)) == pytest.approx(4.4570410529, abs=1e-9)
    assert float(CrossEntropy(eos=True).loss(inputs)) == pytest.approx(1.1167602632, abs=1e-9)
    assert float(CrossEntropy(eos=True, reduction="sum").loss(inputs)) == pytest.approx(4.4670410529, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_sum_and_eos_count_every_token_of_a_ragged_target_once(seed: int) -> None:
    inputs = card.random_inputs(seed)
    eos = -torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    inputs = ObjectiveInputs(inputs.targets, inputs.logits, eos_logps=eos.requires_grad_())
    lengths, sums = (inputs.targets != 0).sum(dim=1), inputs.target_token_logps.sum(dim=1)
    for objective, expected in ((CrossEntropy(), -sums / lengths), (CrossEntropy(reduction="sum"), -sums),
                                (CrossEntropy(eos=True), -(sums + eos) / (lengths + 1))):
        torch.testing.assert_close(objective.loss(inputs), expected, atol=1e-12, rtol=0)
    gradient, = torch.autograd.grad(CrossEntropy(eos=True).loss(inputs).sum(), eos)
    torch.testing.assert_close(gradient, -1.0 / (lengths + 1).double())


def test_later_settings_of_cross_entropy_leave_what_was_there() -> None:
    inputs = card.random_inputs(0)
    old = -inputs.target_token_logps.sum(dim=1) / inputs.is_token.sum(dim=1)
    assert torch.equal(CrossEntropy().loss(inputs), old)
    assert settings.differing(CrossEntropy()) == {} and CrossEntropy().needs == frozenset()
    released = settings.build(CrossEntropy, load_presets("cross_entropy")["released"], "objective cross_entropy")
    assert settings.differing(released) == {"eos": True} and released.needs == {"eos"}
    with pytest.raises(UserError, match="Did you mean 'mean'"):
        cross_entropy_loss(card.token_logps(), reduction="maen")


@pytest.mark.parametrize(("tau", "expected"), [(1.0, [1.0323305962]),
                                               (2.0, [0.9104519783, 0.8957291149, 1.0374879505, 0.7981388694])])
def test_msl_on_the_card(tau: float, expected: list[float]) -> None:
    """The raw tokens of i0 = (0, 3, 6) include 0: it is a token here, because it is valid."""
    logits, targets, valid = card.logits(), card.tokens(), card.valid()
    mean, *levels = expected
    assert float(msl_loss(logits, targets, valid, tau=tau)[0]) == pytest.approx(mean, abs=1e-9)
    for level, value in enumerate(levels):
        one = slice(level, level + 1)
        losses = msl_loss(logits[:1, one], targets[:1, one], valid[:1, one], tau=tau)
        assert losses.tolist() == pytest.approx([value], abs=1e-9)
    assert float(Msl(tau=tau).loss(card.inputs([0]))) == pytest.approx(mean, abs=1e-9)


def test_msl_means_over_all_tokens_or_over_those_with_an_alternative() -> None:
    """Of i0 and i4 one token of six is forced; the card's mean over the six is 0.8620068503."""
    all_tokens, chosen = Msl().loss(card.inputs([0, 4])), Msl(skip_forced=True).loss(card.inputs([0, 4]))
    assert float(all_tokens.mean()) == pytest.approx(0.8620068503, abs=1e-9)
    assert float((3 * chosen[0] + 2 * chosen[1]) / 5) == pytest.approx(1.0344082204, abs=1e-9)
    assert chosen.tolist() == pytest.approx([float(all_tokens[0]), 1.5 * float(all_tokens[1])], abs=1e-12)
    together = Msl(skip_forced=True, average="batch").loss(card.inputs([0, 4]))
    assert float(together.mean()) == pytest.approx(1.0344082204, abs=1e-9)
    assert together.tolist() == pytest.approx([1.2 * float(chosen[0]), 0.8 * float(chosen[1])], abs=1e-12)
    assert Msl(average="batch").couples_rows and settings.differing(Msl()).get("average") is None
    with pytest.raises(UserError, match="Did you mean 'batch'"):
        msl_loss(card.logits(), card.tokens(), card.valid(), tau=1, average="bach")


def test_eos_in_msl_is_a_token_more_that_costs_nothing() -> None:
    """i0 and i4 have three tokens each: with EOS the mean is over four, over the batch's eight tokens too."""
    plain, with_eos = Msl().loss(card.inputs([0, 4])), Msl(eos=True).loss(card.inputs([0, 4]))
    assert with_eos.tolist() == pytest.approx([0.75 * float(loss) for loss in plain], abs=1e-12)
    together = Msl(eos=True, average="batch").loss(card.inputs([0, 4]))
    assert together.tolist() == pytest.approx(with_eos.tolist(), abs=1e-12)
    for other in ("skip_forced", "adaptive"):
        with pytest.raises(UserError, match=f"eos = true has no effect with {other} = true"):
            Msl(eos=True, **{other: True}).check()


@pytest.mark.parametrize("seed", range(3))
def test_the_released_preset_of_msl_is_a_naive_mean_over_the_free_tokens_of_the_batch(seed: int) -> None:
    released = settings.build(Msl, load_presets("msl")["released"], "objective msl")
    inputs = card.random_inputs(seed, users=6 + seed)
    inputs.state.update(released.initial_state(4))
    losses = released.loss(inputs).detach()
    tau, costs = float(inputs.state["tau"]), []
    for row, tokens, valid in zip(inputs.logits.tolist(), inputs.targets.tolist(), inputs.valid.tolist(), strict=True):
        for logits, token, allowed in zip(row, tokens, valid, strict=True):
            scores = [z / tau for z, ok in zip(logits, allowed, strict=True) if ok]
            if len(scores) > 1:
                costs.append(math.log(sum(map(math.exp, scores))) - logits[token] / tau)
    assert float(losses.mean()) == pytest.approx(tau * sum(costs) / len(costs), abs=1e-12)
    assert len(costs) % len(inputs.targets) and losses.shape == (6 + seed,) and released.couples_rows


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("skip_forced", [False, True])
def test_msl_equals_a_naive_loop_over_ragged_targets(seed: int, skip_forced: bool) -> None:
    inputs, tau = card.random_inputs(seed, users=6 + seed), 0.5 + seed
    items = [tuple(token for token in row if token) for row in inputs.catalogue.tokens.tolist()]
    expected, rows = [], inputs.logits.tolist()
    for user, number in enumerate(inputs.target_ids.tolist()):
        item, losses = items[number], []
        for m in range(len(item)):
            children = {other[m] for other in items if other[:m] == item[:m] and len(other) > m}
            scores = {child: rows[user][m][child] / tau for child in children}
            if len(children) > 1 or not skip_forced:
                losses.append(math.log(sum(map(math.exp, scores.values()))) - scores[item[m]])
        expected.append(sum(losses) / max(len(losses), 1))
    assert Msl(tau=tau, skip_forced=skip_forced).loss(inputs).tolist() == pytest.approx(expected, abs=1e-12)


def test_msl_is_cross_entropy_where_every_token_is_valid_and_never_more() -> None:
    inputs = card.random_inputs(7, users=9, ragged=False)
    everything = torch.ones_like(inputs.logits, dtype=torch.bool)
    plain = CrossEntropy().loss(inputs)
    torch.testing.assert_close(msl_loss(inputs.logits, inputs.targets, everything, tau=1), plain, atol=1e-14, rtol=0)
    assert (msl_loss(inputs.logits, inputs.targets, inputs.valid, tau=1) < plain).all()


@pytest.mark.parametrize("seed", range(3))
def test_msl_makes_a_distribution_over_the_catalogue(seed: int) -> None:
    """The likelihoods exp(-T L) of all items sum to 1, for logits that depend on the prefix."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue.from_trie(Trie.from_codes(random.integers(2, 6, size=(40, 3))), 7)
    table = torch.from_numpy(random.normal(size=(len(catalogue.child_start), 7)) * 2)
    nodes = torch.cat([torch.zeros_like(catalogue.nodes[:, :1]), catalogue.nodes[:, :-1]], dim=1)
    inputs = ObjectiveInputs.from_logits(catalogue, torch.arange(len(catalogue.tokens)), table[nodes])
    assert float((-3 * Msl().loss(inputs)).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_a_forced_token_costs_nothing_and_has_no_gradient() -> None:
    """After i5's first token the rest is forced; after i4's first two its third."""
    logits = card.logits()[4:].requires_grad_()
    losses = msl_loss(logits, card.tokens()[4:], card.valid()[4:], tau=1.7)
    losses.sum().backward()
    assert not logits.grad[1, 1:].any() and not logits.grad[0, 2].any() and logits.grad[:, 0].any()
    forced = msl_loss(card.logits()[5:, 1:], card.tokens()[5:, 1:], card.valid()[5:, 1:], tau=1.7)
    assert forced.tolist() == [0.0]
    assert msl_loss(card.logits()[5:, 1:], card.tokens()[5:, 1:], card.valid()[5:, 1:], tau=1, skip_forced=True) == 0


def test_the_gradient_of_msl_and_what_has_none() -> None:
    """(softmax over the valid tokens - one-hot) / (tau T); nothing at invalid tokens and PAD, whatever stands there."""
    inputs = card.random_inputs(3, users=8)
    results = []
    for wild in (0.0, math.nan, math.inf, -math.inf):
        logits = inputs.logits.detach().masked_fill(~inputs.valid, wild).requires_grad_()
        losses = msl_loss(logits, inputs.targets, inputs.valid, tau=2.5)
        losses.sum().backward()
        results.append((losses.detach(), logits.grad))
    scores = (inputs.logits.detach() / 2.5).masked_fill(~inputs.valid, -1e9).softmax(dim=2)
    scores = scores.masked_fill(~inputs.valid, 0.0)
    one_hot = torch.nn.functional.one_hot(inputs.targets, 8) * inputs.is_token[:, :, None]
    expected = (scores - one_hot) / 2.5 / inputs.is_token.sum(dim=1)[:, None, None]
    for losses, gradient in results:
        assert torch.equal(losses, results[0][0])
        torch.testing.assert_close(gradient, expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_msl_keeps_the_type_and_its_inputs_and_bears_unlikely_tokens(dtype: torch.dtype) -> None:
    logits = torch.zeros(2, 3, 4, dtype=dtype)
    logits[:, :, 1] = -300.0
    logits.requires_grad_()
    targets, valid = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3, 4, dtype=torch.bool)
    losses = msl_loss(logits, targets, valid, tau=torch.tensor(1.0, dtype=torch.float64))
    losses.sum().backward()
    assert losses.dtype == dtype and losses.tolist() == pytest.approx([300 + math.log(3)] * 2, rel=1e-2)
    assert torch.isfinite(logits.grad).all() and (logits.grad[:, :, 1] < 0).all()
    assert logits.detach()[:, :, 1].eq(-300).all() and valid.all()


def first_level(distance: float, count: int = 256) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One row of `count` valid logits of mean 0 and variance 1.2 whose target, token 0, stands at `distance`."""
    rest = -distance / (count - 1)
    spread = math.sqrt((1.2 * (count - 1) - distance ** 2 - (count - 1) * rest ** 2) / (count - 2))
    signs = torch.tensor([0.0, *[1.0, -1.0] * ((count - 2) // 2)], dtype=torch.float64)
    logits = torch.cat([torch.tensor([distance], dtype=torch.float64), rest + spread * signs])
    return logits[None, None], torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, count, dtype=torch.bool)


@pytest.mark.parametrize(("distance", "low", "rate", "expected"), [
    (3, 0.1, 1.0, 0.3606737602), (3, 1.5, 1.0, 1.5), (3, 1.5, 0.05, 1.5), (14, 1.5, 1.0, 3.3228713083),
    (14, 1.5, 0.05, 1.5911435654), (14, 1.5, 0.0, 1.5)])
def test_adaptive_temperature_on_the_card(distance: float, low: float, rate: float, expected: float) -> None:
    tau = adaptive_temperature(torch.tensor(1.5).double(), *first_level(distance), eta=0.25, rate=rate, low=low, high=5)
    assert tau.shape == () and float(tau) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_adaptive_temperature_equals_a_naive_computation(seed: int) -> None:
    inputs, eta = card.random_inputs(seed, users=3 + seed), 0.9
    root = sorted({row[0] for row in inputs.catalogue.tokens.tolist()})
    rows, targets = inputs.logits[:, 0].tolist(), inputs.targets[:, 0].tolist()
    pool = [row[token] for row in rows for token in root]
    distance = np.mean([row[token] for row, token in zip(rows, targets, strict=True)]) - np.mean(pool)
    c = math.log(eta * len(root))
    estimate = (distance + math.sqrt(max(distance ** 2 - 2 * c * np.var(pool, ddof=1), 0))) / (2 * c)
    expected = 0.9 * 2.0 + 0.1 * min(max(estimate, 0.3), 4.0)
    tau = adaptive_temperature(torch.tensor(2.0), inputs.logits, inputs.targets, inputs.valid, eta=eta, rate=0.1,
                               low=0.3, high=4.0)
    assert float(tau) == pytest.approx(expected, abs=1e-6) and tau.dtype == torch.float32 and not tau.requires_grad


def test_few_first_tokens_give_the_lowest_temperature() -> None:
    """The card's root has three children: log(eta * 3) is below 0 at 1/4, 0 at 1/3. i5's second token is forced."""
    batch = card.logits(), card.tokens(), card.valid()
    forced = [tensor[5:, 1:] for tensor in batch]
    for values, eta in ((batch, 0.25), (batch, 1 / 3), (batch, 0.0), (forced, 1.0)):
        tau = adaptive_temperature(torch.tensor(3.0), *values, eta=eta, rate=1.0, low=1.5, high=5.0)
        assert tau == 1.5


def test_the_adaptive_objective_moves_its_temperature_and_scales_its_loss() -> None:
    objective, inputs = Msl(adaptive=True, eta=0.9, lowest_tau=0.1), card.random_inputs(0)
    state = objective.initial_state(4)
    assert state == {"tau": torch.tensor(1.5, dtype=torch.float64)} and Msl().initial_state(4) == {}
    assert objective.couples_rows and not Msl().couples_rows
    inputs.state.update(state)
    batch = inputs.logits, inputs.targets, inputs.valid
    tau = state["tau"]
    for _ in range(3):
        tau = adaptive_temperature(tau, *batch, eta=0.9, rate=0.05, low=0.1, high=5)
        losses = objective.loss(inputs)
        torch.testing.assert_close(losses, tau * msl_loss(*batch, tau=tau, skip_forced=True), atol=0, rtol=0)
        assert inputs.state["tau"] == tau and not inputs.state["tau"].requires_grad and tau != 1.5
    assert state["tau"] == 1.5 and losses.requires_grad


def test_settings_of_msl_that_do_not_fit_are_refused() -> None:
    for values, message in (({"adaptive": True, "tau": 2.0}, "initial_tau"), ({"lowest_tau": 6.0}, "highest_tau")):
        with pytest.raises(UserError, match=message):
            settings.build(Msl, values, "objective msl").check()
    with pytest.raises(UserError, match="tau must be at least"):
        settings.build(Msl, {"tau": 0.0}, "objective msl")
    assert Msl().needs == {"trie"}
