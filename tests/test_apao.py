"""APAO's prefix losses and weights: the card's numbers, naive loops and limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genrec_bench.core.errors import UserError
from genrec_bench.experiments.suite_files import load_presets
from genrec_bench.objectives.apao import (
    Apao,
    apao_pairwise_losses,
    apao_pointwise_losses,
    prefix_weights,
    released_pairwise_losses,
)
from genrec_bench.objectives.base import ObjectiveInputs
from genrec_bench.objectives.cross_entropy import cross_entropy_loss
from tests import card

torch.set_num_threads(1)

NEGATIVES = [2, 3, 5, 1]
POINTWISE = [1.0059501777, 1.4731971694, 1.4856803510]
EQ14 = [0.7206940689, 1.8888127722, 2.4448734913]
PER_LENGTH = [0.7206940689, 0.9444063861, 0.8149578304]
RELEASED = [0.5329235066, 0.9444063861, 0.8149578304]
CROSS_ENTROPY = 1.4856803510
LOSSES = apao_pointwise_losses(card.token_logps())[0]


def near(value: torch.Tensor, expected: object, error: float = 1e-9) -> bool:
    expected = expected.detach() if isinstance(expected, torch.Tensor) else expected
    return value.detach().flatten().tolist() == pytest.approx(np.ravel(expected).tolist(), rel=0, abs=error)


def pair_of(negatives: list[int] = NEGATIVES, *, distinct: bool = True) -> tuple[torch.Tensor, ...]:
    """i0's token log-probabilities, its negatives' and which of them count at each length."""
    logps, ids = card.token_logps(), torch.tensor([[0, *negatives]])
    keep = card.catalogue().distinct(ids)[:, 1:] if distinct else torch.ones(1, len(negatives), 3, dtype=torch.bool)
    return logps[:1], logps[negatives][None], keep


def prepared(objective: Apao, negatives: list[int] = NEGATIVES, **rest: object) -> ObjectiveInputs:
    """i0 with its negatives and the objective's first state."""
    return card.inputs([0], [negatives], state=objective.initial_state(3), **rest)


def test_pointwise_on_the_card() -> None:
    """i0: 1.0059501777, (1.0059501777 + 1.9404441610) / 2, 4.4570410529 / 3."""
    logps = card.token_logps()
    losses = apao_pointwise_losses(logps)
    assert losses.shape == (6, 3) and losses.dtype == torch.float64
    assert near(losses[0], POINTWISE)
    assert near(losses[:, 2], cross_entropy_loss(logps), 1e-12)


@pytest.mark.parametrize(("divide", "distinct", "scale", "expected"), [
    (False, False, None, [1.4001626562, 2.0296621857, 2.4448734913]),
    (False, True, None, EQ14),
    (True, True, None, PER_LENGTH),
    (True, True, [[2 / 3, 1.0, 1.0]], RELEASED),
])
def test_pairwise_on_the_card(divide: bool, distinct: bool, scale: list | None, expected: list[float]) -> None:
    scale = None if scale is None else torch.tensor(scale, dtype=torch.float64)
    arguments = pair_of(distinct=distinct)
    losses = apao_pairwise_losses(*arguments, divide_by_length=divide, scale=scale)
    assert losses.dtype == torch.float64 and near(losses, [expected])
    assert near(released_pairwise_losses(*arguments, divide_by_length=divide, scale=scale), [expected])


def test_pairwise_with_all_others_is_a_softmax_over_prefixes() -> None:
    """-log of the target's share of all prefixes' probability; at m = 1 the cross-entropy over the three children."""
    target, negatives, keep = pair_of([1, 2, 3, 4, 5])
    losses = apao_pairwise_losses(target, negatives, keep, divide_by_length=False)
    assert near(losses, [[0.7206940689, 2.0320063580, 2.5825758493]])
    scores = card.token_logps().cumsum(1).exp()
    for m in range(3):
        mass = {item[:m + 1]: float(scores[i, m]) for i, item in enumerate(card.ITEMS)}
        share = mass[card.ITEMS[0][:m + 1]] / sum(mass.values())
        assert float(losses[0, m]) == pytest.approx(-math.log(share), abs=1e-12)


