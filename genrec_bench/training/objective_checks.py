"""Contract checks of an objective: what every loss has to keep, said in one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from genrec_bench.contracts import PAD
from genrec_bench.core import registry, settings
from genrec_bench.core.checks import Finding, Unusable, expect, findings, is_a_component, no_global_draws, told
from genrec_bench.objectives.base import NEEDS, Objective, ObjectiveInputs, check_needs, check_needs_type
from genrec_bench.training.planted import LENGTHS, Planted, copied, planted

EXACT = 1e-12
LOWEST = -300.0


def check_objective(objective: type[Objective] | Objective) -> list[Finding]:
    """Every check in turn, on an objective as it is or on a class at its defaults; a wrong shape is the last finding.

    Where a class does not build, or its needs cannot be read, that is the one finding.
    """
    cls = objective if isinstance(objective, type) else type(objective)
    try:
        if isinstance(objective, type):
            objective = settings.build(cls, {}, cls.__name__)
        check_needs_type(objective)
    except Exception as error:  # noqa: BLE001  whatever a plug-in raises is a finding
        return [Finding("builds and says what it needs", False, told(error, cls))]
    problem = planted(0)
    return findings(CHECKS, objective, problem)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=EXACT, atol=EXACT))


def _list(values: Tensor) -> str:
    return "[" + ", ".join(f"{v:.6g}" for v in values.detach().flatten().tolist()) + "]"


def _loss(objective: Objective, inputs: ObjectiveInputs) -> Tensor:
    """The loss of a copy, so that what is written into it is told by one check and changes no other."""
    return objective.loss(_apart(inputs))


def _apart(inputs: ObjectiveInputs) -> ObjectiveInputs:
    """The same values in tensors of their own, to which gradients lead back; the same dict as state."""
    given: dict[str, Any] = {f.name: t.clone() for f in dataclasses.fields(inputs)
                             if isinstance(t := getattr(inputs, f.name), Tensor)}
    if inputs.catalogue is not None:
        tensors = {n: t.clone() for n, t in vars(inputs.catalogue).items() if isinstance(t, Tensor)}
        given["catalogue"] = dataclasses.replace(inputs.catalogue, **tensors)
    return dataclasses.replace(inputs, **given)


def _gradients(objective: Objective, inputs: ObjectiveInputs) -> dict[str, Tensor]:
    """Gradients of the summed loss on every logit that the objective saw; 0 where it used none."""
    seen = {name: t for name in ("logits", "node_logits", "eos_logps") if (t := getattr(inputs, name)) is not None}
    found = torch.autograd.grad(_loss(objective, inputs).sum(), list(seen.values()), allow_unused=True)
    return {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(seen.items(), found, strict=True)}


def _is_a_component(objective: Objective, problem: Planted) -> None:
    is_a_component(objective)
    unknown = sorted(objective.needs - set(NEEDS))
    expect(not unknown, f"needs among {', '.join(NEEDS)}", ", ".join(unknown))
    check_needs([objective])


def _has_a_shape(objective: Objective, problem: Planted) -> None:
    losses = _loss(objective, problem.inputs(objective))
    shape = (len(LENGTHS),)
    expect(isinstance(losses, Tensor) and losses.shape == shape, f"a tensor of shape {shape}, a loss a row",
           f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__, Unusable)
    expect(losses.requires_grad, "a loss that leads back to the logits",
           "a loss without gradient, as .detach(), .item() and numpy make them", Unusable)
    expect(losses.dtype == torch.float64, "the dtype of the logits, torch.float64", losses.dtype)
    expect(torch.isfinite(losses).all(), "finite losses", _list(losses))


def _writes_nothing(objective: Objective, problem: Planted) -> None:
    inputs, same = (_apart(problem.inputs(objective)) for _ in range(2))
    before, state, error = inputs.watch(), inputs.state, None
    try:
        objective.loss(inputs)
    except Exception as raised:  # noqa: BLE001  perhaps because of what it wrote
        error = raised
    names = inputs.written(before) + ([] if inputs.state is state else ["state"])
    same_state = {f"state.{name}": tensor for name, tensor in same.state.items()}
    for watched in (before, inputs.made):  # a property of something that changed is another one, too
        if not names:  # torch does not count writes through numpy and .data
            names = [name for name, (tensor, _) in watched.items() if not torch.equal(
                tensor, same_state[name] if name in same_state else attrgetter(name)(same))]
    expect(not names, "a loss that writes into nothing of its inputs and replaces nothing but entries of state, for "
                      "other objectives and the decoder read the same tensors", f"{', '.join(names)} changed")
    if error is not None:
        raise error


def _reaches_every_row(objective: Objective, problem: Planted) -> None:
    gradients = _gradients(objective, problem.inputs(objective))
    for name, gradient in gradients.items():
        expect(torch.isfinite(gradient).all(), f"a finite gradient on {name}", _list(gradient.abs().amax((1, 2)))
               if gradient.ndim == 3 else _list(gradient))
    sizes = sum(g.abs().flatten(1).sum(dim=1) if g.ndim > 1 else g.abs() for g in gradients.values())
    expect((sizes > 0).all(), "a gradient for every row", f"sums of absolute gradients {_list(sizes)}")


def _skips_padding(objective: Objective, problem: Planted) -> None:
    inputs = problem.inputs(objective)
    before, gradients = _loss(objective, inputs), _gradients(objective, problem.inputs(objective))
    pads = {"logits": inputs.targets == PAD}
    if inputs.negative_ids is not None:
        pads["node_logits"] = inputs.negatives.flatten(1) == PAD
    wild = {}
    for name, pad in pads.items():
        seen = gradients[name][pad]
        expect(not seen.any(), f"no gradient on {name} at PAD", f"up to {float(seen.abs().max()):.6g}")
        noise = torch.linspace(-1e6, 1e6, pad.shape[1]).double()[None, :, None]
        wild[name] = torch.where(pad[:, :, None], noise, getattr(inputs, name))
    fresh = problem.inputs(objective)
    after = _loss(objective, dataclasses.replace(fresh, **wild))
    expect(_same(before, after), f"{_list(before)} whatever the logits at PAD are", _list(after))


def _is_deterministic(objective: Objective, problem: Planted) -> None:
    with no_global_draws():
        first, second = (_loss(objective, problem.inputs(objective)) for _ in range(2))
        expect(torch.equal(first, second), f"the same bits again, {_list(first)}", _list(second))


def _knows_no_order(objective: Objective, problem: Planted) -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    expected = _loss(objective, problem.inputs(objective))[order]
    seen = _loss(objective, problem.inputs(objective, rows=order))
    expect(_same(expected, seen), f"{_list(expected)} for shuffled rows", _list(seen))


def _treats_rows_alone(objective: Objective, problem: Planted) -> str | None:
    if objective.couples_rows:
        return "not asked: couples_rows is True"
    expected = _loss(objective, problem.inputs(objective))
    seen = torch.cat([_loss(objective, problem.inputs(objective, rows=torch.tensor([row])))
                      for row in range(len(LENGTHS))])
    expect(_same(expected, seen), f"{_list(expected)} for rows alone (or couples_rows = True)", _list(seen))


def _falls_when_targets_rise(objective: Objective, problem: Planted) -> None:
    tokens = problem.catalogue.tokens[problem.target_ids]
    raised, users = problem.table.clone(), torch.arange(len(tokens))[:, None]
    raised[users, problem.before(problem.target_ids), tokens] += 20.0 * (tokens != PAD)
    before, after = (_loss(objective, problem.inputs(objective, table=t)) for t in (problem.table, raised))
    expect((after < before).all(), f"less than {_list(before)} with the targets' logits 20 higher", _list(after))


def _learns(objective: Objective, problem: Planted) -> None:
    """The table itself is trained; the reference and, where there is a state, the state's first value stay as given."""
    table = problem.table.clone().requires_grad_()
    optimiser = torch.optim.AdamW([table], lr=0.1, weight_decay=0.0)
    state = objective.initial_state(problem.catalogue.depth)
    for _ in range(30):
        inputs = problem.inputs(objective, table=table, state=state)
        _loss(objective, inputs).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        state = inputs.state
    with torch.no_grad():
        losses, logps = ([f(t) for t in (problem.table, table)] for f in (
            lambda t: float(_loss(objective, problem.inputs(objective, table=t)).mean()),
            lambda t: float(problem.token_logps(t, problem.target_ids[:, None]).sum(dim=2).mean())))
    expect(losses[1] < losses[0], f"a mean loss below {losses[0]:.6g} after 30 steps of AdamW", f"{losses[1]:.6g}")
    expect(logps[1] > logps[0], f"targets likelier than {logps[0]:.6g} (mean log-probability) after 30 steps",
           f"{logps[1]:.6g}")


