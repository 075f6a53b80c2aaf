"""What the diagnosis of a finished run leaves: facts a user about its beam search, in one file beside the record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import digest
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import DAMAGED, write_arrays
from genrec_bench.core.seeds import stream_seed
from genrec_bench.results.records import RecordStore, RunRecord

SCHEMA = 1
LIMIT = 5_000  # test rows that are all taken
DRAWN = 2_000  # rows that are drawn where there are more
VOCABULARIES = ("flat", "trie")
BY_BEAM = ("survived", "beam_rank", "retained")  # arrays whose second axis is the beam
SETTINGS = ("schema", "beams", "normalisers", "top", "cap", "sample")  # what two diagnoses of one run may differ in


@dataclass(frozen=True)
class Sample:
    """The test rows that a diagnosis looks at: `rows` (U,) int32, ascending, one each of U of a split's `of` users."""

    rows: np.ndarray
    of: int
    fingerprint: str

    @property
    def about(self) -> dict[str, Any]:
        """The sample as a diagnosis states it; sha256 covers the rows and the split."""
        return {"users": len(self.rows), "of": self.of, "rule": "all" if len(self.rows) == self.of else "drawn",
                "sha256": digest(self.rows, self.fingerprint)}


def sample_rows(fingerprint: str, num_rows: int, limit: int = LIMIT, drawn: int = DRAWN,
                users: np.ndarray | None = None) -> Sample:
    """A row of each user of a split, or of `drawn` users where there are more than `limit`.

    users: (num_rows,) whose row it is; None = each another's. The draw depends on the split's fingerprint alone, so
    that every run of a split has the same rows; a smaller one is part of a larger one.
    """
    order = np.random.default_rng(stream_seed(0, "diagnosis", fingerprint)).permutation(num_rows)
    if users is not None:
        order = order[np.sort(np.unique(users[order], return_index=True)[1])]
    rows = np.sort(order if len(order) <= limit else order[:drawn])
    return Sample(rows.astype(np.int32), len(order), fingerprint)


@dataclass(frozen=True)
class Diagnosis:
    """What beam search kept and lost in one run, beside what an exact search finds.

    about: plain data, {"schema", "run_id", "beams", "normalisers", "top", "cap", "levels", "sample", "catalogue",
    "decoding", "versions"}. arrays: unsigned integers for U users, T levels, B beams and each normaliser n:
    "rows" (U,) rows of the test part, ascending; "n/rank" (U,) exact rank of the target's semantic ID among distinct
    IDs, 0 = worse than cap; "n/prefix_rank" (U, T) the same of its prefixes; "n/survived" (U, B) levels after which
    its prefix is still in the beam; "n/beam_rank" (U, B) rank in the final beam, 0 = not in it; "n/retained"
    (U, B, T) IDs of the exact top whose prefix is in the beam; "n/top_size" (U,) IDs in that top; "n/needed" (U,)
    prefixes that an exact search for it has to read. "token_rank/flat" and "token_rank/trie" (U, T): rank of the
    target's token at its own prefix, among the vocabulary and among valid children.
    """

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def run_id(self) -> str:
        return self.about["run_id"]

    @property
    def levels(self) -> int:
        """T."""
        return self.about["levels"]

    @property
    def beams(self) -> tuple[int, ...]:
        """Beam widths, ascending."""
        return tuple(self.about["beams"])

    @property
    def num_users(self) -> int:
        """U."""
        return self.about["sample"]["users"]

    @property
    def settings(self) -> dict[str, Any]:
        """What it was asked for; a diagnosis of the same run with the same settings says the same."""
        return {k: self.about[k] for k in SETTINGS}

    def with_beams(self, widths: Sequence[int]) -> Diagnosis:
        """The same with some of its beam widths alone."""
        kept = [self.beam(width) for width in widths]
        cut = {name: array[:, kept] if name.split("/")[-1] in BY_BEAM else array for name, array in self.arrays.items()}
        return Diagnosis({**self.about, "beams": list(widths)}, cut)

    def beam(self, width: int) -> int:
        """The index of a beam width. Raises: ValueError where it was not diagnosed."""
        if width not in self.beams:
            raise ValueError(f"beam {width} was not diagnosed; there are {', '.join(map(str, self.beams))}")
        return self.beams.index(width)

    def of(self, normaliser: str, name: str) -> np.ndarray:
        """One array of a normaliser as int64. Raises: ValueError for a normaliser that was not diagnosed."""
        if normaliser not in self.about["normalisers"]:
            raise ValueError(f"normaliser {normaliser!r} was not diagnosed; there are "
                             f"{', '.join(self.about['normalisers'])}")
        return self.arrays[f"{normaliser}/{name}"].astype(np.int64)

    def token_rank(self, vocabulary: str) -> np.ndarray:
        """(U, T) int64 rank of the target's tokens: "flat" = among the vocabulary, "trie" = among valid children."""
        return self.arrays[f"token_rank/{vocabulary}"].astype(np.int64)


