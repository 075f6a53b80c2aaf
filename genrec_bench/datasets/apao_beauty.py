"""Amazon 2014 Beauty, 5-core, as APAO published it: 22,363 users and 12,101 items, 27 of them without a title."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from genrec_bench.core.registry import datasets
from genrec_bench.datasets.generative_format import ApaoDataset


@datasets.register("apao_beauty")
@dataclass(frozen=True)
class ApaoBeauty(ApaoDataset):
    """Leave-one-out data of APAO Table 2, with its semantic IDs; texts are titles matched from other releases."""

    folder: ClassVar[str] = "Beauty"
    item_file: ClassVar[str] = "Beauty.title.json"
    text_fields: ClassVar[tuple[str, ...]] = ("title",)
    how_to_get: ClassVar[str] = "github.com/yuyq18/APAO, folder data/Beauty; Beauty.title.json is optional"