def _keeps_state_apart(objective: Objective, problem: Planted) -> str | None:
    given = objective.initial_state(problem.catalogue.depth)
    if not given:
        return "no state"
    untouched, results = copied(given), []
    for _ in range(2):
        inputs = problem.inputs(objective, state=given)
        results.append((_loss(objective, inputs).detach(), inputs.state))
    (one, moved), (again, moved_again) = results
    for name, start in untouched.items():
        expect(name in moved and moved[name].shape == start.shape and moved[name].dtype == start.dtype
               and set(moved) == set(given), f"the state's names, shapes and dtypes kept, {sorted(given)}",
               {n: (tuple(t.shape), str(t.dtype)) for n, t in moved.items()})
        expect(not moved[name].requires_grad and bool(torch.isfinite(moved[name]).all()),
               f"a finite {name} without gradient", moved[name])
        expect(torch.equal(objective.initial_state(problem.catalogue.depth)[name], start),
               f"the same initial {name} after use", objective.initial_state(problem.catalogue.depth)[name])
        expect(torch.equal(moved[name], moved_again[name]), f"{name} = {_list(moved[name])} from an equal state",
               _list(moved_again[name]))
    expect(torch.equal(one, again), f"{_list(one)} again from an equal state", _list(again))


def _meets_its_limits(objective: Objective, problem: Planted) -> str | None:
    limits = getattr(objective, "limits", ())
    limits = limits() if callable(limits) else limits
    if not limits:
        return "none declared"
    for values, other in limits:
        here = settings.build(type(objective), values, type(objective).__name__)
        there = registry.objectives.build({"name": other} if isinstance(other, str) else other)
        expected, seen = (_loss(o, problem.inputs(o)) for o in (there, here))
        expect(_same(expected, seen), f"{other} = {_list(expected)} at {dict(values)}", _list(seen))


