"""Scores of the trie's prefixes, known as far as a search asked for them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genrec_bench.backbones.base import PrefixState
from genrec_bench.search.steps import TrieTensors, check_normaliser, child_scores
from genrec_bench.trie import Trie

MAX_COLUMNS = 128  # prefixes of a user that one step of the network reads at most


class PrefixScores:
    """Summed log-probabilities (nats) of the trie's nodes, one table for several searches; no prefix is read twice.

    scores: for each normaliser (B, nodes), -inf = probability 0 or not known. expanded: (B, nodes) bool, the scores of
    the children are known. reads: (B,) prefixes that the network read; columns: of all users together, side by side.
    users: (B,) rows of the batch.
    A score is never above that of its prefix, in floating point either: no log-probability is above 0, as a log-sum-exp
    is not below its largest term, and rounded sums keep the order. So what lies below a node needs no margin.
    A node with nothing but a PAD below it has the score of its child and needs no reading: it is expanded, with all
    that follows, as soon as it is known.
    """

    def __init__(self, backbone: Any, histories: Tensor, trie: Trie, normalisers: Sequence[str] = ("flat",),
                 temperature: float = 1.0, seen: Callable[[Tensor, Tensor], None] | None = None) -> None:
        """Read the empty prefix.

        backbone, histories, temperature: see `beam_search`. seen: is given the nodes (B, K) of every step of the
        network, -1 where a column is of no use, and their logits (B, K, V).
        Raises: UserError for an unknown normaliser.
        """
        for name in normalisers:
            check_normaliser(name)
        users, nodes, device = len(histories), len(trie.token), histories.device
        self.trie, self.temperature, self.seen = trie, temperature, seen
        self.tree = TrieTensors.of(trie, device)
        self.ended, self.ends_early = self.tree.ended, bool(trie.ended.any())
        self.widest = max((trie.max_children(level) for level in range(1, trie.depth)), default=0)
        self.state = backbone.start(histories) if hasattr(backbone, "start") else PrefixState(backbone, histories)
        logits = self.state.first()
        self.scores = {name: logits.new_full((users, nodes), -torch.inf) for name in normalisers}
        for scores in self.scores.values():
            scores[:, 0] = 0.0
        self.users = torch.arange(users, device=device)
        self.expanded = torch.zeros(users, nodes, dtype=torch.bool, device=device)
        self.parents = int(trie.level_start[-3])  # nodes whose children are read: all above the last tokens
        self.slot = torch.zeros(users, max(self.parents, 1), dtype=torch.long, device=device)
        self.slots = self.columns = 1
        self.reads = torch.ones(users, dtype=torch.long, device=device)
        self.wrong = torch.zeros(users, dtype=torch.bool, device=device)
        root = torch.zeros(users, 1, dtype=torch.long, device=device)
        self._write(root, root == 0, logits, trie.max_children(0))

    def expand(self, nodes: Tensor, wanted: Tensor) -> list[int]:
        """Make the scores below the wanted nodes known. Returns the rows of users for whom something was read.

        nodes: (B, K) whose parents are expanded, in any order and repeated at will. wanted: (B, K) bool. Asks the
        device one question. Raises: ValueError where logits of an earlier step are NaN or +inf.
        """
        last = len(self.trie.token)
        nodes = nodes.masked_fill(~wanted | self.expanded.gather(1, nodes), last).sort(dim=1).values
        repeated = torch.zeros_like(nodes, dtype=torch.bool)
        repeated[:, 1:] = nodes[:, 1:] == nodes[:, :-1]
        nodes = nodes.masked_fill(repeated, last).sort(dim=1).values
        wanted = nodes < last
        going_on = (nodes < self.parents).sum(1)
        counts, wrong, users, inner = torch.stack([wanted.sum(1), self.wrong.long(), self.users, going_on]).tolist()
        if any(wrong):
            raise ValueError(f"the logits of user row {users[wrong.index(1)]} are NaN or +inf")
        width, inner = max(counts, default=0), max(inner, default=0)
        nodes = torch.where(wanted, nodes, 1)  # some prefix whose parent has been read; nobody looks at it
        for part in range(0, width, MAX_COLUMNS):
            columns = slice(part, min(part + MAX_COLUMNS, width))
            self._read(nodes[:, columns], wanted[:, columns], max(0, inner - part))
        return [row for row, count in enumerate(counts) if count]

    def select(self, rows: Tensor) -> PrefixScores:
        """The same table for some of the users, to go on with them alone: (U,) rows of this one."""
        part = copy.copy(self)
        part.state, part.scores = self.state.select(rows), {n: s[rows] for n, s in self.scores.items()}
        for name in ("users", "expanded", "slot", "reads", "wrong"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def accept(self, rows: Tensor, part: PrefixScores) -> None:
        """Take over what `select(rows)` learned; nothing more can be read for these users here."""
        for name, scores in self.scores.items():
            scores[rows] = part.scores[name]
        for name in ("expanded", "reads"):
            getattr(self, name)[rows] = getattr(part, name)

    def _read(self, nodes: Tensor, wanted: Tensor, kept: int) -> None:
        """Read some prefixes. Below those in the first `kept` columns more may be read, below the others never."""
        logits = self.state.advance(self.slot.gather(1, self.tree.parent[nodes]), self.tree.token[nodes])
        slots = torch.arange(self.slots, self.slots + nodes.shape[1], device=nodes.device)
        goes_on = wanted & (nodes < self.parents)
        # the root has slot 0, and keeps it
        self.slot.scatter_(1, torch.where(goes_on, nodes, 0), torch.where(goes_on, slots, 0))
        dropped = nodes.shape[1] - kept
        if dropped > 0 and hasattr(self.state, "forget"):
            self.state.forget(dropped)
            slots = slots[:kept]
        self.slots += len(slots)
        self.columns += nodes.shape[1]
        self.reads += wanted.sum(1)
        self._write(nodes, wanted, logits, self.widest)

    def _write(self, nodes: Tensor, wanted: Tensor, logits: Tensor, most: int) -> None:
        """Scores of all children of some nodes that have just been read, and of what follows by PAD alone."""
        if self.seen is not None:
            self.seen(nodes.masked_fill(~wanted, -1), logits)
        children, exists = self.tree.children(nodes, most)
        exists &= wanted[:, :, None]
        children = torch.where(exists, children, 0)  # the root again, whose score stays 0
        tokens = self.tree.token[children]
        self.expanded.scatter_(1, torch.where(wanted, nodes, 0), True)
        below = [children.flatten(1)]
        for _ in range(self.trie.depth - 1 if self.ends_early else 0):
            ended = self.ended[below[-1]]
            self.expanded.scatter_(1, torch.where(ended, below[-1], 0), True)
            below.append(torch.where(ended, self.tree.child_start[below[-1]], 0))
        for name, scores in self.scores.items():
            totals, lost = child_scores(logits, tokens, exists, scores.gather(1, nodes), normaliser=name,
                                        temperature=self.temperature)
            self.wrong |= lost  # the user is refused with the next question
            for level in below:
                scores.scatter_(1, level, torch.where(level > 0, totals.flatten(1), 0.0))
