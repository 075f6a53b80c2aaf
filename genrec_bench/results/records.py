"""What a finished run leaves: one JSON record and one file of per-user ranks, written atomically."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import APART, DAMAGED, dump_json, write_arrays, write_atomically
from genrec_bench.core.seeds import TUNING_SEED

SCHEMA = 3
RANKS = ("ranks", "ties", "id_ranks")
REMEDY = "The run counts as not done: run it again, which replaces the file, or restore it."


class Damaged(UserError):
    """A file of a run that cannot be read as what it is; the run then counts as not done."""


class OtherEngine(UserError):
    """A record of another engine, whose runs have other names and other settings."""


@dataclass(frozen=True)
class RunRecord:
    """One run. `config`, `identity`, `data`, `tokenizer`, `metrics` and `training` are equal for equal runs;
    `timings` (seconds, bytes, users/s) and `provenance` (versions, device, commit, command) are not.

    method: the name of what it shares with the same run on other seeds and data. metrics: flat, unrounded, e.g.
    "ndcg@10" (item-level), "id_ndcg@10" (ID-level, as published), "valid_ndcg@10". path: the file it was read from,
    None for one that was not read; no part of the file.
    """

    run_id: str
    method: str
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
    path: Path | None = field(default=None, compare=False, repr=False)

    @property
    def dataset(self) -> str:
        """The dataset's name, or the label of a user's own folder."""
        spec = self.config["dataset"]
        return spec.get("label") or spec["name"]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def is_trial(self) -> bool:
        """Whether it is a trial of `tune`: never a row of a report, nor what anything is compared with."""
        return self.seed == TUNING_SEED

    @property
    def split_fingerprint(self) -> str:
        """The sha256 of its split, which names the test rows."""
        return self.identity["split_fingerprint"]

    @property
    def first_stage(self) -> dict[str, Any]:
        """The settings of the run that it goes on from or takes its reference from; {} where there is none."""
        uses = self.config.get("uses") or ()
        return {**self.config, "uses": None, **uses[0]["run"]} if uses else {}

    @property
    def goes_on(self) -> bool:
        """Whether training starts from the weights of an earlier run."""
        return any(used["take"] == "weights" for used in self.config.get("uses") or ())


TABLES = tuple(f.name for f in fields(RunRecord) if str(f.type).startswith("dict"))


@dataclass
class RecordStore:
    """A folder of records: `<run_id>.json` with `<run_id>.ranks.npz` beside it, anywhere below `root` but in APART.

    THE definition of a finished run: both files are there and can be read. What is left of another one, half a pair or
    a damaged one, is no record, and `write` replaces it. apart: more folders below that are not this store's, resolved.
    """

    root: Path
    apart: frozenset[Path] = frozenset()
    _known: list[Path] = field(default_factory=list, init=False, repr=False, compare=False)

    def path(self, record: RunRecord) -> Path:
        """Where a record of this store is, or where another one will be written: `<root>/<dataset>/<run_id>.json`."""
        if record.path is not None and record.path.absolute().is_relative_to(self.root.absolute()):
            return record.path
        return self._place(record)

    def _place(self, record: RunRecord) -> Path:
        return self.root / record.dataset / f"{record.run_id}.json"

    def find(self, run_id: str) -> Path | None:
        """The file of a finished run, or None. Raises: UserError where two files hold it."""
        whole = [path for path in self._pairs(run_id) if not _damage(path)]
        if len(whole) > 1:
            raise _twice(*whole[:2])
        return whole[0] if whole else None

    def damage(self, run_id: str) -> str:
        """What is wrong with the files of a run that is not finished, "" where it has none."""
        return " ".join(filter(None, map(_damage, self._pairs(run_id))))

    def holds(self, record: RunRecord) -> bool:
        """Whether the two files of a record are here; they are not read."""
        return _is_pair(self.path(record))

    def read(self, run_id: str) -> RunRecord:
        """One record by name. Raises: UserError where it is missing, damaged, or there twice."""
        path = self.find(run_id)
        if path is None:
            raise UserError(self.damage(run_id) or f"no record {run_id} below {self.root}.")
        return read_record(path)

    def read_all(self, damaged: Callable[[Damaged], object] | None = None) -> list[RunRecord]:
        """All records below the root, sorted by name, so that nothing depends on directory order.

        damaged: what to do with a run that cannot be read, which is left out; None = say so on stderr.
        Raises: UserError where two files hold one run.
        """
        found: dict[str, RunRecord] = {}
        others = 0
        for path in (path for folder in self.folders() for path in sorted(folder.glob("*.json")) if _is_pair(path)):
            try:
                record = _read_whole(path)
            except Damaged as error:
                (damaged or _left_out)(error)
                continue
            except OtherEngine:
                others += 1
                continue
            if record.run_id in found:
                raise _twice(found[record.run_id].path, path)
            found[record.run_id] = record
        if others:
            print(f"left out: {others} records of another engine below {self.root}. Their names and settings mean "
                  "something else now: make the runs again.", file=sys.stderr)
        return [found[name] for name in sorted(found)]

    def read_results(self) -> list[RunRecord]:
        """All records below the root but the trials of `tune`."""
        return [record for record in self.read_all() if not record.is_trial]

    def folders(self) -> list[Path]:
        """The folders that records may be in, sorted; one that is a link is followed, each real folder once."""
        self._known, seen = [], set(self.apart)
        for folder, below, _ in os.walk(self.root, followlinks=True):
            real = Path(folder).resolve()
            below[:] = sorted(set(below) - set(APART)) if real not in seen else []
            if real not in seen:
                self._known.append(Path(folder))
            seen.add(real)
        self._known.sort()
        return self._known

    def _pairs(self, run_id: str) -> list[Path]:
        """The files of that name with ranks beside them. The folders are looked for again where none has it."""
        for folders in (lambda: self._known, self.folders):
            if found := [path for folder in folders() if _is_pair(path := folder / f"{run_id}.json")]:
                return found
        return []

    def read_ranks(self, record: RunRecord, *, unseen: bool = False) -> Rankings:
        """The ranks of the test rows, in split order; unseen: without what their users had before."""
        return read_ranks(_ranks_path(self.path(record)))[unseen]

    def ranks_bytes(self, record: RunRecord) -> bytes:
        """The file of ranks as it is on disk, to compare."""
        return _ranks_path(self.path(record)).read_bytes()

    def remove(self, record: RunRecord) -> None:
        """Delete a record and its ranks."""
        self.path(record).unlink()
        _ranks_path(self.path(record)).unlink()

    def write(self, record: RunRecord, test: Rankings, unseen: Rankings) -> Path:
        """Write ranks, then the record; a record exists only if the run finished. A finished run's files stay."""
        bad = [k for k, v in record.metrics.items() if not math.isfinite(v)]
        if bad:
            raise ValueError(f"run {record.run_id} has non-finite metrics: {', '.join(bad)}")
        if (known := self.find(record.run_id)) is not None:
            return known
        path = next(iter(self._pairs(record.run_id)), self._place(record))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_ranks(_ranks_path(path), test, unseen)
        _write_record(path, record)
        return path

    def note(self, record: RunRecord) -> None:
        """Write a record of this store again, with another provenance; its numbers and its ranks stay."""
        _write_record(self.path(record), record)


