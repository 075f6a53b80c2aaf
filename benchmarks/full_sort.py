"""Scoring the whole catalogue, every prefix once: what exact search is checked against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec_bench.backbones.base import Backbone
from genrec_bench.backbones.folding import PrefixTree
from genrec_bench.contracts import PAD
from genrec_bench.trie import Trie


def full_sort(model: Backbone, histories: Tensor, trie: Trie, k: int) -> Any:
    """The k best of all IDs by scoring everything, as an object with `codes` and `scores`."""
    scores = torch.stack([leaf_scores(model, history[None], trie)[0] for history in histories])
    best = scores.sort(dim=1, descending=True, stable=True)
    codes = torch.from_numpy(trie.codes)[best.indices[:, :k]]
    return SortedLists(codes, best.values[:, :k])


@dataclass(frozen=True)
class SortedLists:
    """(U, K, T) codes and (U, K) scores."""

    codes: Tensor
    scores: Tensor


@torch.inference_mode()
def leaf_scores(model: Backbone, history: Tensor, trie: Trie) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities of all IDs (S,) and of all inner nodes of the trie, every prefix read once.

    history: (1, S) token ids.
    """
    end = int(trie.level_start[-2])
    token, parent = torch.from_numpy(trie.token), torch.from_numpy(trie.parent)
    parents = parent[:end].clamp(min=0)[None]
    widths = tuple(int(w) for w in np.diff(trie.level_start)[:-1])
    logits = model.node_logits(history, PrefixTree(token[None, :end], parents, parents[:, None], widths))[0]
    steps = logits[parent[1:], token[1:]] - logits.logsumexp(dim=1)[parent[1:]]
    steps = steps.masked_fill(token[1:] == PAD, 0.0)
    scores = torch.zeros(len(token))
    for first, last in zip(trie.level_start[1:-1], trie.level_start[2:], strict=True):
        scores[first:last] = scores[parent[first:last]] + steps[first - 1:last - 1]
    return scores[end:], scores[:end]
