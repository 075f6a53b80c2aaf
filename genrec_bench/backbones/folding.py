"""Candidates of a user folded over the prefixes they share: the network reads every distinct prefix once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.backbones.dropout import dropout as drop
from genrec_bench.contracts import PAD
from genrec_bench.core.devices import on_device


@dataclass(frozen=True)
class PrefixTree:
    """The distinct prefixes of each user's candidates, level by level; column 0 is the empty prefix.

    tokens: (B, P) token read at each node, PAD at the root. parents: (B, P) column of the prefix that is one token
    shorter; the root is its own. nodes: (B, C, T) column that predicts token t of candidate c, some column where that
    token is a PAD without a node. widths: columns of each level, the same for all users: a user with fewer prefixes
    has columns that nobody asks for, each a PAD below the first node of the level above.
    """

    tokens: Tensor
    parents: Tensor
    nodes: Tensor
    widths: tuple[int, ...]

    @cached_property
    def depths(self) -> Tensor:
        """(P,) length of each column's prefix, ascending."""
        levels = [torch.full((width,), level) for level, width in enumerate(self.widths)]
        return on_device(self.tokens.device, torch.cat(levels))

    def to(self, device: str | torch.device) -> PrefixTree:
        """The same tree on a device, with a copy of each part that nobody waits for."""
        parts = (on_device(device, part) for part in (self.tokens, self.parents, self.nodes))
        return PrefixTree(*parts, self.widths)

    def pinned(self) -> PrefixTree:
        """The same tree in pinned memory, from which a GPU copies while others compute."""
        return PrefixTree(self.tokens.pin_memory(), self.parents.pin_memory(), self.nodes.pin_memory(), self.widths)

    def of(self, users: slice) -> PrefixTree:
        """The tree of some of the users, with columns for all of them."""
        return PrefixTree(self.tokens[users], self.parents[users], self.nodes[users], self.widths)

    @property
    def is_chain(self) -> bool:
        """Whether every user has one prefix a level, so that columns attend to all columns before them."""
        return max(self.widths) == 1

    @cached_property
    def ancestors(self) -> Tensor:
        """(B, P, levels) column that is 0, 1, 2, ... tokens shorter, itself first; the root again beyond the root."""
        steps = [torch.arange(self.parents.shape[1], device=self.parents.device).expand_as(self.parents)]
        for _ in self.widths[1:]:
            steps.append(self.parents.gather(1, steps[-1]))
        return torch.stack(steps, dim=2)

    @cached_property
    def sees(self) -> Tensor:
        """(B, P, P) bool: the second column is the first or a prefix of it."""
        users, columns = self.tokens.shape
        seen = torch.zeros(users, columns, columns, dtype=torch.bool, device=self.tokens.device)
        return seen.scatter_(2, self.ancestors, True)  # beyond the root it is the root, which all see

    @cached_property
    def between(self) -> tuple[Tensor, ...]:
        """For each level (B, width, level - 1): rows in a flat (B * P) of what lies between a node and the root."""
        users, columns = self.tokens.shape
        rows = self.ancestors + columns * torch.arange(users, device=self.tokens.device)[:, None, None]
        return tuple(part[:, :, 1:level] for level, part in enumerate(rows.split(self.widths, dim=1)))

    def paths(self, x: Tensor) -> Iterator[list[Tensor]]:
        """The values along the path of each node, level by level, from the node up to the root.

        x: (B, P, heads, d). Yields for each level (B, width, 1, heads, d) the nodes themselves, (B, width, level - 1,
        heads, d) what lies between and (B, 1, 1, heads, d) the root, which is not copied; for the root itself alone.
        """
        levels, flat = x.split(self.widths, dim=1), x.flatten(2).flatten(0, 1)
        yield [levels[0][:, :, None]]
        for own, rows in zip(levels[1:], self.between[1:], strict=True):
            # an embedding: its gradient adds whole rows, far faster than that of an index
            yield [own[:, :, None], F.embedding(rows, flat).unflatten(3, x.shape[2:]), levels[0][:, None]]

    def gather(self, node_logits: Tensor) -> Tensor:
        """(B, P, V) logits of the nodes -> (B, C, T, V) logits along each candidate."""
        if self.nodes.shape[1] == 1:  # a chain, whose columns are in this order
            return node_logits[:, None]
        index = self.nodes.flatten(1)[:, :, None].expand(-1, -1, node_logits.shape[2])
        return node_logits.gather(1, index).unflatten(1, self.nodes.shape[1:])


