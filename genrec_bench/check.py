"""Contract checks of an objective: what every loss has to keep, said in one line each."""

from __future__ import annotations

import dataclasses
import random
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec_bench import registry, settings
from genrec_bench.contracts import EOS, PAD
from genrec_bench.inputs import check_needs
from genrec_bench.objectives.base import NEEDS, Objective, ObjectiveInputs
from genrec_bench.objectives.catalogue import Catalogue
from genrec_bench.trie import Trie

FIRST_CODES, CODES, IDS = 24, 6, 80  # more first codes than any usual beam, so that a beam always has a last place
LENGTHS = (3, 3, 2, 3, 1, 3)  # tokens of the six targets
NUM_NEGATIVES = 6
EXACT = 1e-12
LOWEST = -300.0


@dataclass(frozen=True)
class Finding:
    """One check: passed, or in `detail` what was expected and what was seen."""

    name: str
    passed: bool
    detail: str = ""


class Broken(Exception):
    """What a check expected and what it saw."""


@dataclass(frozen=True)
class Planted:
    """Six users of a network that is a table: free logits after every prefix of a small catalogue of ragged IDs.

    table: (B, nodes, V), reference: the frozen network, of the same shape; target_ids: (B,); negative_ids: (B, N), of
    which only the last of the first user is the target itself. Targets and negatives that share a prefix share logits,
    as they do in a real network.
    """

    catalogue: Catalogue
    target_ids: Tensor
    negative_ids: Tensor
    table: Tensor
    reference: Tensor

    def logits(self, table: Tensor, ids: Tensor) -> Tensor:
        """(B, N, T, V) logits along the paths of IDs (B, N)."""
        users = torch.arange(len(ids))[:, None, None]
        return table[users, self.before(ids)]

    def before(self, ids: Tensor) -> Tensor:
        """(B, N, T) node before each token."""
        nodes = self.catalogue.nodes[ids]
        return torch.cat([torch.zeros_like(nodes[..., :1]), nodes[..., :-1]], dim=-1)

    def token_logps(self, table: Tensor, ids: Tensor, normaliser: str = "flat") -> Tensor:
        """(B, N, T) log-probabilities of the tokens of IDs (B, N), 0 at PAD."""
        logits, tokens = self.logits(table, ids), self.catalogue.tokens[ids]
        if normaliser == "trie":
            logits = logits.masked_fill(~self.catalogue.valid(ids), -torch.inf)
        logps = logits.log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]
        return logps.masked_fill(tokens == PAD, 0.0)

    def inputs(self, objective: Objective, *, table: Tensor | None = None, rows: Tensor | None = None,
               state: Mapping[str, Tensor] | None = None) -> ObjectiveInputs:
        """What an objective sees of some rows (None = all), with what it needs and no more.

        table: other logits, such as parameters with gradient. state: copied; None = the initial one.
        """
        if rows is not None:
            picked = (t[rows] for t in (self.target_ids, self.negative_ids, self.table, self.reference))
            return Planted(self.catalogue, *picked).inputs(
                objective, table=None if table is None else table[rows], state=state)
        table = self.table.clone().requires_grad_() if table is None else table
        needs, own = objective.needs, self.target_ids[:, None]
        given: dict[str, Any] = {"state": _copied(objective.initial_state(self.catalogue.depth)
                                                  if state is None else state)}
        if "negatives" in needs:
            given |= {"negative_ids": self.negative_ids, "negative_logits": self.logits(table, self.negative_ids)}
        if "reference" in needs:
            given["reference_target_token_logps"] = self.token_logps(self.reference, own)[:, 0]
        if {"reference", "negatives"} <= needs:
            given["reference_negative_token_logps"] = self.token_logps(self.reference, self.negative_ids)
        if "beam" in needs:
            given["beam_thresholds"] = self._thresholds(table.detach(), objective.num_beams, objective.normaliser)
        if "eos" in needs:
            given["eos_logps"] = self._eos_logps(table)
        inputs = ObjectiveInputs.from_logits(self.catalogue, self.target_ids, self.logits(table, own)[:, 0], **given)
        if not needs & {"trie", "negatives"}:
            inputs = dataclasses.replace(inputs, catalogue=None, target_ids=None)
        return inputs

    def _eos_logps(self, table: Tensor) -> Tensor:
        last = (self.catalogue.tokens[self.target_ids] != PAD).sum(dim=1, keepdim=True) - 1
        nodes = self.catalogue.nodes[self.target_ids].gather(1, last)[:, 0]
        return table[torch.arange(len(nodes)), nodes].log_softmax(dim=-1)[:, EOS]

    def _thresholds(self, table: Tensor, num_beams: int, normaliser: str) -> Tensor:
        """(B, T) score of the last prefix that a beam search keeps after each level, -inf where it is not full."""
        everything = torch.arange(len(self.catalogue.tokens)).expand(len(table), -1)
        scores = self.token_logps(table, everything, normaliser).cumsum(dim=2)
        alive = torch.ones_like(scores[:, :, 0], dtype=torch.bool)
        thresholds = []
        for level in range(self.catalogue.depth):
            nodes = self.catalogue.nodes[:, level]
            first = torch.cat([torch.ones(1, dtype=torch.bool), nodes[1:] != nodes[:-1]])  # IDs are in order
            found = scores[:, :, level].masked_fill(~(alive & first), -torch.inf).sort(dim=1, descending=True).values
            full = num_beams <= found.shape[1]
            thresholds.append(found[:, num_beams - 1] if full else torch.full_like(found[:, 0], -torch.inf))
            alive = alive & (scores[:, :, level] >= thresholds[-1][:, None])
        return torch.stack(thresholds, dim=1)