def test_one_negative_is_a_softplus() -> None:
    """Log 2 where it shares the prefix, unless that is masked."""
    shared = apao_pairwise_losses(*pair_of([1], distinct=False), divide_by_length=False)
    assert near(shared[0, :2], [math.log(2)] * 2, 1e-12)
    assert not apao_pairwise_losses(*pair_of([1]), divide_by_length=False)[0, :2].any()
    target, negatives, keep = pair_of([3])
    losses = apao_pairwise_losses(target, negatives, keep, divide_by_length=False)
    lead = (negatives[0].cumsum(1) - target.cumsum(1))[0]
    assert near(losses[0], [math.log1p(math.exp(d)) for d in lead.tolist()], 1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_pairwise_equals_a_naive_loop(seed: int) -> None:
    """Eq. 25, on probabilities, over random shapes, masks and scales."""
    random = np.random.default_rng(seed)
    users, count, depth = (int(n) for n in random.integers(1, 6, size=3))
    target, negative = -random.exponential(size=(users, depth)), -random.exponential(size=(users, count, depth))
    keep, scale = random.random((users, count, depth)) < 0.6, random.exponential(size=(users, depth)) * 5
    expected = np.zeros((users, depth))
    for u in range(users):
        for m in range(depth):
            own = math.exp(target[u, :m + 1].sum())
            rest = sum(math.exp(negative[u, n, :m + 1].sum()) for n in range(count) if keep[u, n, m])
            expected[u, m] = -math.log(own / (own + scale[u, m] * rest)) / (m + 1)
    arguments = [torch.from_numpy(a) for a in (target, negative, keep)]
    losses = apao_pairwise_losses(*arguments, divide_by_length=True, scale=torch.from_numpy(scale))
    assert near(losses, torch.from_numpy(expected), 1e-12)
    whole = apao_pairwise_losses(*arguments, divide_by_length=False, scale=torch.from_numpy(scale))
    assert near(whole, torch.from_numpy(expected * np.arange(1, depth + 1)), 1e-12)


@pytest.mark.parametrize("divide", [False, True])
def test_masked_negatives_do_nothing_whatever_they_are(divide: bool) -> None:
    target = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]], dtype=torch.float64, requires_grad=True)
    wild = torch.tensor([[[-1.0, -1.5], [math.nan, math.inf]], [[-math.inf, math.nan], [3e300, 1.0]]],
                        dtype=torch.float64, requires_grad=True)
    keep = torch.tensor([[[True, True], [False, False]], [[False, False], [False, False]]])
    for scale in (None, torch.tensor([[0.5, 40.0], [0.5, 40.0]], dtype=torch.float64)):
        losses = apao_pairwise_losses(target, wild, keep, divide_by_length=divide, scale=scale)
        alone = apao_pairwise_losses(target[:1], wild[:1, :1], keep[:1, :1], divide_by_length=divide,
                                     scale=None if scale is None else scale[:1])
        assert torch.equal(losses[:1], alone) and not losses[1].any()
        gradients = torch.autograd.grad(losses.sum(), [target, wild])
        assert all(torch.isfinite(g).all() for g in gradients)
        assert not gradients[0][1].any() and not gradients[1][1].any() and not gradients[1][0, 1].any()
        assert gradients[0][0].all() and gradients[1][0, 0].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_very_unlikely_prefixes_stay_finite_with_gradients(dtype: torch.dtype) -> None:
    """S = -300 for the target, -299 and -301 for the negatives: log(1 + e + 1/e), as at any other height."""
    target = torch.tensor([[-300.0]], dtype=dtype, requires_grad=True)
    negatives = torch.tensor([[[-299.0], [-301.0]]], dtype=dtype, requires_grad=True)
    losses = apao_pairwise_losses(target, negatives, torch.ones(1, 2, 1, dtype=torch.bool), divide_by_length=False)
    assert losses.dtype == dtype
    assert float(losses.detach()) == pytest.approx(math.log(1 + math.e + 1 / math.e), rel=1e-6)
    losses.sum().backward()
    shares = torch.softmax(torch.tensor([0.0, 1.0, -1.0]), 0).tolist()
    assert float(target.grad) == pytest.approx(shares[0] - 1, rel=1e-5)
    assert negatives.grad.flatten().tolist() == pytest.approx(shares[1:], rel=1e-5)


