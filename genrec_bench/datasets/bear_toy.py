"""Amazon 2014 Toys and Games in BEAR's windows: 19,124 users, 11,758 items, 165,247 interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from genrec_bench.core.registry import datasets
from genrec_bench.datasets.windows_format import WindowsDataset


@datasets.register("bear_toy")
@dataclass(frozen=True)
class BearToy(WindowsDataset):
    """Test and validation windows are the authors'; training windows are the rest of the windows of GenRec-Datasets."""

    folder: ClassVar[str] = "Toy"
    how_to_get: ClassVar[str] = (
        "github.com/WANGBohaO-jpg/LLM4DSR, folder data/Toy_noise_user0.0, has test.csv, valid.csv, id2name4Rec.json; "
        "train.csv and interactions.csv are made from github.com/Tiny-Snow/GenRec-Datasets, data/amazon2014-toy, whose "
        "user numbers all files must have")
