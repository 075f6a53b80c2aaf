"""Exact search over the trie: the best semantic IDs and the place of a target, without reading the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genrec_bench.contracts import PAD
from genrec_bench.search.prefix_scores import NodeScores, children_of
from genrec_bench.search.steps import Beams, best
from genrec_bench.trie import Trie

OPEN_COLUMNS = 24  # open prefixes of a user that one round reads at most: with fewer, less is read in vain
Open = Callable[[NodeScores], tuple[Tensor, Tensor]]  # (B, K) nodes to read next, and which of them are meant


@torch.inference_mode()
def exact_top_k(backbone: Any, histories: Tensor, trie: Trie, *, k: int, normaliser: str = "flat",
                temperature: float = 1.0) -> Beams:
    """The `k` best of all semantic IDs, found by branch and bound over the trie.

    A beam of width k gives a k-th best score; then every prefix with at least that score is read, best first, until
    there is none. Equal scores keep the order of the IDs' numbers. Arguments and result as of `beam_search`; `trace`
    holds the prefixes of the IDs found, a prefix that several share as often as they do.
    Raises: UserError for an unknown normaliser; ValueError for a k below one, or logits that are NaN or +inf.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    table = NodeScores(backbone, histories, trie, (normaliser,), temperature)
    for level in range(1, trie.depth):  # all that is known of a level lies below the prefixes kept above it
        first, end = int(trie.level_start[level]), int(trie.level_start[level + 1])
        kept = table.scores[normaliser][:, first:end].topk(min(k, end - first), dim=1)
        table.expand(first + kept.indices, kept.values > -torch.inf)
    read_until_closed(table, lambda part: best_of(part, normaliser, open_for_top(part, normaliser, k)))
    return top_of(table, normaliser, k)


@torch.inference_mode()
def exact_ranks(backbone: Any, histories: Tensor, trie: Trie, targets: Tensor, *, normaliser: str = "flat",
                temperature: float = 1.0, cap: int | None = None) -> Tensor:
    """Place of each user's target among all distinct semantic IDs: 1 + the number of IDs with a greater score.

    targets: (B, T) token ids, shorter IDs padded with PAD. cap: the last place of interest; a target behind it gets 0,
    and the search ends as soon as that is certain. Without a cap a target far behind costs a good part of the trie.
    The rest as of `beam_search`. Returns (B,) int64.
    Raises: UserError for an unknown normaliser; ValueError for a cap below one, a target that is no semantic ID, or
    logits that are NaN or +inf.
    """
    if cap is not None and cap < 1:
        raise ValueError(f"cap must be at least 1, got {cap}")
    path = paths_of(trie, targets)
    table = NodeScores(backbone, histories, trie, (normaliser,), temperature)
    for level in range(1, trie.depth):
        node = path[:, level:level + 1]
        table.expand(node, table.scores[normaliser].gather(1, node) > -torch.inf)
    levels = [trie.depth]
    read_until_closed(table, lambda part: best_of(part, normaliser, open_for_ranks(part, normaliser, path, levels,
                                                                                   cap)))
    return ranks_of(table, normaliser, path, levels, cap)[:, 0]


def read_until_closed(table: NodeScores, open_nodes: Open) -> None:
    """Read what is open, round by round, until nothing is; users who are done drop out by halves.

    open_nodes: what it says of a user may change only by what is read for this user.
    """
    while rows := table.expand(*open_nodes(table)):
        if 2 * len(rows) <= len(table.users):
            chosen = torch.tensor(rows, device=table.users.device)
            part = table.select(chosen)
            read_until_closed(part, open_nodes)
            table.accept(chosen, part)
            return


def best_of(table: NodeScores, normaliser: str, is_open: Tensor) -> tuple[Tensor, Tensor]:
    """The open nodes with the best scores, for `expand`: nodes (B, K) and whether they are open."""
    scores = table.scores[normaliser][:, :is_open.shape[1]].masked_fill(~is_open, -torch.inf)
    kept = scores.topk(min(OPEN_COLUMNS, scores.shape[1]), dim=1)
    return kept.indices, kept.values > -torch.inf


def open_for_top(table: NodeScores, normaliser: str, k: int) -> Tensor:
    """(B, inner nodes) bool: what an exact top k still has to read, by what is known now.

    A prefix that equals the k-th best score is open too: an ID below it may have that score and a smaller number.
    """
    return needed_for_top(table, normaliser, k) & ~table.expanded[:, :first_leaf(table)]