@pytest.mark.parametrize(("score", "expected"), [(-10.0, 0.313262), (-20.0, 0.313616), (-27.6, 0.849011),
                                                 (-30.0, 2.489426), (-40.0, 12.368985)])
def test_the_released_epsilon_outweighs_the_negatives(score: float, expected: float) -> None:
    """One negative one nat behind: log(1 + 1/e + 1e-12 exp(-S)), where log(1 + 1/e) = 0.313262 is exact."""
    target = torch.tensor([[score]], dtype=torch.float64)
    arguments = target, target[:, None] - 1, torch.ones(1, 1, 1, dtype=torch.bool)
    assert near(released_pairwise_losses(*arguments, divide_by_length=True), [[expected]], 5e-7)
    by_hand = math.log(1 + math.exp(-1) + 1e-12 * math.exp(-score))
    assert near(released_pairwise_losses(*arguments, divide_by_length=True), [[by_hand]], 1e-12)
    assert near(apao_pairwise_losses(*arguments, divide_by_length=True), [[math.log1p(math.exp(-1))]], 1e-12)


def test_the_released_numerics_lose_a_level_to_underflow() -> None:
    """exp(-110) is 0 in float32: one such row makes the level's loss 0 for the batch and its own gradient NaN."""
    target = torch.tensor([[-1.0, -109.0], [-1.0, -1.0]], requires_grad=True)
    losses = released_pairwise_losses(target, torch.full((2, 1, 2), -1.0), torch.ones(2, 1, 2).bool(),
                                      divide_by_length=False)
    assert losses[:, 0].all() and not losses[:, 1].any()
    losses.sum().backward()
    assert target.grad[0].isnan().any()


