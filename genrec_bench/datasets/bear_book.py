"""Amazon Books in BEAR's windows without the validation part: 14,585 users and 6,344 items, one never seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from genrec_bench.core.registry import datasets
from genrec_bench.datasets.windows_format import WindowsDataset


@datasets.register("bear_book")
@dataclass(frozen=True)
class BearBook(WindowsDataset):
    """The validation windows are in no public snapshot; split `windows` takes some from training instead."""

    folder: ClassVar[str] = "Book"
    needed: ClassVar[tuple[str, ...]] = ("train", "test")
    how_to_get: ClassVar[str] = "github.com/WANGBohaO-jpg/MSL, folder data/Amazon_Books; valid.csv is optional"
