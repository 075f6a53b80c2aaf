"""Amazon 2014 Office Products in BEAR's windows: 4,895 users, 2,414 items, 53,149 interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from genrec_bench.core.registry import datasets
from genrec_bench.datasets.windows_format import WindowsDataset


@datasets.register("bear_office")
@dataclass(frozen=True)
class BearOffice(WindowsDataset):
    """APAO's Office without three items that have no title, and cut in time instead of by user."""

    folder: ClassVar[str] = "Office"
    how_to_get: ClassVar[str] = "github.com/Void-JackLee/LBR, folder data/Office"
