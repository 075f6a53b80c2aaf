"""What decoding states share: ancestor masks, rows that are never re-ordered, weights fused for inference."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.backbones.layers import scaled_attention

ROOM = 64  # rows that are made room for at first: what a beam search of width 20 reads over three levels


class AncestorMask:
    """Which of a search's slots are prefixes of which; a slot is a prefix of itself.

    depths: (B, N) tokens of the prefix in each slot.
    """

    def __init__(self, users: int, device: torch.device) -> None:
        self.depths = torch.zeros(users, 1, dtype=torch.long, device=device)
        self._sees = torch.ones(users, 1, 1, dtype=torch.bool, device=device)  # with room in both slots

    def extend(self, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Give children of the slots `parents`, (B, K), the next K slots.

        Returns their depths (B, K) and which of all slots are prefixes of theirs, (B, K, N + K) bool.
        """
        before = self.depths.shape[1]
        total = before + parents.shape[1]
        depths = self.depths.gather(1, parents) + 1
        self.depths = torch.cat([self.depths, depths], dim=1)
        missing = total - self._sees.shape[2]
        if missing > 0:
            room = max(missing, self._sees.shape[2], ROOM)
            self._sees = F.pad(self._sees, (0, room, 0, room))
        sees = self._sees[:, :, :total].gather(1, parents[:, :, None].expand(-1, -1, total))
        sees[:, :, before:].diagonal(dim1=1, dim2=2).fill_(True)
        self._sees[:, before:total, :total] = sees
        return depths, sees

    def select(self, users: Tensor) -> AncestorMask:
        """The same for some of the users alone: (U,) rows."""
        chosen = copy.copy(self)
        chosen.depths, chosen._sees = self.depths[users], self._sees[users]
        return chosen


class Rows:
    """Keys or values in the order they were made, (B, heads, rows, d); moved only to make room."""

    def __init__(self, first: Tensor, room: int) -> None:
        """first: what is there already. room: rows to make room for behind it."""
        users, heads, self._count, width = first.shape
        self._all = first.new_empty(users, heads, self._count + room, width)
        self._all[:, :, :self._count] = first

    def add(self, new: Tensor) -> Tensor:
        """Put (B, heads, K, d) behind the others. Returns a view of all."""
        before, self._count = self._count, self._count + new.shape[2]
        missing = self._count - self._all.shape[2]
        if missing > 0:
            room = self._all.new_empty(*self._all.shape[:2], max(missing, self._all.shape[2]), self._all.shape[3])
            self._all = torch.cat([self._all, room], dim=2)
        self._all[:, :, before:self._count] = new
        return self._all[:, :, :self._count]

    def select(self, users: Tensor) -> Rows:
        """The same for some of the users alone: (U,) rows of the batch."""
        chosen = copy.copy(self)
        chosen._all = self._all[users]
        return chosen


def split_heads(x: Tensor, parts: int, heads: int) -> Tensor:
    """(B, S, parts * heads * d) -> (parts, B, heads, S, d), a view."""
    return x.unflatten(2, (parts, heads, -1)).permute(2, 0, 3, 1, 4)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float = 1.0) -> Tensor:
    """Attention with an additive mask, or a causal one where there is none.

    query: (B, heads, K, d). key, value: (B, heads, S, d). bias: broadcast to (B, heads, K, S). Returns (B, K,
    heads * d).
    """
    return scaled_attention(query, key, value, bias, scale).transpose(1, 2).flatten(2)


def search_floats(history: int, beams: int, depth: int, *, width: int, inner: int, heads: int, feed_forward: int,
                  layers: int, vocab: int) -> int:
    """Numbers that a beam search holds for one user at most, from above: kept keys and values, one layer, one step.

    history: tokens. beams, depth: width and levels of the search. inner: heads times their width. The rest: sizes of
    the network.
    """
    keys = history + max(ROOM, beams * depth)
    kept = 4 * layers * inner * keys  # twice, while room is made
    rows = max(history, beams)
    layer = rows * (4 * width + 6 * inner + 2 * feed_forward) + 3 * heads * rows * keys
    return kept + layer + 5 * beams * vocab  # logits, and what their softmax takes
