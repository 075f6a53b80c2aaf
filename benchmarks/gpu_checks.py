"""Whether the device computes what the CPU computes, and the same bits every time."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_part import BACKBONES, Part
from benchmarks.harness import Unequal, check_lists
from genrec_bench.batches import TokenisedInstances
from genrec_bench.contracts import Split
from genrec_bench.core import registry
from genrec_bench.core.walk import TimeUp
from genrec_bench.objectives.base import Objective
from genrec_bench.running.generative import deterministic
from genrec_bench.running.runner import BEST, run_one
from genrec_bench.running.workspace import Prepared, Workspace
from genrec_bench.search.beam import beam_search
from genrec_bench.training import checkpoints
from genrec_bench.training.feed import InputFeed, row_losses
from genrec_bench.training.loop import initial_states
from genrec_bench.trie import Trie

# In float32 without TF32, where the two add up in another order: differences over the largest value, of at least 1; of
# gradients lengths are compared, since a ReLU whose input is all but 0 may fall to the other side.
LOGITS, LOSSES, GRADIENTS = 1e-4, 1e-4, 1e-3
SCORES = 1e-4  # nats; lists have to agree wherever neighbours are twice as far apart
OTHER_LISTS = 0.02  # share of users whose lists may differ: a prefix at the edge of a beam may fall to the other side
SEARCHES = ({"normaliser": "flat"}, {"normaliser": "trie"}, {"eos": True})


def outputs(part: Part) -> None:
    """Logits, losses, gradients and beam lists of both backbones on the device beside those on the CPU."""
    torch.set_float32_matmul_precision("highest")
    with deterministic(torch.get_num_threads(), part.device):  # as in runs: it chooses the kernels
        for name, label in BACKBONES.items():
            prepared, _ = part.prepared(label, "outputs", {name: {"dropout": 0.0}} if name == "tiger" else {})
            problem = Problem(prepared, torch.Generator().manual_seed(0))
            with part.going_on(f"{name}: logits and lists"):
                compare_decoding(part, problem, name)
            for spec in specs(name):
                what = f"{name}: {', '.join(map(str, spec.values()))}"
                with part.going_on(what):
                    compare_objective(part, problem, what, spec)


def compare_decoding(part: Part, problem: Problem, name: str) -> None:
    """Logits and lists of 64 test rows on both."""
    rows, both = np.arange(min(64, len(problem.split.test))), (part.device, "cpu")
    part.row(f"{name}: logits", gap(*(problem.logits(device, rows) for device in both)),
             "largest difference over the largest logit", LOGITS)
    for search in SEARCHES:
        lists = [problem.lists(device, rows, **search) for device in both]
        part.row(f"{name}: beam search, {' '.join(map(str, next(iter(search.items()))))}", other_lists(*lists),
                 f"share of {len(rows)} users with another list", OTHER_LISTS)


def specs(backbone: str) -> list[dict[str, Any]]:
    """Every registered objective with its defaults, and what takes another path through the feed."""
    found: list[dict[str, Any]] = [{"name": name} for name in registry.objectives.names()]
    found += [{"name": "apao", "form": "pairwise"}, {"name": "cross_entropy", "eos": True}]
    return found + ([{"name": "cross_entropy", "packed": "packed"}] if backbone == "llama" else [])


def compare_objective(part: Part, problem: Problem, what: str, spec: dict[str, Any]) -> None:
    """Loss and gradients of 16 training rows on both."""
    packed = "packed" in spec
    objective = registry.objectives.build({k: v for k, v in spec.items() if k != "packed"})
    rows = np.arange(min(16, len(problem.split.train)))
    here, there = (problem.loss(d, objective, rows, packed) for d in (part.device, "cpu"))
    part.row(f"{what}: losses", gap(here[0], there[0]), "largest difference over the largest loss", LOSSES)
    part.row(f"{what}: gradients", float((here[1] - there[1]).norm() / there[1].norm()),
             "length of the difference over the length", GRADIENTS)


class Problem:
    """A network with random weights and a run's data, on any device."""

    def __init__(self, prepared: Prepared, generator: torch.Generator) -> None:
        self.split: Split = prepared.split
        self.ids = prepared.semantic_ids
        self.trie = Trie.from_codes(self.ids.tokens)
        settings = prepared.config.backbone
        self.model, self.reference = (settings.build(self.ids.vocab_size, seed).eval() for seed in (0, 1))
        with torch.no_grad():  # as initialised, some logits are so small that every list is full of ties
            for parameter in (p for m in (self.model, self.reference) for p in m.parameters() if p.ndim == 2):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * parameter.std())

    def data(self, name: str, device: str) -> TokenisedInstances:
        return TokenisedInstances(getattr(self.split, name), self.ids, self.model.history_suffix, device)

    def on(self, device: str, model: Any = None) -> Any:
        """A copy of a network there."""
        return copy.deepcopy(model or self.model).to(device)

    @torch.inference_mode()
    def logits(self, device: str, rows: np.ndarray) -> Tensor:
        """(B, 1, T, V) teacher-forced logits of test targets."""
        data = self.data("test", device)
        return self.on(device).token_logits(data.histories(rows), data.targets(rows)[:, None]).cpu()

    def lists(self, device: str, rows: np.ndarray, **search: Any) -> tuple[Tensor, Tensor]:
        """Codes and scores of a beam search of width 20."""
        beams = beam_search(self.on(device), self.data("test", device).histories(rows), self.trie, num_beams=20,
                            **search)
        return beams.codes.cpu(), beams.scores.cpu()

    def loss(self, device: str, objective: Objective, rows: np.ndarray, packed: bool) -> tuple[Tensor, Tensor]:
        """(B,) losses, and the gradient of their mean as one vector."""
        model, objectives = self.on(device).train(), [(1.0, objective)]
        reference = self.on(device, self.reference).requires_grad_(False)
        feed = InputFeed(model, self.data("train", device), [objective], trie=self.trie, reference=reference,
                         group_users=packed)
        feed.begin(1)
        losses = row_losses(objectives, initial_states(objectives, feed.data), feed.inputs(rows))
        losses.mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return losses.detach().cpu(), torch.cat([g.flatten() for g in gradients]).cpu()


