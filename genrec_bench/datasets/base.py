"""What a dataset is, and the reading and checking that all of them share.

The catalogue (the numbered items) is: the items of the index file where the data has one, so that an item without
interactions can still be recommended; otherwise the items that occur in interactions. A file of texts adds none, but
for BEAR's data, whose file of titles is their list of items.
Users and items are numbered in the order of their ids: as numbers where all of them are numbers, else as text.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from genrec_bench.contracts import MIN_INTERACTIONS, Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import as_named
from genrec_bench.core.ragged import Ragged
from genrec_bench.core.registry import datasets

Key = TypeVar("Key", bound=Hashable)
DENSE = 8  # lines of a table for a number
_HEARD: ContextVar[tuple[list[str], ...]] = ContextVar("heard", default=())


@dataclass(frozen=True)
class Dataset(ABC):
    """A named source of interactions; its fields are its settings.

    version: raised when the same files would give other numbers. default_split: how it is split where the user says
    nothing. default_tokenizer: "given" where the data carries semantic IDs, else a tokenizer that makes them.
    needs_path: it can only be named by a folder of the user's own. how_to_get: one line for `data fetch`.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    default_split: ClassVar[str] = "leave_one_out"
    default_tokenizer: ClassVar[str] = "given"
    needs_path: ClassVar[bool] = False
    how_to_get: ClassVar[str] = ""

    @abstractmethod
    def load(self, data_dir: Path | None) -> Interactions:
        """Read and check everything. Raises: UserError naming file, place and remedy."""

    @abstractmethod
    def location(self, data_dir: Path | None) -> str:
        """Where the files are looked for, for people to read."""

    @abstractmethod
    def missing_files(self, data_dir: Path | None) -> list[str]:
        """The needed files that are not there; empty where the dataset can be loaded."""

    def files(self, data_dir: Path | None) -> list[Path]:
        """All files that `load` reads; none where what was read is not to be kept for other processes."""
        return []

    @property
    def title(self) -> str:
        """What it is called in tables and where its records are."""
        return self.name

    def preferred_tokenizer(self) -> str:
        """The tokenizer used where the user names none."""
        return self.default_tokenizer


def problem(path: Path, place: str, what: str, remedy: str) -> UserError:
    """The error of a data file: `<file>: <place>: <what>. <remedy>`."""
    where = f"{path}: {place}" if place else f"{path}"
    return UserError(f"{where}: {what}. {remedy}")


def read_text(path: Path) -> str:
    """A whole file as text, unpacked where its name ends in .gz. Raises: UserError for a damaged file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise problem(path, "", f"cannot be read ({error.strerror or error})",
                      "Check that it exists and that you may read it.") from None
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise problem(path, "", f"is not a whole gzip file ({error})", "Get the file again.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise problem(path, f"line {line}", f"byte {error.start} is not UTF-8",
                      "Save the file in the encoding UTF-8.") from None


def find_file(folder: Path, name: str) -> Path | None:
    """`name` or `name.gz` in a folder, None where neither exists. Raises: UserError where both do."""
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(found) > 1:
        raise problem(found[0], "", f"{found[1].name} is here as well", "Remove one of the two.")
    return found[0] if found else None


def ordered_ids(ids: Iterable[str]) -> list[str]:
    """Ids in numeric order where all are decimal numbers, else in text order."""
    ids = sorted(ids)
    joined = "".join(ids)
    if joined.isascii() and joined.isdecimal() and all(ids):
        ids.sort(key=methodcaller("lstrip", "0"))  # each sorting keeps the order of equals
        ids.sort(key=lambda i: len(i.lstrip("0")))
    return ids


def is_text(value: str) -> bool:
    """Whether no half of a surrogate pair is in it, which no file can be written with."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_text(path: Path, place: str, value: str) -> str:
    """The same text. Raises: UserError where it `is_text` not."""
    if not is_text(value):
        raise problem(path, place, "the text holds half of a surrogate pair",
                      "Write the character in full.")
    return value


def check_lengths(path: Path, users: Sequence[str], lengths: np.ndarray) -> None:
    """Every user has enough interactions to be split. Raises: UserError naming the first who has not."""
    if not users:
        raise problem(path, "", "has no users", "Give it at least one.")
    short = np.flatnonzero(lengths < MIN_INTERACTIONS)
    if len(short):
        held = lengths[short[0]] or "no"
        others = f" (and {len(short) - 1} more users)" if len(short) > 1 else ""
        raise problem(path, f"user {users[short[0]]!r}{others}",
                      f"{held} interactions, {MIN_INTERACTIONS} or more are needed",
                      "Leave-one-out takes the last two for validation and test: remove such users from the file.")


