"""Readers of RecBole's atomic files: tab-separated text whose header names every column and its type.

`X.inter` has `user_id:token`, `item_id:token` and `timestamp:float`; `X.item` has `item_id:token` and columns of
text. Columns that nobody asked for are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import nearest
from genrec_bench.datasets import base
from genrec_bench.datasets.base import problem
from genrec_bench.datasets.causes import rename_hint

_TYPES = ("token", "token_seq", "float", "float_seq")
_INTER = {"user_id": "token", "item_id": "token", "timestamp": "float"}


@dataclass(frozen=True)
class _Table:
    """The cells of a file; row n of `rows` is line n + 2."""

    path: Path
    types: dict[str, str]
    rows: list[list[str]]

    def column(self, name: str) -> Iterator[str]:
        """The cells of one column, in file order."""
        place = list(self.types).index(name)
        return (row[place] for row in self.rows)


def _read_table(path: Path, needed: dict[str, str]) -> _Table:
    # Not splitlines(): it also breaks at characters that titles may hold.
    lines = base.read_text(path).replace("\r\n", "\n").rstrip("\n").split("\n")
    types = _header(path, lines[0])
    lacking = ", ".join(f"{name}:{kind}" for name, kind in needed.items() if name not in types)
    if lacking:
        raise problem(path, "line 1", f"the header has no column {lacking}",
                      f"It has: {', '.join(types)}.{rename_hint(list(types), list(needed))}")
    for name, kind in needed.items():
        if types[name] != kind:
            raise problem(path, "line 1", f"column {name} is of type {types[name]}", f"Write {name}:{kind}.")
    rows = [line.split("\t") for line in lines[1:]]
    for number, row in enumerate(rows, 2):
        if len(row) != len(types):
            raise problem(path, f"line {number}", f"has {len(row)} columns, the header has {len(types)}",
                          "Separate columns by one tab; the last line may be cut off.")
    return _Table(path, types, rows)


def _header(path: Path, line: str) -> dict[str, str]:
    types: dict[str, str] = {}
    mark = next((mark for mark in ",;| " if mark in line), "") if "\t" not in line else ""
    if mark:
        raise problem(path, "line 1", f"columns are separated by {mark!r} and not by tabs",
                      f"Write name:type, separated by tabs; types are {', '.join(_TYPES)}.")
    for column in line.split("\t"):
        name, _, kind = column.partition(":")
        if not name or kind not in _TYPES:
            raise problem(path, "line 1", f"{column[:80]!r} is not a column of an atomic file",
                          f"Write name:type, separated by tabs; types are {', '.join(_TYPES)}.")
        if name in types:
            raise problem(path, "line 1", f"column {name!r} is there twice", "Remove one of the two.")
        types[name] = kind
    return types


def _check_ids(table: _Table, name: str) -> list[str]:
    ids = list(table.column(name))
    for number, value in enumerate(ids, 2):
        if not value.strip():
            raise problem(table.path, f"line {number}", f"{name} is empty", "Give every line its ids.")
    return ids


def _timestamp(path: Path, line: int, text: str) -> int | float:
    # Whole numbers stay whole: nanoseconds since 1970 do not fit into a double.
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value) and "_" not in text:
            return value
    raise problem(path, f"line {line}", f"timestamp {text[:80]!r} is not a finite number",
                  "Write seconds, such as 881250949.")


def read_interactions(path: Path, *, drop_repeats: bool = False) -> tuple[dict[str, list[str]], dict[str, Any], int]:
    """User id -> item ids by time, equal times in file order; user id -> their times as an array; repeats left out.

    Users are in user order. A line that repeats user, item and time of an earlier one is refused, or with
    `drop_repeats` left out. Raises: UserError naming the line, or the user with too few interactions.
    """
    table = _read_table(path, _INTER)
    users, items = _check_ids(table, "user_id"), _check_ids(table, "item_id")
    times = [_timestamp(path, line, text) for line, text in enumerate(table.column("timestamp"), 2)]
    repeats = _repeats(path, users, items, times, drop_repeats)
    sequences: dict[str, list[str]] = {user: [] for user in base.ordered_ids(set(users))}
    stamps: dict[str, list[int | float]] = {user: [] for user in sequences}
    for row in sorted(set(range(len(times))) - repeats, key=lambda row: (times[row], row)):
        sequences[users[row]].append(items[row])
        stamps[users[row]].append(times[row])
    base.check_lengths(path, sequences)
    whole = all(type(t) is int and -2**63 <= t < 2**63 for t in times)
    kind = np.int64 if whole else np.float64
    return sequences, {user: np.array(t, dtype=kind) for user, t in stamps.items()}, len(repeats)


def _repeats(path: Path, users: list[str], items: list[str], times: list[int | float], drop: bool) -> set[int]:
    """Rows that repeat user, item and time of an earlier one. Raises: UserError where they are not to be dropped."""
    first: dict[tuple[str, str, int | float], int] = {}
    rows = list(zip(users, items, times, strict=True))
    repeats = [row for row, key in enumerate(rows) if first.setdefault(key, row) != row]
    if repeats and not drop:
        user, item, _ = rows[repeats[0]]
        raise problem(path, f"line {repeats[0] + 2}, user {user[:80]!r}, item {item[:80]!r}",
                      f"the same at the same time as line {first[rows[repeats[0]]] + 2} ({len(repeats)} such lines of "
                      f"{len(rows)})", "Remove repeats from the file, or leave them out with --set "
                      "folder.drop_repeats=true.")
    return set(repeats)


def read_texts(path: Path, fields: Sequence[str] = ()) -> dict[str, str]:
    """Item id -> text, one column a line: those of `fields`, or without it all of type token and token_seq.

    Raises: UserError naming the line, or a field that is no column.
    """
    table = _read_table(path, {"item_id": "token"})
    for field in fields:
        if field not in table.types:
            match = nearest(field, table.types)
            hint = f" Did you mean {match!r}?" if match else ""
            raise problem(path, "line 1", f"the header has no text column {field!r}",
                          f"It has: {', '.join(table.types)}.{hint}")
    names = fields or [n for n, kind in table.types.items() if n != "item_id" and kind.startswith("token")]
    columns = [list(table.column(name)) for name in names]
    texts: dict[str, str] = {}
    for row, item in enumerate(_check_ids(table, "item_id")):
        if item in texts:
            raise problem(path, f"line {row + 2}, item {item!r}", "is there twice in the file",
                          "Keep one of the two lines.")
        texts[item] = base.join_fields([column[row] for column in columns])
    return texts


def read_folder(name: str, inter: Path, item: Path | None, *, text_fields: Sequence[str] = (),
                allow_missing_text: bool = False, drop_repeats: bool = False, source: str = "") -> Interactions:
    """Interactions from an `.inter` file and, where it is there, an `.item` file.

    Raises: UserError for anything wrong in a file, or between the two.
    """
    sequences, times, dropped = read_interactions(inter, drop_repeats=drop_repeats)
    catalogue = base.ordered_ids({i for items in sequences.values() for i in items})
    texts = read_texts(item, text_fields) if item else None
    if texts is not None and not allow_missing_text:
        base.check_covered(item, catalogue, texts, f"line, but occurs in {inter.name}",
                           "Add it, or set allow_missing_text=true where the dataset has that setting.")
    item_texts = None if texts is None else tuple(texts.get(i, "") for i in catalogue)
    if item_texts is not None:
        base.note_empty_texts(item, catalogue, item_texts)
    return Interactions(name, tuple(sequences), tuple(catalogue), base.number_items(sequences.values(), catalogue),
                        item_texts, None, source, tuple(times.values()), dropped)
