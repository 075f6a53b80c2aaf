"""A stand-in for a trained network on a catalogue that none was trained on: exact probabilities, almost no work.

The probability of an item is a mixture of two shares, each counted in the training sequences: of all interactions
(with one added for every item), and of the items that other users had together with one of the user's history, the
mean over the history. The weight of the mixture is the one that gives the validation targets the greatest likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from benchmarks.corpora import Corpus, sample
from genrec_bench.contracts import Instances, Split
from genrec_bench.trie import Trie

WEIGHTS = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class Counts:
    """What the training sequences say: the share of each item, and of each item beside another (rows sum to 1 or 0)."""

    popularity: np.ndarray
    together: sparse.csr_matrix

    @classmethod
    def of(cls, split: Split) -> Counts:
        rows, items = split.train_sequences.rows, split.train_sequences.flat
        popularity = np.bincount(items, minlength=split.num_items) + 1.0
        had = sparse.csr_matrix((np.ones(len(items)), (rows, items)), shape=(len(split.train_sequences),
                                                                            split.num_items))
        pairs = (had.T @ had).tolil()
        pairs.setdiag(0)
        pairs = pairs.tocsr()
        total = np.asarray(pairs.sum(axis=1)).ravel()
        shares = sparse.diags(np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)) @ pairs
        return cls(popularity / popularity.sum(), shares.tocsr())

    def beside(self, instances: Instances, rows: np.ndarray) -> np.ndarray:
        """(U, I) mean share of every item beside those of each history; the popularity where nothing is known."""
        means = np.stack([np.asarray(self.together[instances.history(row)].mean(axis=0)).ravel() for row in rows])
        total = means.sum(axis=1, keepdims=True)
        return np.where(total > 0, means / np.where(total > 0, total, 1.0), self.popularity)


def probabilities(corpus: Corpus, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """(U, S) probability of every distinct semantic ID for some test rows, and the weight of the co-occurrence."""
    counts = Counts.of(corpus.split)
    valid = corpus.split.valid
    known = sample(valid.lengths, min(500, len(valid)))
    at_target = counts.beside(valid, known)[np.arange(len(known)), valid.targets[known]]
    popular = counts.popularity[valid.targets[known]]
    gains = [np.log(w * at_target + (1 - w) * popular).mean() for w in WEIGHTS]
    weight = float(WEIGHTS[int(np.argmax(gains))])
    items = weight * counts.beside(corpus.split.test, rows) + (1 - weight) * counts.popularity
    ids = np.zeros((len(rows), corpus.trie.num_ids))
    np.add.at(ids.T, corpus.trie.id_of_item, items.T)
    return ids, weight


class Surrogate:
    """Something to search in whose IDs have given probabilities, (U, S); a "history" is a row of them, (B, 1)."""

    def __init__(self, trie: Trie, probability: np.ndarray, vocab_size: int) -> None:
        self.token, self.child_start = torch.from_numpy(trie.token), torch.from_numpy(trie.child_start)
        self.most = max(trie.max_children(level) for level in range(trie.depth))
        self.vocab_size = vocab_size
        ids = trie.id_of_item[trie.item_order]
        first, last = ids[trie.item_start], ids[trie.item_end - 1] + 1
        below = np.concatenate([np.zeros((len(probability), 1)), probability.cumsum(axis=1)], axis=1)
        self.logps = torch.from_numpy(np.log(below[:, last] - below[:, first])).float()  # (U, nodes)

    def start(self, histories: Tensor) -> SurrogateState:
        return SurrogateState(self, self.logps[histories[:, 0]])


class SurrogateState:
    """Follows `DecodingState`; the node of every slot is all there is to keep."""

    def __init__(self, model: Surrogate, logps: Tensor, nodes: Tensor | None = None) -> None:
        self.model, self.logps = model, logps
        self.nodes = torch.zeros(len(logps), 1, dtype=torch.long) if nodes is None else nodes

    def first(self) -> Tensor:
        return self._logits(self.nodes)

    def advance(self, parents: Tensor, tokens: Tensor) -> Tensor:
        children, exists = self._children(self.nodes.gather(1, parents))
        place = (exists & (self.model.token[children] == tokens[:, :, None])).int().argmax(dim=2, keepdim=True)
        nodes = children.gather(2, place)[:, :, 0]
        self.nodes = torch.cat([self.nodes, nodes], dim=1)
        return self._logits(nodes)

    def select(self, users: Tensor) -> SurrogateState:
        return SurrogateState(self.model, self.logps[users], self.nodes[users])

    def forget(self, count: int) -> None:
        self.nodes = self.nodes[:, :self.nodes.shape[1] - count]

    def _children(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        start, end = self.model.child_start[nodes][:, :, None], self.model.child_start[nodes + 1][:, :, None]
        children = start + torch.arange(self.model.most)
        return torch.where(children < end, children, 0), children < end

    def _logits(self, nodes: Tensor) -> Tensor:
        children, exists = self._children(nodes)
        own = self.logps[:, None].expand(-1, nodes.shape[1], -1)
        steps = (own.gather(2, children) - self.logps.gather(1, nodes)[:, :, None]).masked_fill(~exists, -torch.inf)
        logits = torch.full((*nodes.shape, self.model.vocab_size + 1), -torch.inf)
        column = torch.where(exists, self.model.token[children], self.model.vocab_size)  # one more takes what is none
        return logits.scatter_(2, column, steps)[:, :, :-1]
