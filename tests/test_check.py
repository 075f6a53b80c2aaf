"""The contract checks: sound objectives pass, each fault is found by its check; files of the user's own."""

from __future__ import annotations

import math
import random
import re
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.errors import UserError
from genrec_bench.core.settings import setting
from genrec_bench.objectives.base import NEEDS, Objective, ObjectiveInputs, check_needs
from genrec_bench.objectives.cross_entropy import CrossEntropy
from genrec_bench.training.objective_checks import CHECKS, check_objective
from genrec_bench.training.planted import LENGTHS, NUM_NEGATIVES, planted

torch.set_num_threads(1)

(COMPONENT, WRITES, SHAPE, GRADIENT, PADDING, DETERMINISTIC, ORDER, ALONE, RISES, LEARNS, STATE, LIMITS,
 EXTREMES) = CHECKS


@dataclass(frozen=True)
class Everything(Objective):
    """Uses all that can be asked for."""

    needs: ClassVar[frozenset[str]] = frozenset(NEEDS)
    num_beams: int = setting(4, "beam width")
    normaliser: str = setting("trie", "vocabulary of the search")
    num_negatives: int = setting(6, "sampled items")
    reference: str = setting("initial", "whose weights the frozen network has")
    limits: ClassVar[list] = []

    def initial_state(self, depth: int) -> dict[str, Tensor]:
        return {"mean": torch.zeros(depth, dtype=torch.float64)}

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        own = inputs.target_token_logps.sum(dim=1) - inputs.reference_target_token_logps.sum(dim=1)
        others = inputs.negative_token_logps.sum(dim=2) - inputs.reference_negative_token_logps.sum(dim=2)
        others = torch.where(inputs.is_other, others, -torch.inf)
        delta = inputs.beam_thresholds - inputs.target_token_logps.cumsum(dim=1)
        local = inputs.logits.masked_fill(~inputs.valid, -torch.inf).logsumexp(dim=2)
        taken = inputs.logits.gather(2, inputs.targets[:, :, None])[:, :, 0]
        margin = F.softplus(delta.masked_fill(delta.isinf(), -math.inf))
        masked = torch.where(inputs.is_token, local - taken, 0.0)
        inputs.state["mean"] = 0.5 * inputs.state["mean"] + masked.detach().mean(dim=0).double()
        return (F.softplus((others - own[:, None]).logsumexp(dim=1)) + margin.sum(dim=1) + masked.sum(dim=1)
                - inputs.eos_logps)


def failed(objective: type[Objective] | Objective) -> set[str]:
    return {f.name for f in check_objective(objective) if not f.passed}


def broken(loss, base: type = CrossEntropy, **members) -> type[Objective]:
    """Cross-entropy with another loss, and other members."""
    return dataclass(frozen=True)(type("Mine", (base,), {"loss": loss, "__annotations__": {}, **members}))


def plain(self: Objective, inputs: ObjectiveInputs) -> Tensor:
    return CrossEntropy().loss(inputs)


@pytest.mark.parametrize("objective", [CrossEntropy, CrossEntropy(), Everything])
def test_sound_objectives_pass_every_check(objective: type[Objective] | Objective) -> None:
    findings = check_objective(objective)
    assert [f.name for f in findings] == list(CHECKS) and all(f.passed for f in findings), findings


def test_planted_inputs_hold_what_is_needed_and_no_more() -> None:
    inputs = planted(0).inputs(Everything())
    depth, vocab = inputs.targets.shape[1], inputs.catalogue.vocab_size
    assert (inputs.targets != PAD).sum(dim=1).tolist() == list(LENGTHS) and depth == 3
    assert inputs.logits.shape == (len(LENGTHS), depth, vocab) and inputs.logits.requires_grad
    assert inputs.negatives.shape == (len(LENGTHS), NUM_NEGATIVES, depth)
    assert inputs.is_other.sum() == len(LENGTHS) * NUM_NEGATIVES - 1 and not inputs.is_other[0, -1]
    assert inputs.reference_negative_token_logps.shape == inputs.negatives.shape
    assert inputs.beam_thresholds.shape == inputs.targets.shape and inputs.eos_logps.shape == (len(LENGTHS),)
    bare = planted(0).inputs(CrossEntropy())
    assert torch.equal(bare.logits, inputs.logits) and torch.equal(bare.targets, inputs.targets)
    empty = ("catalogue", "target_ids", "negative_ids", "node_logits", "reference_target_token_logps",
             "beam_thresholds", "eos_logps")
    assert all(getattr(bare, name) is None for name in empty) and not bare.state
    assert not torch.equal(planted(1).inputs(CrossEntropy()).logits, bare.logits)


