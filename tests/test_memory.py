"""`training.memory_gib`: what autograd keeps is counted, batches are cut, and results do not depend on the cut."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genrec_bench.batches import TokenisedInstances
from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.objectives.apao import Apao
from genrec_bench.objectives.base import Objective
from genrec_bench.objectives.cross_entropy import CrossEntropy
from genrec_bench.objectives.s_dpo import SDpo
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.training import feed as module
from genrec_bench.training.feed import InputFeed, row_losses
from genrec_bench.training.loop import initial_states
from genrec_bench.training.micro_batches import GIB, in_parts, kept_bytes, users_at_once
from genrec_bench.trie import Trie

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
SIZES = {"tiger": {"width": 16, "num_layers": 1, "num_heads": 2, "head_width": 8, "feed_forward_width": 32},
         "llama": {"width": 16, "num_layers": 2, "num_heads": 2, "head_width": 8, "feed_forward_width": 32}}
PAIRS = {"pairwise": [(1.0, CrossEntropy()), (0.5, Apao(form="pairwise", num_negatives=12, weights="released"))],
         "reference": [(1.0, SDpo(num_negatives=6)), (0.3, CrossEntropy(eos=True))],
         "cross entropy": [(1.0, CrossEntropy())]}


def test_kept_bytes_by_hand() -> None:
    """x (2, 4) and relu(x W) (2, 3), which the next product keeps too: 8 + 6 numbers; weights and sums cost nothing."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 5, bias=False))
    x = torch.ones(2, 4)
    assert kept_bytes(lambda: model(x).sum(), model) == 4 * (8 + 6)
    with torch.no_grad():
        assert kept_bytes(lambda: model(x), model) == 4 * (8 + 6), "counted as in training"


def test_counting_draws_no_random_numbers() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    torch.manual_seed(0)
    kept_bytes(lambda: model(torch.ones(2, 4)), model)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize(("memory", "expected"), [(1.0, 1), (1.49, 1), (1.5, 2), (2.5, 4), (3.0, 5), (5.4, 5),
                                                  (5.5, 10), (90.0, 10)])
