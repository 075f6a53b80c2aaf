"""THE decoder: beam search over the trie of valid semantic IDs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genrec_bench.backbones.base import PrefixState
from genrec_bench.contracts import PAD
from genrec_bench.errors import unknown
from genrec_bench.trie import Trie

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


@torch.inference_mode()
def beam_search(backbone: Any, histories: Tensor, trie: Trie, *, num_beams: int, normaliser: str = "flat",
                temperature: float = 1.0) -> Beams:
    """The `num_beams` best semantic IDs found by beam search that only walks along valid prefixes.

    backbone: anything with `token_logits`; its `start` is used where it has one. histories: (B, S) token ids.
    normaliser: "flat" = log-softmax over the whole vocabulary before invalid tokens are dropped, as the released
    APAO decoder does; "trie" = over the valid children only. temperature: what logits are divided by before. Equal
    scores keep the order of their parents and, within a parent, of the token ids. With fewer than `num_beams` IDs
    there are fewer columns.
    A prefix whose children all have probability 0 leaves rows unused.
    Raises: UserError for an unknown normaliser; ValueError for fewer than one beam, or logits of a user's beams that
    are NaN or +inf.
    """
    if normaliser not in NORMALISERS:
        raise unknown("normaliser", normaliser, NORMALISERS)
    if num_beams < 1:
        raise ValueError(f"num_beams must be at least 1, got {num_beams}")
    device = histories.device
    token = torch.as_tensor(trie.token, device=device)
    child_start = torch.as_tensor(trie.child_start, device=device)
    state = backbone.start(histories) if hasattr(backbone, "start") else PrefixState(backbone, histories)
    nodes = torch.zeros(len(histories), 1, dtype=torch.long, device=device)
    logits, scores, prefixes = state.first(), None, None
    trace, trace_scores = [], []
    wrong = torch.zeros(len(histories), dtype=torch.bool, device=device)
    for level in range(trie.depth):
        width = int(min(num_beams, trie.level_start[level + 2] - trie.level_start[level + 1]))
        children = child_start[nodes][:, :, None] + torch.arange(trie.max_children(level), device=device)
        exists = children < child_start[nodes + 1][:, :, None]
        children = torch.where(exists, children, 0)
        if temperature != 1.0:
            logits = logits / temperature
        steps = child_logps(logits, token[children], exists, normaliser)
        totals = steps if scores is None else (steps + scores[:, :, None]).masked_fill(
            scores.isneginf()[:, :, None], -torch.inf)
        lost = totals.isnan()
        wrong |= lost.flatten(1).any(dim=1)
        totals = totals.masked_fill(lost, -torch.inf)  # _best needs an order; the user is refused at the end
        scores, picked = _best(totals.flatten(1), width)
        parents = picked // children.shape[2]
        nodes = children.flatten(1).gather(1, picked)
        tokens = token[nodes]
        kept = tokens[:, :, None] if prefixes is None else torch.cat(
            [prefixes.gather(1, parents[:, :, None].expand(-1, -1, level)), tokens[:, :, None]], dim=2)
        prefixes = kept
        trace.append(kept.masked_fill(scores.isneginf()[:, :, None], PAD))
        trace_scores.append(scores)
        if level + 1 < trie.depth:
            logits = state.advance(parents, tokens)
    if wrong.any():  # the one question to the device, when all is computed
        raise ValueError(f"the logits of user row {int(wrong.nonzero()[0])} are NaN or +inf")
    unused = scores.isneginf()
    ids = (nodes - int(trie.level_start[-2])).masked_fill(unused, -1)
    return Beams(trace[-1], scores, ids, tuple(trace), tuple(trace_scores))


def child_logps(logits: Tensor, tokens: Tensor, exists: Tensor, normaliser: str) -> Tensor:
    """Log-probabilities of child tokens, -inf where there is no child and 0 where an ID has ended (PAD).

    Where every logit that the softmax covers is -inf, so is every child; NaN and +inf give NaN.
    logits: (B, K, V). tokens, exists: (B, K, C). Returns (B, K, C) in nats, in the dtype of the logits.
    """
    chosen = logits.gather(2, tokens)
    if normaliser == "flat":
        total = logits.logsumexp(dim=2, keepdim=True)
    else:
        total = chosen.masked_fill(~exists | (tokens == PAD), -torch.inf).logsumexp(dim=2, keepdim=True)
    total = total.masked_fill(total.isneginf(), 0.0)  # -inf - -inf would be NaN
    return (chosen - total).masked_fill(tokens == PAD, 0.0).masked_fill(~exists, -torch.inf)


def _best(totals: Tensor, width: int) -> tuple[Tensor, Tensor]:
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
