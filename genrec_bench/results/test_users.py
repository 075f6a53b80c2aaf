"""What is known of a split's test users: one small file a split, beside the records that were made on it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from genrec_bench.contracts import Split
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import DAMAGED, write_arrays
from genrec_bench.results.records import RecordStore

SCHEMA = 1
REMEDY = "Delete it; a run on this split writes it again."


@dataclass(frozen=True)
class UserFacts:
    """Facts about the test rows of a split, (U,) int64 each, in split order, which is the order of the ranks.

    history_length: items of history that a method reads, at most the split's `max_history`. target_count, user_count:
    interactions of the row's target and of its user in the training sequences, 0 where training has none.
    fingerprint: the split's.
    """

    fingerprint: str
    history_length: np.ndarray
    target_count: np.ndarray
    user_count: np.ndarray

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.history_length)


ARRAYS = tuple(field.name for field in fields(UserFacts) if field.name != "fingerprint")


def facts_of(split: Split) -> UserFacts:
    """The facts of a split's test rows."""
    sequences, test = split.train_sequences, split.test
    popularity = np.bincount(np.concatenate(sequences), minlength=split.num_items)
    lengths = np.array([len(s) for s in sequences], dtype=np.int64)
    return UserFacts(split.fingerprint, test.lengths, popularity[test.targets], lengths[test.users])


def path_of(store: RecordStore, dataset: str, fingerprint: str) -> Path:
    """Where the facts of a split are or will be written: named by the first 16 digits of its fingerprint."""
    return store.root / dataset / f"{fingerprint[:16]}.users.npz"


def stored_path(store: RecordStore, dataset: str, fingerprint: str) -> Path | None:
    """The file that holds the facts of a split, or None: where it is written, else in whatever folder of records."""
    path = path_of(store, dataset, fingerprint)
    if path.exists():
        return path
    return next((other for folder in store.folders() if (other := folder / path.name).exists()), None)


def find_users(store: RecordStore, dataset: str, fingerprint: str) -> UserFacts | None:
    """The facts of a split, or None. dataset, fingerprint: as a record states them.

    Raises: UserError for a file that is damaged or another split's.
    """
    path = stored_path(store, dataset, fingerprint)
    if path is None:
        return None
    facts = read_users(path)
    if facts.fingerprint != fingerprint:
        raise UserError(f"{path} holds the users of another split, {facts.fingerprint}. {REMEDY}")
    return facts


def keep_users(store: RecordStore, dataset: str, split: Split) -> None:
    """Write the facts of a split where they are missing; a file that is there stays."""
    path = path_of(store, dataset, split.fingerprint)
    if not path.exists():
        write_users(path, facts_of(split))


def write_users(path: Path, facts: UserFacts) -> None:
    """One npz file, atomically; equal splits give equal bytes."""
    about = {"schema": SCHEMA, "split_fingerprint": facts.fingerprint, "users": facts.num_users}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, about=np.array(json.dumps(about, sort_keys=True)),
                 **{name: getattr(facts, name).astype(np.uint32) for name in ARRAYS})


def read_users(path: Path) -> UserFacts:
    """Read what `write_users` wrote. Raises: UserError for a file that is not that, or of another schema."""
    try:
        with np.load(path) as file:
            about = json.loads(str(file["about"][()]))
            arrays = {name: file[name] for name in file.files if name != "about"}
        if about["schema"] != SCHEMA:
            raise ValueError(f"its schema is {about['schema']}, this version reads {SCHEMA}")
        for name in ARRAYS:
            if arrays[name].shape != (about["users"],) or not np.issubdtype(arrays[name].dtype, np.integer):
                raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, expected ({about['users']},)")
        return UserFacts(about["split_fingerprint"], *(arrays[name].astype(np.int64) for name in ARRAYS))
    except DAMAGED as error:
        raise UserError(f"{path} is not a file of users ({str(error) or type(error).__name__}). {REMEDY}") from None