def path_of(store: RecordStore, record: RunRecord) -> Path:
    """Where a record's diagnosis is or will be written: `<run_id>.diagnosis.npz` beside it."""
    path = store.path(record)
    return path.with_name(f"{path.stem}.diagnosis.npz")


def find(store: RecordStore, record: RunRecord) -> Diagnosis | None:
    """A record's diagnosis, or None. Raises: UserError for a file that is damaged or another run's."""
    path = path_of(store, record)
    if not path.exists():
        return None
    diagnosis = read(path)
    if diagnosis.run_id != record.run_id:
        raise UserError(f"{path} is the diagnosis of run {diagnosis.run_id}. Delete it and diagnose again.")
    return diagnosis


def write(path: Path, diagnosis: Diagnosis) -> None:
    """Write one npz file, atomically; equal diagnoses give equal bytes. Raises: ValueError for arrays of other shapes
    than `about` says."""
    problem = _problem(diagnosis)
    if problem:
        raise ValueError(f"run {diagnosis.run_id}: {problem}")
    about = np.array(json.dumps(diagnosis.about, sort_keys=True, allow_nan=False))
    write_arrays(path, about=about, **dict(sorted(diagnosis.arrays.items())))


def read(path: Path) -> Diagnosis:
    """Read what `write` wrote. Raises: UserError for a file that is not that, or of another schema."""
    try:
        with np.load(path) as file:
            about = json.loads(str(file["about"][()]))
            diagnosis = Diagnosis(about, {name: file[name] for name in file.files if name != "about"})
        problem = _problem(diagnosis) if about["schema"] == SCHEMA else f"its schema is {about['schema']}"
    except DAMAGED as error:
        problem = str(error) or type(error).__name__
    if problem:
        raise UserError(f"{path} is not a diagnosis ({problem}). Delete it and diagnose again.")
    return diagnosis


def _shapes(about: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The arrays that a diagnosis holds."""
    users, levels, beams = about["sample"]["users"], about["levels"], len(about["beams"])
    shapes = {"rows": (users,), **{f"token_rank/{v}": (users, levels) for v in VOCABULARIES}}
    for normaliser in about["normalisers"]:
        own = {"rank": (users,), "prefix_rank": (users, levels), "survived": (users, beams),
               "beam_rank": (users, beams), "retained": (users, beams, levels), "top_size": (users,),
               "needed": (users,)}
        shapes |= {f"{normaliser}/{name}": shape for name, shape in own.items()}
    return shapes


def _problem(diagnosis: Diagnosis) -> str | None:
    """What is wrong with the arrays, or None."""
    for name, shape in _shapes(diagnosis.about).items():
        array = diagnosis.arrays.get(name)
        if array is None:
            return f"{name} is missing"
        if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
            return f"{name} is {array.dtype} {array.shape}, expected integers {shape}"
    return None
