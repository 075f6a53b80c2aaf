"""What all searches share: what they return, scores of children, the step of a beam search and its order with ties."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.devices import on_device
from genrec_bench.core.errors import unknown
from genrec_bench.trie import Trie

NORMALISERS = ("flat", "trie")


@dataclass(frozen=True)
class Beams:
    """The best semantic IDs of each user.

    codes: (B, K, T) token ids, best first, distinct. scores: (B, K) summed log-probabilities in nats, of the T tokens
    or, searched with EOS, of EOS as well. ids: (B, K) numbers of the semantic IDs in the trie, -1 = unused. trace: T
    entries, the prefixes kept after each level, (B, K_m, m + 1). trace_scores: their scores, (B, K_m). Unused rows hold
    PAD and score -inf. wrong: (B,) bool, users whose logits were NaN or +inf; None from an exact search, which raises.
    """

    codes: Tensor
    scores: Tensor
    ids: Tensor
    trace: tuple[Tensor, ...]
    trace_scores: tuple[Tensor, ...] = ()
    wrong: Tensor | None = None

    def without_eos(self) -> Beams:
        """Of a search over `Trie.with_eos`: the same lists, in the same order and with the same scores, in T tokens."""
        codes, *trace = (t.masked_fill(t == EOS, PAD) for t in (self.codes[:, :, :-1], *self.trace[:-1]))
        return Beams(codes, self.scores, self.ids, tuple(trace), self.trace_scores[:-1], self.wrong)


class TrieTensors:
    """A trie's arrays on the device where it is searched."""

    def __init__(self, trie: Trie, device: torch.device) -> None:
        self.trie = trie
        self.token, self.parent, self.child_start, self.ended = (
            on_device(device, array) for array in (trie.token, trie.parent, trie.child_start, trie.ended))

    @classmethod
    def of(cls, trie: Trie, device: torch.device) -> TrieTensors:
        """Those of a trie on a device, made when first asked for."""
        if device not in trie.kept:
            with torch.inference_mode(False):  # usable outside of searches too
                trie.kept[device] = cls(trie, device)
        return trie.kept[device]

    def children(self, nodes: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """(B, K, most) children of (B, K) nodes, ascending, and which of them exist; the others are 0."""
        children = self.child_start[nodes][:, :, None] + torch.arange(most, device=nodes.device)
        exists = children < self.child_start[nodes + 1][:, :, None]
        return torch.where(exists, children, 0), exists

    def paths(self, nodes: Tensor, level: int) -> Tensor:
        """(B, K) nodes of a level -> (B, K, level + 1) nodes from the root down to them."""
        path = [nodes]
        for _ in range(level):
            path.append(self.parent[path[-1]])
        return torch.stack(path[::-1], dim=2)


class Beam:
    """A beam search: the nodes kept after each level, (B, K_m) and best first, and their scores, -inf = unused.

    It does not know where scores come from: each level it asks for `children` and is given their scores in `step`.
    closed: (B, nodes) bool, nodes that a user's search does not enter; None = it may enter all.
    """

    def __init__(self, tree: TrieTensors, users: int, width: int, closed: Tensor | None = None) -> None:
        self.tree, self.width, self.closed = tree, width, closed
        self.nodes = [torch.zeros(users, 1, dtype=torch.long, device=tree.token.device)]
        self.scores = [torch.zeros(users, 1, device=tree.token.device)]

    def children(self) -> tuple[Tensor, Tensor]:
        """(B, K, C) children of what was kept last, and which of them exist."""
        children, exists = self.tree.children(self.nodes[-1], self.tree.trie.max_children(len(self.nodes) - 1))
        exists &= (self.scores[-1] > -torch.inf)[:, :, None]
        if self.closed is not None:
            exists &= ~self.closed.gather(1, children.flatten(1)).view_as(children)
        return children, exists

    def step(self, children: Tensor, totals: Tensor) -> Tensor:
        """Keep the best of (B, K, C) children, by their scores, -inf where there is none; there must be no NaN.

        Equal scores keep the order of their parents and, within a parent, of the token ids. Returns (B, K') which of
        the K prefixes each kept child extends.
        """
        level = len(self.nodes)
        starts = self.tree.trie.level_start
        scores, picked = best(totals.flatten(1), int(min(self.width, starts[level + 1] - starts[level])))
        self.nodes.append(children.flatten(1).gather(1, picked))
        self.scores.append(scores)
        return picked // children.shape[2]


def check_normaliser(name: str) -> None:
    """Raises: UserError for an unknown normaliser."""
    if name not in NORMALISERS:
        raise unknown("normaliser", name, NORMALISERS)


def child_scores(logits: Tensor, tokens: Tensor, exists: Tensor, before: Tensor, *, normaliser: str,
                 temperature: float) -> tuple[Tensor, Tensor]:
    """Scores of children: those of their prefixes plus their own log-probabilities.

    logits: (B, K, V) after the prefixes, divided by `temperature`. tokens, exists: (B, K, C) of the children. before:
    (B, K) scores of the prefixes. Returns (B, K, C) in nats, -inf where there is no child or the prefix has -inf; and
    (B,) bool, users whose logits are NaN or +inf, where the score is -inf too.
    """
    if temperature != 1.0:
        logits = logits / temperature
    before = before[:, :, None]
    totals = (child_logps(logits, tokens, exists, normaliser) + before).masked_fill(before.isneginf(), -torch.inf)
    lost = totals.isnan()
    return totals.masked_fill(lost, -torch.inf), lost.flatten(1).any(dim=1)


def child_logps(logits: Tensor, tokens: Tensor, exists: Tensor, normaliser: str) -> Tensor:
    """Log-probabilities of child tokens, -inf where there is no child and 0 where an ID has ended (PAD).

    Where every logit that the softmax covers is -inf, so is every child; NaN and +inf give NaN.
    logits: (B, K, V). tokens, exists: (B, K, C). Returns (B, K, C) in nats, in the dtype of the logits.
    """
    chosen = logits.gather(2, tokens)
    if normaliser == "flat":
        total = logits.logsumexp(dim=2, keepdim=True)
    else:
        total = chosen.masked_fill(~exists, -torch.inf).logsumexp(dim=2, keepdim=True)
    total = total.masked_fill(total.isneginf(), 0.0)  # -inf - -inf would be NaN
    return (chosen - total).masked_fill(tokens == PAD, 0.0).masked_fill(~exists, -torch.inf)


def best(totals: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The `width` largest of each row, best first, ties by position; no synchronisation with the host.

    torch.topk leaves the order of equals open, so it only finds the threshold here.
    """
    count = totals.shape[1]
    threshold = totals.topk(width, dim=1).values[:, -1:]
    above = totals > threshold
    equal = totals == threshold
    wanted = above | (equal & (equal.cumsum(1) <= width - above.sum(1, keepdim=True)))
    position = torch.arange(count, 0, -1, device=totals.device)
    picked = count - torch.where(wanted, position, 0).topk(width, dim=1).values
    ordered = totals.gather(1, picked).sort(dim=1, descending=True, stable=True)
    return ordered.values, picked.gather(1, ordered.indices)
