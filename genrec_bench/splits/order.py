"""How the interactions of a data set are ordered, and what in that order is doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from genrec_bench.contracts import Instances, Interactions, Split

BY_TIME, AS_GIVEN, MERGED = "ties as in the file", "order as given", "merged from windows"
# Times since 1970 by their size: seconds stay below the first number until the year 5138.
UNITS = {"seconds": 1e11, "milliseconds": 1e14, "microseconds": 1e17, "nanoseconds": np.inf}


def order_facts(split: Split) -> dict[str, Any]:
    """What is worth knowing of a split's order, as plain data for the record.

    rule: BY_TIME, AS_GIVEN (no times) or MERGED (no times, and windows that the data bring). users, targets,
    neighbours: users with a test row, test rows, and pairs of interactions that follow each other. newest_again: test
    targets that equal the newest item of their history; repeated: that are anywhere in it; trained_validate: whether
    training rows validate, as the data bring no others. Of data with times also:
    equal_times, neighbours of equal time; tied_targets, test targets whose time is that of the interaction before,
    where all rows have `seen` from the user's first interaction on, which tells it; repeats, what repeats user, item
    and time of another; dropped, such repeats that were left out; units, how many times are of the size of which unit.
    """
    interactions, test = split.interactions, split.test
    facts: dict[str, Any] = {
        "rule": AS_GIVEN if interactions.rows is None else MERGED, "users": len(np.unique(test.users)),
        "targets": len(test), "neighbours": interactions.num_interactions - interactions.num_users,
        "newest_again": int((test.newest == test.targets).sum()),
        "trained_validate": interactions.rows is not None and "valid" not in interactions.rows,
        "repeated": int(test.seen.holds(test.targets).sum())}
    times = interactions.times
    if times is None:
        return facts
    same = (np.diff(times.flat) == 0) & (np.diff(times.rows) == 0)
    return {**facts, "rule": BY_TIME, "equal_times": int(same.sum()),
            **_tied_targets(interactions, test), "repeats": _repeats(interactions),
            "dropped": interactions.repeats_dropped, "units": _units(times.flat)}


def _tied_targets(interactions: Interactions, test: Instances) -> dict[str, int]:
    sequences, seen = interactions.sequences[test.users], test.seen
    if (seen.lengths >= sequences.lengths).any():
        return {}
    begun = replace(sequences, lengths=seen.lengths)
    if not (np.array_equal(begun.flat, seen.flat) and np.array_equal(begun.values[begun.ends], test.targets)):
        return {}
    times = interactions.times
    places = times.starts[test.users] + seen.lengths
    return {"tied_targets": int((times.values[places] == times.values[places - 1]).sum())}


def _repeats(interactions: Interactions) -> int:
    sequences = interactions.sequences
    columns = sequences.rows, sequences.flat, interactions.times.flat
    order = np.lexsort(columns)
    return int(np.logical_and.reduce([np.diff(column[order]) == 0 for column in columns]).sum())


def days(times: np.ndarray) -> np.ndarray:
    """Whole days since 1970 of times in the unit that most of them are of by their size."""
    counts = _units(times)
    per_day = dict(zip(UNITS, (1, 1e3, 1e6, 1e9), strict=True))[max(counts, key=counts.get)] * 86_400
    return np.floor_divide(times, int(per_day)) if np.issubdtype(times.dtype, np.integer) else times // per_day


def _units(times: np.ndarray) -> dict[str, int]:
    counts = np.bincount(np.searchsorted(list(UNITS.values()), np.abs(times.astype(float)), side="right"),
                         minlength=len(UNITS))
    return {unit: int(count) for unit, count in zip(UNITS, counts, strict=True) if count}


def transitions(split: Split) -> Any:
    """(I, I) how often the column's item directly follows the row's in a training sequence."""
    from scipy import sparse  # takes longer to import than all that plans need

    flat = split.train_sequences.flat
    pairs = np.flatnonzero(np.diff(split.train_sequences.rows) == 0)  # the first item of a user follows nothing
    counts = sparse.csr_array((np.ones(len(pairs)), (flat[pairs], flat[pairs + 1])), shape=(split.num_items,) * 2)
    counts.sum_duplicates()
    return counts


def order_sentences(facts: Mapping[str, Any]) -> list[str]:
    """What `order_facts` found, in sentences."""
    neighbours, targets = facts["neighbours"], facts["targets"]
    again = (f"{_share(facts['newest_again'], targets)} test targets equal the newest item of their history, and "
             f"{facts['repeated']:,} are somewhere in it: misses for every method where it is taken out.")
    if facts["rule"] == AS_GIVEN:
        return [f"The data have no times: {AS_GIVEN}.", again]
    if facts["rule"] == MERGED:
        last = ["The data bring no validation rows: the last of their training rows in time validate, and do not "
                "train."] if facts["trained_validate"] else []
        return [f"A user's sequence is {MERGED}, which are in the order of their times, {BY_TIME}.", *last, again]
    tied = (f", and the file's order alone picks {_share(facts['tied_targets'], targets)} test targets"
            if "tied_targets" in facts else "")
    told = [f"Interactions are in the order of their times, {BY_TIME}: {_share(facts['equal_times'], neighbours)} "
            f"neighbouring ones of a user have equal times{tied}.", again]
    if facts["repeats"] or facts["dropped"]:
        told.append(f"Exact repeats of user, item and time: {facts['repeats']:,} kept, {facts['dropped']:,} left out.")
    if len(facts["units"]) > 1:
        sizes = ", ".join(f"{count:,} {unit}" for unit, count in facts["units"].items())
        told.append(f"Times are of different units, by their size: {sizes}; such an order means nothing.")
    return told


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,}" + (f" ({count / total:.0%})" if total else "")
