"""What beam search loses against exact search, user by user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec_bench.batches import TokenisedInstances, decoding_batches
from genrec_bench.contracts import PAD
from genrec_bench.search.exact import (
    best_of,
    expand_until_closed,
    first_leaf,
    needed_for_top,
    open_for_ranks,
    open_for_top,
    paths_of,
    ranks_of,
    top_of,
)
from genrec_bench.search.prefix_scores import PrefixScores
from genrec_bench.search.steps import Beam, TrieTensors
from genrec_bench.trie import Trie

Facts = dict[str, np.ndarray]
MOST_USERS = 64
BYTES_A_NODE = 24  # of a trie and one user: scores, what is known, and what a round asks of them


class TokenRanks:
    """Ranks of the targets' tokens after their own prefixes, taken from the logits as they are computed.

    path: (B, T + 1) nodes of the targets' prefixes. flat, trie: (B, T), see `diagnose_users`; 1 until seen.
    """

    def __init__(self, trie: Trie, path: Tensor) -> None:
        tree = TrieTensors.of(trie, path.device)
        self.prefixes, self.targets = path[:, :-1], tree.token[path[:, 1:]]
        children, self.valid = tree.children(self.prefixes, max(trie.max_children(m) for m in range(trie.depth)))
        self.children = tree.token[children]
        self.flat, self.trie = torch.ones_like(self.targets), torch.ones_like(self.targets)
        self.vocab_size = 0

    def see(self, nodes: Tensor, logits: Tensor) -> None:
        """Take what concerns the targets from logits (B, K, V) after nodes (B, K)."""
        match = nodes[:, :, None] == self.prefixes[:, None]
        seen = match.any(dim=1) & (self.targets != PAD)
        self.vocab_size = logits.shape[2]
        rows = logits.gather(1, match.int().argmax(dim=1)[:, :, None].expand(-1, -1, logits.shape[2]))
        own = rows.gather(2, self.targets[:, :, None])
        self.flat = torch.where(seen, 1 + (rows > own).sum(dim=2), self.flat)
        self.trie = torch.where(seen, 1 + ((rows.gather(2, self.children) > own) & self.valid).sum(dim=2), self.trie)


@torch.inference_mode()
def diagnose_users(backbone: Any, histories: Tensor, trie: Trie, targets: Tensor, *, beams: Sequence[int],
                   normalisers: Sequence[str], top: int = 20, cap: int = 100, temperature: float = 1.0,
                   eos: bool = False) -> Facts:
    """Ranks of targets and their prefixes, by exact search and in beams; one table, so that no prefix is read twice.

    backbone, histories, temperature, eos: see `beam_search`. targets: (B, T) token ids. beams: widths. top: length of
    the exact list that the beams are compared with. cap: ranks behind it are 0. Arrays are unsigned; prefix m of an ID
    that ended before is the whole ID. EOS counts in the scores of whole IDs, and is no level. For each normaliser n:
    n/rank (B,): rank of the target among all distinct IDs, 1 + the number of greater scores. n/prefix_rank (B, T):
    rank of its first m tokens among all prefixes of that length. n/survived (B, beams): levels after which the
    target's prefix is in the beam. n/beam_rank (B, beams): its rank in the final beam, 0 = not in it.
    n/retained (B, beams, T): IDs of the exact list that have their first m tokens in the beam. n/top_size (B,): IDs in
    the exact list, those with probability 0 left out. n/needed (B,): prefixes, the empty one with them, that any exact
    search for this list has to read: their score is not below that of its last ID.
    token_rank/flat (B, T): rank of the target's token among the whole vocabulary after its own prefix, 1 + the number
    of greater logits; token_rank/trie: among the valid next tokens. Both are 1 where the ID has ended.
    Raises: as `exact_ranks`; ValueError for no beams or normalisers, or for beams or an exact list of less than one.
    """
    if not beams or not normalisers or min(top, cap, *beams) < 1:
        raise ValueError(f"top, cap and beams must be at least 1, and there must be beams and normalisers; got {top}, "
                         f"{cap}, {list(beams)} and {list(normalisers)}")
    searched, path = trie.with_eos if eos else trie, paths_of(trie, targets, eos=eos)
    ranks = TokenRanks(searched, path[:, :trie.depth + 1])
    table = PrefixScores(backbone, histories, searched, normalisers, temperature, seen=ranks.see)
    found = {name: [Beam(table.tree, len(histories), width) for width in beams] for name in normalisers}
    _search(table, found, path, top, cap)
    facts = {"token_rank/flat": ranks.flat, "token_rank/trie": ranks.trie}
    for name in normalisers:
        own = _facts(table, name, found[name], path, trie.depth, top, cap)
        facts |= {f"{name}/{fact}": values for fact, values in own.items()}
    highest = {"rank": cap, "prefix_rank": cap, "survived": trie.depth, "beam_rank": max(beams), "retained": top,
               "top_size": top, "needed": first_leaf(table), "flat": ranks.vocab_size, "trie": ranks.vocab_size}
    on_host = torch.cat([values.flatten() for values in facts.values()]).cpu().numpy()  # one question for all
    parts = np.split(on_host, np.cumsum([values.numel() for values in facts.values()])[:-1])
    return {fact: part.reshape(values.shape).astype(np.min_scalar_type(highest[fact.split("/")[1]]))
            for (fact, values), part in zip(facts.items(), parts, strict=True)}


def diagnose_rows(model: Any, data: TokenisedInstances, rows: np.ndarray, trie: Trie, *, memory_gib: float = 2.0,
                  step: Callable[[int, int], None] = lambda done, total: None, **asked: Any) -> Facts:
    """The facts of `diagnose_users` for some rows of a split, decoded in batches of like length.

    model: in eval mode. rows: (U,) numbers of rows, whose order the arrays keep. memory_gib: what the users that are
    searched for together would hold if every prefix of the trie were read. step: called after each batch, with how
    many are done and how many there are. asked: `beams`, `normalisers` and what else `diagnose_users` takes by name.
    Also holds the rows, (U,) int32.
    """
    searched = trie.with_eos if asked.get("eos") else trie
    facts: Facts = {"rows": np.asarray(rows, dtype=np.int32)}
    batches = decoding_batches(data.instances.lengths[rows], users_at_once(model, searched, memory_gib))
    for done, places in enumerate(batches, 1):
        part = diagnose_users(model, data.histories(rows[places]), trie, data.targets(rows[places]), **asked)
        for name, values in part.items():
            facts.setdefault(name, np.empty((len(rows), *values.shape[1:]), dtype=values.dtype))[places] = values
        step(done, len(batches))
    return facts


def users_at_once(model: Any, trie: Trie, memory_gib: float) -> int:
    """How many users to search for together, from 1 to `MOST_USERS`."""
    return max(1, min(MOST_USERS, int(memory_gib * 2**30 // bytes_of_a_user(model, trie))))


def bytes_of_a_user(model: Any, trie: Trie) -> int:
    """What one user takes whose search reads every prefix; those before a last token leave nothing in the network."""
    kept = int(trie.level_start[-3])
    return BYTES_A_NODE * len(trie.token) + 4 * model.decoding_floats(0, 1, kept)


def _search(table: PrefixScores, found: dict[str, list[Beam]], path: Tensor, top: int, cap: int) -> None:
    """Run all beams level by level, with the targets' own paths, and then what the exact facts still need."""
    beams = [beam for several in found.values() for beam in several]
    for level in range(1, table.trie.depth + 1):
        for name, several in found.items():
            for beam in several:
                _step(beam, table.scores[name])
        if level < table.trie.depth:
            own = path[:, level:level + 1]
            table.expand(torch.cat([own, *(beam.nodes[-1] for beam in beams)], dim=1),
                         torch.cat([own > 0, *(beam.scores[-1] > -torch.inf for beam in beams)], dim=1))
    table.seen = None
    levels = list(range(1, table.trie.depth + 1))

    def open_nodes(part: PrefixScores) -> tuple[Tensor, Tensor]:
        asked = [best_of(part, name, open_for_top(part, name, top) | open_for_ranks(part, name, path, levels, cap))
                 for name in part.scores]
        nodes, wanted = zip(*asked, strict=True)
        return torch.cat(nodes, dim=1), torch.cat(wanted, dim=1)

    expand_until_closed(table, open_nodes)


