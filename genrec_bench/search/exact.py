"""Exact search over the trie: the best semantic IDs and the rank of a target, without reading the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genrec_bench.batches import append_eos
from genrec_bench.contracts import PAD
from genrec_bench.core.devices import on_device
from genrec_bench.search.prefix_scores import PrefixScores
from genrec_bench.search.steps import Beams, TrieTensors, best
from genrec_bench.trie import Trie

OPEN_COLUMNS = 24  # open prefixes of a user that one round reads at most: with fewer, less is read in vain
SHARE = 8  # or this part of what has been read, if that is more: a round looks at every node that is known
Open = Callable[[PrefixScores], tuple[Tensor, Tensor]]  # (B, K) nodes to read next, and which of them are meant


@torch.inference_mode()
def exact_top_k(backbone: Any, histories: Tensor, trie: Trie, *, k: int, normaliser: str = "flat",
                temperature: float = 1.0, eos: bool = False) -> Beams:
    """The `k` best of all semantic IDs, found by branch and bound over the trie.

    A beam of width k gives a k-th best score; then every prefix with at least that score is read, best first, until
    there is none. Equal scores keep the order of the IDs' numbers. Arguments and result as of `beam_search`; `trace`
    holds the prefixes of the IDs found, a prefix that several share as often as they do.
    Raises: UserError for an unknown normaliser; ValueError for a k below one, or logits that are NaN or +inf.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    searched = trie.with_eos if eos else trie
    table = PrefixScores(backbone, histories, searched, (normaliser,), temperature)
    for level in range(1, searched.depth):  # all that is known of a level lies below the prefixes kept above it
        first, end = int(searched.level_start[level]), int(searched.level_start[level + 1])
        kept = table.scores[normaliser][:, first:end].topk(min(k, end - first), dim=1)
        table.expand(first + kept.indices, kept.values > -torch.inf)
    expand_until_closed(table, lambda part: best_of(part, normaliser, open_for_top(part, normaliser, k)))
    beams = top_of(table, normaliser, k)
    return beams.without_eos() if eos else beams


@torch.inference_mode()
def exact_ranks(backbone: Any, histories: Tensor, trie: Trie, targets: Tensor, *, normaliser: str = "flat",
                temperature: float = 1.0, cap: int | None = None, eos: bool = False) -> Tensor:
    """Rank of each user's target among all distinct semantic IDs: 1 + the number of IDs with a greater score.

    targets: (B, T) token ids, shorter IDs padded with PAD. cap: the last rank of interest; a target behind it gets 0,
    and the search ends as soon as that is certain. Without a cap a target far behind costs a good part of the trie.
    The rest as of `beam_search`. Returns (B,) int64.
    Raises: UserError for an unknown normaliser; ValueError for a cap below one, a target that is no semantic ID, or
    logits that are NaN or +inf.
    """
    if cap is not None and cap < 1:
        raise ValueError(f"cap must be at least 1, got {cap}")
    searched = trie.with_eos if eos else trie
    path = paths_of(trie, targets, eos=eos)
    table = PrefixScores(backbone, histories, searched, (normaliser,), temperature)
    for level in range(1, searched.depth):
        node = path[:, level:level + 1]
        table.expand(node, table.scores[normaliser].gather(1, node) > -torch.inf)
    levels = [searched.depth]
    expand_until_closed(table, lambda part: best_of(part, normaliser, open_for_ranks(part, normaliser, path, levels,
                                                                                     cap)))
    return ranks_of(table, normaliser, path, levels, cap)[:, 0]


def expand_until_closed(table: PrefixScores, open_nodes: Open) -> None:
    """Expand the open nodes, round by round, until no node is open.

    As soon as at most half of the users have open nodes, the search goes on with these users alone. A round asks the
    device one question, that of `PrefixScores.expand`, and so does the one that finds nothing open.
    open_nodes: what it says of a user may change only by what is read for this user.
    """
    while rows := table.expand(*open_nodes(table)):
        if 2 * len(rows) <= len(table.users):
            chosen = on_device(table.users.device, torch.tensor(rows))
            part = table.select(chosen)
            expand_until_closed(part, open_nodes)
            table.accept(chosen, part)
            return


