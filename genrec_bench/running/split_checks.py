"""Contract checks of split rules, on data with windows in which every interaction has an item of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from genrec_bench.contracts import Instances, Interactions, Split
from genrec_bench.core.checks import Checks, Finding, expect, findings, is_a_component
from genrec_bench.splits.base import SplitRule

USERS, FEW, LENGTHS, WINDOW = 40, 7, (12, 20), 6
PARTS = ("train", "valid", "test")


def check_split(rule: SplitRule, _: Path | None) -> list[Finding]:
    """Every check of a split rule; none stops the others."""
    data = unique_items()
    return findings(SPLIT, rule, data, cache(lambda: rule.split(data)))


def unique_items() -> Interactions:
    """40 users with 12 to 20 interactions, item n being that of interaction n: an item says whose it is, and when.

    Windows of 6 items slide over each user's: the last one tests, the one before validates.
    """
    lengths = np.random.default_rng(0).integers(*LENGTHS, size=USERS, endpoint=True)
    items, ends = np.arange(lengths.sum()), np.cumsum(lengths)
    rows = {"train": _windows([range(end - length + WINDOW - 1, end - 2)
                               for end, length in zip(ends, lengths, strict=True)]),
            "valid": _windows([[end - 2] for end in ends]), "test": _windows([[end - 1] for end in ends])}
    return Interactions("made-up", tuple(f"u{n}" for n in range(USERS)), tuple(f"i{n}" for n in items),
                        tuple(np.split(items, ends[:-1])), rows=rows)


def _windows(targets: Sequence[Sequence[int]]) -> Instances:
    """The windows whose last items are each user's targets."""
    flat = np.concatenate(targets).astype(np.int64)
    histories = flat[:, None] + np.arange(1 - WINDOW, 0)
    return Instances(np.repeat(np.arange(USERS), list(map(len, targets))), flat, histories)


def _has_rows(rule: SplitRule, data: Interactions, split: Callable[[], Split]) -> str:
    made = split()
    expect(isinstance(made, Split), "a Split", type(made).__name__)
    expect(made.interactions.item_ids == data.item_ids, "the whole catalogue", f"{made.num_items} items")
    for part in PARTS:
        rows = getattr(made, part)
        expect(len(rows), f"rows of {part}", "none")
        arrays = {"users": rows.users, "targets": rows.targets, "histories": rows.histories.values}
        wrong = [f"{name} is {values.dtype}" for name, values in arrays.items() if values.dtype != np.int64]
        expect(not wrong, f"{part}: int64 arrays", ", ".join(wrong))
        expect(len(rows.users) == len(rows) == len(rows.histories), f"{part}: a user, a target and a history each row",
               f"{len(rows.users)}, {len(rows)} and {len(rows.histories)}")
        expect((rows.lengths > 0).all(), f"{part}: no empty history", f"{(rows.lengths <= 0).sum()} empty")
        expect((np.diff(rows.users) >= 0).all(), f"{part}: rows ordered by user", "others")
    return ", ".join(f"{len(getattr(made, part))} {part}" for part in PARTS)


def _histories_come_before(rule: SplitRule, data: Interactions, split: Callable[[], Split]) -> None:
    owner = np.repeat(np.arange(USERS), data.sequences.lengths)
    for part in PARTS:
        rows = getattr(split(), part)
        for n in range(len(rows)):
            had = [*rows.history(n), *(rows.seen[n] if rows.seen is not None else ())]
            mine = (owner[had] == rows.users[n]).all() and owner[rows.targets[n]] == rows.users[n]
            expect(mine and max(had) < rows.targets[n], f"{part}, row {n}: items that its user had before the target",
                   f"{had} before {rows.targets[n]}")
            expect((np.diff(rows.history(n)) > 0).all(), f"{part}, row {n}: the oldest first", rows.history(n))


def _says_what_was_seen(rule: SplitRule, data: Interactions, split: Callable[[], Split]) -> None:
    for part in PARTS[1:]:
        rows: Instances = getattr(split(), part)
        expect(rows.seen is not None and len(rows.seen) == len(rows), f"{part}.seen, an array a row", rows.seen and
               len(rows.seen))
        short = [n for n in range(len(rows)) if not set(rows.history(n)) <= set(rows.seen[n])]
        expect(not short, f"{part}.seen to hold the history", f"less in row {short[:1]}")


def _keeps_parts_apart(rule: SplitRule, data: Interactions, split: Callable[[], Split]) -> None:
    made = split()
    trained = {*made.train.targets, *made.train.histories.flat, *made.train_sequences.flat}
    for part in PARTS[1:]:
        known = trained & set(getattr(made, part).targets)
        expect(not known, f"no {part} target in training", f"items {sorted(map(int, known))[:3]}")
    known = {*made.valid.targets, *made.valid.histories.flat} & set(made.test.targets)
    expect(not known, "no test target in validation rows", f"items {sorted(map(int, known))[:3]}")
    expect(len(made.train_sequences) == made.interactions.num_users, "a training sequence for each user, empty or not",
           len(made.train_sequences))


def _cuts(rule: SplitRule, data: Interactions, split: Callable[[], Split]) -> None:
    made = dataclasses.replace(rule, max_history=2).split(data)
    for part in PARTS:
        rows, before = getattr(made, part), getattr(split(), part)
        expect((rows.lengths <= 2).all(), "2 items of history for max_history = 2", rows.lengths.max())
        expect(part == "train" or all(map(np.array_equal, rows.seen or (), before.seen or ())),
               f"{part}.seen to hold what it holds for any other max_history", "others")
        expect(np.array_equal(rows.targets, before.targets), f"{part}: the same targets for another max_history",
               "others")
    few = dataclasses.replace(rule, max_users=FEW).split(data)
    expect(few.interactions.user_ids == data.user_ids[:FEW], f"the first users for max_users = {FEW}",
           few.interactions.user_ids)
    more = [part for part in PARTS if (getattr(few, part).users >= FEW).any()]
    expect(not more, f"rows of the first {FEW} users alone", f"others in {', '.join(more)}")


def _splits_again(rule: SplitRule, data: Interactions, split: Callable[[], Split]) -> None:
    before = [s.copy() for s in data.sequences]
    again = rule.split(data)
    expect(again.fingerprint == split().fingerprint, "the same rows again", "others")
    expect(all(map(np.array_equal, before, data.sequences)), "the data left as they were", "other sequences")


def _has_a_title(rule: SplitRule, data: Interactions, split: Callable[[], Split]) -> None:
    expect(isinstance(rule.title, str) and rule.title.strip(), "a title for reports", repr(rule.title))


SPLIT: Checks = {
    "is a frozen dataclass with documented settings": is_a_component, "has a title for reports": _has_a_title,
    "makes rows of all parts": _has_rows, "has histories that come before their targets": _histories_come_before,
    "says what users had before a target": _says_what_was_seen,
    "trains on no target of another part": _keeps_parts_apart,
    "keeps to max_history and max_users": _cuts, "makes the same rows again and changes nothing": _splits_again,
}