def test_pointwise_ragged() -> None:
    logps = torch.tensor([[-1.0, -3.0, math.nan], [-4.0, math.inf, 7.0]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    losses = apao_pointwise_losses(logps, mask)
    assert losses.tolist() == [[1.0, 2.0, 0.0], [4.0, 0.0, 0.0]]
    losses.sum().backward()
    assert logps.grad.tolist() == [[-1.5, -0.5, 0.0], [-1.0, 0.0, 0.0]]


@pytest.mark.parametrize(("eta", "rule", "expected"), [
    (0.0, "eq17", [1 / 3] * 3), (0.0, "algorithm1", [1 / 3] * 3), (0.0, "uniform", [1 / 3] * 3),
    (0.0, "released", [.2537185104, .3715665047, .3747149849]),
    (1e-4, "eq17", [.3333228114, .3333383862, .3333388023]),
    (1e-4, "algorithm1", [.3333306795, .3333346078, .3333347127]),
    (1e-4, "released", [.2537095448, .3715707357, .3747197195]),
    (0.5, "eq17", [.2829457450, .3574082412, .3596460137]),
    (0.5, "algorithm1", [.3201987439, .3396330855, .3401681706]),
    (0.5, "released", [.2115446381, .3913342155, .3971211464]),
])
def test_weights_on_the_card(eta: float, rule: str, expected: list[float]) -> None:
    start = torch.full((3,), 1 / 3, dtype=torch.float64)
    weights = prefix_weights(start, LOSSES.clone().requires_grad_(), eta=eta, rule=rule)
    assert near(weights, expected) and not weights.requires_grad
    assert start.tolist() == [1 / 3] * 3


@pytest.mark.parametrize(("rule", "expected"), [("eq17", [.3228956407, .3383408693, .3387634901]),
                                                ("algorithm1", [.3306848062, .3346049138, .3347102800])])
def test_a_thousand_steps(rule: str, expected: list[float]) -> None:
    """n identical steps from uniform are softmax(n eta L), L or its shares."""
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(1000):
        weights = prefix_weights(weights, LOSSES, eta=1e-4, rule=rule)
    assert near(weights, expected)
    exponent = LOSSES if rule == "eq17" else LOSSES / LOSSES.sum()
    assert near(weights, torch.softmax(0.1 * exponent, 0), 1e-12)


def test_weights_of_a_long_run_with_fixed_losses() -> None:
    """13,590 steps at 1e-4 from L = (4.2, 3.9, 3.2, 2.5), in closed form as above."""
    losses = torch.tensor([4.2, 3.9, 3.2, 2.5], dtype=torch.float64)
    start = torch.full((4,), 0.25, dtype=torch.float64)
    steps = 13590 * 1e-4
    assert near(prefix_weights(start, losses, eta=steps, rule="eq17"), [.495, .329, .127, .049], 6e-4)
    assert near(prefix_weights(start, losses, eta=steps, rule="algorithm1"), [.269, .261, .243, .227], 6e-4)
    assert near(prefix_weights(start, losses, eta=1e-4, rule="released"), [.304, .283, .232, .181], 6e-4)


def test_limits_of_the_weights() -> None:
    start = torch.tensor([0.2, 0.5, 0.3, 0.0], dtype=torch.float64)
    losses = torch.tensor([1.0, 3.0, 2.0, 0.5], dtype=torch.float64)
    for rule in ("eq17", "algorithm1", "released"):
        assert near(prefix_weights(start, losses, eta=1e6, rule=rule), [0, 1, 0, 0], 1e-12)
    for rule in ("eq17", "algorithm1"):
        assert near(prefix_weights(start, losses, eta=0.0, rule=rule), start, 1e-12)
        assert near(prefix_weights(start, torch.full_like(losses, 1.7), eta=3.0, rule=rule), start, 1e-12)
        assert near(prefix_weights(start, torch.zeros_like(losses), eta=3.0, rule=rule), start, 1e-12)
    for value in (0.0, 1.7):
        assert near(prefix_weights(start, torch.full_like(losses, value), eta=3.0, rule="released"), [.25] * 4, 1e-12)
    assert near(prefix_weights(start, losses * 0, eta=3.0, rule="uniform"), [.25] * 4, 1e-12)
    scaled = [prefix_weights(start, losses * s, eta=2.0, rule="algorithm1") for s in (1.0, 1e-9, 1e9)]
    assert near(scaled[0], scaled[1], 1e-12) and near(scaled[0], scaled[2], 1e-12)
    with pytest.raises(UserError, match="eq71"):
        prefix_weights(start, losses, eta=1.0, rule="eq71")


def test_equation_17_solves_equation_16() -> None:
    """On the simplex, w L - KL(w, w_old) / eta is largest there; the maximum is log(sum w_old exp(eta L)) / eta."""
    random, eta = np.random.default_rng(0), 0.7
    old, losses = random.dirichlet(np.ones(4)), random.exponential(size=4)

    def value(w: np.ndarray) -> float:
        return float(w @ losses - (w * np.log(w / old)).sum() / eta)

    best = prefix_weights(torch.from_numpy(old), torch.from_numpy(losses), eta=eta, rule="eq17").numpy()
    assert value(best) == pytest.approx(math.log((old * np.exp(eta * losses)).sum()) / eta, abs=1e-12)
    assert all(value(w) < value(best) for w in random.dirichlet(np.ones(4), size=200))


@pytest.mark.parametrize(("settings", "beta", "total"), [
    ({"weights": "uniform"}, 0.3, 1.8821631208),
    ({"weights": "released", "eta": 0.0}, 0.3, 1.8934780291),
    ({"form": "pairwise", "weights": "uniform"}, 0.3, 1.9911183842),
    ({"form": "pairwise", **load_presets("apao")["released"], "eta": 1e-4}, 0.3, 1.7264973636),
    ({"weights": "static", "static_weights": (0.0, 0.0, 1.0)}, 0.3, 1.3 * CROSS_ENTROPY),
    ({}, 0.0, CROSS_ENTROPY),
])
def test_totals_on_the_card(settings: dict, beta: float, total: float) -> None:
    objective = Apao(**settings)
    inputs = prepared(objective)
    whole = cross_entropy_loss(inputs.target_token_logps) + beta * objective.loss(inputs)
    assert whole.shape == (1,) and float(whole) == pytest.approx(total, abs=1e-9)
    if objective.negative_scale:
        assert near(inputs.state["weights"], [.2324791619, .4119987894, .3555220487])


@pytest.mark.parametrize(("settings", "coefficients"), [
    ({"weights": "uniform"}, [.5166666667, .4166666667, .3666666667]),
    ({"weights": "released", "eta": 0.0}, [.5026553607, .4265398075, .3708048318]),
    ({"weights": "static", "static_weights": (1.0, 0.0, 0.0)}, [1 / 3 + .3, 1 / 3, 1 / 3]),
])
def test_pointwise_is_a_reweighed_cross_entropy(settings: dict, coefficients: list[float]) -> None:
    """c_t = 1/T + beta sum over m >= t of w_m / m; the c_t sum to 1 + beta."""
    objective = Apao(**settings)
    inputs = prepared(objective)
    total = cross_entropy_loss(inputs.target_token_logps) + 0.3 * objective.loss(inputs)
    shares = (inputs.state["weights"] / torch.arange(1, 4)).flip(0).cumsum(0).flip(0)
    c = 1 / 3 + 0.3 * shares
    assert near(c, coefficients) and float(c.sum()) == pytest.approx(1.3, abs=1e-12)
    assert near(total, -(c * inputs.target_token_logps).sum(1), 1e-12)


def test_state_is_carried_and_reproducible() -> None:
    """Three steps on three batches: the same numbers again, and another state than three first steps."""
    objective = Apao(eta=0.5, form="pairwise", num_negatives=4)
    runs = []
    for carry in (True, True, False):
        state = objective.initial_state(4)
        for seed in range(3):
            inputs = card.random_inputs(seed)
            inputs.state = state if carry else objective.initial_state(4)
            loss = objective.loss(inputs)
            state = inputs.state
        runs.append((loss.detach(), state["weights"]))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][1], runs[2][1])
    assert runs[0][1].dtype == torch.float64 and float(runs[0][1].sum()) == pytest.approx(1, abs=1e-12)


