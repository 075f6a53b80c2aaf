"""Batches: token ids of histories and targets, and what an objective may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.backbones.folding import prefix_tree
from genrec_bench.batches import TokenisedInstances, append_eos
from genrec_bench.contracts import EOS, PAD
from genrec_bench.core.devices import autocast, is_cuda
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
from genrec_bench.training.micro_batches import GIB, in_parts, kept_bytes, users_at_once, users_within
from genrec_bench.training.passes import Batch, Pass, ahead, joined
from genrec_bench.trie import Trie

ROWS_AT_ONCE = 2**20  # rows whose negatives are drawn together; of more, row by row as they are asked for
GPU_SHARE = 0.5  # of a GPU's memory that one pass may take: the rest is for what was not counted
States = list[dict[str, Tensor]]  # run state, one dict an objective
PASSES = tuple(f"{what}_{how}_gradient" for what in ("histories", "positions") for how in ("with", "without"))


class InputFeed:
    """THE place that prepares what objectives see: forward passes, negatives, reference, thresholds.

    trie: needed where an objective names anything in `needs`. reference: the frozen network, where one is needed.
    stream: the seed stream of the negatives. memory_gib, precision: see `TrainingConfig`. `passes` counts rows
    ("histories") and decoder positions, with and without gradient, over the feed's life.
    """

    def __init__(self, model: Any, data: TokenisedInstances, objectives: Iterable[Objective] = (), *,
                 trie: Trie | None = None, negatives: NegativesConfig | None = None, reference: Any = None,
                 seed: int = 0, stream: str = "negatives", group_users: bool = False, memory_gib: float = 0.0,
                 precision: str = "float32") -> None:
        self.model, self.data, self.trie, self.reference = model, data, trie, reference
        self.seed, self.stream, self.memory_gib, self.precision = seed, stream, memory_gib, precision
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
            self.codes = torch.from_numpy(trie.codes)  # of the negatives, which the host folds

    def begin(self, epoch: int) -> None:
        """Draw the negatives of an epoch (counted from 1)."""
        if not self.num_negatives:
            return
        self.key = stream_seed(self.seed, self.stream, epoch if self.pool.redraw == "epoch" else 0)
        if len(self.data) <= ROWS_AT_ONCE:
            self.drawn = self._draw(np.random.default_rng(self.key), len(self.data))

    def _draw(self, random: np.random.Generator, *rows: int) -> np.ndarray:
        """(N, rows) items or semantic IDs by their numbers; a smaller N gives the first of the same draws."""
        many = self.trie.num_ids if self.pool.pool == "ids" else len(self.trie.item_order)
        return random.integers(0, many, size=(self.num_negatives, *rows), dtype=np.int32)

    def negatives(self, rows: np.ndarray) -> np.ndarray:
        """(B, N) numbers of semantic IDs. Of many rows each has a stream of its own, so that none is drawn in vain."""
        drawn = self.drawn[:, rows].T if self.drawn is not None else np.stack(
            [self._draw(np.random.Generator(np.random.Philox(key=self.key, counter=[0, 0, 0, row]))) for row in rows])
        return drawn if self.pool.pool == "ids" else self.trie.id_of_item[drawn]

    def each_pass(self, steps: Iterable[list[np.ndarray]], at_once: int) -> Iterator[tuple[Pass, np.ndarray | Batch]]:
        """The passes of an epoch's steps with what `inputs` takes: rows on a CPU, elsewhere batches prepared ahead."""
        passes = joined(steps, at_once)
        if str(self.data.device) == "cpu":
            return ((one, one.rows) for one in passes)
        return ahead(lambda rows: self.prepare(rows).pinned(self.data.device), passes)

    def joins(self, batch_size: int, accumulation: int) -> int:
        """How many forward passes of an optimiser step the network reads together, by the memory of the device.

        On a CPU one: small passes fit its caches. On a GPU all that fit into `training.memory_gib` or, where that is
        0, into `GPU_SHARE` of its memory, as the longest history says, so that GPUs of one model join alike.
        """
        if not is_cuda(self.data.device) or accumulation == 1:
            return 1 if str(self.data.device) == "cpu" else accumulation
        total = torch.cuda.get_device_properties(self.data.device).total_memory
        fit = self.rows_within(self.memory_gib or GPU_SHARE * total / GIB)
        return max(1, min(accumulation, fit // batch_size))

    def rows_within(self, memory_gib: float) -> int:
        """Rows whose pass, forward and backward, takes so much memory, if all were like the longest history.

        Its negatives, where there are any, are taken from all over the catalogue, so that they share few prefixes.
        """
        longest = np.array([self.data.instances.lengths.argmax()])
        spread = np.linspace(0, self.trie.num_ids - 1, self.num_negatives)[None] if self.num_negatives else None
        batch = self.prepare(longest, spread).to(self.data.device)
        forward, (_, positions) = self._forward(batch)
        logits = positions * self.data.vocab_size * torch.float32.itemsize
        return users_within(memory_gib, **self._kept(forward, batch), logits=logits)

    def prepare(self, rows: np.ndarray, drawn: np.ndarray | None = None) -> Batch:
        """What some rows' pass reads, in the host's memory: nothing here asks or needs the device.

        drawn: (B, N) numbers of the negatives, those of the epoch where None.
        """
        data, targets, more = self.data, self.data.host_targets(rows), {}
        if self.catalogue is not None:
            more["target_ids"] = torch.from_numpy(self.trie.id_of_item[data.instances.targets[rows]])
        if self.packs:
            more |= self._sequences(rows)
        if not self.packs or self.needs & {"reference", "beam"}:
            more["histories"] = data.host_histories(rows)
        candidates = targets[:, None]
        if self.num_negatives:
            drawn = self.negatives(rows) if drawn is None else drawn
            more["negative_ids"] = torch.from_numpy(drawn.astype(np.int64))
            candidates = torch.cat([candidates, self.codes[more["negative_ids"]]], dim=1)
        if self.needs & {"negatives", "eos"}:
            more["tree"] = prefix_tree(_with_eos(candidates) if "eos" in self.needs else candidates)
        if "reference" in self.needs:
            same = "tree" in more and "eos" not in self.needs
            more |= {"candidates": candidates, "reference_tree": more["tree"] if same else prefix_tree(candidates)}
        return Batch(targets, **more)

    def inputs(self, rows: np.ndarray | Batch) -> ObjectiveInputs:
        """One pass of the network for some rows, or what was prepared for them, with all that objectives named."""
        batch = (rows if isinstance(rows, Batch) else self.prepare(rows)).to(self.data.device)
        targets, more = batch.targets, {}
        if self.catalogue is not None:
            more = {"catalogue": self.catalogue, "target_ids": batch.target_ids}
        forward, (users, positions) = self._forward(batch)
        self._count("with", users if batch.sequences is None else len(batch.sequences), users * positions)
        if batch.tree is None:
            logits = forward(slice(None)) if self.packs else self._bounded(forward, batch, positions)[0]
            return ObjectiveInputs(targets, logits, **more, **self._without_gradient(batch, users))
        node_logits, at_once = self._bounded(forward, batch, positions)
        tree, depth, own = batch.tree, targets.shape[1], batch.tree.nodes[:, 0]
        logits = node_logits.gather(1, own[:, :, None].expand(-1, -1, node_logits.shape[2]))
        if "eos" in self.needs:
            more["eos_logps"] = _eos_logps(logits, targets)
        if self.num_negatives:
            more |= {"negative_ids": batch.negative_ids, "node_logits": node_logits,
                     "negative_nodes": tree.nodes[:, 1:, :depth]}
        more |= self._without_gradient(batch, at_once)
        return ObjectiveInputs(targets, logits[:, :depth], **more)

    def _forward(self, batch: Batch) -> tuple[Callable[[slice], Tensor], tuple[int, int]]:
        """The logits of some users of a batch, and how many users and positions of each there are.

        Packed sequences are read whole, whatever the slice.
        """
        targets, histories, tree = batch.targets, batch.histories, batch.tree
        packed = batch.sequences, batch.sequence, batch.lengths, targets.shape[1]

        def forward(users: slice) -> Tensor:
            with autocast(self.data.device, self.precision):
                if tree is not None:
                    return self.model.node_logits(histories[users], tree.of(users))
                if self.packs:
                    return self.model.packed_logits(*packed)
                return self.model.token_logits(histories[users], targets[users, None])[:, 0]

        return forward, tuple(targets.shape if tree is None else tree.tokens.shape)

    def _bounded(self, forward: Callable[[slice], Tensor], batch: Batch, positions: int) -> tuple[Tensor, int]:
        """`forward` of all users of a batch, in as many parts as `memory_gib` asks for, and the users of a part."""
        at_once = users = len(batch.targets)
        if self.memory_gib:
            logits = users * positions * self.data.vocab_size * torch.float32.itemsize
            at_once = users_at_once(users, **self._kept(forward, batch), logits=logits,
                                    memory_gib=self.memory_gib)
        return in_parts(forward, users, at_once), at_once

    def _kept(self, forward: Callable[[slice], Tensor], batch: Batch) -> dict[str, int]:
        """Bytes that autograd keeps of the user with the longest history, and of a pass without users: fused weights.

        Only a CPU, where others are padded less, is asked which user that is.
        """
        if batch.histories is None:  # packed sequences are read whole
            return {"kept": kept_bytes(lambda: forward(slice(None)), self.model)}
        on_cpu = batch.histories.device.type == "cpu"
        longest = int((batch.histories != PAD).sum(dim=1).argmax()) if on_cpu else 0
        once, one = (kept_bytes(lambda count=count: forward(slice(longest, longest + count)), self.model)
                     for count in (0, 1))
        return {"kept": one - once, "once": once}

    def _sequences(self, rows: np.ndarray) -> dict[str, Tensor]:
        """For one causal pass over the longest row of each chain; the rows come in any order."""
        chains, which = np.unique(self.data.chains[rows], return_inverse=True)
        longest = np.full(len(chains), -1)
        order = np.argsort(self.data.instances.lengths[rows], kind="stable")
        longest[which[order]] = rows[order]  # the last writer is the longest
        last = self.data.host_targets(longest)
        histories = self.data.host_histories(longest)
        ends = (histories != PAD).sum(dim=1, keepdim=True)
        sequences = F.pad(histories, (0, last.shape[1]), value=PAD)
        sequences = sequences.scatter(1, ends + torch.arange(last.shape[1]), last)
        return {"sequences": sequences, "sequence": torch.from_numpy(which),
                "lengths": torch.from_numpy(self.data.history_tokens[rows])}

    @torch.no_grad()
    def _without_gradient(self, batch: Batch, at_once: int) -> dict[str, Tensor]:
        """What the reference says of the candidates, `at_once` users a pass, and the thresholds of a beam search."""
        result, histories = {}, batch.histories
        if "reference" in self.needs:
            tree = batch.reference_tree
            self._count("without", len(histories), tree.tokens.numel())

            def score(users: slice) -> Tensor:
                part = tree.of(users)
                with autocast(self.data.device, self.precision):
                    logits = self.reference.node_logits(histories[users], part)
                return node_token_logps(logits, part.nodes, batch.candidates[users])

            logps = in_parts(score, len(histories), at_once)
            result = {"reference_target_token_logps": logps[:, 0], "reference_negative_token_logps": logps[:, 1:]}
        if "beam" in self.needs:
            result["beam_thresholds"] = self._thresholds(histories)
        return result

    def _thresholds(self, histories: Tensor) -> Tensor:
        """(B, T) score of the B-th kept prefix after each level, -inf where fewer exist; searched in eval mode.

        NaN where the logits are NaN or +inf: the loss tells of it at the end of the epoch, and nothing waits here.
        """
        asks = next(o for o in self.objectives if "beam" in o.needs)
        training = self.model.training
        self.model.eval()
        beams = beam_search(self.model, histories, self.trie, num_beams=asks.num_beams, normaliser=asks.normaliser,
                            precision=self.precision, asks=False)
        self.model.train(training)
        self._count("without", len(histories), len(histories) * (1 + sum(s.shape[1] for s in beams.trace_scores[:-1])))
        found = [s[:, asks.num_beams - 1] if s.shape[1] >= asks.num_beams else s.new_full(s.shape[:1], -torch.inf)
                 for s in beams.trace_scores]
        return torch.stack(found, dim=1).masked_fill(beams.wrong[:, None], torch.nan)

    def _count(self, which: str, histories: int, positions: int) -> None:
        self.passes[f"histories_{which}_gradient"] += histories
        self.passes[f"positions_{which}_gradient"] += positions


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


def add_gradient(feed: InputFeed, objectives: list[tuple[float, Objective]], states: States, one: Pass,
                 rows: np.ndarray | Batch, reduction: str) -> Tensor:
    """Forward and backward of one pass, whose forward passes of the step count as if they came one by one.

    rows: those of the pass, or what the feed has prepared for them. reduction: `training.accumulation_reduction`.
    Returns the sum of the losses, () float64 without gradient.
    """
    inputs, losses, shares = feed.inputs(rows), [], []
    for number, part in enumerate(one.slices, 1):
        seen = inputs if len(one.parts) == 1 else inputs.part(part)
        seen.closes_step = one.closes_step and number == len(one.parts)
        losses.append(row_losses(objectives, states, seen).sum())
        shares.append(losses[-1] / (one.step_rows if reduction == "mean" else part.stop - part.start))
    sum(shares).backward()
    return sum(loss.detach().double() for loss in losses)


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
    if inputs.logits.requires_grad and not losses.requires_grad:
        raise UserError(f"the loss of objective {name_of(objective)} has no gradient, so it teaches nothing. Look "
                        "for .detach(), .item(), numpy or torch.no_grad() between the logits and the loss.")
    return losses
