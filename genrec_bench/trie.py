"""Prefix trie over the valid semantic IDs, as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from genrec_bench.contracts import EOS, PAD, prefix_pair


@dataclass(frozen=True, eq=False)
class Trie:
    """All prefixes of the valid semantic IDs. Nodes are numbered level by level, in lexicographic order.

    Node 0 is the root; nodes of level m (prefixes of length m) are `level_start[m]:level_start[m + 1]`.
    token: (nodes,) last token of each prefix. parent: (nodes,). child_start: (nodes + 1,), the children of node n
    are `child_start[n]:child_start[n + 1]`. item_order: rows of `codes` in lexicographic order; the rows below
    node n are `item_order[item_start[n]:item_end[n]]`.

    A semantic ID shorter than T goes on with PAD nodes down to level T, so that every ID ends at level T and a
    decoder needs no special case: a PAD child costs nothing, and has no siblings, because no ID is the beginning of
    another. PAD nodes are not counted as prefixes. kept: what others make of it once, such as copies on a device.
    """

    token: np.ndarray
    parent: np.ndarray
    child_start: np.ndarray
    level_start: np.ndarray
    item_order: np.ndarray
    item_start: np.ndarray
    item_end: np.ndarray
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_codes(cls, codes: np.ndarray) -> Trie:
        """Build from (I, T) token ids, one row an item, shorter IDs padded with PAD at the end.

        Equal rows are one semantic ID. Raises: ValueError for an empty array, a non-integer type, negative ids,
        a row of PAD alone, a token after PAD, or a shorter row that is the beginning of another.
        """
        codes = _checked(codes)
        rows, depth = codes.shape
        order = np.lexsort(codes.T[::-1])
        ordered = codes[order]
        differs = np.ones((rows, depth), dtype=bool)  # row opens a new prefix of length m + 1
        differs[1:] = np.logical_or.accumulate(ordered[1:] != ordered[:-1], axis=1)
        counts = differs.sum(axis=0)
        level_start = np.concatenate([[0, 1], 1 + np.cumsum(counts)]).astype(np.int64)
        token, parent, start, end = [np.array([PAD])], [np.array([-1])], [np.array([0])], [np.array([rows])]
        above = np.zeros(rows, dtype=np.int64)
        for level in range(depth):
            first = np.flatnonzero(differs[:, level])
            token.append(ordered[first, level])
            parent.append(above[first])
            start.append(first)
            end.append(np.append(first[1:], rows))
            above = level_start[level + 1] + np.cumsum(differs[:, level]) - 1
        parents = np.concatenate(parent)
        num_children = np.bincount(parents[1:], minlength=len(parents))
        child_start = 1 + np.concatenate([[0], np.cumsum(num_children)])
        return cls(np.concatenate(token), parents, child_start.astype(np.int64), level_start, order,
                   np.concatenate(start), np.concatenate(end))

    @property
    def depth(self) -> int:
        """T, the length of the longest semantic ID."""
        return len(self.level_start) - 2

    @property
    def num_prefixes(self) -> list[int]:
        """Distinct prefixes of length 1..T; IDs that ended earlier are not counted."""
        return [int((self.token[a:b] != PAD).sum())
                for a, b in zip(self.level_start[1:-1], self.level_start[2:], strict=True)]

    @property
    def num_ids(self) -> int:
        """Distinct semantic IDs (S), numbered 0..S-1 in lexicographic order."""
        return int(self.level_start[-1] - self.level_start[-2])

    @cached_property
    def id_sizes(self) -> np.ndarray:
        """(S,) items that share each semantic ID."""
        leaves = slice(self.level_start[-2], self.level_start[-1])
        return self.item_end[leaves] - self.item_start[leaves]

    @cached_property
    def id_of_item(self) -> np.ndarray:
        """(I,) number of each item's semantic ID."""
        result = np.empty(len(self.item_order), dtype=np.int64)
        result[self.item_order] = np.repeat(np.arange(self.num_ids), self.id_sizes)
        return result

    @cached_property
    def codes(self) -> np.ndarray:
        """(S, T) token ids of the distinct semantic IDs, in the order of their numbers."""
        nodes, columns = np.arange(self.level_start[-2], self.level_start[-1]), []
        for _ in range(self.depth):
            columns.append(self.token[nodes])
            nodes = self.parent[nodes]
        return np.stack(columns[::-1], axis=1)

    @cached_property
    def ended(self) -> np.ndarray:
        """(nodes,) bool: a prefix that goes on with PAD and nothing else."""
        starts = np.minimum(self.child_start[:-1], len(self.token) - 1)
        return (np.diff(self.child_start) == 1) & (self.token[starts] == PAD)

    @cached_property
    def with_eos(self) -> Trie:
        """The same items, every ID with EOS behind its last token: one level more, IDs with the same numbers."""
        codes = np.pad(self.codes[self.id_of_item], ((0, 0), (0, 1)), constant_values=PAD)
        codes[np.arange(len(codes)), (codes != PAD).sum(axis=1)] = EOS
        return Trie.from_codes(codes)

    def closed(self, items: Sequence[np.ndarray]) -> np.ndarray:
        """(B, nodes) bool, nodes below which a row has every item. items: of each row the numbers of its items."""
        found = np.zeros((len(items), len(self.token)), dtype=bool)
        rows = np.repeat(np.arange(len(items)), [len(own) for own in items])
        flat = np.concatenate([np.empty(0, dtype=np.int64), *items])
        rows, flat = np.divmod(np.unique(rows * len(self.item_order) + flat), len(self.item_order))
        nodes, whole = self.level_start[-2] + self.id_of_item[flat], self.item_end - self.item_start
        while True:  # upwards: a node is closed where as many of its items or children are as it has
            keys, count = np.unique(rows * len(self.token) + nodes, return_counts=True)
            rows, nodes = np.divmod(keys, len(self.token))
            shut = count == whole[nodes]
            rows, nodes = rows[shut], nodes[shut]
            found[rows, nodes] = True
            if not len(nodes) or nodes[0] == 0:
                return found
            nodes, whole = self.parent[nodes], np.diff(self.child_start)

    def find(self, prefix: Sequence[int]) -> int:
        """The node of a prefix, or -1 where no item has it; PAD is no part of a prefix."""
        return -1 if any(token == PAD for token in prefix) else self._walk(prefix)

    def _walk(self, path: Sequence[int]) -> int:
        """The node at the end of a path, over PAD nodes too, or -1."""
        node = 0
        for token in path:
            low, high = self.child_start[node], self.child_start[node + 1]
            position = low + np.searchsorted(self.token[low:high], token)
            if position == high or self.token[position] != token:
                return -1
            node = int(position)
        return node

    def children(self, prefix: Sequence[int]) -> np.ndarray:
        """Token ids that may follow a prefix, ascending; empty at the end of an ID, after PAD and where unknown."""
        node = self.find(prefix)
        if node < 0 or len(prefix) >= self.depth:
            return np.empty(0, dtype=np.int64)
        tokens = self.token[self.child_start[node]:self.child_start[node + 1]]
        return tokens[tokens != PAD]

    def items(self, prefix: Sequence[int]) -> np.ndarray:
        """Row numbers of `codes` that start with a prefix, ascending; empty for an unknown prefix.

        With PAD behind it, as in a row of `codes`, only those whose ID ends there.
        """
        node = self._walk(prefix)
        if node < 0:
            return np.empty(0, dtype=np.int64)
        return np.sort(self.item_order[self.item_start[node]:self.item_end[node]])

    def max_children(self, level: int) -> int:
        """The most children a node of this level has (PAD counts)."""
        return self._widths[level]

    @cached_property
    def _widths(self) -> list[int]:
        return [int(np.diff(self.child_start[a:b + 1]).max())
                for a, b in zip(self.level_start[:-2], self.level_start[1:-1], strict=True)]


def _checked(codes: np.ndarray) -> np.ndarray:
    codes = np.asarray(codes)
    if codes.ndim != 2 or 0 in codes.shape:
        raise ValueError(f"codes must be a non-empty (items, levels) array, got shape {codes.shape}")
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes must be integers, got {codes.dtype}")
    codes = codes.astype(np.int64)
    if codes.min() < 0:
        raise ValueError(f"codes must not be negative (row {int(np.argwhere(codes < 0)[0, 0])})")
    ended = codes == PAD
    wrong = ended[:, 0] | (ended[:, :-1] & ~ended[:, 1:]).any(axis=1)
    if wrong.any():
        raise ValueError(f"row {int(np.flatnonzero(wrong)[0])} of codes has no token, or a token after PAD")
    pair = prefix_pair(codes)
    if pair is not None:
        raise ValueError(f"row {pair[0]} of codes is the beginning of row {pair[1]}")
    return codes
