"""Batches: token ids of histories and targets, and what an objective may ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from genrec_bench.contracts import PAD, Instances, SemanticIds
from genrec_bench.errors import unknown
from genrec_bench.objectives.base import Objective, ObjectiveInputs

PROVIDED: frozenset[str] = frozenset()  # what `needs` of an objective may name


class TokenisedInstances:
    """Instances as token ids, made batch by batch; histories are flat codes, oldest item first.

    suffix: token ids that close every history (see `Backbone.history_suffix`).
    """

    def __init__(self, instances: Instances, semantic_ids: SemanticIds, suffix: tuple[int, ...], device: str) -> None:
        self.instances, self.suffix, self.device = instances, suffix, device
        depth = semantic_ids.tokens.shape[1]
        self.table = np.concatenate([semantic_ids.tokens, np.full((1, depth), PAD, dtype=np.int64)])
        self.num_tokens = np.append((semantic_ids.tokens != PAD).sum(axis=1), 0)

    def __len__(self) -> int:
        return len(self.instances)

    def histories(self, rows: np.ndarray) -> Tensor:
        """(B, S) token ids of some rows' histories, PAD at the end."""
        starts, lengths = self.instances.offsets[rows], self.instances.lengths[rows]
        column = np.arange(int(lengths.max(initial=0)))
        inside = column < lengths[:, None]
        last = max(len(self.instances.items) - 1, 0)
        items = np.where(inside, self.instances.items[np.minimum(starts[:, None] + column, last)], len(self.table) - 1)
        tokens = self.table[items].reshape(len(rows), -1)
        ends = self.num_tokens[items].sum(axis=1)
        if (ends != lengths * self.table.shape[1]).any():  # shorter IDs leave PAD inside: close the gaps
            tokens = np.take_along_axis(tokens, np.argsort(tokens == PAD, axis=1, kind="stable"), axis=1)
        tokens = np.pad(tokens, ((0, 0), (0, len(self.suffix))), constant_values=PAD)
        for position, token in enumerate(self.suffix):
            tokens[np.arange(len(rows)), ends + position] = token
        return torch.from_numpy(tokens[:, :int(ends.max(initial=0)) + len(self.suffix)]).to(self.device)

    def targets(self, rows: np.ndarray) -> Tensor:
        """(B, T) token ids of some rows' targets."""
        return torch.from_numpy(self.table[self.instances.targets[rows]]).to(self.device)


def training_batches(lengths: np.ndarray, *, batch_size: int, accumulation: int, bucket_steps: int = 1,
                     generator: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """One epoch of optimiser steps, each a list of row arrays for one forward pass.

    Rows are shuffled and cut into pools of `bucket_steps` steps. A pool is sorted by history length and cut into
    forward passes of rows of like length, which are shuffled and dealt out to its steps. With `bucket_steps` = 1 the
    rows of a step, and so its gradient, are those of the shuffle.
    """
    order = generator.permutation(len(lengths))
    pool_size = batch_size * accumulation * bucket_steps
    for start in range(0, len(order), pool_size):
        pool = order[start:start + pool_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        passes = [pool[i:i + batch_size] for i in range(0, len(pool), batch_size)]
        shuffled = [passes[i] for i in generator.permutation(len(passes))]
        for first in range(0, len(shuffled), accumulation):
            yield shuffled[first:first + accumulation]


def decoding_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All rows once, sorted by history length so that little is padded."""
    order = np.argsort(lengths, kind="stable")
    return [order[i:i + batch_size] for i in range(0, len(order), batch_size)]


def check_needs(objectives: Iterable[Objective]) -> None:
    """Refuse an objective that asks for something nobody provides. Raises: UserError."""
    for objective in objectives:
        for need in sorted(objective.needs - PROVIDED):
            raise unknown("need", need, PROVIDED, f"objective {objective.name}")


def objective_inputs(backbone: torch.nn.Module, data: TokenisedInstances, rows: np.ndarray) -> ObjectiveInputs:
    """One forward pass for some rows."""
    targets = data.targets(rows)
    return ObjectiveInputs(targets, backbone.token_logits(data.histories(rows), targets[:, None])[:, 0])