def test_planted_negatives_are_as_many_as_asked_for() -> None:
    inputs, all_of_them = planted(0).inputs(Everything(num_negatives=3)), planted(0).inputs(Everything())
    assert torch.equal(inputs.negative_ids, all_of_them.negative_ids[:, :3])
    assert inputs.negative_logits.shape[:2] == inputs.reference_negative_token_logps.shape[:2] == (len(LENGTHS), 3)
    assert not failed(Everything(num_negatives=3))


def test_planted_negatives_share_the_logits_of_shared_prefixes() -> None:
    inputs = planted(3).inputs(Everything())
    assert torch.equal(inputs.negative_logits[:, :, 0], inputs.logits[:, None, 0].expand(-1, NUM_NEGATIVES, -1))
    assert torch.equal(inputs.negative_logits[0, -1], inputs.logits[0])
    torch.testing.assert_close(inputs.negative_token_logps[0, -1], inputs.target_token_logps[0])


@pytest.mark.parametrize("normaliser", ["flat", "trie"])
@pytest.mark.parametrize("num_beams", [1, 4, 30])
def test_planted_thresholds_are_those_of_a_naive_beam_search(normaliser: str, num_beams: int) -> None:
    problem = planted(2)
    thresholds = planted(2).inputs(Everything(num_beams=num_beams, normaliser=normaliser)).beam_thresholds
    tokens, nodes = problem.catalogue.tokens.tolist(), problem.catalogue.nodes.tolist()
    children: dict[int, dict[int, int]] = {}
    for row, path in zip(tokens, nodes, strict=True):
        for before, token, after in zip([0, *path[:-1]], row, path, strict=True):
            children.setdefault(before, {})[after] = token
    for user, table in enumerate(problem.table):
        beam = {0: 0.0}
        for level in range(3):
            found = {}
            for node, score in beam.items():
                allowed = [t for t in children[node].values() if t != PAD]
                total = (table[node, allowed] if normaliser == "trie" and allowed else table[node]).logsumexp(0)
                for after, token in children[node].items():
                    found[after] = score + (0.0 if token == PAD else float(table[node, token] - total))
            beam = dict(sorted(found.items(), key=lambda kv: -kv[1])[:num_beams])
            expected = min(beam.values()) if len(beam) == num_beams else -math.inf
            assert float(thresholds[user, level]) == pytest.approx(expected, abs=1e-12)


def test_planted_eos_is_the_one_behind_the_last_token() -> None:
    problem, inputs = planted(0), planted(0).inputs(Everything())
    for user, length in enumerate(LENGTHS):
        node = problem.catalogue.nodes[problem.target_ids[user], length - 1]
        assert float(inputs.eos_logps[user].detach()) == pytest.approx(
            float(problem.table[user, node].log_softmax(0)[EOS]), abs=1e-12)


def mean_loss(self, inputs):
    return plain(self, inputs).mean()


def unmasked(self, inputs):
    return -inputs.logits.log_softmax(-1).gather(2, inputs.targets[:, :, None])[:, :, 0].mean(dim=1)


def noisy(self, inputs):
    return plain(self, inputs) + 1e-3 * torch.rand(len(inputs.targets), dtype=inputs.logits.dtype)


def numpy_noise(self, inputs):
    np.random.random()
    random.random()
    return plain(self, inputs)


def centred(self, inputs):
    losses = plain(self, inputs)
    return losses - 0.5 * losses.mean().detach()