def number_items(sequences: Iterable[Sequence[Key]], catalogue: Sequence[Key]) -> Ragged:
    """The sequences as int64 arrays of positions in the catalogue, which must hold all of their items."""
    numbers = {item: n for n, item in enumerate(catalogue)}
    return Ragged.of([np.array([numbers[i] for i in items], dtype=np.int64) for items in sequences])


def distinct(numbers: np.ndarray) -> np.ndarray:
    """The different ones of whole numbers from 0, ascending."""
    if _is_dense(numbers):
        return np.flatnonzero(np.bincount(numbers))
    ordered = np.sort(numbers)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])[:len(ordered)]]


def places(numbers: np.ndarray, catalogue: np.ndarray) -> np.ndarray:
    """Where in the ascending catalogue, which must hold them all, each of some whole numbers from 0 is."""
    if not _is_dense(catalogue):
        return np.searchsorted(catalogue, numbers)
    table = np.zeros(catalogue[-1] + 1, dtype=np.int64)
    table[catalogue] = np.arange(len(catalogue))
    return table[numbers]


def _is_dense(numbers: np.ndarray) -> bool:
    """Whether a table with a line for each number up to the largest is small beside them."""
    return numbers.dtype != object and bool(len(numbers)) and numbers.max() < DENSE * len(numbers)


def check_covered(path: Path, needed: Iterable[Key], held: Container[Key], what: str, remedy: str) -> None:
    """Every needed item is in a file. Raises: UserError naming the first that is not."""
    missing = [item for item in needed if item not in held]
    if missing:
        others = f" (and {len(missing) - 1} more items)" if len(missing) > 1 else ""
        raise problem(path, f"item {missing[0]}{others}", f"has no {what}", remedy)


def note(path: Path, what: str, remedy: str) -> None:
    """One line to stderr about data that can be used but may not be meant so: `note: <file>: <what>. <remedy>`."""
    tell([f"note: {path}: {what}. {remedy}"])


def tell(notes: Iterable[str]) -> None:
    """Such lines to stderr, and to who hears notes."""
    for line in notes:
        print(line, file=sys.stderr, flush=True)
        for heard in _HEARD.get():
            heard.append(line)


@contextmanager
def heard_notes() -> Iterator[list[str]]:
    """The notes that are told meanwhile."""
    heard: list[str] = []
    token = _HEARD.set((*_HEARD.get(), heard))
    try:
        yield heard
    finally:
        _HEARD.reset(token)


def note_empty_texts(path: Path, item_ids: Sequence[Any], texts: Sequence[str]) -> None:
    """Tell how many items a file of texts leaves without one."""
    empty = [item for item, text in zip(item_ids, texts, strict=True) if not text.strip()]
    if empty:
        note(path, f"{len(empty)} of {len(item_ids)} items have no text (first: item {empty[0]})",
             "A tokenizer that reads texts cannot tell them apart: add their texts where you can.")


def join_fields(fields: Sequence[str]) -> str:
    """One text of an item: a field a line, so that the first line is always the title, even an empty one."""
    clean = [" ".join(field.split()) for field in fields]
    return "\n".join(clean[:1] + [field for field in clean[1:] if field]) if any(clean) else ""


def data_folder(name: str, data_dir: Path | None, below: str) -> Path:
    """The folder `below` the data folder. Raises: UserError where no data folder was named."""
    if data_dir is None:
        raise UserError(f"dataset {name} needs the data folder. Give --data-dir DIR or set GENREC_BENCH_DATA, so that "
                        f"DIR/{below} holds its files; `benchmark.py data fetch --datasets {name}` says where to get "
                        "them.")
    return data_dir / below


def dataset_spec(text: str, changed: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """The spec a `--datasets` value means: a registered name, or a folder of the user's own.

    changed: settings by registered name, as `--set` gives them. A value with a path separator, or an existing folder
    that no dataset is named like, is a folder.
    Raises: UserError with the nearest name for anything else.
    """
    if "/" not in text and "\\" not in text and (text in datasets.names() or not Path(text).is_dir()):
        datasets.get(text, "--datasets")
        spec = {"name": text}
    else:
        spec = {"name": "folder", "path": str(as_named(Path(text)))}
    return {**spec, **(changed or {}).get(spec["name"], {})}


def dataset_specs(names: Sequence[str], changed: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The specs of several `--datasets` values. Raises: UserError for a name or a part of `changed` that is not there.
    """
    specs = [dataset_spec(name, changed) for name in names]
    used = {spec["name"] for spec in specs}
    for part in changed:
        if part not in used:
            raise UserError(f"--set {part}...: this command reads {', '.join(sorted(used))} and no {part}.")
    return specs
