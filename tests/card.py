"""The method cards' toy: six items of three levels and a row of logits after every prefix; and random batches.

Raw, as printed: tokens 0..8, for pure functions. Shifted by two, for what knows PAD and EOS: tokens 2..10, with
logits of -1e9 at 0 and 1, so that every number stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genrec_bench.contracts import NUM_SPECIAL_TOKENS, PAD
from genrec_bench.objectives.base import ObjectiveInputs
from genrec_bench.objectives.catalogue import Catalogue
from genrec_bench.trie import Trie
from tests.tables import ending

VOCAB = 9
ITEMS = ((0, 3, 6), (0, 3, 7), (0, 4, 6), (1, 3, 6), (1, 5, 8), (2, 4, 7))  # in lexicographic order, as IDs are
ROWS = {
    (): (1.0, 0.5, 0.2, -1.0, -1.2, -0.8, -2.0, -1.5, -1.0),
    (0,): (-1.0, -0.5, -1.5, 0.2, 1.4, -0.3, -0.6, -1.1, -0.9),
    (1,): (-0.7, -1.3, -0.4, 0.9, -0.2, 0.6, -1.0, -0.8, -1.6),
    (2,): (-1.1, -0.9, -0.2, 0.3, 0.8, 0.1, -1.4, -0.5, -0.7),
    (0, 3): (-0.9, -1.4, -0.6, -1.0, -0.3, -1.2, 0.7, 1.1, 0.4),
    (0, 4): (-1.2, -0.1, -0.8, -0.5, -1.6, -0.7, 1.3, 0.2, -0.4),
    (1, 3): (-0.3, -0.6, -1.7, -0.2, -1.0, -0.9, 0.5, 0.8, -0.1),
    (1, 5): (-1.5, -0.4, -0.2, -0.8, -0.6, -1.1, 0.1, -0.7, 1.0),
    (2, 4): (-0.5, -1.0, -1.3, -0.9, -0.4, -0.6, 0.6, 0.9, 0.0),
}
REFERENCE_LOGPS = (-4.6, -5.1, -4.2, -5.4, -5.9, -6.3)  # of whole items


def tokens() -> Tensor:
    """(6, 3) raw tokens."""
    return torch.tensor(ITEMS)


def logits() -> Tensor:
    """(6, 3, 9) float64 logits along each item's own path."""
    return torch.tensor([[ROWS[item[:m]] for m in range(3)] for item in ITEMS], dtype=torch.float64)


def valid() -> Tensor:
    """(6, 3, 9) bool: tokens with which some item goes on."""
    return torch.tensor([[[any(other[:m + 1] == (*item[:m], token) for other in ITEMS) for token in range(VOCAB)]
                          for m in range(3)] for item in ITEMS])


def token_logps() -> Tensor:
    """(6, 3) float64 log-probabilities of the items' tokens over the whole vocabulary."""
    return F.log_softmax(logits(), dim=2).gather(2, tokens()[:, :, None])[:, :, 0]


def reference_logps() -> Tensor:
    """(6,) float64 log-probabilities of whole items under the reference."""
    return torch.tensor(REFERENCE_LOGPS, dtype=torch.float64)


def catalogue() -> Catalogue:
    """The six items, shifted; their numbers are their places in ITEMS."""
    return Catalogue.from_trie(Trie.from_codes(tokens().numpy() + NUM_SPECIAL_TOKENS), VOCAB + NUM_SPECIAL_TOKENS)


def shifted_logits() -> Tensor:
    """(6, 3, 11) logits of the shifted tokens."""
    return F.pad(logits(), (NUM_SPECIAL_TOKENS, 0), value=-1e9)


def inputs(targets: Sequence[int], negatives: Sequence[Sequence[int]] | None = None, **rest: Any) -> ObjectiveInputs:
    """A batch of items by number, with their negatives (all of them with equally many) and the reference's scores.

    The reference's score of an item stands at its first token.
    """
    table, first = shifted_logits(), F.pad(reference_logps()[:, None], (0, 2))
    ids = torch.tensor(targets)
    if negatives is not None:
        chosen = torch.tensor(negatives)
        rest = {"negative_ids": chosen, "negative_logits": table[chosen], "reference_target_token_logps": first[ids],
                "reference_negative_token_logps": first[chosen], **rest}
    return ObjectiveInputs.from_logits(catalogue(), ids, table[ids], **rest)


def random_inputs(seed: int, users: int = 5, negatives: int = 6, *, ragged: bool = True) -> ObjectiveInputs:
    """Items of up to 4 levels over tokens 2..6, with random logits that have a gradient, negatives and a reference."""
    random = np.random.default_rng(seed)
    codes = random.integers(2, 7, size=(30, 4))
    if ragged:
        codes = ending(codes, codes == 2)
    ids = Catalogue.from_trie(Trie.from_codes(codes), 8)
    target = torch.from_numpy(random.integers(len(ids.tokens), size=users))
    sampled = torch.from_numpy(random.integers(len(ids.tokens), size=(users, negatives)))
    values = [torch.from_numpy(3 * random.normal(size=(*shape, 4, 8))).requires_grad_()
              for shape in ((users,), (users, negatives))]
    reference = [torch.from_numpy(-random.exponential(size=(*chosen.shape, 4))) * (ids.tokens[chosen] != PAD)
                 for chosen in (target, sampled)]
    return ObjectiveInputs.from_logits(ids, target, values[0], sampled, values[1],
                                       reference_target_token_logps=reference[0],
                                       reference_negative_token_logps=reference[1])
