"""What beam search and exact search share: what they return, log-probabilities of children, and an order with ties."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genrec_bench.contracts import PAD

NORMALISERS = ("flat", "trie")


@dataclass(frozen=True)
class Beams:
    """The best semantic IDs of each user.

    codes: (B, K, T) token ids, best first, distinct. scores: (B, K) summed log-probabilities in nats.
    ids: (B, K) numbers of the semantic IDs in the trie, -1 = unused. trace: T entries, the prefixes kept after
    each level, (B, K_m, m + 1). trace_scores: their scores, (B, K_m). Unused rows hold PAD and score -inf.
    """

    codes: Tensor
    scores: Tensor
    ids: Tensor
    trace: tuple[Tensor, ...]
    trace_scores: tuple[Tensor, ...] = ()


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
