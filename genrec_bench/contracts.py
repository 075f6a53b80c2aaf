"""The numpy containers that cross module borders, and the two numbers everybody shares.

Items and users are numbered from 0 in the order of `item_ids` and `user_ids`. Token ids are what a backbone
reads: `PAD` fills, `EOS` ends a history, codes follow level by level.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from genrec_bench.core.meter import Meter
from genrec_bench.core.ragged import Ragged

PAD = 0
EOS = 1
NUM_SPECIAL_TOKENS = 2
MIN_INTERACTIONS = 3  # leave-one-out needs a history, a validation target and a test target
PREFIX_REMEDY = "Give the items IDs of which none goes on from another, such as IDs of equal length."


def digest(*parts: np.ndarray | Ragged | str | bytes) -> str:
    """sha256 (hex) over arrays (as little-endian int64), strings and bytes, with lengths between them.

    Lists count as the array that they are behind each other.
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, (np.ndarray, Ragged)):
            shape = part.shape if isinstance(part, np.ndarray) else (int(part.lengths.sum()),)
            total.update(f"array{shape}{8 * math.prod(shape)}:".encode())
            for block in [part] if isinstance(part, np.ndarray) else part.blocks():
                total.update(np.ascontiguousarray(block, dtype="<i8"))
        else:
            data = part.encode() if isinstance(part, str) else part
            total.update(f"{len(data)}:".encode())
            total.update(data)
    return total.hexdigest()


def _flatten(data: Any, *names: str) -> None:
    """Make the lists that these fields of a frozen dataclass hold views into one array, where they are not yet."""
    for name in names:
        if getattr(data, name) is not None:
            object.__setattr__(data, name, Ragged.of(getattr(data, name)))


def prefix_pair(tokens: np.ndarray) -> tuple[int, int] | None:
    """Two rows of which the first is the beginning of the second and shorter, or None where there are none.

    tokens: (I, T) ids, shorter rows end in PAD. A search would put the shorter one first whatever the network says:
    nothing tells the probability that an ID ends, so both would count as certain to be complete.
    """
    if (tokens != PAD).all():
        return None
    order = np.lexsort(tokens.T[::-1])  # PAD is the smallest id, so what goes on from a row comes right behind it
    above, below = tokens[order[:-1]], tokens[order[1:]]
    begins = ((above == below) | (above == PAD)).all(axis=1) & (above != below).any(axis=1)
    found = np.flatnonzero(begins)
    return (int(order[found[0]]), int(order[found[0] + 1])) if len(found) else None


@dataclass(frozen=True)
class SemanticIds:
    """One semantic ID an item, as token ids in one flat vocabulary.

    tokens: (I, T) int64; shorter IDs end in PAD, and none is the beginning of another. codebook_sizes: codes available
    at each level, so that code c of level l is token `NUM_SPECIAL_TOKENS + sum(codebook_sizes[:l]) + c`. table: what
    the tokenizer has to say about itself for the record (collisions, utilisation, reconstruction error).
    """

    tokens: np.ndarray
    codebook_sizes: tuple[int, ...]
    table: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_codes(cls, codes: np.ndarray, codebook_sizes: tuple[int, ...] | None = None,
                   table: Mapping[str, Any] | None = None) -> SemanticIds:
        """From (I, T) codes counted from 0 at each level, -1 where a shorter ID has no code."""
        codes = np.asarray(codes, dtype=np.int64)
        sizes = codebook_sizes or tuple(int(c) + 1 for c in codes.max(axis=0))
        offsets = NUM_SPECIAL_TOKENS + np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        return cls(np.where(codes >= 0, codes + offsets, PAD), tuple(sizes), table or {})

    @property
    def vocab_size(self) -> int:
        """Token ids in use, specials included (V)."""
        return NUM_SPECIAL_TOKENS + int(sum(self.codebook_sizes))

    @property
    def num_distinct(self) -> int:
        """Distinct semantic IDs; fewer than items where items collide."""
        return len(np.unique(self.tokens, axis=0))

    @property
    def fingerprint(self) -> str:
        """sha256 of the tokens and codebook sizes."""
        return digest(self.tokens, np.array(self.codebook_sizes))