def _write_record(path: Path, record: RunRecord) -> None:
    write_atomically(path, dump_json({k: v for k, v in asdict(record).items() if k != "path"}).encode())


@dataclass(frozen=True)
class RecordStores:
    """Several folders of records, read as one: a run that more than one has is the first one's."""

    stores: tuple[RecordStore, ...]

    def __str__(self) -> str:
        return " and ".join(str(store.root) for store in self.stores)

    def find(self, run_id: str) -> Path | None:
        """The file of a finished run, or None."""
        return next((path for store in self.stores if (path := store.find(run_id))), None)

    def read_results(self) -> list[RunRecord]:
        """All records but the trials of `tune`, sorted by name."""
        found = {record.run_id: record for store in reversed(self.stores) for record in store.read_results()}
        return [found[name] for name in sorted(found)]

    def read_ranks(self, record: RunRecord) -> Rankings:
        """The ranks of the test rows of a record that was read here."""
        return read_ranks(_ranks_path(record.path))[0]


def _ranks_path(path: Path) -> Path:
    """The file of ranks that belongs to a record's file."""
    return path.with_name(f"{path.stem}.ranks.npz")


def _is_pair(path: Path) -> bool:
    return path.exists() and _ranks_path(path).exists()


def _read_whole(path: Path) -> RunRecord:
    """A record whose ranks can be read too. Raises: Damaged naming the file that is not what it has to be."""
    record = read_record(path)
    if record.run_id != path.stem:
        raise Damaged(f"{path} holds run {record.run_id}, but a record's file is named by its run. Rename or "
                      "delete it.")
    read_ranks(_ranks_path(path))
    return record


