"""Which rows go through the network together, and what the host prepares for them ahead of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from genrec_bench.backbones.folding import PrefixTree
from genrec_bench.core.devices import is_cuda, on_device


@dataclass(frozen=True)
class Pass:
    """Rows that the network reads together: one forward pass of an optimiser step, or several, joined.

    parts: the rows of each forward pass; objectives see them one after the other, as if the network read them so.
    step_rows: rows of the whole optimiser step. closes_step: the step ends with this pass.
    """

    parts: list[np.ndarray]
    step_rows: int
    closes_step: bool

    @property
    def rows(self) -> np.ndarray:
        return np.concatenate(self.parts) if len(self.parts) > 1 else self.parts[0]

    @property
    def slices(self) -> list[slice]:
        """Where each part is among the rows."""
        ends = np.cumsum([len(part) for part in self.parts]).tolist()
        return [slice(end - len(part), end) for end, part in zip(ends, self.parts, strict=True)]


def joined(steps: Iterable[list[np.ndarray]], at_once: int) -> Iterator[Pass]:
    """The passes of optimiser steps, with `at_once` of a step's forward passes in each; 1 = as they come."""
    for parts in steps:
        size = sum(len(part) for part in parts)
        for first in range(0, len(parts), at_once):
            yield Pass(parts[first:first + at_once], size, first + at_once >= len(parts))


@dataclass(frozen=True)
class Batch:
    """What the network and the objectives read of a pass, as tensors in the host's memory until `to` copies them.

    targets: (B, T). histories: (B, S), None where packed sequences serve alone. target_ids: (B,), negative_ids:
    (B, N) numbers of semantic IDs. candidates: (B, C, T), the target first, where a reference scores them. tree: what
    the network reads of them, reference_tree: what the reference reads. sequences, sequence, lengths: see
    `Backbone.packed_logits`. What nobody needs is None.
    """

    targets: Tensor
    histories: Tensor | None = None
    target_ids: Tensor | None = None
    negative_ids: Tensor | None = None
    candidates: Tensor | None = None
    tree: PrefixTree | None = None
    reference_tree: PrefixTree | None = None
    sequences: Tensor | None = None
    sequence: Tensor | None = None
    lengths: Tensor | None = None

    def to(self, device: str | torch.device) -> Batch:
        """The same on a device: a copy of each tensor that nobody waits for."""
        return self._each(lambda value: value.to(device) if isinstance(value, PrefixTree) else on_device(device, value))

    def pinned(self, device: str | torch.device) -> Batch:
        """The same in pinned memory where the device is a GPU, so that `to` has nothing left to do in the host."""
        return self._each(lambda value: value.pinned() if isinstance(value, PrefixTree) else value.pin_memory()) \
            if is_cuda(device) else self

    def _each(self, change: Callable[[Tensor | PrefixTree], Tensor | PrefixTree]) -> Batch:
        """Every part changed; a tree that is used twice once."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        changed = {id(value): change(value) for value in given.values()}
        return replace(self, **{name: changed[id(value)] for name, value in given.items()})


def ahead(prepare: Callable[[np.ndarray], Batch], passes: Iterable[Pass]) -> Iterator[tuple[Pass, Batch]]:
    """Each pass with its batch, which a second thread prepares while the pass before it is computed."""
    with ThreadPoolExecutor(1) as thread:
        before = None
        for one in passes:
            coming = one, thread.submit(prepare, one.rows)
            if before is not None:
                yield before[0], before[1].result()
            before = coming
        if before is not None:
            yield before[0], before[1].result()
