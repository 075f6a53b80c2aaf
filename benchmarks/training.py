"""Training steps through the suite's own loop, beside Hugging Face's models used as APAO's scripts use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import training_reference as reference
from benchmarks.corpora import Corpus, Setting
from benchmarks.harness import Arm, Case, Goal, check_close
from benchmarks.networks import network, to_huggingface
from benchmarks.work import products_of
from genrec_bench.backbones.llama import LlamaSettings
from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.batches import TokenisedInstances, training_batches
from genrec_bench.contracts import Instances
from genrec_bench.experiments.config import TrainingConfig
from genrec_bench.objectives.apao import Apao
from genrec_bench.objectives.base import Objective
from genrec_bench.objectives.cross_entropy import CrossEntropy
from genrec_bench.training.feed import InputFeed
from genrec_bench.training.loop import adamw, initial_states, one_epoch

STEP = 1024  # rows of an optimiser step (APAO 5.1.3: 128 x 8)
BETA = 0.3
LossAndGradients = tuple[float, dict[str, Tensor]]


def cases(setting: Setting) -> Iterator[Case]:
    """Paper-size networks on real training rows of Office.

    Of TIGER's step two cases have the paper's 8 passes of 128 rows, one the same 1,024 rows in 32 passes of 32, whose
    activations fit into a cache, on both sides.
    """
    corpus = setting.corpus("apao_office")
    released, plain = [(1.0, CrossEntropy(eos=True))], [(1.0, CrossEntropy())]
    yield beside(setting, "TIGER, cross-entropy with EOS", Step(corpus, TigerSettings(), released), goal=Goal(2.5, 4))
    yield beside(setting, "TIGER, cross-entropy", Step(corpus, TigerSettings(), plain), goal=Goal(2.5, 4))
    yield beside(setting, "TIGER, cross-entropy, 32 rows a pass on both sides", Step(corpus, TigerSettings(), plain,
                 TrainingConfig(batch_size=32, accumulation=32)), batch=32, batches=8, goal=None)
    yield beside(setting, "Llama, cross-entropy", Step(corpus, LlamaSettings(), plain,
                                                       TrainingConfig(group_users=True)), goal=Goal(4, 6))
    pairwise = [*plain, (BETA, Apao(form="pairwise", weights="uniform"))]
    step = Step(corpus, TigerSettings(), pairwise, TrainingConfig(batch_size=16))
    yield beside(setting, "TIGER, APAO-Pairwise with 100 negatives", step, rows=128, batch=16, batches=1,
                 goal=Goal(5, 8))


@dataclass(frozen=True)
class Step:
    """What both arms have to do: optimiser steps of a network with some objectives."""

    corpus: Corpus
    settings: Any
    objectives: list[tuple[float, Objective]]
    training: TrainingConfig = TrainingConfig()

    def network(self, *, dropout: bool) -> Any:
        """In eval mode, random weights (seed 0)."""
        drops = dropout or not hasattr(self.settings, "dropout")
        settings = self.settings if drops else dataclasses.replace(self.settings, dropout=0.0)
        return network(settings, self.corpus.ids.vocab_size)

    def rows(self, count: int) -> np.ndarray:
        """The first rows that the loop would train on: whole users side by side where it groups them."""
        data = self.corpus.data("train", ())
        steps = training_batches(data.instances.lengths, batch_size=count, accumulation=1,
                                 generator=np.random.default_rng(0),
                                 groups=data.users if self.training.group_users else None)
        return np.sort(next(steps)[0])

    def feed(self, model: Any, rows: np.ndarray) -> InputFeed:
        """The feed of a network that trains on some of the rows alone, with negatives drawn for these."""
        every, ids = self.corpus.split.train, self.corpus.ids
        items = [every.history(row) for row in rows]
        part = Instances(every.users[rows], every.targets[rows], np.cumsum([0, *map(len, items)]),
                         np.concatenate(items))
        feed = InputFeed(model, TokenisedInstances(part, ids, model.history_suffix, "cpu"),
                         [objective for _, objective in self.objectives], trie=self.corpus.trie,
                         group_users=self.training.group_users, precision=self.training.precision)
        feed.begin(1)
        return feed


def beside(setting: Setting, name: str, step: Step, *, goal: Goal | None, rows: int = STEP, batch: int = 128,
           batches: int = 2) -> Case:
    """An optimiser step of our loop, and `batches` shuffled batches of the same rows through Hugging Face's model.

    The reference makes no optimiser step. Losses and gradients are compared on its rows, without dropout and in
    float64: in float32 some ReLU whose input is all but 0 falls to the other side, no small step for a gradient.
    """
    chosen = step.rows(setting.some(rows))
    some = np.sort(np.random.default_rng(1).permutation(chosen)[:batches * batch])
    order = np.random.default_rng(2).permutation(len(some))
    parts = [order[first:first + batch] for first in range(0, len(some), batch)]
    model = step.network(dropout=True)
    theirs, feed, fewer = to_huggingface(model).train(), step.feed(model, chosen), step.feed(model, some)
    optimiser, tokens = adamw(model, step.training), feed.data.history_tokens
    note = (f"ours: {len(chosen)} training rows of Office (histories of {tokens.mean():.0f} tokens in the mean, "
            f"{tokens.max()} at most), {step.training.batch_size} a pass, clipping and AdamW included; reference: "
            f"{len(some)} of them, {len(parts[0])} a pass, forward and backward from token ids (no tokenizer, no "
            "optimiser)")

    def equal(*_: Any) -> None:
        with in_float64():
            ours, others = our_gradients(step, some), their_gradients(step, some, parts)
        check_close(ours[0], others[0], tolerance=1e-5, what="losses")
        for parameter, gradient in ours[1].items():
            check_close(gradient, others[1][parameter], tolerance=1e-5, what=f"gradients of {parameter}")

    arms = (Arm("ours", lambda: run(step, feed, optimiser, step.training), len(chosen)),
            Arm("Hugging Face", lambda: their_loss(theirs, fewer, parts), len(some)))
    return Case("training", name, arms, equal, unit="rows", goal=goal, note=note, threads=(1, 2),
                products=products_of(step.settings, 4096))


def run(step: Step, feed: InputFeed, optimiser: Any, training: TrainingConfig) -> float:
    """One epoch of the training loop over the rows of a feed: the mean loss."""
    return one_epoch(feed.model, feed, step.objectives, initial_states(step.objectives, feed.data), optimiser, training,
                     0, {"epoch": 0, "step": 0}, 1)


@contextmanager
def in_float64() -> Iterator[None]:
    """New tensors of floats are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Keeps(torch.optim.SGD):
    """An optimiser that moves nothing and keeps the gradients."""

    def step(self, closure: Callable | None = None) -> None:
        self.kept = [parameter.grad.clone() for group in self.param_groups for parameter in group["params"]]


