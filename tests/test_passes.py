"""Passes of an optimiser step joined into one of the network, and batches prepared ahead of it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec_bench.contracts import Interactions
from genrec_bench.core import devices
from genrec_bench.objectives.base import Objective
from genrec_bench.training.feed import add_gradient
from genrec_bench.training.loop import initial_states
from genrec_bench.training.micro_batches import GIB, kept_bytes
from genrec_bench.training.passes import Pass, ahead, joined
from tests.toy_world import OBJECTIVES, World, build, every_form

torch.set_num_threads(1)  # small tensors: more threads only wait for each other


# One optimiser step is one pass

def gradient(world: World, pairs: list[tuple[float, Objective]], at_once: int,
             reduction: str) -> tuple[float, list[Tensor], list[dict[str, Tensor]]]:
    """Loss, gradients and run state after a step of three forward passes of 20, 20 and 7 rows."""
    rows = np.random.default_rng(0).permutation(len(world.data))[:47]
    feed, states = world.feed(*(o for _, o in pairs)), initial_states(pairs, world.data)
    world.model.zero_grad()
    total = sum(add_gradient(feed, pairs, states, one, one.rows, reduction)
                for one in joined([[rows[:20], rows[20:40], rows[40:]]], at_once))
    return float(total), [p.grad.clone() for p in world.model.parameters() if p.grad is not None], states


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_joined_passes_have_the_gradient_of_passes_one_by_one(toy_interactions: Interactions, name: str,
                                                              reduction: str) -> None:
    """Also where rows are coupled and weights move from pass to pass; two passes of three together are a case, too."""
    world = World(toy_interactions, "tiger" if reduction == "mean" else "llama", "cpu", ragged=True)
    world.model.eval()  # without dropout, whose masks are drawn pass by pass
    loss, gradients, states = gradient(world, every_form(name), 1, reduction)
    for at_once in (2, 3):
        total, seen, moved = gradient(world, every_form(name), at_once, reduction)
        assert total == pytest.approx(loss, rel=1e-5)
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(gradients, seen, strict=True))
        for one, other in zip(states, moved, strict=True):
            assert all(torch.allclose(one[key], other[key], rtol=1e-5) for key in {**one, **other})


def test_passes_of_a_step_by_hand() -> None:
    parts = [np.array([4, 5]), np.array([1, 9]), np.array([7])]
    alone, together, two = (list(joined([parts, parts[:1]], n)) for n in (1, 3, 2))
    assert [one.closes_step for one in alone] == [False, False, True, True]
    assert [one.rows.tolist() for one in together] == [[4, 5, 1, 9, 7], [4, 5]]
    assert [(one.rows.tolist(), one.step_rows, one.closes_step) for one in two] == [
        ([4, 5, 1, 9], 5, False), ([7], 5, True), ([4, 5], 2, True)]
    assert together[0].slices == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_a_gpu_joins_what_its_memory_holds(toy_interactions: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a GPU of 80 GiB where the setting is 0; 300 rows fit 2 passes of 128, and 100 rows still one."""
    world, asked = World(toy_interactions, "tiger", "cpu"), []
    feed = world.feed()
    assert feed.joins(128, 8) == 1, "a CPU takes passes as they come"
    feed.data.device = "cuda:1"
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * GIB))
    for setting, fit, expected in ((0.0, 300, 2), (3.0, 100, 1), (0.0, 10**6, 8)):
        monkeypatch.setattr(feed, "rows_within", lambda gib, fit=fit: asked.append(gib) or fit)
        feed.memory_gib = setting
        assert feed.joins(128, 8) == expected and feed.joins(128, 1) == 1
    assert asked == [40.0, 3.0, 40.0]


@pytest.mark.parametrize("name", ["cross_entropy", "s_dpo"])
def test_rows_within_a_bound_stay_within_it(toy_interactions: Interactions, name: str) -> None:
    """All of them like the longest history: what autograd keeps and the logits, with the factors of a bound.

    A third of it at least: the pass of one row alone, from which is judged, has rows of padding on a CPU.
    """
    world, objective = World(toy_interactions, "tiger", "cpu"), build(name, 0)
    feed = world.feed(objective)
    rows = feed.rows_within(0.01)
    batch = feed.prepare(np.full(rows, feed.data.instances.lengths.argmax()))
    forward, (users, positions) = feed._forward(batch)
    logits = 4 * users * positions * world.ids.vocab_size
    assert users == rows > 10
    assert 0.3 < (1.5 * kept_bytes(lambda: forward(slice(None)), world.model) + 6 * logits) / (0.01 * GIB) <= 1.0


# Batches ahead

def test_a_thread_prepares_one_pass_ahead() -> None:
    """The second batch is begun while the first is used, the third only then."""
    begun = [threading.Event() for _ in range(3)]

    def prepare(rows: np.ndarray) -> Any:
        begun[rows[0]].set()
        return threading.get_ident(), rows.tolist()

    found = []
    for one, (thread, rows) in ahead(prepare, (Pass([np.array([n])], 1, True) for n in range(3))):
        assert one.rows.tolist() == rows and thread != threading.get_ident()
        assert begun[min(rows[0] + 1, 2)].wait(5) and not (rows == [0] and begun[2].is_set())
        found += rows
    assert found == [0, 1, 2] and list(ahead(prepare, [])) == []


def test_what_fails_ahead_fails_where_it_is_used() -> None:
    def prepare(rows: np.ndarray) -> Any:
        raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        list(ahead(prepare, [Pass([np.array([0])], 1, True)]))


def test_a_cpu_prepares_when_it_is_asked(toy_interactions: Interactions) -> None:
    feed, rows = World(toy_interactions, "tiger", "cpu").feed(), [np.array([3, 1]), np.array([2])]
    assert [seen is part for (_, seen), part in zip(feed.each_pass([rows], 1), rows, strict=True)] == [True, True]


def test_prepared_batches_give_the_same_inputs(toy_interactions: Interactions) -> None:
    world, rows = World(toy_interactions, "llama", "cpu", ragged=True), np.arange(0, 60, 5)
    feed = world.feed(*(o for _, o in every_form("s_dpo")))
    one, other = feed.inputs(rows), feed.inputs(feed.prepare(rows))
    for name in ("targets", "logits", "node_logits", "negative_nodes", "reference_negative_token_logps"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_a_gpu_is_copied_to_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: calls.append((a, k)) or self)
    devices.on_device("cuda:1", np.arange(3))
    assert calls == ["pinned", (("cuda:1",), {"non_blocking": True})]
    devices.on_device("cpu", np.arange(3))
    assert calls[2:] == [(("cpu",), {"non_blocking": True})]
