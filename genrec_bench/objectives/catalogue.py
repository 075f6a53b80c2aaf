"""The valid semantic IDs as tensors: what objectives ask about prefixes, on the device where training runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrec_bench.contracts import PAD
from genrec_bench.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Catalogue:
    """All distinct semantic IDs, numbered 0..S-1 in lexicographic order, and the prefixes they share.

    tokens: (S, T) token ids, PAD where an ID is shorter. nodes: (S, T) number of the prefix of length 1..T in the
    trie; equal numbers mean equal prefixes. num_prefixes: (T,) distinct prefixes a length. child_start: (nodes + 1,),
    child_token: (nodes,): the tokens that may follow node n are `child_token[child_start[n]:child_start[n + 1]]`.
    item_counts: (S,) items that share each ID. widths: most children of a node, a number a level. vocab_size: V.
    """

    tokens: Tensor
    nodes: Tensor
    num_prefixes: Tensor
    child_start: Tensor
    child_token: Tensor
    item_counts: Tensor
    widths: tuple[int, ...]
    vocab_size: int

    @classmethod
    def from_trie(cls, trie: Any, vocab_size: int, device: str | torch.device = "cpu") -> Catalogue:
        """From a `genrec_bench.trie.Trie`."""
        parent, token = torch.from_numpy(trie.parent), torch.from_numpy(trie.token)
        node = torch.arange(int(trie.level_start[-2]), int(trie.level_start[-1]))
        nodes = []
        for _ in range(trie.depth):
            nodes.append(node)
            node = parent[node]
        nodes = torch.stack(nodes[::-1], dim=1)
        tensors = (token[nodes], nodes, torch.tensor(trie.num_prefixes), torch.from_numpy(trie.child_start), token,
                   torch.from_numpy(trie.id_sizes))
        return cls(*(t.to(device) for t in tensors), tuple(trie.max_children(m) for m in range(trie.depth)), vocab_size)

    @property
    def depth(self) -> int:
        """T, the length of the longest semantic ID."""
        return self.tokens.shape[1]

    def valid(self, ids: Tensor) -> Tensor:
        """(..., T, V) bool: the tokens that may follow the ID's prefix before each level.

        PAD is never valid; after the end of a shorter ID nothing is.
        """
        nodes = self.nodes[ids]
        before = torch.cat([torch.zeros_like(nodes[..., :1]), nodes[..., :-1]], dim=-1)
        result = torch.zeros(*nodes.shape, self.vocab_size, dtype=torch.bool, device=nodes.device)
        for level, width in enumerate(self.widths):
            first = self.child_start[before[..., level]][..., None]
            child = first + torch.arange(width, device=nodes.device)
            exists = child < self.child_start[before[..., level] + 1][..., None]
            tokens = self.child_token[child.clamp(max=len(self.child_token) - 1)].masked_fill(~exists, PAD)
            result[..., level, :].scatter_(-1, tokens, True)
        result[..., PAD] = False
        return result

    def distinct(self, ids: Tensor) -> Tensor:
        """(B, C, T) bool: candidate c is the first of its row with this prefix of length 1..T (PAD levels: False).

        ids: (B, C). With the target in column 0, `distinct(...)[:, 1:]` are the negatives that count at each length.
        """
        nodes = self.nodes[ids].transpose(1, 2)
        ordered, order = nodes.sort(dim=2, stable=True)
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[:, :, 1:] = ordered[:, :, 1:] != ordered[:, :, :-1]
        result = torch.zeros_like(first).scatter_(2, order, first).transpose(1, 2)
        return result & (self.tokens[ids] != PAD)