def _survives_extremes(objective: Objective, problem: Planted) -> None:
    """In float32, as in training: there e^-300 is 0."""
    tokens, users = problem.catalogue.tokens, torch.arange(len(LENGTHS))[:, None, None]
    for what, ids in (("target", problem.target_ids[:, None]), ("negative", problem.negative_ids)):
        table = problem.table.float()
        table[users, problem.before(ids), tokens[ids]] = LOWEST
        table[:, :, PAD] = problem.table[:, :, PAD].float()  # no ID goes on with PAD: it is nobody's token
        small = dataclasses.replace(problem, table=table, reference=problem.reference.float())
        inputs = small.inputs(objective)
        losses, gradients = _loss(objective, inputs), _gradients(objective, small.inputs(objective))
        expect(torch.isfinite(losses).all(), f"finite losses with {what} log-probabilities of {LOWEST:.0f}",
               _list(losses))
        bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        expect(not bad, f"finite gradients with {what} log-probabilities of {LOWEST:.0f}", f"not so on {bad}")


CHECKS: dict[str, Callable[[Objective, Planted], str | None]] = {
    "is a frozen dataclass with documented settings": _is_a_component,
    "writes into nothing that it is given": _writes_nothing,
    "gives a finite loss a row": _has_a_shape,
    "has a finite gradient for every row": _reaches_every_row,
    "does not see padding": _skips_padding,
    "is deterministic and draws no global random numbers": _is_deterministic,
    "does not depend on the order of rows": _knows_no_order,
    "gives a row alone the same loss": _treats_rows_alone,
    "falls when the targets' logits rise": _falls_when_targets_rise,
    "falls and makes targets likelier under AdamW": _learns,
    "moves no state but the one it is given": _keeps_state_apart,
    "equals other objectives at its declared limits": _meets_its_limits,
    "stays finite at log-probabilities of -300": _survives_extremes,
}