def attend_along_paths(query: Tensor, key: Tensor, value: Tensor, tree: PrefixTree, bias: Tensor,
                       dropout: float = 0.0) -> Tensor:
    """Attention of every node over its own path, without a score for any other pair of nodes.

    query, key, value: (B, P, heads, d). bias: (heads, levels) added to the score of the key so many levels up.
    dropout: rate at which weights are dropped. Returns (B, P, heads, d). Scores are not scaled.
    """
    mixed = []
    for level, (q, keys, values) in enumerate(zip(query.split(tree.widths, dim=1), tree.paths(key), tree.paths(value),
                                                  strict=True)):
        scores = torch.cat([(q[:, :, None] * k).sum(4) for k in keys], dim=2) + bias[:, :level + 1].T
        weights = drop(scores.softmax(dim=2).to(query.dtype), dropout)[..., None]
        shares = weights.split([v.shape[2] for v in values], dim=2)
        mixed.append(sum((w * v).sum(2) for w, v in zip(shares, values, strict=True)))
    return torch.cat(mixed, dim=1)


def prefix_tree(candidates: Tensor, *, skip_pad: bool = True) -> PrefixTree:
    """Fold candidates over the prefixes they share; nodes of a level are in lexicographic order.

    candidates: (B, C, T) token ids, at least one candidate and one level. With `skip_pad` a prefix has a node only
    where a candidate goes on behind it, so that neither shorter semantic IDs nor the one candidate that has an EOS
    level cost anything for the others; nothing is predicted behind a PAD. Without it PAD is a token like any other.
    One candidate is the plain chain of T columns. Else the widths are asked of the candidates' device, once: who has
    the candidates in the host's memory folds them there and moves the tree.
    """
    users, count, depth = candidates.shape
    if count == 1:
        return _chain(candidates)
    goes_on = (candidates != PAD).cumprod(2).bool() if skip_pad else torch.ones_like(candidates, dtype=torch.bool)
    goes_on[:, :, 0] = True  # the root is there in any case
    groups, counts = _groups(candidates, goes_on)
    widths = [width for width in counts.amax(dim=0).tolist() if width]
    starts = [sum(widths[:level]) for level in range(depth)]
    unused = sum(widths)  # one column more takes what has no node
    nodes = torch.where(goes_on, groups + torch.tensor(starts, device=candidates.device), unused)
    above = [start for start, width in zip([0, *starts], widths, strict=False) for _ in range(width)]
    parents = torch.tensor([*above, 0], device=candidates.device).expand(users, -1)
    parents = parents.scatter(1, nodes.flatten(1), F.pad(nodes, (1, -1)).flatten(1))
    read = F.pad(candidates, (1, -1), value=PAD).flatten(1)
    tokens = candidates.new_full((users, unused + 1), PAD).scatter(1, nodes.flatten(1), read)
    return PrefixTree(tokens[:, :-1], parents[:, :-1], nodes.masked_fill(~goes_on, 0), tuple(widths))


def _chain(candidates: Tensor) -> PrefixTree:
    users, _, depth = candidates.shape
    column = torch.arange(depth, device=candidates.device).expand(users, -1)
    return PrefixTree(F.pad(candidates[:, 0], (1, -1), value=PAD), (column - 1).clamp(min=0), column[:, None],
                      (1,) * depth)


def _groups(candidates: Tensor, goes_on: Tensor) -> tuple[Tensor, Tensor]:
    """Number of each candidate's prefix of length t among its user's, (B, C, T), and how many there are, (B, T)."""
    users, _, depth = candidates.shape
    last = torch.iinfo(torch.long).max
    groups = [torch.zeros_like(candidates[:, :, 0])]
    counts = [groups[0].new_ones(users)]
    for level in range(1, depth):
        key = (groups[-1] << 32) + candidates[:, :, level - 1]  # equal keys are equal prefixes
        ordered, order = key.masked_fill(~goes_on[:, :, level], last).sort(dim=1)
        opens = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True) & (ordered != last)
        groups.append(torch.empty_like(key).scatter_(1, order, opens.cumsum(1) - 1))
        counts.append(opens.sum(1))
    return torch.stack(groups, dim=2), torch.stack(counts, dim=1)
