"""Amazon 2014 Office Products, 5-core, as APAO published it: 4,905 users and 2,420 items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from genrec_bench.core.registry import datasets
from genrec_bench.datasets.generative_format import ApaoDataset


@datasets.register("apao_office")
@dataclass(frozen=True)
class ApaoOffice(ApaoDataset):
    """Leave-one-out data of APAO Table 2, with its semantic IDs; texts are title, brand, categories, description."""

    folder: ClassVar[str] = "Office"
    item_file: ClassVar[str] = "Office.item.json"
    text_fields: ClassVar[tuple[str, ...]] = ("title", "brand", "categories", "description")
    how_to_get: ClassVar[str] = "github.com/yuyq18/APAO, folder data/Office"
