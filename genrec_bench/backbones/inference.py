"""What decoding states share: who attends to whom, rows that are never re-ordered, weights fused for inference."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.backbones.layers import scaled_attention

ROOM = 64  # rows that are made room for at first: what a beam search of width 20 reads over three levels
UNASKED = 8  # steps of a search whose prefixes are taken to grow by a token a step, as a beam search's do


@dataclass(frozen=True)
class Sight:
    """What K prefixes attend to in their own search: slots on the way to them, themselves among these.

    depths: (B, K) their tokens. slots: (B, N) slots to look at, of which each sees some; None = all, in their order.
    key_depths: (B, N) tokens of the prefixes there, of no meaning where nobody sees one. sees: (B, K, N) bool.
    """

    depths: Tensor
    slots: Tensor | None
    key_depths: Tensor
    sees: Tensor


class Paths:
    """The slots on the way to every prefix of a search, so that it attends to those alone.

    A step looks at all slots or, where that is fewer, at those on the paths of its own prefixes, path by path: its cost
    and its mask do not grow with what was read before. In a beam search all slots are never more.
    """

    def __init__(self, users: int, device: torch.device) -> None:
        # of each slot those on the way to it, one token first and itself last; then 0, the slot of the root
        self._table = Rows(torch.zeros(users, 1, 1, UNASKED, dtype=torch.long, device=device), ROOM)
        self._steps = 0

    def root(self) -> Sight:
        """Of the empty prefix alone, in slot 0."""
        zeros = self._table.all[:, 0, :1, 0]
        return Sight(zeros, None, zeros, zeros[:, :, None] == 0)

    def extend(self, parents: Tensor) -> Sight:
        """Give children of the slots `parents`, (B, K), the next K slots."""
        before, count = self._table.all.shape[2], parents.shape[1]
        above = self._table.all[:, 0].gather(1, parents[:, :, None].expand(-1, -1, self._table.all.shape[3]))
        depths = (above > 0).sum(2) + 1
        longest = self._longest(depths)
        own = torch.arange(before, before + count, device=parents.device).expand_as(parents)
        path = F.pad(above, (0, longest - above.shape[2])).scatter_(2, depths[:, :, None] - 1, own[:, :, None])
        table = self._table.add(F.pad(path, (0, self._table.all.shape[3] - longest))[:, None])[:, 0]
        if before + count <= 1 + longest * count:
            sees = torch.zeros(*parents.shape, before + count, dtype=torch.bool, device=parents.device)
            return Sight(depths, None, (table > 0).sum(2), sees.scatter_(2, F.pad(path, (1, 0)), True))
        slots, levels = path.transpose(1, 2), torch.arange(1, 1 + longest, device=parents.device)
        own_path = torch.diag_embed(slots > 0).transpose(1, 2).flatten(2)  # of the slots each sees its own path
        return Sight(depths, F.pad(slots.flatten(1), (1, 0)),
                     F.pad(levels.repeat_interleave(count), (1, 0)).expand(len(parents), -1),
                     F.pad(own_path, (1, 0), value=True))

    def forget(self, count: int) -> None:
        """Give the last slots back."""
        self._table.forget(count)

    def select(self, users: Tensor) -> Paths:
        """The same for some of the users alone: (U,) rows."""
        chosen = copy.copy(self)
        chosen._table = self._table.select(users)
        return chosen

    def _longest(self, depths: Tensor) -> int:
        """Tokens of the longest of some new prefixes, at most; there is room for as many behind it.

        In a beam search it grows by one a step. A search of more steps than that has short prefixes again: then it
        asks the device.
        """
        self._steps += 1
        longest = self._steps if self._steps <= UNASKED else int(depths.max())
        missing = longest - self._table.all.shape[3]
        if missing > 0:
            self._table = Rows(F.pad(self._table.all, (0, missing)), ROOM)
        return longest


class Rows:
    """Keys or values in the order they were made, (B, heads, rows, d); moved only to make room."""

    def __init__(self, first: Tensor, room: int) -> None:
        """first: what is there already. room: rows to make room for behind it."""
        users, heads, self._count, width = first.shape
        self._first, self._room = self._count, first.new_empty(users, heads, self._count + room, width)
        self._room[:, :, :self._count] = first

    @property
    def all(self) -> Tensor:
        """A view of all rows."""
        return self._room[:, :, :self._count]

    def add(self, new: Tensor, slots: Tensor | None = None) -> Tensor:
        """Put (B, heads, K, d) behind the others. Returns all rows, or a copy of what was first and of `slots`, (B, N),
        which are counted from there on."""
        before, self._count = self._count, self._count + new.shape[2]
        users, heads, room, width = self._room.shape
        missing = self._count - room
        if missing > 0:
            more = self._room.new_empty(users, heads, max(missing, room // 2), width)
            self._room = torch.cat([self._room, more], dim=2)
        self._room[:, :, before:self._count] = new
        return self.all if slots is None else self._copied(slots)

    def _copied(self, slots: Tensor) -> Tensor:
        users, heads, room, _ = self._room.shape
        first = torch.arange(self._first, device=slots.device).expand(users, -1)
        starts = room * torch.arange(users * heads, device=slots.device).view(users, heads, 1)
        return F.embedding(starts + torch.cat([first, slots + self._first], dim=1)[:, None], self._room.flatten(0, 2))

    def forget(self, count: int) -> None:
        """Take the last rows away."""
        self._count -= count

    def select(self, users: Tensor) -> Rows:
        """The same for some of the users alone: (U,) rows of the batch."""
        chosen = copy.copy(self)
        chosen._room = self._room[users]
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