def _step(beam: Beam, scores: Tensor) -> None:
    """One step of a beam on a table of scores, (B, nodes)."""
    children, exists = beam.children()
    totals = scores.gather(1, children.flatten(1)).view(children.shape)
    beam.step(children, totals.masked_fill(~exists, -torch.inf))


def _facts(table: PrefixScores, name: str, beams: list[Beam], path: Tensor, depth: int, top: int,
           cap: int) -> dict[str, Tensor]:
    """All that concerns one normaliser, read off the finished table. depth: T, levels without EOS."""
    levels = list(range(1, table.trie.depth + 1))
    ranks = ranks_of(table, name, path, levels, cap)
    exact = top_of(table, name, top)
    listed = exact.scores > -torch.inf
    above = table.tree.paths(first_leaf(table) + exact.ids.clamp(min=0), table.trie.depth)
    kept = torch.stack([torch.stack([_holds(beam, m, path[:, m:m + 1])[:, 0].any(dim=1) for m in levels[:depth]],
                                    dim=1) for beam in beams], dim=1)
    last = torch.stack([_rank(_holds(beam, levels[-1], path[:, -1:])[:, 0]) for beam in beams], dim=1)
    retained = torch.stack([torch.stack([(_holds(beam, m, above[:, :, m]).any(dim=2) & listed).sum(dim=1)
                                         for m in levels[:depth]], dim=1) for beam in beams], dim=1)
    needed = needed_for_top(table, name, top) & ~table.ended[:first_leaf(table)]
    return {"rank": ranks[:, -1], "prefix_rank": ranks[:, :depth], "survived": kept.sum(dim=2), "beam_rank": last,
            "retained": retained, "top_size": listed.sum(dim=1), "needed": needed.sum(dim=1)}


def _holds(beam: Beam, level: int, nodes: Tensor) -> Tensor:
    """(B, N, K_m) bool: which of the prefixes kept after a level each of (B, N) nodes is."""
    return (nodes[:, :, None] == beam.nodes[level][:, None]) & (beam.scores[level] > -torch.inf)[:, None]


def _rank(holds: Tensor) -> Tensor:
    """(B, K) bool with at most one True a row -> its rank from 1, 0 = none."""
    return torch.where(holds.any(dim=1), 1 + holds.int().argmax(dim=1), 0)