def _damage(path: Path) -> str:
    """Why a pair of files is no finished run, or "". Raises: OtherEngine, for it would be written over."""
    try:
        _read_whole(path)
    except Damaged as error:
        return str(error)
    return ""


def _twice(one: Path, other: Path) -> UserError:
    return UserError(f"two files hold the same run: {one} and {other}. Move one of them out of this folder, or give "
                     "--results the folder of one of them.")


def _left_out(error: Damaged) -> None:
    print(f"left out: {error}", file=sys.stderr)


def write_ranks(path: Path, test: Rankings, unseen: Rankings) -> None:
    """npz with `ranks`, `ties` and `id_ranks`, one number a row in split order (1-based, 0 = not in the list), the same
    as `unseen_...` without the items that users had before, and `users` where one has several rows."""
    arrays = {f"{part}{name}": _small(getattr(ranks, name)) for part, ranks in (("", test), ("unseen_", unseen))
              for name in RANKS}
    write_arrays(path, **arrays, **({} if test.users is None else {"users": _small(test.users)}))


def _small(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8 if values.max(initial=0) <= 255 else np.uint32)


def read_ranks(path: Path) -> tuple[Rankings, Rankings]:
    """Read what `write_ranks` wrote, as int64: test, unseen. Raises: Damaged for a file that is not that."""
    try:
        with np.load(path) as file:
            arrays = [file[f"{part}{name}"].astype(np.int64) for part in ("", "unseen_") for name in RANKS]
            users = file["users"].astype(np.int64) if "users" in file else None
        if any(array.shape != (arrays[0].size,) for array in (*arrays, *(() if users is None else (users,)))):
            raise ValueError(f"its arrays have the shapes {', '.join(str(array.shape) for array in arrays)}")
        return Rankings(*arrays[:3], users), Rankings(*arrays[3:], users)
    except PermissionError:
        raise
    except DAMAGED as error:
        raise Damaged(f"{path} is not a file of ranks ({str(error) or type(error).__name__}). {REMEDY}") from None


def read_record(path: Path) -> RunRecord:
    """Read one JSON record.

    Raises: Damaged naming the file, OtherEngine for a record of another schema.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if type(data["schema"]) is not int:
            raise TypeError(f"its schema is {data['schema']!r}")
        if data["schema"] != SCHEMA:
            raise OtherEngine(f"{path} has record schema {data['schema']}; this version reads {SCHEMA}.")
        if wrong := [name for name in TABLES if not isinstance(data[name], dict)]:
            raise TypeError(f"its {wrong[0]} is no table")
        return RunRecord(**{**data, "path": path})
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise Damaged(f"{path} is not a run record ({error}). {REMEDY}") from None