def gap(here: Tensor, there: Tensor) -> float:
    """The largest difference over the largest value, of at least 1."""
    return float((here - there).abs().max() / there.abs().max().clamp(min=1.0))


def other_lists(here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor]) -> float:
    """The share of users whose lists differ by more than rounding."""
    different = 0
    for user in range(len(here[0])):
        try:
            check_lists([a[user:user + 1] for a in here], [a[user:user + 1] for a in there], gap=2 * SCORES,
                        tolerance=SCORES)
        except Unequal:
            different += 1
    return different / len(here[0])


@dataclasses.dataclass
class Stops:
    """Breaks a run off after its first epoch, once, as the scheduler does when time is up."""

    stopped: bool = False

    def step(self, done: int, total: int, note: str = "") -> None:
        if not self.stopped:
            self.stopped = True
            raise TimeUp


def repeat(part: Part) -> None:
    """Two epochs at once, again, and with a break after the first: the same bits, dropout and run state included."""
    for name, label in BACKBONES.items():
        whole = made(part, label, "whole")
        for how, results in (("the same run again", "again"), ("broken off after an epoch and resumed", "resumed")):
            other = made(part, label, results, broken_off=results == "resumed")
            differ = [what for what, value in whole.items() if not np.array_equal(value, other[what])]
            part.row(f"{name}: {how}", len(differ), "values that differ" + ": ".join(["", *differ[:3]]), limit=0)


def made(part: Part, label: str, results: str, *, broken_off: bool = False) -> dict[str, np.ndarray]:
    """Losses, validation values, ranks and weights of a run of its own."""
    prepared, workspace = part.prepared(label, results, {"split": {"max_users": 500}})
    progress = Stops(stopped=not broken_off)
    if broken_off:
        try:
            run_one(prepared, workspace, progress)
        except TimeUp:
            pass
        assert workspace.status(prepared.run_id) == "interrupted", "the run was not broken off"
    return values(prepared, workspace, progress)


def values(prepared: Prepared, workspace: Workspace, progress: Any) -> dict[str, np.ndarray]:
    """All numbers of a run that do not tell time, by name."""
    record = run_one(prepared, workspace, progress)
    tensors, _ = checkpoints.read(workspace.folder(prepared.run_id) / BEST)
    ranks = workspace.store.read_ranks(record)
    curve = {f"epoch {entry['epoch']}, {name}": np.array(str(value)) for entry in record.training["curve"]
             for name, value in entry.items()}
    return {**curve, "ranks": ranks.ranks, "ties": ranks.ties,
            **{name: tensor.numpy() for name, tensor in tensors.items()}}
