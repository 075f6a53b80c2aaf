"""A tokenizer of your own in one file: the digits of an item's number are its semantic ID."""

from dataclasses import dataclass

import numpy as np

from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.core.registry import tokenizers
from genrec_bench.core.settings import setting
from genrec_bench.tokenizers.base import Tokenizer, describe


@tokenizers.register("digits")
@dataclass(frozen=True)
class Digits(Tokenizer):
    """The number of an item written in some base, the highest digit first; no two items share their ID."""

    base: int = setting(8, "codes at each level", low=2)

    def fit(self, interactions: Interactions) -> SemanticIds:
        """(I, T) codes, T digits for the largest number."""
        rest, digits = np.arange(interactions.num_items), []
        while not digits or rest.any():
            digits.insert(0, rest % self.base)
            rest = rest // self.base
        codes, sizes = np.stack(digits, axis=1), (self.base,) * len(digits)
        return SemanticIds.from_codes(codes, sizes, describe(codes, sizes))
