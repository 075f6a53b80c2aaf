"""Batches: token ids of histories and targets, and what an objective may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.backbones.folding import PrefixTree, prefix_tree
from genrec_bench.batches import TokenisedInstances, append_eos, on_device
from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.errors import UserError
from genrec_bench.core.seeds import stream_seed
from genrec_bench.experiments.config import NegativesConfig
from genrec_bench.objectives.base import (
    Objective,
    ObjectiveInputs,
    name_of,
    node_token_logps,
)
from genrec_bench.objectives.catalogue import Catalogue
from genrec_bench.search.beam import beam_search
from genrec_bench.training.micro_batches import in_parts, kept_bytes, users_at_once
from genrec_bench.trie import Trie

States = list[dict[str, Tensor]]  # run state, one dict an objective
PASSES = tuple(f"{what}_{how}_gradient" for what in ("histories", "positions") for how in ("with", "without"))


class InputFeed:
    """THE place that prepares what objectives see: forward passes, negatives, reference, thresholds.

    trie: needed where an objective names anything in `needs`. reference: the frozen network, where one is needed.
    stream: the seed stream of the negatives. memory_gib: bound of `training.memory_gib`, 0 = none. `passes` counts rows
    ("histories") and decoder positions, with and without gradient, over the feed's life.
    """

    def __init__(self, model: Any, data: TokenisedInstances, objectives: Iterable[Objective] = (), *,
                 trie: Trie | None = None, negatives: NegativesConfig | None = None, reference: Any = None,
                 seed: int = 0, stream: str = "negatives", group_users: bool = False, memory_gib: float = 0.0) -> None:
        self.model, self.data, self.trie, self.reference = model, data, trie, reference
        self.seed, self.stream, self.memory_gib = seed, stream, memory_gib
        self.objectives = list(objectives)
        self.needs = frozenset().union(*(o.needs for o in self.objectives))
        self.pool = negatives or NegativesConfig()
        self.num_negatives = max((o.num_negatives for o in self.objectives if "negatives" in o.needs), default=0)
        self.packs = group_users and getattr(model, "packs_users", False) and not self.needs & {"negatives", "eos"}
        self.drawn: np.ndarray | None = None
        self.passes = dict.fromkeys(PASSES, 0)
        self.catalogue = None
        if self.needs & {"trie", "negatives"}:
            self.catalogue = Catalogue.from_trie(trie, data.vocab_size, data.device)

    def begin(self, epoch: int) -> None:
        """Draw the negatives of an epoch (counted from 1)."""
        if self.num_negatives:
            self.drawn = self._draw(epoch if self.pool.redraw == "epoch" else 0)

    def _draw(self, epoch: int) -> np.ndarray:
        """(N, rows) numbers of semantic IDs; a smaller N gives the first of the same draws."""
        random = np.random.default_rng(stream_seed(self.seed, self.stream, epoch))
        ids = self.trie.num_ids if self.pool.pool == "ids" else len(self.trie.item_order)
        drawn = random.integers(0, ids, size=(self.num_negatives, len(self.data)), dtype=np.int32)
        return drawn if self.pool.pool == "ids" else self.trie.id_of_item[drawn].astype(np.int32)

    def inputs(self, rows: np.ndarray) -> ObjectiveInputs:
        """One forward pass for some rows, with all that the objectives named."""
        targets, more = self.data.targets(rows), {}
        if self.catalogue is not None:
            ids = self.trie.id_of_item[self.data.instances.targets[rows]]
            more = {"catalogue": self.catalogue, "target_ids": on_device(targets.device, ids)}
        histories = None if self.packs and not self.needs & {"reference", "beam"} else self.data.histories(rows)
        candidates = targets[:, None]
        if not self.needs & {"negatives", "eos"}:
            logits = self._packed(rows, targets) if self.packs else self._plain(histories, targets)
            return ObjectiveInputs(targets, logits, **more, **self._without_gradient(histories, candidates, len(rows)))
        if self.num_negatives:
            drawn = on_device(targets.device, self.drawn[:, rows].T.astype(np.int64))
            more["negative_ids"] = drawn
            candidates = torch.cat([candidates, self.catalogue.tokens[drawn]], dim=1)
        tree = prefix_tree(_with_eos(candidates) if "eos" in self.needs else candidates)
        self._count("with", targets.shape[0], tree.tokens.numel())
        node_logits, at_once = self._bounded(
            lambda users: self.model.node_logits(histories[users], _of_users(tree, users)), *tree.tokens.shape)
        depth, own = targets.shape[1], tree.nodes[:, 0]
        logits = node_logits.gather(1, own[:, :, None].expand(-1, -1, node_logits.shape[2]))
        if "eos" in self.needs:
            more["eos_logps"] = _eos_logps(logits, targets)
        if self.num_negatives:
            more |= {"node_logits": node_logits, "negative_nodes": tree.nodes[:, 1:, :depth]}
        more |= self._without_gradient(histories, candidates, at_once)
        return ObjectiveInputs(targets, logits[:, :depth], **more)

    def _plain(self, histories: Tensor, targets: Tensor) -> Tensor:
        self._count("with", targets.shape[0], targets.numel())
        return self._bounded(lambda users: self.model.token_logits(histories[users], targets[users, None])[:, 0],
                             *targets.shape)[0]

    def _bounded(self, forward: Callable[[slice], Tensor], users: int, positions: int) -> tuple[Tensor, int]:
        """`forward` of all users of a batch, in as many parts as `memory_gib` asks for, and the users of a part."""
        at_once = users
        if self.memory_gib:
            kept = kept_bytes(lambda: forward(slice(1)), self.model)
            logits = users * positions * self.data.vocab_size * torch.float32.itemsize
            at_once = users_at_once(users, kept=kept, logits=logits, memory_gib=self.memory_gib)
        return in_parts(forward, users, at_once), at_once

    def _packed(self, rows: np.ndarray, targets: Tensor) -> Tensor:
        """Logits of rows of one chain from one causal pass over the longest; the rows come in any order."""
        chains, which = np.unique(self.data.chains[rows], return_inverse=True)
        longest = np.full(len(chains), -1)
        order = np.argsort(self.data.instances.lengths[rows], kind="stable")
        longest[which[order]] = rows[order]  # the last writer is the longest
        last = self.data.targets(longest)
        histories = self.data.histories(longest)
        ends = (histories != PAD).sum(dim=1, keepdim=True)
        sequences = F.pad(histories, (0, last.shape[1]), value=PAD)
        sequences = sequences.scatter(1, ends + torch.arange(last.shape[1], device=ends.device), last)
        lengths = on_device(targets.device, self.data.history_tokens[rows])
        self._count("with", len(longest), targets.numel())
        return self.model.packed_logits(sequences, on_device(targets.device, which), lengths, targets.shape[1])

    @torch.no_grad()
    def _without_gradient(self, histories: Tensor | None, candidates: Tensor, at_once: int) -> dict[str, Tensor]:
        """What the reference says of the candidates, `at_once` users a pass, and the thresholds of a beam search."""
        result = {}
        if "reference" in self.needs:
            tree = prefix_tree(candidates)
            self._count("without", len(histories), tree.tokens.numel())

            def score(users: slice) -> Tensor:
                part = _of_users(tree, users)
                return node_token_logps(self.reference.node_logits(histories[users], part), part.nodes,
                                        candidates[users])

            logps = in_parts(score, len(histories), at_once)
            result = {"reference_target_token_logps": logps[:, 0], "reference_negative_token_logps": logps[:, 1:]}
        if "beam" in self.needs:
            result["beam_thresholds"] = self._thresholds(histories)
        return result

    def _thresholds(self, histories: Tensor) -> Tensor:
        """(B, T) score of the B-th kept prefix after each level, -inf where fewer exist; searched in eval mode."""
        asks = next(o for o in self.objectives if "beam" in o.needs)
        training = self.model.training
        self.model.eval()
        beams = beam_search(self.model, histories, self.trie, num_beams=asks.num_beams, normaliser=asks.normaliser)
        self.model.train(training)
        self._count("without", len(histories), len(histories) * (1 + sum(s.shape[1] for s in beams.trace_scores[:-1])))
        found = [s[:, asks.num_beams - 1] if s.shape[1] >= asks.num_beams else s.new_full(s.shape[:1], -torch.inf)
                 for s in beams.trace_scores]
        return torch.stack(found, dim=1)

    def _count(self, which: str, histories: int, positions: int) -> None:
        self.passes[f"histories_{which}_gradient"] += histories
        self.passes[f"positions_{which}_gradient"] += positions


def _of_users(tree: PrefixTree, users: slice) -> PrefixTree:
    return PrefixTree(tree.tokens[users], tree.parents[users], tree.nodes[users], tree.widths)


def _with_eos(candidates: Tensor) -> Tensor:
    """(B, C, T) -> (B, C, T + 1): EOS behind the last token of candidate 0, nothing behind the others."""
    longer = F.pad(candidates, (0, 1), value=PAD)
    longer[:, 0] = append_eos(candidates[:, 0])
    return longer


def _eos_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) log-probability of EOS at the position behind each target's last token; logits (B, T + 1, V)."""
    ends = (targets != PAD).sum(dim=1)
    last = logits.gather(1, ends[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]
    return last[:, EOS] - last.logsumexp(dim=1)


def row_losses(objectives: list[tuple[float, Objective]], states: States, inputs: ObjectiveInputs) -> Tensor:
    """(B,) weighted sum of the objectives; each sees its own negatives and run state, whose entries it may replace.

    Raises: UserError for an objective that writes into the inputs or does not return a loss a row.
    """
    total = 0
    for (weight, objective), state in zip(objectives, states, strict=True):
        total = total + weight * _row_loss(objective, inputs.of(objective), state)
    return total


def _row_loss(objective: Objective, inputs: ObjectiveInputs, state: dict[str, Tensor]) -> Tensor:
    """(B,) loss a row of one objective, which leaves the inputs as they are for the next. Raises: UserError."""
    inputs.state = state
    before, rows = inputs.watch(), len(inputs.targets)
    try:
        losses = objective.loss(inputs)
    except Exception as error:  # noqa: BLE001  it may raise because of what it wrote
        losses = error
    written = inputs.written(before) + ([] if inputs.state is state else ["state"])
    if written:
        raise UserError(f"objective {name_of(objective)} writes into its inputs or replaces them: "
                        f"{', '.join(written)}. The other objectives of a run and the decoder read the same tensors. "
                        "Let loss compute on a copy, such as logits.masked_fill(...) for logits.masked_fill_(...).")
    if isinstance(losses, Exception):
        raise losses
    if not isinstance(losses, Tensor) or losses.shape != (rows,):
        seen = f"a tensor of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else repr(losses)
        raise UserError(f"objective {name_of(objective)} must return a loss a row, a tensor of shape {(rows,)} for "
                        f"this batch, but returned {seen[:200]}. Do not reduce over rows.")
    return losses
