"""The split rule of the suite: leave-one-out, as APAO's released code does it, vectorised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from genrec_bench.contracts import Instances, Interactions, Split, digest
from genrec_bench.core.errors import UserError
from genrec_bench.datasets.base import MIN_INTERACTIONS
from genrec_bench.experiments.config import SplitConfig


def leave_one_out(interactions: Interactions, config: SplitConfig) -> Split:
    """A user with items x1..xL gives test (x1..xL-1 -> xL), valid (x1..xL-2 -> xL-1) and, for i = 2..L-2,
    train (x1..xi-1 -> xi); histories keep their newest `max_history` items.

    Rows are ordered by user, then time. `train_targets_per_user` keeps a user's newest training targets, `max_users`
    the first users (the catalogue stays whole, the split's interactions are those of the users kept).
    `train_sequences` holds the items that occur in a kept training row, in order; none for a user without one.
    Raises: UserError for a user with fewer than 3 interactions, or where nobody has a training row.
    """
    kept = _first_users(interactions, config.max_users)
    lengths = np.array([len(s) for s in kept.sequences], dtype=np.int64)
    _check(kept, lengths)
    flat = np.concatenate(kept.sequences)
    begin = np.cumsum(lengths) - lengths
    everyone = np.arange(len(lengths))
    # Training targets are at positions 1..L-3 (from 0) of a user's sequence; `first` is the oldest one kept.
    count = lengths - 3
    if config.train_targets_per_user:
        count = np.minimum(count, config.train_targets_per_user)
    first = begin + lengths - 2 - count
    users = np.repeat(everyone, count)
    places = _ranges(first, count)
    rows = (_instances(flat, begin, u, at, config.max_history) for u, at in
            ((users, places), (everyone, begin + lengths - 2), (everyone, begin + lengths - 1)))
    train, valid, test = rows
    seen_from = np.maximum(begin, first - config.max_history)
    seen_to = np.where(count > 0, begin + lengths - 2, seen_from)
    sequences = tuple(flat[a:b] for a, b in zip(seen_from, seen_to, strict=True))
    return Split(kept, train, valid, test, sequences, _fingerprint(kept.num_items, train, valid, test))


def _first_users(interactions: Interactions, max_users: int) -> Interactions:
    if not max_users or max_users >= interactions.num_users:
        return interactions
    return replace(interactions, user_ids=interactions.user_ids[:max_users],
                   sequences=interactions.sequences[:max_users],
                   times=interactions.times and interactions.times[:max_users])


def _check(interactions: Interactions, lengths: np.ndarray) -> None:
    short = np.flatnonzero(lengths < MIN_INTERACTIONS)
    if short.size:
        raise UserError(f"dataset {interactions.name}: user {interactions.user_ids[short[0]]!r} has "
                        f"{lengths[short[0]]} interactions; leave-one-out needs at least {MIN_INTERACTIONS}.")
    if lengths.max(initial=0) <= MIN_INTERACTIONS:
        raise UserError(f"dataset {interactions.name}: no user has a training row; it takes a user with at least "
                        f"{MIN_INTERACTIONS + 1} interactions.")


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start + 1, ... (count numbers) for each pair, joined."""
    before = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(starts - before, counts)


def _instances(flat: np.ndarray, begin: np.ndarray, users: np.ndarray, places: np.ndarray,
               max_history: int) -> Instances:
    """Rows whose targets are at `places` of `flat`; a history starts no earlier than its user's sequence."""
    starts = np.maximum(begin[users], places - max_history)
    counts = places - starts
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Instances(users.astype(np.int64), flat[places], offsets, flat[_ranges(starts, counts)])


def _fingerprint(num_items: int, *parts: Instances) -> str:
    arrays = [a for part in parts for a in (part.users, part.targets, part.offsets, part.items)]
    return digest(*arrays, np.array([num_items]))


def summary(split: Split, semantic_ids_distinct: int | None) -> dict[str, int | None]:
    """The counts of a split, under the names that `data check --json` prints."""
    interactions = split.interactions
    return {"users": interactions.num_users, "items": interactions.num_items,
            "interactions": interactions.num_interactions, "train": len(split.train), "valid": len(split.valid),
            "test": len(split.test), "distinct_semantic_ids": semantic_ids_distinct}


def seen_items(split: Split, part: str) -> list[np.ndarray]:
    """All items each row's user had before the target of `part` ("valid" or "test"), in row order.

    The whole history, not the part cut to what a model reads.
    """
    end = {"valid": -2, "test": -1}[part]
    return [split.interactions.sequences[user][:end] for user in getattr(split, part).users]


def history_fingerprint(split: Split) -> str:
    """sha256 of the whole sequences of the users kept: what `seen_items` reads and the split's rows may have cut."""
    sequences = split.interactions.sequences
    return digest(np.concatenate(sequences), np.array([len(s) for s in sequences]))
