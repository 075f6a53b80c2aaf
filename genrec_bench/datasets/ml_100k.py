"""MovieLens 100K as the RecBole package carries it: 943 users, 1,682 items, 100,000 ratings."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import datasets
from genrec_bench.datasets import atomic_files
from genrec_bench.datasets.base import Dataset

FILES = ("ml-100k.inter", "ml-100k.item")


@datasets.register("ml-100k")
@dataclass(frozen=True)
class Ml100k(Dataset):
    """Every rating is an interaction, by time, equal times in file order; a text is title, year and genres.

    Nothing is filtered: every user has at least 20 ratings. Many of a user's ratings share a second, so the order
    within such a group is the file's.
    """

    default_tokenizer: ClassVar[str] = "rq_kmeans"
    how_to_get: ClassVar[str] = "comes with the Python package: pip install recbole==1.2.1 --no-deps"

    def _folder(self) -> Path | None:
        # The package is only located: importing it would patch numpy and bring torch in.
        spec = importlib.util.find_spec("recbole")
        if spec is None or not spec.submodule_search_locations:
            return None
        return Path(next(iter(spec.submodule_search_locations))) / "dataset_example" / "ml-100k"

    def location(self, data_dir: Path | None) -> str:
        """The installed package, wherever it is."""
        return "inside the installed package recbole (dataset_example/ml-100k)"

    def missing_files(self, data_dir: Path | None) -> list[str]:
        """Both files, where the package is not installed or holds none."""
        folder = self._folder()
        return [f"recbole/dataset_example/ml-100k/{n}" for n in FILES if folder is None or not (folder / n).is_file()]

    def files(self, data_dir: Path | None) -> list[Path]:
        """Both files, where the package is installed."""
        folder = self._folder()
        return [] if folder is None else [folder / name for name in FILES]

    def load(self, data_dir: Path | None) -> Interactions:
        """Read both files. Raises: UserError where RecBole is not installed."""
        missing = self.missing_files(data_dir)
        if missing:
            raise UserError(f"dataset ml-100k is read from the package recbole, which is not installed or lacks "
                            f"{missing[0]}. Install it: pip install recbole==1.2.1 --no-deps.")
        return atomic_files.read_folder(self.name, *self.files(data_dir),
                                        text_fields=("movie_title", "release_year", "class"),
                                        source="recbole 1.2.1, dataset_example/ml-100k")