def test_weights_are_moved_by_the_loss_alone_and_before_it_uses_them() -> None:
    objective = Apao(eta=0.5)
    inputs = prepared(objective)
    given = inputs.state["weights"]
    assert inputs.target_token_logps.shape == (1, 3) and inputs.state["weights"] is given
    loss = objective.loss(inputs)
    moved = torch.tensor([.2829457450, .3574082412, .3596460137], dtype=torch.float64)
    assert near(inputs.state["weights"], moved)
    assert near(loss, [float((moved * LOSSES).sum())])
    assert given.tolist() == objective.initial_state(3)["weights"].tolist() == [1 / 3] * 3


@pytest.mark.parametrize(("settings", "weights"), [
    ({"weights": "hard_max"}, [0, 0, 1]), ({"weights": "hard_max", "drop_prefix": 3}, [0, 1, 0]),
    ({"weights": "uniform"}, [1 / 3] * 3), ({"weights": "static", "static_weights": (2.0, 1.0, 0.5)}, [2, 1, 0.5]),
    ({"weights": "uniform", "drop_prefix": 1}, [0, 0.5, 0.5]),
    ({"weights": "uniform", "drop_prefix": 1, "renormalise": False}, [0, 1 / 3, 1 / 3]),
    ({"weights": "static", "static_weights": (2.0, 1.0, 3.0), "drop_prefix": 2}, [0.4, 0, 0.6]),
    ({"weights": "released", "eta": 0.0, "drop_prefix": 2},
     [1.0059501777 / 2.4916305287, 0, 1.4856803510 / 2.4916305287]),
])
def test_other_weights_and_left_out_prefixes(settings: dict, weights: list[float]) -> None:
    objective = Apao(**settings)
    inputs = prepared(objective)
    assert near(objective.loss(inputs), [sum(w * v for w, v in zip(weights, POINTWISE, strict=True))])
    if objective.weights in ("uniform", "static"):
        assert torch.equal(inputs.state["weights"], objective.initial_state(3)["weights"])