@dataclass(frozen=True)
class Interactions:
    """A dataset as read: every user's items, oldest first.

    sequences: one int64 array of item numbers a user. (Any sequence of arrays may be given where a `Ragged` is held.)
    item_texts: one string an item, or None where the data has none. given_codes: (I, T) codes from an index file
    counted from 0 (-1 = none), or None. times: one array a user with the time of each of its interactions, int64 or
    float64 in the data's own unit, or None where there are none.
    repeats_dropped: interactions left out because another has the same user, item and time. rows: by part, "train",
    "test" and maybe "valid", the rows that the data bring with them; None where a split rule makes them.
    """

    name: str
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    sequences: Ragged
    item_texts: tuple[str, ...] | None = None
    given_codes: np.ndarray | None = None
    source: str = ""
    times: Ragged | None = None
    repeats_dropped: int = 0
    rows: Mapping[str, Instances] | None = None

    def __post_init__(self) -> None:
        _flatten(self, "sequences", "times")

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def num_interactions(self) -> int:
        return int(self.sequences.lengths.sum())


@dataclass(frozen=True)
class Instances:
    """Rows of (user, history, target).

    users, targets: (N,) int64. histories: of each row int64 items, oldest first, as views into one array that rows
    share. seen: of each row all items that its user had before the target, not cut to what a model reads (of rows that
    the data bring, those that the row names); None where nothing is ranked (training). same_day: (N,) int8, whether
    the target has the day of the newest item before it: 1 = yes, 0 = no, -1 = not known; None without times. order:
    (N,) int64, places in the order of time over all users, larger is later; None where that is not known.
    """

    users: np.ndarray
    targets: np.ndarray
    histories: Ragged
    seen: Ragged | None = None
    same_day: np.ndarray | None = None
    order: np.ndarray | None = None

    def __post_init__(self) -> None:
        _flatten(self, "histories", "seen")

    def __len__(self) -> int:
        return len(self.targets)

    def history(self, row: int) -> np.ndarray:
        """Item numbers of one row's history, oldest first."""
        return self.histories[row]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) history lengths in items."""
        return self.histories.lengths

    @property
    def newest(self) -> np.ndarray:
        """(N,) the newest item of each history, none of which may be empty."""
        return self.histories.values[self.histories.ends - 1]

    @property
    def groups(self) -> np.ndarray | None:
        """The users where one has several rows, else None: what `Rankings.users` is."""
        return self.users if (np.diff(np.sort(self.users)) == 0).any() else None

    def where(self, kept: np.ndarray) -> Instances:
        """The rows for which `kept`, (N,) bool, is true; or those that it numbers."""
        return Instances(*(None if part is None else part[kept] for part in (
            self.users, self.targets, self.histories, self.seen, self.same_day, self.order)))

    def merged(self, num_users: int) -> tuple[Ragged, np.ndarray]:
        """The rows of each user, ordered by user and time, as one sequence; and (N,) where in it a row's target is.

        A row is a window (history and target) that slides by an item or more: the largest overlap of what came before
        with the window's beginning is not repeated. Windows without one are set behind each other.
        """
        sequences: list[list[int]] = [[] for _ in range(num_users)]
        places = np.empty(len(self), dtype=np.int64)
        for row, (user, target) in enumerate(zip(self.users.tolist(), self.targets.tolist(), strict=True)):
            sequence, window = sequences[user], [*self.history(row).tolist(), target]
            sequence += window[_overlap(sequence, window):]
            places[row] = len(sequence) - 1
        return Ragged.of(sequences), places


def _overlap(sequence: list[int], window: list[int]) -> int:
    """How many items the end of a sequence shares with a window's beginning, which leaves the window's last one out."""
    longest = min(len(sequence), len(window) - 1)
    return next((n for n in range(longest, 0, -1) if sequence[-n:] == window[:n]), 0)


@dataclass(frozen=True)
class Split:
    """Training, validation and test rows of one dataset under one declared rule.

    Rows of valid and test are ordered by user and have `seen`. train_sequences: the part of each user's sequence that
    training may see (a baseline that counts reads this).
    """

    interactions: Interactions
    train: Instances
    valid: Instances
    test: Instances
    train_sequences: Ragged

    def __post_init__(self) -> None:
        _flatten(self, "train_sequences")

    @property
    def num_items(self) -> int:
        return self.interactions.num_items

    @cached_property
    def rows_fingerprint(self) -> str:
        """sha256 over the rows of all parts and the size of the catalogue."""
        arrays = [a for part in (self.train, self.valid, self.test)
                  for a in (part.users, part.targets, part.histories.offsets, part.histories)]
        return digest(*arrays, np.array([self.num_items]))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all that a result depends on: rows, what their users had before, what training may see."""
        lists = [self.train_sequences, *(part.seen for part in (self.valid, self.test) if part.seen is not None)]
        return digest(self.rows_fingerprint, *(a for many in lists for a in (many.lengths, many)))


