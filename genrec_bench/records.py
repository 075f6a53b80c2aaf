"""What a finished run leaves: one JSON record and one file of per-user ranks, written atomically."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from genrec_bench.contracts import Rankings
from genrec_bench.errors import UserError

SCHEMA = 1
# What a record of schema n, as plain data, looks like in schema n + 1.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
# What reading a damaged file of arrays may raise.
DAMAGED = (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError,
           RuntimeError)

T = TypeVar("T")


@dataclass(frozen=True)
class RunRecord:
    """One run. `config`, `identity`, `data`, `tokenizer`, `metrics` and `training` are equal for equal runs;
    `timings` (seconds, bytes, users/s) and `provenance` (versions, device, commit, command) are not.

    metrics: flat, unrounded, e.g. "ndcg@10" (item-level), "id_ndcg@10" (ID-level, as published),
    "valid_ndcg@10".
    """

    run_id: str
    label: str
    profile: str
    config: dict[str, Any]
    identity: dict[str, Any]
    metrics: dict[str, float]
    data: dict[str, Any]
    tokenizer: dict[str, Any]
    training: dict[str, Any]
    timings: dict[str, float]
    provenance: dict[str, Any]
    schema: int = SCHEMA

    @property
    def dataset(self) -> str:
        """The dataset's name, or the label of a user's own folder."""
        spec = self.config["dataset"]
        return spec.get("label") or spec["name"]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def split_fingerprint(self) -> str:
        """The sha256 of its split, which names the test rows; "" in a record that states none."""
        return self.identity.get("split_fingerprint", "")


@dataclass
class RecordStore:
    """A folder of records: `<root>/<dataset>/<run_id>.json` with `<run_id>.ranks.npz` beside it.

    A run is finished where both files are there; one without the other is no record, and `write` mends it.
    """

    root: Path

    def path(self, record: RunRecord) -> Path:
        """Where a record is or will be written."""
        return self.root / record.dataset / f"{record.run_id}.json"

    def find(self, run_id: str) -> Path | None:
        """The file of a finished run, or None."""
        return next((p for p in sorted(self.root.glob(f"*/{run_id}.json")) if _is_whole(p)), None)

    def read(self, run_id: str) -> RunRecord:
        """One record by name. Raises: UserError where it is missing or damaged."""
        path = self.find(run_id)
        if path is None:
            raise UserError(f"no record {run_id} below {self.root}.")
        return read_record(path)

    def read_all(self) -> list[RunRecord]:
        """All records below the root, sorted by name, so that nothing depends on directory order."""
        return sorted((read_record(p) for p in self._files()), key=lambda r: r.run_id)

    def _files(self) -> Iterator[Path]:
        yield from (path for path in sorted(self.root.glob("*/*.json")) if _is_whole(path))

    def read_ranks(self, record: RunRecord) -> Rankings:
        """The per-user ranks of the test rows, in split order."""
        return read_ranks(_ranks_path(self.path(record)))

    def ranks_bytes(self, record: RunRecord) -> bytes:
        """The file of ranks as it is on disk, to compare."""
        return _ranks_path(self.path(record)).read_bytes()

    def remove(self, record: RunRecord) -> None:
        """Delete a record and its ranks."""
        self.path(record).unlink()
        _ranks_path(self.path(record)).unlink()

    def write(self, record: RunRecord, test: Rankings) -> Path:
        """Write ranks, then the record; a record exists only if the run finished. An existing pair stays."""
        bad = [k for k, v in record.metrics.items() if not math.isfinite(v)]
        if bad:
            raise ValueError(f"run {record.run_id} has non-finite metrics: {', '.join(bad)}")
        path = self.path(record)
        if _is_whole(path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_ranks(_ranks_path(path), test)
        write_atomically(path, dump_json(asdict(record)).encode())
        return path


def _ranks_path(path: Path) -> Path:
    """The file of ranks that belongs to a record's file."""
    return path.with_name(f"{path.stem}.ranks.npz")


def _is_whole(path: Path) -> bool:
    """THE definition of a finished run: its record and its ranks are there."""
    return path.exists() and _ranks_path(path).exists()


def dump_json(data: Any) -> str:
    """Readable JSON with sorted keys and full-precision numbers."""
    return json.dumps(data, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with unrounded numbers; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """One npz file, atomically; equal arrays in equal order give equal bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez_compressed(temporary, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_ranks(path: Path, ranks: Rankings) -> None:
    """npz with `ranks`, `ties` and `id_ranks`, one number a user in split order (1-based, 0 = not in the list)."""
    write_arrays(path, ranks=_small(ranks.places), ties=_small(ranks.ties), id_ranks=_small(ranks.id_places))


def _small(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8 if values.max(initial=0) <= 255 else np.uint32)


def read_ranks(path: Path) -> Rankings:
    """Read what `write_ranks` wrote, as int64. Raises: UserError for a file that is not that."""
    try:
        with np.load(path) as file:
            return Rankings(*(file[k].astype(np.int64) for k in ("ranks", "ties", "id_ranks")))
    except DAMAGED as error:
        raise UserError(f"{path} is not a file of ranks ({error}). Delete it and its record, and run again.") from None


def read_record(path: Path) -> RunRecord:
    """Read one JSON record, of this schema or an older one.

    Raises: UserError naming the file where it is damaged, of a newer schema, or of one that nothing reads any more.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data = upgraded(data, data["schema"], SCHEMA, UPGRADES, f"{path} has record")
        return RunRecord(**{**data, "schema": SCHEMA})
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a run record ({error}). Restore it or delete it.") from None


def upgraded(content: T, schema: int, newest: int, upgrades: Mapping[int, Callable[[T], T]], whose: str) -> T:
    """What was stored under a schema, brought to the newest one version at a time: `upgrades[n]` leads to n + 1.

    whose: the beginning of an error, such as "FILE has record".
    Raises: UserError for a newer schema or one without a reader, TypeError for one that is no whole number.
    """
    if type(schema) is not int:
        raise TypeError(f"its schema is {schema!r}, not a whole number")
    if schema > newest:
        raise UserError(f"{whose} schema {schema}; this version reads {newest} at most. Update genrec-bench.")
    for version in range(schema, newest):
        if version not in upgrades:
            raise UserError(f"{whose} schema {schema}, which this version cannot read: it has no reader for "
                            f"{version}. Delete the file and make it again.")
        content = upgrades[version](content)
    return content
