"""Training steps through the suite's own loop, beside Hugging Face's models used as APAO's scripts use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
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
from genrec_bench.core.devices import autocast
from genrec_bench.experiments.config import TrainingConfig
from genrec_bench.objectives.apao import Apao
from genrec_bench.objectives.base import Objective
from genrec_bench.objectives.cross_entropy import CrossEntropy
from genrec_bench.training.feed import InputFeed
from genrec_bench.training.loop import initial_states, one_epoch
from genrec_bench.training.optimiser import adamw

STEP = 1024  # rows of an optimiser step (APAO 5.1.3: 128 x 8)
BETA = 0.3
QUICK = TigerSettings(width=64, num_layers=2, num_heads=4, head_width=16, feed_forward_width=256, dropout=0.0)
LossAndGradients = tuple[float, dict[str, Tensor]]


def cases(setting: Setting) -> Iterator[Case]:
    """Networks on real training rows of Office: beside the usual way to train them, and bfloat16 beside float32."""
    corpus = setting.corpus("apao_office")
    plain = [(1.0, CrossEntropy())]
    tiger = Step(corpus, TigerSettings(), plain)
    llama = Step(corpus, LlamaSettings(), plain, TrainingConfig(group_users=True))
    pairwise = Step(corpus, TigerSettings(), [*plain, (BETA, Apao(form="pairwise", weights="uniform"))])
    released = replace(tiger, objectives=[(1.0, CrossEntropy(eos=True))])
    yield beside(setting, "TIGER, cross-entropy with EOS", released, "float32")
    for precision in setting.precisions:
        yield beside(setting, "TIGER, cross-entropy", tiger, precision, Goal(4))
        yield beside(setting, "Llama, cross-entropy", llama, precision, Goal(6))
        yield beside(setting, "TIGER, APAO-Pairwise with 100 negatives", pairwise, precision, Goal(8), rows=128,
                     some=16, sizes=(16, 4))
    if "bfloat16" in setting.precisions:
        yield beside_float32(setting, "TIGER of paper size", tiger, 2.5)
        for width, settings in ((128, TigerSettings(num_layers=2)), (64, QUICK)):
            yield beside_float32(setting, f"TIGER of width {width}, 2 layers", replace(tiger, settings=settings),
                                 {128: 2.2, 64: 2.0}[width])
        yield beside_float32(setting, "TIGER of width 64, 2 layers, steps of 64 rows", replace(tiger, settings=QUICK),
                             1.2, size=64, accumulation=1)
        yield beside_float32(setting, "Llama of paper size", llama, 2.0)
        yield beside_float32(setting, "TIGER of paper size, APAO-Pairwise with 100 negatives", pairwise, 2.0, rows=128,
                             size=16)


@dataclass(frozen=True)
class Step:
    """What both arms have to do: optimiser steps of a network with some objectives."""

    corpus: Corpus
    settings: Any
    objectives: list[tuple[float, Objective]]
    training: TrainingConfig = TrainingConfig()

    def computing_in(self, precision: str) -> Step:
        """The same step in float32 or bfloat16."""
        return replace(self, training=replace(self.training, precision=precision))

    def network(self, *, dropout: bool) -> Any:
        """In eval mode, random weights (seed 0)."""
        drops = dropout or not hasattr(self.settings, "dropout")
        settings = self.settings if drops else replace(self.settings, dropout=0.0)
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
        part = self.corpus.split.train.where(rows)
        feed = InputFeed(model, TokenisedInstances(part, self.corpus.ids, model.history_suffix, "cpu"),
                         [objective for _, objective in self.objectives], trie=self.corpus.trie,
                         group_users=self.training.group_users, precision=self.training.precision)
        feed.begin(1)
        return feed


def beside(setting: Setting, name: str, step: Step, precision: str, goal: Goal | None = None, *, rows: int = STEP,
           some: int = 256, sizes: tuple[int, ...] = (128, 32)) -> Case:
    """An optimiser step of our loop, and shuffled batches of some of its rows through Hugging Face's model.

    Ours in passes of the paper's size, the first of `sizes`, the reference in batches of each, of which the fastest
    counts. The reference makes no optimiser step. In float32 losses and gradients are compared on its rows, without
    dropout and in float64: in float32 some ReLU whose input is all but 0 falls to the other side, no small step for a
    gradient. goal: in bfloat16.
    """
    step = step.computing_in(precision)
    chosen = step.rows(setting.some(rows))
    fewer = np.sort(np.random.default_rng(1).permutation(chosen)[:some])
    order = np.random.default_rng(2).permutation(len(fewer))
    model = step.network(dropout=True)
    theirs, feed, their_feed = to_huggingface(model).train(), step.feed(model, chosen), step.feed(model, fewer)
    optimiser, tokens = adamw(model, step.training), feed.data.history_tokens
    note = (f"ours: {len(chosen)} training rows of Office (histories of {tokens.mean():.0f} tokens in the mean, "
            f"{tokens.max()} at most), clipping and AdamW included; reference: {len(fewer)} of them, forward and "
            "backward from token ids (no tokenizer, no optimiser)")

    def parts(size: int) -> list[np.ndarray]:
        return [order[first:first + size] for first in range(0, len(order), size)]

    def equal(*_: Any) -> None:
        if precision != "float32":
            return
        with in_float64():
            ours, others = our_gradients(step, fewer), their_gradients(step, fewer, parts(sizes[0]))
        check_close(ours[0], others[0], tolerance=1e-5, what="losses")
        for parameter, gradient in ours[1].items():
            check_close(gradient, others[1][parameter], tolerance=1e-5, what=f"gradients of {parameter}")

    arms = [Arm("ours", partial(run, step, feed, optimiser, passes(step, len(chosen), sizes[0])), len(chosen))]
    arms += [Arm(f"Hugging Face, {size} a batch", partial(their_loss, theirs, their_feed, parts(size), precision),
                 len(fewer)) for size in sizes]
    return Case("training", f"{name}, {precision}", tuple(arms), equal, unit="rows", note=note,
                goal=None if precision == "float32" else goal, threads=(1, 2),
                products=products_of(step.settings, 4096, precision))


def beside_float32(setting: Setting, name: str, step: Step, aim: float, *, rows: int = STEP, size: int = 128,
                   accumulation: int | None = None) -> Case:
    """Our optimiser step in bfloat16 beside the same one in float32, each with a network of its own.

    accumulation: passes of a step; None = one step of all rows.
    """
    chosen = step.rows(setting.some(rows))
    arms = []
    for precision in ("bfloat16", "float32"):
        feed = step.computing_in(precision).feed(step.network(dropout=True), chosen)
        arms.append(Arm(f"ours in {precision}", partial(run, step, feed, adamw(feed.model, step.training),
                                                        passes(step, len(chosen), size, accumulation)), len(chosen)))

    def equal(half: float, whole: float) -> None:
        check_close(half, whole, tolerance=0.05 * whole, what="losses")

    return Case("training", f"{name}, bfloat16 beside float32", tuple(arms), equal, unit="rows", goal=Goal(aim=aim),
                note=f"{len(chosen)} rows in passes of {size}, {accumulation or 'all'} a step, clipping and AdamW "
                     "included")


def passes(step: Step, rows: int, size: int, accumulation: int | None = None) -> TrainingConfig:
    """Optimiser steps over so many rows, so many rows a pass and passes a step; None = one step."""
    return replace(step.training, batch_size=size, accumulation=accumulation or max(1, rows // size))


def run(step: Step, feed: InputFeed, optimiser: Any, training: TrainingConfig) -> float:
    """One epoch of the training loop over the rows of a feed: the mean loss."""
    return one_epoch(feed.model, feed, step.objectives, initial_states(step.objectives, feed.data), optimiser,
                     training, 0, {"epoch": 0, "step": 0}, 1)


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
    training = replace(step.training, clip_norm=0.0, accumulation=8, batch_size=-(-len(rows) // 8))
    loss = run(step, feed, optimiser, training)
    return loss, dict(zip(names, optimiser.kept, strict=True))


def their_gradients(step: Step, rows: np.ndarray, parts: list[np.ndarray]) -> LossAndGradients:
    """Loss and gradients of the same rows, without dropout."""
    ours = step.network(dropout=False)
    model = reference.exact_norms(to_huggingface(ours).double().train())
    loss = their_loss(model, step.feed(ours, rows), parts)
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


def their_loss(model: Any, feed: InputFeed, parts: list[np.ndarray], precision: str = "float32") -> float:
    """The mean loss over the rows of a feed, batch after batch; gradients are added up from nothing."""
    model.zero_grad()
    total = 0.0
    for part in parts:
        with autocast("cpu", precision):
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
    if not feed.num_negatives:
        return reference.cross_entropy(model, histories, targets, eos="eos" in feed.needs)
    negatives = feed.catalogue.tokens.numpy()[feed.negatives(rows)]
    return reference.pairwise(model, histories, targets, negatives, weight=BETA)
