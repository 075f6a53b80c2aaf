"""Semantic IDs that come with the dataset, as released by a paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import tokenizers
from genrec_bench.core.settings import setting
from genrec_bench.tokenizers.base import Tokenizer, describe


@tokenizers.register("given")
@dataclass(frozen=True)
class Given(Tokenizer):
    """The dataset's own index file, collisions included. APAO's indices: 4 levels x 256 codes."""

    codebook_size: int = setting(0, "codes available at each level, 0 = largest code in use + 1", low=0)

    def fit(self, interactions: Interactions) -> SemanticIds:
        """The given codes as token ids. Raises: UserError where there are none or they do not fit the items."""
        codes = interactions.given_codes
        if codes is None:
            raise UserError(f"dataset {interactions.name!r} comes without semantic IDs, so tokenizer 'given' has "
                            "nothing to read. Add an index file to the dataset or use tokenizer 'rq_kmeans'.")
        codes = np.asarray(codes)
        self._check(codes, interactions)
        used = codes.max(axis=0) + 1
        sizes = tuple(int(u) for u in np.maximum(used, self.codebook_size))
        return SemanticIds.from_codes(codes, sizes, describe(codes, sizes))

    def _check(self, codes: np.ndarray, interactions: Interactions) -> None:
        name, items = interactions.name, interactions.num_items
        if codes.ndim != 2 or len(codes) != items or not codes.shape[1] or not np.issubdtype(codes.dtype, np.integer):
            raise UserError(f"dataset {name!r}: the index holds {codes.shape} codes of type {codes.dtype}; expected "
                            f"integers, one row for each of {items} items.")
        gap = (codes < -1).any(axis=1) | (codes[:, 0] < 0) | ((codes[:, 1:] >= 0) & (codes[:, :-1] < 0)).any(axis=1)
        if gap.any():
            row = int(np.flatnonzero(gap)[0])
            raise UserError(f"dataset {name!r}: item {interactions.item_ids[row]!r} has the codes "
                            f"{codes[row].tolist()}; codes count from 0 and only the last ones may be absent (-1).")
        if self.codebook_size and codes.max() >= self.codebook_size:
            row = int(np.flatnonzero((codes >= self.codebook_size).any(axis=1))[0])
            raise UserError(f"dataset {name!r}: item {interactions.item_ids[row]!r} has code {codes[row].max()}, "
                            f"but tokenizer given.codebook_size is {self.codebook_size}.")