def planted(seed: int) -> Planted:
    """A random small problem, float64; equal seeds give equal ones."""
    draw = np.random.default_rng(seed)
    codes = np.stack([np.arange(IDS) % FIRST_CODES, *draw.integers(0, CODES, size=(2, IDS))], axis=1)
    codes[:len(LENGTHS), 1] = np.where(np.array(LENGTHS) == 2, 0, codes[:len(LENGTHS), 1].clip(min=1))
    ends = np.stack([codes[:, 0] % 5 == 4, codes[:, 1] == 0], axis=1)  # these codes end an ID: none begins another
    ended = np.pad(np.logical_or.accumulate(ends, axis=1), ((0, 0), (1, 0)))
    tokens = 2 + codes + np.array([0, FIRST_CODES, FIRST_CODES + CODES])
    trie = Trie.from_codes(np.where(ended, PAD, tokens))
    catalogue = Catalogue.from_trie(trie, 2 + FIRST_CODES + 2 * CODES)
    targets = trie.id_of_item[:len(LENGTHS)]
    negatives = np.stack([draw.permutation(np.delete(np.arange(trie.num_ids), t))[:NUM_NEGATIVES] for t in targets])
    negatives[0, -1] = targets[0]
    shape = (len(LENGTHS), len(trie.token), catalogue.vocab_size)
    tables = (torch.from_numpy(draw.normal(size=shape)) for _ in range(2))
    return Planted(catalogue, torch.from_numpy(targets), torch.from_numpy(negatives), *tables)


def planted_inputs(seed: int, objective: Objective) -> ObjectiveInputs:
    """Inputs with all that an objective needs, float64, its logits with gradient; equal seeds give equal ones."""
    return planted(seed).inputs(objective)


def check_objective(objective: type[Objective] | Objective) -> list[Finding]:
    """Every check in turn, on an objective as it is or on a class at its defaults; none stops the others.

    Where a class does not build, that is the one finding.
    """
    if isinstance(objective, type):
        try:
            objective = settings.build(objective, {}, objective.__name__)
        except Exception as error:  # noqa: BLE001  whatever a plug-in raises is a finding
            return [Finding("builds from its defaults", False, _told(error, objective))]
    problem, findings = planted(0), []
    for name, check in CHECKS.items():
        try:
            findings.append(Finding(name, True, check(objective, problem) or ""))
        except Broken as broken:
            findings.append(Finding(name, False, str(broken)))
        except Exception as error:  # noqa: BLE001
            findings.append(Finding(name, False, _told(error, type(objective))))
    return findings


