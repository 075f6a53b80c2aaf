"""Yelp, 5-core, as APAO published it: 30,431 users and 20,033 items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from genrec_bench.core.registry import datasets
from genrec_bench.datasets.generative_format import ApaoDataset


@datasets.register("apao_yelp")
@dataclass(frozen=True)
class ApaoYelp(ApaoDataset):
    """Leave-one-out data of APAO Table 2, with its semantic IDs; a semantic ID stands for up to 65 shops of a chain."""

    folder: ClassVar[str] = "Yelp"
    item_file: ClassVar[str] = "Yelp.item.json"
    text_fields: ClassVar[tuple[str, ...]] = ("title", "description")
    how_to_get: ClassVar[str] = ("github.com/yuyq18/APAO, folder data/Yelp; Yelp.inter.json is S3-Rec's "
                                 "data/Yelp.txt, users and items minus 1")
