"""Amazon 2014 Clothing in BEAR's windows: 39,230 users, 22,948 items, 277,534 interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from genrec_bench.core.registry import datasets
from genrec_bench.datasets.windows_format import WindowsDataset


@datasets.register("bear_clothing")
@dataclass(frozen=True)
class BearClothing(WindowsDataset):
    """Training and test windows are the authors'; validation windows are the rest of the windows of GenRec-Datasets."""

    folder: ClassVar[str] = "Clothing"
    how_to_get: ClassVar[str] = (
        "github.com/Void-JackLee/LBR, folder data/Clothing, has train.csv, test.csv and id2name4Rec.json; valid.csv "
        "and interactions.csv are made from github.com/Tiny-Snow/GenRec-Datasets, data/amazon2014-clothing, whose user "
        "numbers all files must have")
