"""Rows as token ids, and the order in which they are trained and decoded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.contracts import EOS, PAD, Instances, SemanticIds
from genrec_bench.core.devices import on_device


class TokenisedInstances:
    """Instances as token ids, made batch by batch; histories are flat codes, oldest item first.

    suffix: token ids that close every history (see `Backbone.history_suffix`).
    """

    def __init__(self, instances: Instances, semantic_ids: SemanticIds, suffix: tuple[int, ...], device: str) -> None:
        self.instances, self.suffix, self.device = instances, suffix, device
        self.vocab_size = semantic_ids.vocab_size
        depth = semantic_ids.tokens.shape[1]
        self.table = np.concatenate([semantic_ids.tokens, np.full((1, depth), PAD, dtype=np.int64)])
        self.num_tokens = np.append((semantic_ids.tokens != PAD).sum(axis=1), 0)

    @cached_property
    def history_tokens(self) -> np.ndarray:
        """(N,) tokens of each row's history, without the suffix."""
        held = self.instances.histories
        total = np.append(0, np.cumsum(self.num_tokens[held.values]))
        return total[held.ends] - total[held.starts]

    def __len__(self) -> int:
        return len(self.instances)

    def histories(self, rows: np.ndarray) -> Tensor:
        """(B, S) token ids of some rows' histories, PAD at the end."""
        return on_device(self.device, self.host_histories(rows))

    def targets(self, rows: np.ndarray) -> Tensor:
        """(B, T) token ids of some rows' targets."""
        return on_device(self.device, self.host_targets(rows))

    def host_histories(self, rows: np.ndarray) -> Tensor:
        """`histories` in the host's memory."""
        held = self.instances.histories[rows]
        lengths = held.lengths
        column = np.arange(int(lengths.max(initial=0)))
        inside = column < lengths[:, None]
        last = max(len(held.values) - 1, 0)
        items = np.where(inside, held.values[np.minimum(held.starts[:, None] + column, last)], len(self.table) - 1)
        tokens = self.table[items].reshape(len(rows), -1)
        ends = self.num_tokens[items].sum(axis=1)
        if (ends != lengths * self.table.shape[1]).any():  # shorter IDs leave PAD inside: close the gaps
            tokens = np.take_along_axis(tokens, np.argsort(tokens == PAD, axis=1, kind="stable"), axis=1)
        tokens = np.pad(tokens, ((0, 0), (0, len(self.suffix))), constant_values=PAD)
        for position, token in enumerate(self.suffix):
            tokens[np.arange(len(rows)), ends + position] = token
        return torch.from_numpy(tokens[:, :int(ends.max(initial=0)) + len(self.suffix)])

    def host_targets(self, rows: np.ndarray) -> Tensor:
        """`targets` in the host's memory."""
        return torch.from_numpy(self.table[self.instances.targets[rows]])

    @cached_property
    def users(self) -> np.ndarray:
        """(N,) users of the rows, numbered from 0 without gaps."""
        return np.unique(self.instances.users, return_inverse=True)[1]

    @cached_property
    def chains(self) -> np.ndarray:
        """(N,) number of the chain each row is in: rows of one user whose history goes on with the row before's target.

        So the history and target of a chain's last row hold those of all its rows, from the same first item on.
        """
        rows, lengths = self.instances, self.instances.lengths
        last = np.full(len(rows), -1)
        last[lengths > 0] = rows.where(lengths > 0).newest
        goes_on = np.zeros(len(rows), dtype=bool)
        goes_on[1:] = ((rows.users[1:] == rows.users[:-1]) & (lengths[1:] == lengths[:-1] + 1)
                       & (last[1:] == rows.targets[:-1]) & (lengths[:-1] > 0))
        return np.cumsum(~goes_on)


def training_batches(lengths: np.ndarray, *, batch_size: int, accumulation: int, bucket_steps: int = 1,
                     generator: np.random.Generator, groups: np.ndarray | None = None) -> Iterator[list[np.ndarray]]:
    """One epoch of optimiser steps, each a list of row arrays for one forward pass.

    Rows are shuffled and cut into pools of `bucket_steps` steps. A pool is sorted by history length and cut into
    forward passes of rows of like length, which are shuffled and dealt out to its steps. With `bucket_steps` = 1 the
    rows of a step, and so its gradient, are those of the shuffle.
    groups: (N,) group of each row; groups are then shuffled instead of rows, and stay together in the sorting too.
    """
    if groups is None:
        order = generator.permutation(len(lengths))
    else:
        order = np.argsort(generator.permutation(int(groups.max()) + 1)[groups], kind="stable")
    pool_size = batch_size * accumulation * bucket_steps
    for start in range(0, len(order), pool_size):
        pool = order[start:start + pool_size]
        pool = pool[_by_length(lengths[pool], None if groups is None else groups[pool])]
        passes = [pool[i:i + batch_size] for i in range(0, len(pool), batch_size)]
        shuffled = [passes[i] for i in generator.permutation(len(passes))]
        for first in range(0, len(shuffled), accumulation):
            yield shuffled[first:first + accumulation]


def _by_length(lengths: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The stable order by length; with groups by each group's longest, its rows side by side."""
    if groups is None:
        return np.argsort(lengths, kind="stable")
    longest = np.zeros(int(groups.max()) + 1, dtype=np.int64)
    np.maximum.at(longest, groups, lengths)
    return np.lexsort((np.arange(len(groups)), groups, longest[groups]))


def decoding_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All rows once, sorted by history length so that little is padded."""
    order = np.argsort(lengths, kind="stable")
    return [order[i:i + batch_size] for i in range(0, len(order), batch_size)]


def append_eos(tokens: Tensor) -> Tensor:
    """(B, T) token ids -> (B, T + 1): EOS behind the last token of each row."""
    ends = (tokens != PAD).sum(dim=1, keepdim=True)
    return F.pad(tokens, (0, 1), value=PAD).scatter(1, ends, EOS)
