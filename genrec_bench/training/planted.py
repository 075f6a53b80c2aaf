"""A small made-up problem with everything in it that an objective can be given: what `check` asks about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec_bench.contracts import EOS, PAD
from genrec_bench.objectives.base import Objective, ObjectiveInputs
from genrec_bench.objectives.catalogue import Catalogue
from genrec_bench.trie import Trie

FIRST_CODES, CODES, IDS = 24, 6, 80  # more first codes than any usual beam, so that a beam always has a last place
LENGTHS = (3, 3, 2, 3, 1, 3)  # tokens of the six targets
NUM_NEGATIVES = 6


@dataclass(frozen=True)
class Planted:
    """Six users of a network that is a table: free logits after every prefix of a small catalogue of ragged IDs.

    table: (B, nodes, V), reference: the frozen network, of the same shape; target_ids: (B,); negative_ids: (B, N), of
    which only the last of the first user is the target itself. Targets and negatives that share a prefix share logits,
    as they do in a real network.
    """

    catalogue: Catalogue
    target_ids: Tensor
    negative_ids: Tensor
    table: Tensor
    reference: Tensor

    def logits(self, table: Tensor, ids: Tensor) -> Tensor:
        """(B, N, T, V) logits along the paths of IDs (B, N)."""
        users = torch.arange(len(ids))[:, None, None]
        return table[users, self.before(ids)]

    def before(self, ids: Tensor) -> Tensor:
        """(B, N, T) node before each token."""
        nodes = self.catalogue.nodes[ids]
        return torch.cat([torch.zeros_like(nodes[..., :1]), nodes[..., :-1]], dim=-1)

    def token_logps(self, table: Tensor, ids: Tensor, normaliser: str = "flat") -> Tensor:
        """(B, N, T) log-probabilities of the tokens of IDs (B, N), 0 at PAD."""
        logits, tokens = self.logits(table, ids), self.catalogue.tokens[ids]
        if normaliser == "trie":
            logits = logits.masked_fill(~self.catalogue.valid(ids), -torch.inf)
        logps = logits.log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]
        return logps.masked_fill(tokens == PAD, 0.0)

    def inputs(self, objective: Objective, *, table: Tensor | None = None, rows: Tensor | None = None,
               state: Mapping[str, Tensor] | None = None) -> ObjectiveInputs:
        """What an objective sees of some rows (None = all): what it needs, the first of the negatives, and no more.

        table: other logits, such as parameters with gradient. state: copied; None = the initial one.
        """
        if rows is not None:
            picked = (t[rows] for t in (self.target_ids, self.negative_ids, self.table, self.reference))
            return Planted(self.catalogue, *picked).inputs(
                objective, table=None if table is None else table[rows], state=state)
        table = self.table.clone().requires_grad_() if table is None else table
        needs, own = objective.needs, self.target_ids[:, None]
        given: dict[str, Any] = {"state": copied(objective.initial_state(self.catalogue.depth)
                                                 if state is None else state)}
        drawn = self.negative_ids[:, :objective.num_negatives]
        if "negatives" in needs:
            given |= {"negative_ids": drawn, "negative_logits": self.logits(table, drawn)}
        if "reference" in needs:
            given["reference_target_token_logps"] = self.token_logps(self.reference, own)[:, 0]
        if {"reference", "negatives"} <= needs:
            given["reference_negative_token_logps"] = self.token_logps(self.reference, drawn)
        if "beam" in needs:
            given["beam_thresholds"] = self._thresholds(table.detach(), objective.num_beams, objective.normaliser)
        if "eos" in needs:
            given["eos_logps"] = self._eos_logps(table)
        inputs = ObjectiveInputs.from_logits(self.catalogue, self.target_ids, self.logits(table, own)[:, 0], **given)
        if not needs & {"trie", "negatives"}:
            inputs = dataclasses.replace(inputs, catalogue=None, target_ids=None)
        return inputs

    def _eos_logps(self, table: Tensor) -> Tensor:
        last = (self.catalogue.tokens[self.target_ids] != PAD).sum(dim=1, keepdim=True) - 1
        nodes = self.catalogue.nodes[self.target_ids].gather(1, last)[:, 0]
        return table[torch.arange(len(nodes)), nodes].log_softmax(dim=-1)[:, EOS]

    def _thresholds(self, table: Tensor, num_beams: int, normaliser: str) -> Tensor:
        """(B, T) score of the last prefix that a beam search keeps after each level, -inf where it is not full."""
        everything = torch.arange(len(self.catalogue.tokens)).expand(len(table), -1)
        scores = self.token_logps(table, everything, normaliser).cumsum(dim=2)
        alive = torch.ones_like(scores[:, :, 0], dtype=torch.bool)
        thresholds = []
        for level in range(self.catalogue.depth):
            nodes = self.catalogue.nodes[:, level]
            first = torch.cat([torch.ones(1, dtype=torch.bool), nodes[1:] != nodes[:-1]])  # IDs are in order
            found = scores[:, :, level].masked_fill(~(alive & first), -torch.inf).sort(dim=1, descending=True).values
            full = num_beams <= found.shape[1]
            thresholds.append(found[:, num_beams - 1] if full else torch.full_like(found[:, 0], -torch.inf))
            alive = alive & (scores[:, :, level] >= thresholds[-1][:, None])
        return torch.stack(thresholds, dim=1)


def planted(seed: int) -> Planted:
    """A random small problem, float64; equal seeds give equal ones."""
    draw = np.random.default_rng(seed)
    codes = np.stack([np.arange(IDS) % FIRST_CODES, *draw.integers(0, CODES, size=(2, IDS))], axis=1)
    codes[:len(LENGTHS), 1] = np.where(np.array(LENGTHS) == 2, 0, codes[:len(LENGTHS), 1].clip(min=1))
    ends = np.stack([codes[:, 0] % 5 == 4, codes[:, 1] == 0], axis=1)  # these codes end an ID: none begins another
    ended = np.pad(np.logical_or.accumulate(ends, axis=1), ((0, 0), (1, 0)))
    tokens = 2 + codes + np.array([0, FIRST_CODES, FIRST_CODES + CODES])
    trie = Trie.from_codes(np.where(ended, PAD, tokens))
    catalogue = Catalogue.from_trie(trie, 2 + FIRST_CODES + 2 * CODES)
    targets = trie.id_of_item[:len(LENGTHS)]
    negatives = np.stack([draw.permutation(np.delete(np.arange(trie.num_ids), t))[:NUM_NEGATIVES] for t in targets])
    negatives[0, -1] = targets[0]
    shape = (len(LENGTHS), len(trie.token), catalogue.vocab_size)
    tables = (torch.from_numpy(draw.normal(size=shape)) for _ in range(2))
    return Planted(catalogue, torch.from_numpy(targets), torch.from_numpy(negatives), *tables)


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values in tensors of their own."""
    return {name: tensor.clone() for name, tensor in state.items()}
