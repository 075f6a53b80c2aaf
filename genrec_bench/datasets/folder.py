"""A folder of the user's own, in the generative format (JSON) or in RecBole's atomic files."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.files import APART, as_named
from genrec_bench.core.registry import datasets
from genrec_bench.core.settings import setting
from genrec_bench.datasets import atomic_files, base, generative_format
from genrec_bench.datasets.base import Dataset, problem
from genrec_bench.datasets.causes import split_already

_INTER = re.compile(r"(?:(?P<json>.+)\.)?inter\.json(\.gz)?|(?P<atomic>.+)\.inter(\.gz)?")
_WANTED = "X.inter.json (object: user -> item numbers) or X.inter (RecBole's atomic file), plain or .gz"


@datasets.register("folder")
@dataclass(frozen=True)
class Folder(Dataset):
    """Whatever single dataset a folder holds: `X.inter.json`, optional `X.index*.json` and `X.item.json` or
    `X.title.json`; or `X.inter` and optional `X.item`. All may be packed (.gz); the prefix `X.` may be absent
    from JSON files. What the data is, is told by its content: the path does not name a run.
    """

    path: str = setting(dataclasses.MISSING, "folder with the files", identity=False)
    label: str = setting("", "name in tables; empty = the folder's own name", identity=False)
    index: str = setting("", "which index file, where the folder holds several: the part between index and .json")
    text_fields: tuple[str, ...] = setting((), "fields of an item's text, in order; empty = title, then all others")
    codebook_size: int = setting(65536, "codes allowed at each level of an index", low=1, high=2**24)
    allow_missing_text: bool = setting(False, "items that the file of texts lacks get an empty text")

    drop_repeats: bool = setting(False, "atomic files: leave out what repeats user, item and time of an earlier line")

    default_tokenizer: ClassVar[str] = "rq_kmeans"
    needs_path: ClassVar[bool] = True
    how_to_get: ClassVar[str] = f"your own: a folder with {_WANTED}"

    def __post_init__(self) -> None:
        """A label names a folder of records; it is the folder's own name where none is given. Raises: UserError."""
        own = as_named(Path(self.path)).name
        label = self.label or own
        object.__setattr__(self, "label", label)
        if not can_name_data(label):
            whose = f"the folder's name {own!r}" if label == own else f"folder.label = {label!r}"
            raise UserError(f"{self.path}: {whose} cannot name a folder of records: it must not be empty, start with a "
                            "dot, hold a separator or a letter that cannot be printed, or be "
                            f"{', '.join(APART[:-1])} or {APART[-1]}. Give another, such as --set folder.label=mine.")

    @property
    def title(self) -> str:
        return self.label

    def location(self, data_dir: Path | None) -> str:
        """The folder as the user named it."""
        return self.path

    def missing_files(self, data_dir: Path | None) -> list[str]:
        """The interactions are needed, the rest is not."""
        folder = Path(self.path).expanduser()
        held = folder.is_dir() and any(_INTER.fullmatch(name) for name in _names(folder))
        return [] if held else [f"{self.path}/X.inter.json"]

    def preferred_tokenizer(self) -> str:
        """The index where the folder holds one."""
        folder = Path(self.path).expanduser()
        if self.missing_files(None):
            return self.default_tokenizer
        prefix, is_json = _prefix(folder)
        return "given" if is_json and _indices(folder, prefix) else self.default_tokenizer

    def load(self, data_dir: Path | None) -> Interactions:
        """Find the files, read and check them. Raises: UserError naming folder, file and place."""
        found = self._found()
        options = {"text_fields": self.text_fields, "allow_missing_text": self.allow_missing_text,
                   "source": f"folder {self.label}"}
        if "index" in found:
            return generative_format.read_folder(self.label, **found, codebook_size=self.codebook_size, ragged=True,
                                                 **options)
        return atomic_files.read_folder(self.label, **found, drop_repeats=self.drop_repeats, **options)

    def files(self, data_dir: Path | None) -> list[Path]:
        """Those of the one data set that the folder holds. Raises: UserError as `load` where there is none."""
        return [path for path in self._found().values() if path]

    def _found(self) -> dict[str, Path | None]:
        """The files by what they hold, of JSON files with an index or None."""
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise UserError(f"{self.path}: there is no such folder. Name a folder with {_WANTED}.")
        prefix, is_json = _prefix(folder)
        if is_json:
            if self.drop_repeats:
                raise problem(folder, "setting drop_repeats", "JSON files have no times to tell repeats by",
                              "Leave the setting out.")
            item = base.find_file(folder, f"{prefix}item.json") or base.find_file(folder, f"{prefix}title.json")
            return {"inter": base.find_file(folder, f"{prefix}inter.json"), "index": self._index(folder, prefix),
                    "item": item}
        if self.index:
            raise problem(folder, f"index {self.index!r}", "atomic files have no index",
                          "Leave the setting index out, or write the data as X.inter.json and X.index.json.")
        return {"inter": base.find_file(folder, f"{prefix}inter"), "item": base.find_file(folder, f"{prefix}item")}

    def _index(self, folder: Path, prefix: str) -> Path | None:
        files = _indices(folder, prefix)
        if self.index:
            if self.index not in files:
                raise unknown("index", self.index, files, str(folder))
            return base.find_file(folder, files[self.index])
        if len(files) > 1:
            raise problem(folder, "", f"holds several index files: {', '.join(files)}",
                          f"Choose one with the setting index, such as index={next(iter(files))}.")
        return base.find_file(folder, next(iter(files.values()))) if files else None


def can_name_data(label: str) -> bool:
    """Whether a folder of records can have this name."""
    return (label not in APART and bool(label.strip()) and not label.startswith(".") and label.isprintable()
            and not any(mark in label for mark in "/\\"))


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _prefix(folder: Path) -> tuple[str, bool]:
    """The text before `inter...`, and whether the format is JSON. Raises: UserError for none or several."""
    names = _names(folder)
    found = sorted({(f"{m['json']}." if m["json"] else "" if m["atomic"] is None else f"{m['atomic']}.",
                     m["atomic"] is None) for m in map(_INTER.fullmatch, names) if m})
    if len(found) != 1 and (parts := split_already(names)):
        raise problem(folder, "", *parts)
    if not found:
        held = ", ".join(names[:8]) or "no files"
        raise problem(folder, "", f"holds no interactions ({held})", f"Put {_WANTED} there.")
    if len(found) > 1:
        kinds = ", ".join(f"{prefix}inter{'.json' if is_json else ''}" for prefix, is_json in found)
        raise problem(folder, "", f"holds several datasets: {kinds}", "Put each into its own folder.")
    return found[0]


def _indices(folder: Path, prefix: str) -> dict[str, str]:
    """Index files by name: the part between `index` and `.json`, or "index" where there is none; values without .gz."""
    pattern = re.compile(re.escape(prefix) + r"index(?:[._-](?P<name>.+))?\.json(\.gz)?")
    found = [m for m in map(pattern.fullmatch, _names(folder)) if m]
    return {m["name"] or "index": m[0].removesuffix(".gz") for m in found}