def needed_for_top(table: NodeScores, normaliser: str, k: int) -> Tensor:
    """(B, inner nodes) bool: prefixes whose score is not below that of the k-th best ID known, nor -inf."""
    scores = table.scores[normaliser]
    leaves = scores[:, first_leaf(table):]
    if k > leaves.shape[1]:
        return scores[:, :first_leaf(table)] > -torch.inf
    bound = leaves.topk(k, dim=1).values[:, -1:]
    inner = scores[:, :first_leaf(table)]
    return (inner >= bound) & (inner > -torch.inf)


def open_for_ranks(table: NodeScores, normaliser: str, path: Tensor, levels: list[int], cap: int | None) -> Tensor:
    """(B, inner nodes) bool: what the places of the target's prefixes of these lengths still have to read.

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


def ranks_of(table: NodeScores, normaliser: str, path: Tensor, levels: list[int], cap: int | None) -> Tensor:
    """(B, levels asked for) places of the targets' prefixes among all prefixes of their length, 0 = behind the cap."""
    own = table.scores[normaliser].gather(1, path[table.users])
    places = torch.stack([1 + _above(table, normaliser, level, own[:, level:level + 1]) for level in levels], dim=1)
    return places if cap is None else places.masked_fill(places > cap, 0)


def top_of(table: NodeScores, normaliser: str, k: int) -> Beams:
    """The k best semantic IDs that the table knows, ties by number; see `exact_top_k`."""
    first = first_leaf(table)
    leaves = table.scores[normaliser][:, first:]
    scores, ids = best(leaves, min(k, leaves.shape[1]))
    unused = scores.isneginf()
    nodes = ancestors(table, first + ids)[:, :, 1:]
    codes = table.token[nodes].masked_fill(unused[:, :, None], PAD)
    known = [table.scores[normaliser].gather(1, nodes[:, :, m]).masked_fill(unused, -torch.inf)
             for m in range(table.trie.depth)]
    trace = tuple(codes[:, :, :m + 1] for m in range(table.trie.depth))
    return Beams(codes, scores, ids.masked_fill(unused, -1), trace, tuple(known))


def paths_of(trie: Trie, targets: Tensor) -> Tensor:
    """(B, T + 1) nodes from the root to each target, a (B, T) row of token ids.

    Raises: ValueError for another shape or a row that is no semantic ID of the trie.
    """
    if targets.dim() != 2 or targets.shape[1] != trie.depth:
        raise ValueError(f"targets must have {trie.depth} tokens a row, got shape {tuple(targets.shape)}")
    token, child_start = (torch.as_tensor(a, device=targets.device) for a in (trie.token, trie.child_start))
    path = [torch.zeros(len(targets), 1, dtype=torch.long, device=targets.device)]
    known = torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    for level in range(trie.depth):
        children, exists = children_of(child_start, path[-1], trie.max_children(level))
        match = exists & (token[children] == targets[:, level:level + 1, None])
        known &= match.any(dim=2)[:, 0]
        path.append(children.gather(2, match.int().argmax(dim=2, keepdim=True))[:, :, 0])
    if not known.all():
        row = int((~known).nonzero()[0])
        raise ValueError(f"row {row} of targets, {targets[row].tolist()}, is no semantic ID of the trie")
    return torch.cat(path, dim=1)


def ancestors(table: NodeScores, leaves: Tensor) -> Tensor:
    """(B, K) nodes of the last level -> (B, K, T + 1) nodes from the root down to them."""
    nodes = [leaves]
    for _ in range(table.trie.depth):
        nodes.append(table.parent[nodes[-1]])
    return torch.stack(nodes[::-1], dim=2)


def first_leaf(table: NodeScores) -> int:
    """Number of inner nodes, which is the node of semantic ID 0."""
    return int(table.trie.level_start[-2])


def _above(table: NodeScores, normaliser: str, level: int, bound: Tensor) -> Tensor:
    """(B,) known prefixes of this length with a score above a (B, 1) bound."""
    first, end = int(table.trie.level_start[level]), int(table.trie.level_start[level + 1])
    return (table.scores[normaliser][:, first:end] > bound).sum(dim=1)