def first_row_counts_twice(self, inputs):
    losses = plain(self, inputs)
    return losses * torch.linspace(2, 1, len(losses), dtype=losses.dtype)


def exp_then_log(self, inputs):
    return -inputs.target_token_logps.sum(dim=1).exp().log()


def first_rows_only(self, inputs):
    return plain(self, inputs) * torch.tensor([1, 1, 1, 1, 1, 0])[:len(inputs.targets)]


def moves_in_place(self, inputs):
    self.cache["mean"] += 1.0
    inputs.state["mean"] = self.cache["mean"].clone()
    return plain(self, inputs)


def with_gradient(self, inputs):
    inputs.state["mean"] = plain(self, inputs).mean()
    return plain(self, inputs)


def zero_state(self, depth):
    return {"mean": torch.zeros((), dtype=torch.float64)}


@pytest.mark.parametrize(("objective", "check", "words"), [
    (broken(mean_loss), SHAPE, r"expected a tensor of shape \(6,\), a loss a row; saw shape \(\)"),
    (broken(lambda self, inputs: plain(self, inputs).float()), SHAPE, "torch.float64; saw torch.float32"),
    (broken(lambda self, inputs: 1.0), SHAPE, "saw float"),
    (broken(lambda self, inputs: plain(self, inputs) / 0.0), SHAPE, "finite losses; saw .inf"),
    (broken(first_rows_only), GRADIENT, "a gradient for every row"),
    (broken(lambda self, inputs: plain(self, inputs).detach()), SHAPE, "saw a loss without gradient, as .detach()"),
    (broken(unmasked), PADDING, "no gradient on logits at PAD"),
    (broken(noisy), DETERMINISTIC, "the same bits again"),
    (broken(numpy_noise), DETERMINISTIC, "those of numpy, random were drawn"),
    (broken(first_row_counts_twice), ORDER, "for shuffled rows"),
    (broken(centred), ALONE, "couples_rows = True"),
    (broken(lambda self, inputs: -plain(self, inputs)), RISES, "less than"),
    (broken(lambda self, inputs: -plain(self, inputs)), LEARNS, "targets likelier than"),
    (broken(moves_in_place, initial_state=zero_state, cache={"mean": torch.zeros((), dtype=torch.float64)}), STATE,
     "from an equal state"),
    (broken(with_gradient, initial_state=zero_state), STATE, "without gradient"),
    (broken(plain, limits=[({}, {"name": "cross_entropy", "reduction": "sum"})]), LIMITS, "cross_entropy"),
    (broken(plain, limits=[({"no_such": 1}, "cross_entropy")]), LIMITS, "unknown setting 'no_such'"),
    (broken(exp_then_log), EXTREMES, "finite losses with target log-probabilities of -300"),
    (broken(lambda self, inputs: inputs.valid.sum()), SHAPE, r"among its needs\?\) \(.*test_check.py, line \d+\)"),
    (broken(plain, needs=frozenset({"magic"})), COMPONENT, "needs among .*; saw magic"),
])
def test_each_fault_is_found(objective: type[Objective], check: str, words: str) -> None:
    found = {f.name: f for f in check_objective(objective)}
    assert not found[check].passed
    assert re.search(words, found[check].detail) and "\n" not in found[check].detail


def test_a_detached_loss_is_said_once() -> None:
    """What the checks after it would say of it again is not asked."""
    found = check_objective(broken(lambda self, inputs: plain(self, inputs).detach()))
    assert [f.name for f in found if not f.passed] == [SHAPE] == [found[-1].name]


def masks_in_place(self, inputs):
    inputs.logits.masked_fill_(~inputs.valid, -1e9)
    return plain(self, inputs)


def halves(self, inputs):
    inputs.logits.div_(2)
    return plain(self, inputs)


def ignores(self, inputs):
    inputs.targets[inputs.targets == PAD] = -100
    return F.cross_entropy(inputs.logits.transpose(1, 2), inputs.targets, ignore_index=-100, reduction="none").sum(1)


