"""Data as they were read once, in a file of arrays that every process maps instead of reading the data again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench import contracts
from genrec_bench.contracts import Instances, Interactions, digest
from genrec_bench.core import files as core_files
from genrec_bench.core import ragged, registry
from genrec_bench.core.files import canonical, map_arrays, write_mapped
from genrec_bench.core.ragged import Ragged
from genrec_bench.datasets import base
from genrec_bench.datasets.base import Dataset


@dataclass
class Parsed:
    """Data as they were read. notes: what was told of them. path: the file that they are not kept in yet, or None."""

    data: Interactions
    notes: Sequence[str] = ()
    path: Path | None = None

    def keep(self, dataset: Dataset, data_dir: Path | None) -> None:
        """Write what other processes map. dataset, data_dir: what was read; not where its files are others by now."""
        path, self.path = self.path, None
        if path is not None and _path(dataset, data_dir, path.parent) == path:
            with suppress(OSError):  # a full disk, a folder that cannot be written: every process then reads the data
                path.parent.mkdir(parents=True, exist_ok=True)
                write_mapped(path, {"notes": _as_json(self.notes), **dict(_packed("", self.data))})


def read(dataset: Dataset, data_dir: Path | None, folder: Path) -> Parsed:
    """What `dataset.load` gives and the notes it tells, from what was kept of equal files in a folder where it can be.

    The file there is named by settings, the content of the data's files and the code that reads them, so that nothing
    has to be invalidated; a damaged one is as none. Its arrays are read-only, and in memory once for all processes.
    A dataset is always read where it names no files, inherits their names but not its `load`, or has code without a
    name (a class of a notebook). Raises: UserError from `dataset.load`.
    """
    path = _path(dataset, data_dir, folder)
    kept = path and _read(path)
    if kept:
        return Parsed(kept)
    with base.heard_notes() as notes:
        return Parsed(dataset.load(data_dir), notes, path)


def _path(dataset: Dataset, data_dir: Path | None, folder: Path) -> Path | None:
    key = _key(dataset, data_dir)
    return key and folder / f"{dataset.title}-{key[:16]}.npz"


def _key(dataset: Dataset, data_dir: Path | None) -> str | None:
    cls, files = type(dataset), dataset.files(data_dir)
    known = cls.__module__.startswith(f"{contracts.__package__}.") or (
        getattr(cls, "source_digest", None) and _owner(cls, "files") <= _owner(cls, "load"))
    if not known or not files or not all(file.is_file() for file in files):
        return None
    spec = canonical([registry.resolved(dataset), registry.identity(dataset)])
    try:
        return digest(spec, _code(), *(part for file in files for part in (str(file), _sha256(file))))
    except OSError:  # `load` says what cannot be read
        return None


def _owner(cls: type, name: str) -> int:
    """How far up the class that defines a method stands."""
    return next(n for n, one in enumerate(cls.__mro__) if name in vars(one))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _code() -> str:
    """A digest of what reads data."""
    return digest(*(path.read_bytes() for path in (*sorted(Path(__file__).parent.glob("*.py")),
                                                   *(Path(of.__file__) for of in (contracts, core_files, ragged)))))


def _as_json(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _packed(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays by name, of which `_unpacked` makes the data again: what are no arrays as the bytes of JSON."""
    parts: Mapping[str, Any] | None = None
    if isinstance(value, (Interactions, Instances)):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, Ragged):
        parts = {"values": value.flat, "lengths": value.lengths}
    elif isinstance(value, Mapping):
        parts = value
    if parts is not None:
        for part, held in parts.items():
            yield from _packed(f"{name}.{part}" if name else part, held)
    elif value is not None:
        yield name, value if isinstance(value, np.ndarray) else _as_json(value)


def _read(path: Path) -> Interactions | None:
    """The data of a file, whose notes are told; None where there is no whole file."""
    try:
        held = map_arrays(path)
        notes, data = json.loads(held["notes"].tobytes()), _unpacked(held)
    except Exception:  # noqa: BLE001  whatever a damaged file causes: the data are read again
        return None
    base.tell(notes)
    return data


def _unpacked(held: Mapping[str, np.ndarray]) -> Interactions:
    def plain(name: str) -> Any:
        value = json.loads(held[name].tobytes()) if name in held else None
        return tuple(value) if isinstance(value, list) else value

    def lists(name: str) -> Ragged | None:
        values = held.get(f"{name}.values")
        return None if values is None else Ragged.behind(values, held[f"{name}.lengths"])

    def rows(part: str) -> Instances:
        return Instances(held[f"{part}.users"], held[f"{part}.targets"], lists(f"{part}.histories"),
                         lists(f"{part}.seen"), held.get(f"{part}.same_day"), held.get(f"{part}.order"))

    parts = dict.fromkeys(name.split(".")[1] for name in held if name.startswith("rows."))
    return Interactions(plain("name"), plain("user_ids"), plain("item_ids"), lists("sequences"), plain("item_texts"),
                        held.get("given_codes"), plain("source"), lists("times"), plain("repeats_dropped"),
                        {part: rows(f"rows.{part}") for part in parts} or None)
