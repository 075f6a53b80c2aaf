"""Beam search over the trie of valid semantic IDs, and beside it the exact searches of `exact`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec_bench.backbones.base import PrefixState
from genrec_bench.contracts import PAD
from genrec_bench.core.devices import autocast, on_device
from genrec_bench.search.exact import exact_ranks, exact_top_k
from genrec_bench.search.steps import Beam, Beams, TrieTensors, check_normaliser, child_scores
from genrec_bench.trie import Trie

__all__ = ["Beams", "beam_search", "exact_ranks", "exact_top_k", "users_per_pass"]

CACHED_ROWS = 640  # rows of a matrix product beyond which a processor's caches no longer help


@torch.inference_mode()
def beam_search(backbone: Any, histories: Tensor, trie: Trie, *, num_beams: int, normaliser: str = "flat",
                temperature: float = 1.0, precision: str = "float32", eos: bool = False,
                without: Sequence[np.ndarray] | None = None, asks: bool = True) -> Beams:
    """The `num_beams` best semantic IDs found by beam search that only walks along valid prefixes.

    backbone: anything with `token_logits`; its `start` is used where it has one. histories: (B, S) token ids.
    normaliser: "flat" = log-softmax over the whole vocabulary before invalid tokens are dropped, as the released
    APAO decoder does; "trie" = over the valid children only. temperature: what logits are divided by before.
    precision: "bfloat16" = the network runs under autocast; softmax and scores keep the precision of its logits. eos:
    the log-probability of EOS behind an ID is part of its score, as in the released scripts: an ID of T tokens is then
    ranked in one more step, a shorter one costs EOS at the level where it ends. without: of each user items that the
    search leaves out: it enters no prefix all of whose items are among them. Equal scores keep the order of their
    parents and, within a parent, of the token ids. With fewer than `num_beams` IDs there are fewer columns. A prefix
    whose children all have probability 0 leaves rows unused. asks: put the one question to the device, when all is
    computed, whether any user's logits were wrong; without it the search waits for nothing, and `Beams.wrong` says so.
    Raises: UserError for an unknown normaliser; ValueError for fewer than one beam, or logits of a user's beams that
    are NaN or +inf.
    """
    check_normaliser(normaliser)
    if num_beams < 1:
        raise ValueError(f"num_beams must be at least 1, got {num_beams}")
    device = histories.device
    searched = trie.with_eos if eos else trie
    tree = TrieTensors.of(searched, device)
    closed = None if without is None else on_device(device, searched.closed(without))
    beam = Beam(tree, len(histories), num_beams, closed)
    network = partial(autocast, device, precision)
    with network():
        state = backbone.start(histories) if hasattr(backbone, "start") else PrefixState(backbone, histories)
        logits = state.first()
    newest = 0  # slot of the last step's first prefix
    wrong = torch.zeros(len(histories), dtype=torch.bool, device=device)
    for level in range(searched.depth):
        children, exists = beam.children()
        totals, lost = child_scores(logits, tree.token[children], exists, beam.scores[-1], normaliser=normaliser,
                                    temperature=temperature)
        wrong |= lost
        parents = beam.step(children, totals)
        if level + 1 < searched.depth:
            read = logits.shape[1]
            with network():
                logits = state.advance(newest + parents, tree.token[beam.nodes[-1]])
            newest += read
    if asks and wrong.any():
        raise ValueError(f"the logits of user row {int(wrong.nonzero()[0])} are NaN or +inf")
    beams = replace(_beams(beam), wrong=wrong)
    return beams.without_eos() if eos else beams


def _beams(beam: Beam) -> Beams:
    """What a finished search found."""
    tree, trace = beam.tree, []
    for level, (nodes, scores) in enumerate(zip(beam.nodes, beam.scores, strict=True)):
        codes = tree.token[tree.paths(nodes, level)[:, :, 1:]]
        trace.append(codes.masked_fill(scores.isneginf()[:, :, None], PAD))
    scores = beam.scores[-1]
    ids = (beam.nodes[-1] - int(tree.trie.level_start[-2])).masked_fill(scores.isneginf(), -1)
    return Beams(trace[-1], scores, ids, tuple(trace[1:]), tuple(beam.scores[1:]))


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