def _told(error: Exception, cls: type) -> str:
    """An error as one line, with the last line of the plug-in's own file that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = getattr(sys.modules.get(cls.__module__), "__file__", None)
    place = ([f for f in frames if f.filename == own] or frames)[-1]
    text = f"raised {type(error).__name__}: {' '.join(str(error).split())}"
    hint = " (is what it reads among its needs?)" if "NoneType" in text else ""
    return f"{text}{hint} ({place.filename}, line {place.lineno})"


def _expect(holds: bool | Tensor, expected: str, seen: Any) -> None:
    if not holds:
        raise Broken(f"expected {expected}; saw {seen}")


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=EXACT, atol=EXACT))


def _list(values: Tensor) -> str:
    return "[" + ", ".join(f"{v:.6g}" for v in values.detach().flatten().tolist()) + "]"


def _gradients(objective: Objective, inputs: ObjectiveInputs) -> dict[str, Tensor]:
    """Gradients of the summed loss on every logit that the objective saw; 0 where it used none."""
    seen = {name: t for name in ("logits", "node_logits", "eos_logps") if (t := getattr(inputs, name)) is not None}
    found = torch.autograd.grad(objective.loss(inputs).sum(), list(seen.values()), allow_unused=True)
    return {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(seen.items(), found, strict=True)}


def _is_a_component(objective: Objective, problem: Planted) -> None:
    cls = type(objective)
    _expect(dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen, "a frozen dataclass",
            f"{cls.__name__} without @dataclass(frozen=True)")
    bare = [f.name for f in dataclasses.fields(cls) if not f.metadata.get("doc", "").strip()]
    _expect(not bare, "a setting(default, doc) for every field", f"no doc for {', '.join(bare)}")
    unknown = sorted(objective.needs - set(NEEDS))
    _expect(not unknown, f"needs among {', '.join(NEEDS)}", ", ".join(unknown))
    check_needs([objective])
    again = settings.build(cls, settings.to_dict(objective), cls.__name__)
    _expect(again == objective, "an equal objective from its own settings", again)


def _has_a_shape(objective: Objective, problem: Planted) -> None:
    losses = objective.loss(problem.inputs(objective))
    shape = (len(LENGTHS),)
    _expect(isinstance(losses, Tensor) and losses.shape == shape, f"a tensor of shape {shape}, a loss a row",
            f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__)
    _expect(losses.dtype == torch.float64, "the dtype of the logits, torch.float64", losses.dtype)
    _expect(torch.isfinite(losses).all(), "finite losses", _list(losses))


def _reaches_every_row(objective: Objective, problem: Planted) -> None:
    gradients = _gradients(objective, problem.inputs(objective))
    for name, gradient in gradients.items():
        _expect(torch.isfinite(gradient).all(), f"a finite gradient on {name}", _list(gradient.abs().amax((1, 2)))
                if gradient.ndim == 3 else _list(gradient))
    sizes = sum(g.abs().flatten(1).sum(dim=1) if g.ndim > 1 else g.abs() for g in gradients.values())
    _expect((sizes > 0).all(), "a gradient for every row", f"sums of absolute gradients {_list(sizes)}")


def _skips_padding(objective: Objective, problem: Planted) -> None:
    inputs = problem.inputs(objective)
    before, gradients = objective.loss(inputs), _gradients(objective, problem.inputs(objective))
    pads = {"logits": inputs.targets == PAD}
    if inputs.negative_ids is not None:
        pads["node_logits"] = inputs.negatives.flatten(1) == PAD
    wild = {}
    for name, pad in pads.items():
        seen = gradients[name][pad]
        _expect(not seen.any(), f"no gradient on {name} at PAD", f"up to {float(seen.abs().max()):.6g}")
        noise = torch.linspace(-1e6, 1e6, pad.shape[1]).double()[None, :, None]
        wild[name] = torch.where(pad[:, :, None], noise, getattr(inputs, name))
    fresh = problem.inputs(objective)
    after = objective.loss(dataclasses.replace(fresh, **wild))
    _expect(_same(before, after), f"{_list(before)} whatever the logits at PAD are", _list(after))


def _is_deterministic(objective: Objective, problem: Planted) -> None:
    states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    first, second = (objective.loss(problem.inputs(objective)) for _ in range(2))
    _expect(torch.equal(first, second), f"the same bits again, {_list(first)}", _list(second))
    now = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    moved = [n for n, a, b in zip(("torch", "numpy", "random"), states, now, strict=True)
             if not (torch.equal(a, b) if n == "torch" else a == b)]
    _expect(not moved, "untouched global random numbers", f"those of {', '.join(moved)} were drawn")


def _knows_no_order(objective: Objective, problem: Planted) -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    expected = objective.loss(problem.inputs(objective))[order]
    seen = objective.loss(problem.inputs(objective, rows=order))
    _expect(_same(expected, seen), f"{_list(expected)} for shuffled rows", _list(seen))


def _treats_rows_alone(objective: Objective, problem: Planted) -> str | None:
    if objective.couples_rows:
        return "not asked: couples_rows is True"
    expected = objective.loss(problem.inputs(objective))
    seen = torch.cat([objective.loss(problem.inputs(objective, rows=torch.tensor([row])))
                      for row in range(len(LENGTHS))])
    _expect(_same(expected, seen), f"{_list(expected)} for rows alone (or couples_rows = True)", _list(seen))


def _falls_when_targets_rise(objective: Objective, problem: Planted) -> None:
    tokens = problem.catalogue.tokens[problem.target_ids]
    raised, users = problem.table.clone(), torch.arange(len(tokens))[:, None]
    raised[users, problem.before(problem.target_ids), tokens] += 20.0 * (tokens != PAD)
    before, after = (objective.loss(problem.inputs(objective, table=t)) for t in (problem.table, raised))
    _expect((after < before).all(), f"less than {_list(before)} with the targets' logits 20 higher", _list(after))


def _learns(objective: Objective, problem: Planted) -> None:
    """The table itself is trained; the reference and, where there is a state, the state's first value stay as given."""
    table = problem.table.clone().requires_grad_()
    optimiser = torch.optim.AdamW([table], lr=0.1, weight_decay=0.0)
    state = objective.initial_state(problem.catalogue.depth)
    for _ in range(30):
        inputs = problem.inputs(objective, table=table, state=state)
        objective.loss(inputs).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        state = inputs.state
    with torch.no_grad():
        losses, logps = ([f(t) for t in (problem.table, table)] for f in (
            lambda t: float(objective.loss(problem.inputs(objective, table=t)).mean()),
            lambda t: float(problem.token_logps(t, problem.target_ids[:, None]).sum(dim=2).mean())))
    _expect(losses[1] < losses[0], f"a mean loss below {losses[0]:.6g} after 30 steps of AdamW", f"{losses[1]:.6g}")
    _expect(logps[1] > logps[0], f"targets likelier than {logps[0]:.6g} (mean log-probability) after 30 steps",
            f"{logps[1]:.6g}")