def best_of(table: PrefixScores, normaliser: str, is_open: Tensor) -> tuple[Tensor, Tensor]:
    """The open nodes with the best scores, for `expand`: nodes (B, K) and whether they are open."""
    scores = table.scores[normaliser][:, :is_open.shape[1]].masked_fill(~is_open, -torch.inf)
    kept = scores.topk(min(max(OPEN_COLUMNS, table.columns // SHARE), scores.shape[1]), dim=1)
    return kept.indices, kept.values > -torch.inf


def open_for_top(table: PrefixScores, normaliser: str, k: int) -> Tensor:
    """(B, inner nodes) bool: what an exact top k still has to read, by what is known now.

    A prefix that equals the k-th best score is open too: an ID below it may have that score and a smaller number.
    """
    return needed_for_top(table, normaliser, k) & ~table.expanded[:, :first_leaf(table)]


def needed_for_top(table: PrefixScores, normaliser: str, k: int) -> Tensor:
    """(B, inner nodes) bool: prefixes whose score is not below that of the k-th best ID known, nor -inf."""
    scores = table.scores[normaliser]
    leaves = scores[:, first_leaf(table):]
    if k > leaves.shape[1]:
        return scores[:, :first_leaf(table)] > -torch.inf
    bound = leaves.topk(k, dim=1).values[:, -1:]
    inner = scores[:, :first_leaf(table)]
    return (inner >= bound) & (inner > -torch.inf)


def open_for_ranks(table: PrefixScores, normaliser: str, path: Tensor, levels: list[int], cap: int | None) -> Tensor:
    """(B, inner nodes) bool: what the ranks of the target's prefixes of these lengths still have to read.

    path: (whole batch, T + 1) nodes of the targets' prefixes, all known. A node is open for the prefixes that are
    longer and have a smaller score, as long as these may be within the cap.
    """
    starts, inner = table.trie.level_start, table.scores[normaliser][:, :first_leaf(table)]
    own = table.scores[normaliser].gather(1, path[table.users])
    is_open = torch.zeros_like(table.expanded[:, :first_leaf(table)])
    bound = torch.full_like(own[:, :1], torch.inf)
    for level in range(table.trie.depth, 0, -1):  # scores fall along a path: the longest prefix asks for the most
        if level in levels:
            wanted = own[:, level:level + 1]
            if cap is not None:
                above = _above(table, normaliser, level, wanted)
                wanted = wanted.masked_fill(above[:, None] >= cap, torch.inf)
            bound = torch.minimum(bound, wanted)
        nodes = slice(int(starts[level - 1]), int(starts[level]))
        is_open[:, nodes] = inner[:, nodes] > bound
    return is_open & ~table.expanded[:, :first_leaf(table)]


def ranks_of(table: PrefixScores, normaliser: str, path: Tensor, levels: list[int], cap: int | None) -> Tensor:
    """(B, levels asked for) ranks of the targets' prefixes among all prefixes of their length, 0 = behind the cap."""
    own = table.scores[normaliser].gather(1, path[table.users])
    ranks = torch.stack([1 + _above(table, normaliser, level, own[:, level:level + 1]) for level in levels], dim=1)
    return ranks if cap is None else ranks.masked_fill(ranks > cap, 0)


def top_of(table: PrefixScores, normaliser: str, k: int) -> Beams:
    """The k best semantic IDs that the table knows, ties by number; see `exact_top_k`."""
    first = first_leaf(table)
    leaves = table.scores[normaliser][:, first:]
    scores, ids = best(leaves, min(k, leaves.shape[1]))
    unused = scores.isneginf()
    nodes = table.tree.paths(first + ids, table.trie.depth)[:, :, 1:]
    codes = table.tree.token[nodes].masked_fill(unused[:, :, None], PAD)
    known = [table.scores[normaliser].gather(1, nodes[:, :, m]).masked_fill(unused, -torch.inf)
             for m in range(table.trie.depth)]
    trace = tuple(codes[:, :, :m + 1] for m in range(table.trie.depth))
    return Beams(codes, scores, ids.masked_fill(unused, -1), trace, tuple(known))


def paths_of(trie: Trie, targets: Tensor, *, eos: bool = False) -> Tensor:
    """(B, T + 1) nodes from the root to each target, a (B, T) row of token ids.

    eos: the nodes of `trie.with_eos` instead, (B, T + 2).
    Raises: ValueError for another shape or a row that is no semantic ID of the trie.
    """
    if targets.dim() != 2 or targets.shape[1] != trie.depth:
        raise ValueError(f"targets must have {trie.depth} tokens a row, got shape {tuple(targets.shape)}")
    tree = TrieTensors.of(trie.with_eos if eos else trie, targets.device)
    tokens = append_eos(targets) if eos else targets
    path = [torch.zeros(len(targets), 1, dtype=torch.long, device=targets.device)]
    known = torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    for level in range(tokens.shape[1]):
        children, exists = tree.children(path[-1], tree.trie.max_children(level))
        match = exists & (tree.token[children] == tokens[:, level:level + 1, None])
        known &= match.any(dim=2)[:, 0]
        path.append(children.gather(2, match.int().argmax(dim=2, keepdim=True))[:, :, 0])
    if (~known).any():
        row = int((~known).nonzero()[0])
        raise ValueError(f"row {row} of targets, {targets[row].tolist()}, is no semantic ID of the trie")
    return torch.cat(path, dim=1)


def first_leaf(table: PrefixScores) -> int:
    """Number of inner nodes, which is the node of semantic ID 0."""
    return int(table.trie.level_start[-2])


def _above(table: PrefixScores, normaliser: str, level: int, bound: Tensor) -> Tensor:
    """(B,) known prefixes of this length with a score above a (B, 1) bound."""
    first, end = int(table.trie.level_start[level]), int(table.trie.level_start[level + 1])
    return (table.scores[normaliser][:, first:end] > bound).sum(dim=1)
