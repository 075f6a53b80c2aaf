"""Amazon 2014 Grocery and Gourmet Food, 5-core, as APAO published it: 14,681 users and 8,713 items, no texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from genrec_bench.core.registry import datasets
from genrec_bench.datasets.generative_format import ApaoDataset


@datasets.register("apao_grocery")
@dataclass(frozen=True)
class ApaoGrocery(ApaoDataset):
    """Leave-one-out data of APAO Table 2, with its semantic IDs; the repository has no item texts."""

    folder: ClassVar[str] = "Grocery"
    how_to_get: ClassVar[str] = "github.com/yuyq18/APAO, folder data/Grocery"
