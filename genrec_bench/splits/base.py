"""What a split rule is, and the cutting of sequences that rules share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from genrec_bench.contracts import Instances, Interactions, Split
from genrec_bench.core.errors import UserError
from genrec_bench.core.ragged import Ragged, ranges
from genrec_bench.core.seeds import stream_seed
from genrec_bench.core.settings import setting
from genrec_bench.splits.order import days


@dataclass(frozen=True)
class SplitRule(ABC):
    """Base of split rules, frozen dataclasses whose fields are settings.

    version: raised when the same interactions would give other rows.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1

    max_history: int = setting(20, "items of history kept, newest last (APAO 5.1.3)", low=1)
    train_targets_per_user: int = setting(0, "newest training targets kept of each user, 0 = all", low=0)
    max_users: int = setting(0, "first users kept, 0 = all; for smoke tests", low=0)
    valid_users: int = setting(0, "users whose rows validate, drawn once for all runs, for large data; 0 = all", low=0)

    @property
    @abstractmethod
    def title(self) -> str:
        """What the rule does, for reports: words that a sentence can begin with, such as "Leave-one-out"."""

    @abstractmethod
    def split(self, interactions: Interactions) -> Split:
        """The rows of all three parts. Raises: UserError for data that the rule cannot split."""


def summary(split: Split, semantic_ids_distinct: int | None) -> dict[str, int | None]:
    """The counts of a split, under the names that `data check --json` prints."""
    interactions = split.interactions
    return {"users": interactions.num_users, "items": interactions.num_items,
            "interactions": interactions.num_interactions, "train": len(split.train), "valid": len(split.valid),
            "test": len(split.test), "distinct_semantic_ids": semantic_ids_distinct}


def first_users(interactions: Interactions, max_users: int) -> Interactions:
    """The first users alone, with their rows where the data bring any; 0 = all. The catalogue stays whole."""
    if not max_users or max_users >= interactions.num_users:
        return interactions
    rows = interactions.rows and {part: r.where(r.users < max_users) for part, r in interactions.rows.items()}
    return replace(interactions, rows=rows, user_ids=interactions.user_ids[:max_users],
                   sequences=interactions.sequences[:max_users],
                   times=interactions.times and interactions.times[:max_users])


def with_valid_users(split: Split, most: int) -> Split:
    """The split with the validation rows of at most so many users, drawn by a seed of their own; 0 = of all."""
    users = np.unique(split.valid.users)
    if not 0 < most < len(users):
        return split
    drawn = np.random.default_rng(stream_seed(0, "validation users")).choice(users, most, replace=False)
    return replace(split, valid=split.valid.where(np.isin(split.valid.users, drawn)))


def from_the_end(interactions: Interactions, rule: SplitRule, *, valid: int, test: int) -> Split:
    """A user's last `test` items are test targets, the `valid` before them validation targets, every earlier one but
    the first a training target; a history holds the newest `rule.max_history` items before its target.

    Rows are ordered by user, then time. `train_sequences` holds the items that occur in a kept training row, in order;
    none for a user without one. Raises: UserError for a user with fewer than valid + test + 1 items, or where nobody
    has a training row.
    """
    sequences = interactions.sequences
    lengths = sequences.lengths
    needed = valid + test + 1
    short = np.flatnonzero(lengths < needed)
    if len(short):
        raise UserError(f"dataset {interactions.name}: user {interactions.user_ids[short[0]]!r} has "
                        f"{lengths[short[0]]} interactions; split {rule.name} with {test} test and {valid} validation "
                        f"rows a user needs at least {needed}.")
    if lengths.max(initial=0) <= needed:
        raise UserError(f"dataset {interactions.name}: no user has a training row; it takes a user with at least "
                        f"{needed + 1} interactions.")
    flat, begin = sequences.flat, sequences.offsets[:-1]
    end = begin + lengths - test - valid
    # Training targets are at positions 1 to `end` of a user's sequence; `first` is the oldest one kept.
    count = end - begin - 1
    if rule.train_targets_per_user:
        count = np.minimum(count, rule.train_targets_per_user)
    first = end - count

    def rows(start: np.ndarray, counts: np.ndarray, *, tests: bool) -> Instances:
        users, places = np.repeat(np.arange(len(lengths)), counts), ranges(start, counts)
        made = _instances(flat, begin, users, places, rule.max_history, whole=tests)
        if day is None or not tests:
            return made
        return replace(made, same_day=(day[places] == day[places - 1]).astype(np.int8))

    day = None if interactions.times is None else days(interactions.times.flat)
    ones = np.ones_like(lengths)
    seen_from = np.maximum(begin, first - rule.max_history)
    seen_to = np.where(count > 0, end, seen_from)
    return Split(interactions, rows(first, count, tests=False), rows(end, ones * valid, tests=True),
                 rows(end + valid, ones * test, tests=True),
                 Ragged(flat, seen_from, seen_to - seen_from))


def newest_items(rows: Instances, max_history: int) -> Instances:
    """The same rows, their histories cut to the newest items; what was `seen` stays whole."""
    held, counts = rows.histories, np.minimum(rows.lengths, max_history)
    return replace(rows, histories=Ragged(held.values, held.ends - counts, counts))


def _instances(flat: np.ndarray, begin: np.ndarray, users: np.ndarray, places: np.ndarray,
               max_history: int, *, whole: bool) -> Instances:
    """Rows whose targets are at `places` of `flat`; a history starts no earlier than its user's sequence.

    whole: whether the rows say what the user had before the target in all.
    """
    first = begin[users]
    starts = np.maximum(first, places - max_history)
    return Instances(users, flat[places], Ragged(flat, starts, places - starts),
                     Ragged(flat, first, places - first) if whole else None)