def _keeps_state_apart(objective: Objective, problem: Planted) -> str | None:
    given = objective.initial_state(problem.catalogue.depth)
    if not given:
        return "no state"
    untouched, results = _copied(given), []
    for _ in range(2):
        inputs = problem.inputs(objective, state=given)
        results.append((objective.loss(inputs).detach(), inputs.state))
    (one, moved), (again, moved_again) = results
    for name, start in untouched.items():
        _expect(name in moved and moved[name].shape == start.shape and moved[name].dtype == start.dtype
                and set(moved) == set(given), f"the state's names, shapes and dtypes kept, {sorted(given)}",
                {n: (tuple(t.shape), str(t.dtype)) for n, t in moved.items()})
        _expect(not moved[name].requires_grad and bool(torch.isfinite(moved[name]).all()),
                f"a finite {name} without gradient", moved[name])
        _expect(torch.equal(objective.initial_state(problem.catalogue.depth)[name], start),
                f"the same initial {name} after use", objective.initial_state(problem.catalogue.depth)[name])
        _expect(torch.equal(moved[name], moved_again[name]), f"{name} = {_list(moved[name])} from an equal state",
                _list(moved_again[name]))
    _expect(torch.equal(one, again), f"{_list(one)} again from an equal state", _list(again))


def _meets_its_limits(objective: Objective, problem: Planted) -> str | None:
    limits = getattr(objective, "limits", ())
    limits = limits() if callable(limits) else limits
    if not limits:
        return "none declared"
    for values, other in limits:
        here = settings.build(type(objective), values, type(objective).__name__)
        there = registry.objectives.build({"name": other} if isinstance(other, str) else other)
        expected, seen = (o.loss(problem.inputs(o)) for o in (there, here))
        _expect(_same(expected, seen), f"{other} = {_list(expected)} at {dict(values)}", _list(seen))


def _survives_extremes(objective: Objective, problem: Planted) -> None:
    """In float32, as in training: there e^-300 is 0."""
    tokens, users = problem.catalogue.tokens, torch.arange(len(LENGTHS))[:, None, None]
    for what, ids in (("target", problem.target_ids[:, None]), ("negative", problem.negative_ids)):
        table = problem.table.float()
        table[users, problem.before(ids), tokens[ids]] = LOWEST
        table[:, :, PAD] = problem.table[:, :, PAD].float()  # no ID goes on with PAD: it is nobody's token
        small = dataclasses.replace(problem, table=table, reference=problem.reference.float())
        inputs = small.inputs(objective)
        losses, gradients = objective.loss(inputs), _gradients(objective, small.inputs(objective))
        _expect(torch.isfinite(losses).all(), f"finite losses with {what} log-probabilities of {LOWEST:.0f}",
                _list(losses))
        bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        _expect(not bad, f"finite gradients with {what} log-probabilities of {LOWEST:.0f}", f"not so on {bad}")


CHECKS: dict[str, Callable[[Objective, Planted], str | None]] = {
    "is a frozen dataclass with documented settings": _is_a_component,
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