def test_users_at_once_by_hand(memory: float, expected: int) -> None:
    """Half a GiB for six times the logits, half a GiB a user (1.5 x 1/3): (memory - 0.5) / 0.5 users of 10 fit.

    Parts are alike: of 4 that fit, 10 users make three parts of 4, 4 and 2; of 9 that fit, two parts of 5.
    """
    assert users_at_once(10, kept=GIB // 3, logits=GIB // 12, memory_gib=memory) == expected


def test_a_bound_below_one_user_names_the_smallest() -> None:
    with pytest.raises(UserError, match="training.memory_gib = 0.9 is too small for a batch of 10 rows: it takes at "
                                        "least 1.01, of which 0.50 for the logits.*training.batch_size"):
        users_at_once(10, kept=GIB // 3 + 99, logits=GIB // 12, memory_gib=0.9)


@pytest.mark.parametrize("seed", range(5))
def test_random_bounds_are_kept_with_as_few_parts_as_possible(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(50):
        users, kept, logits = (int(n) for n in random.integers(1, (200, 10**8, 10**8)))
        memory = (6 * logits + 1.5 * kept * random.uniform(1, 250)) / GIB
        at_once = users_at_once(users, kept=kept, logits=logits, memory_gib=memory)
        parts = math.ceil(users / at_once)
        assert 1 <= at_once <= users and 6 * logits + 1.5 * kept * at_once <= memory * GIB
        fewer = math.ceil(users / max(parts - 1, 1))
        assert parts == 1 or 6 * logits + 1.5 * kept * fewer > memory * GIB


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 99])
def test_parts_are_joined_in_order(at_once: int) -> None:
    x = torch.arange(14.0).view(7, 2).requires_grad_()
    result = in_parts(lambda users: x[users].square(), 7, at_once)
    result.sum().backward()
    assert torch.equal(result, x.detach().square()) and torch.equal(x.grad, 2 * x.detach())


class Case:
    """A network and objectives on the toy data."""

    def __init__(self, interactions: Interactions, backbone: str, objectives: list[tuple[float, Objective]],
                 **settings: float) -> None:
        codes = interactions.given_codes.copy()
        codes[20:24, 2] = -1
        ids = SemanticIds.from_codes(codes)
        self.objectives, self.trie = objectives, Trie.from_codes(ids.tokens)
        self.model = registry.backbones.build({"name": backbone, **SIZES[backbone], **settings}).build(ids.vocab_size,
                                                                                                        3)
        rows = LeaveOneOut().split(interactions).train
        self.data = TokenisedInstances(rows, ids, self.model.history_suffix, "cpu")
        self.reference = copy.deepcopy(self.model).eval().requires_grad_(False)
        with torch.no_grad():
            for parameter in self.reference.parameters():
                parameter.mul_(1.1)

    def step(self, memory_gib: float) -> tuple[torch.Tensor, list[torch.Tensor], list[int]]:
        """Losses, gradients and the users of every pass of the trained network."""
        feed = InputFeed(self.model, self.data, [o for _, o in self.objectives], trie=self.trie, memory_gib=memory_gib,
                         reference=self.reference)
        feed.begin(1)
        self.model.train().zero_grad()
        torch.manual_seed(0)
        passes, node_logits = [], type(self.model).node_logits

        def counted(histories: torch.Tensor, tree: object) -> torch.Tensor:
            passes.append(len(histories))
            return node_logits(self.model, histories, tree)

        self.model.node_logits = counted
        inputs = feed.inputs(np.arange(0, 70, 10))
        losses = row_losses(self.objectives, initial_states(self.objectives, self.data), inputs)
        losses.sum().backward()
        return losses.detach(), [p.grad.clone() for p in self.model.parameters()], passes

    def memory_for(self, users: int, monkeypatch: pytest.MonkeyPatch) -> float:
        """The smallest setting with which so many of the users go at once."""
        seen = {}

        def look(_: int, *, kept: int, logits: int, memory_gib: float, once: int) -> int:
            seen["bytes"] = 6 * logits + 1.5 * (kept * users + once)
            return users

        with monkeypatch.context() as patched:
            patched.setattr(module, "users_at_once", look)
            self.step(1.0)
        return seen["bytes"] / GIB


@pytest.mark.parametrize("backbone", sorted(SIZES))
@pytest.mark.parametrize("which", sorted(PAIRS))
def test_losses_and_gradients_do_not_depend_on_the_parts(toy_interactions: Interactions, backbone: str, which: str,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """One, two, three and all of 7 rows at once: two probes, the passes, and all but the last once more."""
    dropout = {"dropout": 0.0} if backbone == "tiger" else {}
    case = Case(toy_interactions, backbone, PAIRS[which], **dropout)
    losses, gradients, passes = case.step(0.0)
    assert passes == [7]
    for at_once, cut in ((1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (7, [7])):
        memory = case.memory_for(at_once, monkeypatch) * (1 + 1e-9)
        again, others, passes = case.step(memory)
        assert passes == [0, 1, *cut, *cut[:-1][::-1]]
        torch.testing.assert_close(again, losses, atol=1e-5, rtol=0)
        for one, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert torch.equal(again, losses), "all at once is the plain pass, to the bit"


def test_dropout_is_drawn_again_alike(toy_interactions: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal settings, equal bits; a part that is computed twice drops the same, or its gradient were another's."""
    case = Case(toy_interactions, "tiger", PAIRS["pairwise"], dropout=0.3)
    memory = case.memory_for(2, monkeypatch) * (1 + 1e-9)
    losses, gradients, _ = case.step(memory)
    again, others, _ = case.step(memory)
    assert losses.isfinite().all() and torch.equal(losses, again)
    assert all(torch.equal(one, other) for one, other in zip(gradients, others, strict=True))
    assert all(gradient.isfinite().all() for gradient in gradients)
    unbounded, plain, _ = case.step(0.0)
    roomy, same, _ = case.step(9.0)
    assert torch.equal(unbounded, roomy) and all(torch.equal(o, p) for o, p in zip(plain, same, strict=True))


def test_too_small_a_bound_is_one_clear_error(toy_interactions: Interactions) -> None:
    case = Case(toy_interactions, "tiger", PAIRS["pairwise"])
    with pytest.raises(UserError, match="memory_gib = 1e-06 is too small for a batch of 7 rows"):
        case.step(1e-6)


STEP = """
import sys, numpy as np, torch
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.contracts import Instances, SemanticIds
from genrec_bench.training.feed import InputFeed, TokenisedInstances, row_losses
from genrec_bench.core.memory import peak_bytes, reset_peak
from genrec_bench.objectives.apao import Apao
from genrec_bench.training.loop import initial_states
from genrec_bench.trie import Trie

torch.set_num_threads(1)
random, memory, form = np.random.default_rng(0), float(sys.argv[1]), sys.argv[2]
items, count = map(int, sys.argv[3:])
ids = SemanticIds.from_codes(random.integers(0, 64, size=(2000, 3)), (64, 64, 64))
rows = Instances(np.arange(count), random.integers(0, 2000, count), random.integers(0, 2000, (count, items)))
sizes = {"width": 32, "num_layers": 2} if form == "pairwise" else {}
model = TigerSettings(**sizes).build(ids.vocab_size, 0).train()
pairs = [(1.0, Apao(form=form))]
data = TokenisedInstances(rows, ids, (1,), "cpu")

def step(memory):
    feed = InputFeed(model, data, [pairs[0][1]], trie=Trie.from_codes(ids.tokens), memory_gib=memory)
    feed.begin(1)
    row_losses(pairs, initial_states(pairs, data), feed.inputs(np.arange(count))).sum().backward()

step(memory)  # what is allocated once
for bound in (memory, 0.0):
    reset_peak()
    before = peak_bytes()
    step(bound)
    print(peak_bytes() - before)
"""


@pytest.mark.parametrize(("memory", "form", "items", "rows"), [(0.07, "pairwise", 6, 24), (0.2, "pointwise", 26, 48)])
def test_the_peak_stays_below_the_bound(memory: float, form: str, items: int, rows: int) -> None:
    """A pairwise step with 100 negatives a row, and one of the paper's size whose histories are long; in a process that
    gives freed tensors back at once. Half of the bound is used at least."""
    done = subprocess.run([sys.executable, "-c", STEP, str(memory), form, str(items), str(rows)], capture_output=True,
                          cwd=Path(__file__).resolve().parents[1], text=True, check=True,
                          env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"})
    bounded, unbounded = map(int, done.stdout.split())
    assert 0.5 * memory * GIB < bounded < memory * GIB < unbounded