def ignores_and_raises(self, inputs):
    inputs.targets[inputs.targets == PAD] = -100
    return plain(self, inputs)


def shifts_the_trie(self, inputs):
    inputs.catalogue.child_token[1:].add_(1)
    return plain(self, inputs)


def through_data(self, inputs):
    inputs.logits.data *= 0.5
    return plain(self, inputs)


def through_numpy(self, inputs):
    inputs.logits.detach().numpy()[:] *= 0.5
    return plain(self, inputs)


def clears_a_property(self, inputs):
    inputs.valid[:, :, PAD + 2] = False
    inputs.is_token.logical_and_(inputs.is_token)
    return plain(self, inputs)


def replaces(self, inputs):
    inputs.logits, inputs.state = inputs.logits * 0.5, {}
    return plain(self, inputs)


def counts_in_place(self, inputs):
    inputs.state["mean"].add_(1.0)
    return plain(self, inputs)


@pytest.mark.parametrize(("loss", "written", "members"), [
    (masks_in_place, "logits", {"needs": {"trie"}}), (halves, "logits", {}), (ignores, "targets", {}),
    (shifts_the_trie, "catalogue.child_token", {"needs": {"trie"}}), (through_data, "logits", {}),
    (through_numpy, "logits", {}), (clears_a_property, "valid, is_token", {"needs": {"trie"}}),
    (replaces, "logits, state", {}), (counts_in_place, "state.mean", {"initial_state": zero_state})])
def test_a_loss_that_writes_into_its_inputs_is_told_so_and_nothing_else(loss: Any, written: str, members: dict) -> None:
    (finding,) = [f for f in check_objective(broken(loss, **members)) if not f.passed]
    assert finding.name == WRITES and finding.detail.endswith(f"saw {written} changed")


def test_a_write_is_told_where_the_loss_raises_because_of_it() -> None:
    found = {f.name: f for f in check_objective(broken(ignores_and_raises))}
    assert found[WRITES].detail.endswith("saw targets changed") and "raised" in found[SHAPE].detail


@pytest.mark.parametrize("needs", [("trie",), "trie", ["trie"], {1}, None])
def test_needs_that_are_no_set_of_names_are_the_one_finding(needs: Any) -> None:
    mine = broken(plain, needs=needs)
    for objective in (mine, mine()):
        (finding,) = check_objective(objective)
        assert finding.detail == ("objective cross_entropy: needs must be a set of names, such as needs = "
                                  f"frozenset({{'trie'}}), got {needs!r}.")
    with pytest.raises(UserError, match="must be a set of names"):
        check_needs([mine()])


def test_coupled_rows_relax_that_check_alone() -> None:
    declared = broken(centred, couples_rows=True)
    assert failed(broken(centred)) == {ALONE} and failed(declared) == set()
    assert {f.name: f for f in check_objective(declared)}[ALONE].detail == "not asked: couples_rows is True"


def test_limits_may_be_computed() -> None:
    def limits(cls) -> list:
        return [({"reduction": "mean"}, "cross_entropy"), ({"reduction": "sum"}, {"name": "cross_entropy",
                                                                                 "reduction": "sum"})]

    assert failed(broken(CrossEntropy.loss, limits=classmethod(limits))) == set()


def test_a_class_that_is_no_component_is_told_so() -> None:
    class Undocumented(CrossEntropy):
        strength: float = 1.0

    @dataclass
    class Thawed(Objective):
        loss = plain

    @dataclass(frozen=True)
    class Required(Objective):
        size: int = setting(MISSING, "has no default")
        loss = plain

    bare = dataclass(frozen=True)(Undocumented)
    assert failed(bare) == {COMPONENT} and "no doc for strength" in check_objective(bare)[0].detail
    assert COMPONENT in failed(Thawed)
    (finding,) = check_objective(Required)
    assert not finding.passed and "needs a value for size" in finding.detail


def test_checking_leaves_global_random_numbers_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    check_objective(Everything)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert (np.random.get_state()[1] == before[1]).all()