@pytest.mark.parametrize("form", ["pointwise", "pairwise"])
def test_ragged_batches_equal_a_naive_loop(form: str) -> None:
    """Levels without a token add 0 and do not count in the batch mean that moves the weights; PAD has no gradient."""
    objective = Apao(form=form, weights="released", eta=0.3, num_negatives=4, negative_scale=True)
    for seed in range(4):
        inputs = card.random_inputs(seed, negatives=4)
        inputs.state = objective.initial_state(4)
        loss = objective.loss(inputs)
        table = naive_losses(inputs, form)
        means = np.array([np.mean([row[m] for row in table if m < len(row)] or [0.0]) for m in range(4)])
        weights = means * np.exp(0.3 * means)
        weights /= weights.sum()
        assert near(inputs.state["weights"], weights, 1e-10)
        assert near(loss, [sum(w * v for w, v in zip(weights, row, strict=False)) for row in table], 1e-10)
        gradient = torch.autograd.grad(loss.sum(), inputs.logits)[0]
        assert torch.isfinite(gradient).all() and not gradient[~inputs.is_token].any()


def naive_losses(inputs: ObjectiveInputs, form: str) -> list[list[float]]:
    """For each row the losses of its target's prefixes, from the items as tuples."""
    catalogue, own, other = inputs.catalogue, inputs.target_token_logps.tolist(), inputs.negative_token_logps.tolist()
    items = [tuple(t for t in row if t) for row in catalogue.tokens.tolist()]
    table = []
    for user, target in enumerate(inputs.target_ids.tolist()):
        row = []
        for m in range(1, len(items[target]) + 1):
            score = sum(own[user][:m])
            seen, mass = {items[target][:m]}, 0.0
            for n, negative in enumerate(inputs.negative_ids[user].tolist()):
                if len(items[negative]) >= m and items[negative][:m] not in seen:
                    seen.add(items[negative][:m])
                    mass += math.exp(sum(other[user][n][:m]))
            prefixes = len({item[:m] for item in items if len(item) >= m})
            share = math.exp(score) / (math.exp(score) + mass * (prefixes - 1) / len(seen))
            row.append(-score / m if form == "pointwise" else -math.log(share))
        table.append(row)
    return table


@pytest.mark.parametrize("settings", [{}, {"form": "pairwise"}])
def test_dtype_is_kept_although_weights_are_double(settings: dict) -> None:
    objective = Apao(**settings)
    inputs, single = prepared(objective), prepared(objective)
    single.logits, single.node_logits = inputs.logits.float(), inputs.node_logits.float()
    loss = objective.loss(single)
    assert loss.dtype == torch.float32 and near(loss.double(), objective.loss(inputs), 1e-5)


def test_needs() -> None:
    assert Apao().needs == frozenset() and Apao(form="pairwise").needs == {"negatives"}
    assert Apao().couples_rows and not Apao(weights="uniform").couples_rows


@pytest.mark.parametrize(("settings", "message"), [
    ({"weights": "static"}, "static_weights"), ({"static_weights": (0.5, 0.5)}, "weights = static"),
    ({"weights": "static", "static_weights": (0.5, 0.5)}, "must have 3"), ({"drop_prefix": 4}, "0 to 3"),
])
def test_settings_that_do_not_fit(settings: dict, message: str) -> None:
    objective = Apao(**settings)
    with pytest.raises(UserError, match=message):
        objective.check()
        objective.check_depth(3)