@dataclass(frozen=True)
class Rankings:
    """The rank of each row's target: what a method hands to the evaluator, row by row of the instances.

    ranks: (N,) first rank (from 1) of the group of equals the target is in, 0 = not within the list.
    ties: (N,) size of that group (items that share the target's semantic ID or score; 1 = no tie).
    id_ranks: (N,) rank of the target's semantic ID among distinct IDs, 0 = not in the list; where a system ranks
    items it equals `ranks`, apart from tied scores, which count against the target.
    users: (N,) the user of each row, where one has several; None = every row is another user's.
    """

    ranks: np.ndarray
    ties: np.ndarray
    id_ranks: np.ndarray
    users: np.ndarray | None = None


class Progress(Protocol):
    """Where a system tells how far it is."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` epochs are over; `note` is a short text such as the last validation value."""


@dataclass(frozen=True)
class Job:
    """All a system needs to run once: what to run, on which data, and where it may write.

    folder: the run's own working folder (checkpoints, logs); nothing may be written elsewhere.
    scalars: takes the numbers of an epoch by `add_scalar(name, value, epoch)`; None = nobody asks for them.
    uses: what is taken from earlier runs ("weights", "reference") -> the checkpoint with it. meter: counts what the run
    costs.
    """

    config: Any
    split: Split
    semantic_ids: SemanticIds | None
    seed: int
    folder: Path
    device: str
    threads: int
    progress: Progress
    scalars: Any = None
    uses: Mapping[str, Path] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)


@dataclass(frozen=True)
class Outcome:
    """What a system returns. test, valid: ranks among all items. unseen: of the test rows, without the items that the
    user had before (`Instances.seen`). training: equal for equal runs (curves, epochs, parameters); timings: seconds
    and users/s by the job's meter, bytes, which are not."""

    valid: Rankings
    test: Rankings
    unseen: Rankings
    training: dict[str, Any]
    timings: dict[str, float]


class Baseline:
    """Base of baselines, frozen dataclasses whose fields are settings: anything that ranks every row's target itself.

    seeded: False where nothing is random, so that one run says it all. resumes: an interrupted run goes on from where
    it was. reads_texts: it reads `Interactions.item_texts`, which then name its runs on data of the user's own.
    `version` is raised when the same settings give other numbers.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    seeded: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = False
    resumes: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.name

    def check_fit(self, config: Any, split: Split) -> None:
        """Refuse data, or settings of the run, that it cannot work with. Raises: DoesNotFit."""

    def epoch_seconds(self, split: Split) -> dict[str, float]:
        """Rough processor seconds of an epoch and its validation on these rows, by what to change for them, such as
        "split.valid_users = 1000"; "" = nothing. Empty where nothing is known before."""
        return {}

    def run(self, job: Job) -> Outcome:
        """Train, and rank the validation and test targets."""
        raise TypeError(f"{type(self).__name__} must define run")
