"""A small network of each kind on the toy data, and every registered objective in each of its forms."""

from __future__ import annotations

import copy
from typing import Any

from genrec_bench.batches import TokenisedInstances
from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.core import registry
from genrec_bench.objectives.base import Objective
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.training.feed import InputFeed
from genrec_bench.trie import Trie

SIZES = {"width": 16, "num_layers": 1, "num_heads": 2, "head_width": 8, "feed_forward_width": 32}
BACKBONES = {"tiger": {"dropout": 0.1}, "llama": {}}
FEW = {"num_negatives": 5}
OBJECTIVES: dict[str, list[dict[str, Any]]] = {  # every registered one, in each form that computes something else
    "cross_entropy": [{}, {"eos": True}],
    "msl": [{}, {"adaptive": True}, {"average": "batch", "skip_forced": True}],
    "apao": [{}, {"weights": "hard_max"}, {"form": "pairwise", "negative_scale": True, **FEW},
             {"form": "pairwise", "weights": "released", "released_numerics": True, **FEW}],
    "bear": [{}, {"vocabulary": "trie", "few_children": "min"}, {"form": "released"},
             {"on": "target_minus_negatives", "vocabulary": "trie", "mask_shared": True, **FEW}],
    "bear_beam": [{}, {"normaliser": "trie", "num_beams": 4}],
    "dpo": [{}, {"reference": "none"}],
    "dmpo": [FEW, {"form": "released", **FEW}],
    "s_dpo": [FEW, {"mask_duplicates": True, **FEW}]}


def every_form(name: str) -> list[tuple[float, Objective]]:
    return [(0.5 + n, build(name, n)) for n in range(len(OBJECTIVES[name]))]


def build(name: str, number: int) -> Objective:
    return registry.objectives.build({"name": name, **OBJECTIVES[name][number]})


class World:
    """A small network on the toy data, its training rows and a trie, on some device."""

    def __init__(self, interactions: Interactions, backbone: str, device: str, *, ragged: bool = False) -> None:
        codes = interactions.given_codes.copy()
        if ragged:
            codes[20:24, 2] = -1
        self.ids = SemanticIds.from_codes(codes)
        self.trie = Trie.from_codes(self.ids.tokens)
        settings = registry.backbones.build({"name": backbone, **SIZES, **BACKBONES[backbone]})
        self.model = settings.build(self.ids.vocab_size, 3).to(device)
        self.reference = copy.deepcopy(self.model).eval().requires_grad_(False)
        split = LeaveOneOut(train_targets_per_user=2).split(interactions)
        self.data = TokenisedInstances(split.train, self.ids, self.model.history_suffix, device)

    def feed(self, *objectives: Objective, **rest: Any) -> InputFeed:
        feed = InputFeed(self.model, self.data, objectives, trie=self.trie, reference=self.reference, **rest)
        feed.begin(1)
        return feed
