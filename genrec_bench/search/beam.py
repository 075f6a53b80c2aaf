"""THE decoder: beam search over the trie of valid semantic IDs, and beside it the exact searches of `exact`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genrec_bench.backbones.base import PrefixState
from genrec_bench.contracts import PAD
from genrec_bench.core.errors import unknown
from genrec_bench.search.exact import exact_ranks, exact_top_k
from genrec_bench.search.steps import NORMALISERS, Beams, best, child_logps
from genrec_bench.trie import Trie

__all__ = ["NORMALISERS", "Beams", "beam_search", "child_logps", "exact_ranks", "exact_top_k", "users_per_pass"]

CACHED_ROWS = 640  # rows of a matrix product beyond which a processor's caches no longer help


@torch.inference_mode()
def beam_search(backbone: Any, histories: Tensor, trie: Trie, *, num_beams: int, normaliser: str = "flat",
                temperature: float = 1.0, precision: str = "float32") -> Beams:
    """The `num_beams` best semantic IDs found by beam search that only walks along valid prefixes.

    backbone: anything with `token_logits`; its `start` is used where it has one. histories: (B, S) token ids.
    normaliser: "flat" = log-softmax over the whole vocabulary before invalid tokens are dropped, as the released
    APAO decoder does; "trie" = over the valid children only. temperature: what logits are divided by before.
    precision: "bfloat16" = the network runs under autocast; softmax and scores keep the precision of its logits. Equal
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
    network = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with network():
        state = backbone.start(histories) if hasattr(backbone, "start") else PrefixState(backbone, histories)
        logits = state.first()
    nodes = torch.zeros(len(histories), 1, dtype=torch.long, device=device)
    scores, prefixes, newest = None, None, 0  # newest: slot of the last step's first prefix
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
        totals = totals.masked_fill(lost, -torch.inf)  # `best` needs an order; the user is refused at the end
        scores, picked = best(totals.flatten(1), width)
        parents = picked // children.shape[2]
        nodes = children.flatten(1).gather(1, picked)
        tokens = token[nodes]
        kept = tokens[:, :, None] if prefixes is None else torch.cat(
            [prefixes.gather(1, parents[:, :, None].expand(-1, -1, level)), tokens[:, :, None]], dim=2)
        prefixes = kept
        trace.append(kept.masked_fill(scores.isneginf()[:, :, None], PAD))
        trace_scores.append(scores)
        if level + 1 < trie.depth:
            read = logits.shape[1]
            with network():
                logits = state.advance(newest + parents, tokens)
            newest += read
    if wrong.any():  # the one question to the device, when all is computed
        raise ValueError(f"the logits of user row {int(wrong.nonzero()[0])} are NaN or +inf")
    unused = scores.isneginf()
    ids = (nodes - int(trie.level_start[-2])).masked_fill(unused, -1)
    return Beams(trace[-1], scores, ids, tuple(trace), tuple(trace_scores))


def users_per_pass(tokens: Iterable[int], floats: Callable[[int], int], *, num_beams: int, memory_gib: float,
                   cached: bool) -> int:
    """How many users to decode together, from the first on; at least one.

    tokens: length of each user's history. floats: numbers held for one user whose history is so long. memory_gib:
    what all users together may hold, in float32. cached: keep the rows of matrix products within a processor's caches.
    """
    count = longest = 0
    for length in tokens:
        longest = max(longest, length)
        held, rows = (count + 1) * floats(longest), (count + 1) * max(longest, num_beams)
        if 4 * held > memory_gib * 2**30 or (cached and rows > CACHED_ROWS):
            break
        count += 1
    return max(count, 1)
