"""The data of the benchmarks: real histories and catalogues, and where a case finds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from genrec_bench.batches import TokenisedInstances
from genrec_bench.contracts import SemanticIds, Split
from genrec_bench.core import registry
from genrec_bench.search.beam import users_per_pass
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.tokenizers.given import Given
from genrec_bench.trie import Trie


@dataclass(frozen=True)
class Corpus:
    """A dataset as the suite reads it: its split, its semantic IDs and their trie."""

    name: str
    split: Split
    ids: SemanticIds

    @cached_property
    def trie(self) -> Trie:
        return Trie.from_codes(self.ids.tokens)

    def data(self, part: str, suffix: tuple[int, ...]) -> TokenisedInstances:
        """The rows of `train`, `valid` or `test` as token ids; suffix: what closes a history."""
        return TokenisedInstances(getattr(self.split, part), self.ids, suffix, "cpu")


@dataclass
class Setting:
    """What the command line asks for, and the corpora read so far.

    users: test users of an arm, 0 = as the case says. checkpoints: trained networks for the cases that need some.
    precisions: what networks are measured in.
    """

    data_dir: Path | None
    results: Path
    checkpoints: tuple[Path, ...] = ()
    users: int = 0
    precisions: tuple[str, ...] = ("float32",)
    corpora: dict[str, Corpus] = field(default_factory=dict)

    def corpus(self, name: str) -> Corpus:
        """A registered dataset with the semantic IDs it comes with, read once. Raises: UserError."""
        if name not in self.corpora:
            interactions = registry.datasets.build({"name": name}).load(self.data_dir)
            self.corpora[name] = Corpus(name, LeaveOneOut().split(interactions), Given().fit(interactions))
        return self.corpora[name]

    def some(self, users: int) -> int:
        """That many users, or fewer where the command line says so."""
        return min(users, self.users) if self.users else users


def sample(lengths: np.ndarray, count: int) -> np.ndarray:
    """`count` places that stand for all: evenly spaced in the order of length, then shuffled (seed 0)."""
    order = np.argsort(lengths, kind="stable")
    places = ((np.arange(count) + 0.5) * len(order) / count).astype(np.int64)
    return np.random.default_rng(0).permutation(order[places])


def batches(data: TokenisedInstances, rows: np.ndarray, num_beams: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Rows of like length together, as many as the suite decodes at once: (places in `rows`, histories (B, S))."""
    tokens = data.history_tokens[rows] + len(data.suffix)
    left = np.argsort(tokens, kind="stable")
    while len(left):
        count = users_per_pass(tokens[left].tolist(), lambda history: 0, num_beams=num_beams, memory_gib=1.0,
                               cached=True)
        yield left[:count], data.histories(rows[left[:count]])
        left = left[count:]