def our_gradients(step: Step, rows: np.ndarray) -> LossAndGradients:
    """Loss and gradients of the loop's step over some rows in 8 passes, without dropout and clipping."""
    feed = step.feed(step.network(dropout=False).double(), rows)
    names, parameters = zip(*feed.model.named_parameters(), strict=True)
    optimiser = Keeps(parameters, lr=0.0)
    training = dataclasses.replace(step.training, clip_norm=0.0, accumulation=8, batch_size=-(-len(rows) // 8))
    loss = run(step, feed, optimiser, training)
    return loss, dict(zip(names, optimiser.kept, strict=True))


def their_gradients(step: Step, rows: np.ndarray, parts: list[np.ndarray]) -> LossAndGradients:
    """Loss and gradients of the same rows, without dropout."""
    ours = step.network(dropout=False)
    model = reference.exact_norms(to_huggingface(ours).double().train())
    loss = their_loss(model, step.feed(ours, rows), parts)
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


def their_loss(model: Any, feed: InputFeed, parts: list[np.ndarray]) -> float:
    """The mean loss over the rows of a feed, batch after batch; gradients are added up from nothing."""
    model.zero_grad()
    total = 0.0
    for part in parts:
        loss = batch_loss(model, feed, part) * len(part) / len(feed.data)
        loss.backward()
        total += loss.item()
    return total


def batch_loss(model: Any, feed: InputFeed, rows: np.ndarray) -> Tensor:
    """What the reference makes of a batch."""
    data = feed.data
    histories = [np.append(data.table[data.instances.history(row)].ravel(), data.suffix).astype(np.int64)
                 for row in rows]
    targets = data.table[data.instances.targets[rows]]
    if feed.drawn is None:
        return reference.cross_entropy(model, histories, targets, eos="eos" in feed.needs)
    negatives = feed.catalogue.tokens.numpy()[feed.drawn[:, rows].T]
    return reference.pairwise(model, histories, targets, negatives, weight=BETA)
