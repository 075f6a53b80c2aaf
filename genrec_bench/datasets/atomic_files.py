"""Readers of RecBole's atomic files: tab-separated text whose header names every column and its type.

`X.inter` has `user_id:token`, `item_id:token` and `timestamp:float`; `X.item` has `item_id:token` and columns of
text. Columns that nobody asked for are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import contains
from pathlib import Path

import numpy as np

from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import nearest
from genrec_bench.core.memory import no_collection
from genrec_bench.core.ragged import Ragged
from genrec_bench.datasets import base
from genrec_bench.datasets.base import problem
from genrec_bench.datasets.causes import rename_hint

_TYPES = ("token", "token_seq", "float", "float_seq")
_INTER = {"user_id": "token", "item_id": "token", "timestamp": "float"}


@dataclass(frozen=True)
class _Table:
    """The cells of a file, line by line; the first row is line 2."""

    path: Path
    types: dict[str, str]
    cells: list[str]

    def column(self, name: str) -> list[str]:
        """The cells of one column, in file order."""
        return self.cells[list(self.types).index(name)::len(self.types)]


def _read_table(path: Path, needed: dict[str, str]) -> _Table:
    # Not splitlines(): it also breaks at characters that titles may hold.
    head, _, body = base.read_text(path).replace("\r\n", "\n").rstrip("\n").partition("\n")
    types = _header(path, head)
    lacking = ", ".join(f"{name}:{kind}" for name, kind in needed.items() if name not in types)
    if lacking:
        raise problem(path, "line 1", f"the header has no column {lacking}",
                      f"It has: {', '.join(types)}.{rename_hint(list(types), list(needed))}")
    for name, kind in needed.items():
        if types[name] != kind:
            raise problem(path, "line 1", f"column {name} is of type {types[name]}", f"Write {name}:{kind}.")
    lines = body.split("\n") if body else []
    for number, tabs in enumerate(map(str.count, lines, repeat("\t")), 2):
        if tabs + 1 != len(types):
            raise problem(path, f"line {number}", f"has {tabs + 1} columns, the header has {len(types)}",
                          "Separate columns by one tab; the last line may be cut off.")
    return _Table(path, types, "\t".join(lines).split("\t") if lines else [])


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
    ids = table.column(name)
    if not all(map(str.strip, ids)):
        number = next(number for number, value in enumerate(ids, 2) if not value.strip())
        raise problem(table.path, f"line {number}", f"{name} is empty", "Give every line its ids.")
    return ids


def _timestamp(path: Path, line: int, text: str) -> int | float:
    # Whole numbers stay whole: nanoseconds since 1970 do not fit into a double.
    for kind in (int, float):
        try:
            value = kind(text)
            finite = math.isfinite(value)
        except (ValueError, OverflowError):  # the latter for a whole number beyond every double
            continue
        if finite and "_" not in text:
            return value
    raise problem(path, f"line {line}", f"timestamp {text[:80]!r} is not a finite number",
                  "Write seconds, such as 881250949.")


def read_interactions(path: Path, *, drop_repeats: bool = False) -> tuple[list[str], list[str], Ragged, Ragged, int]:
    """User ids and item ids in their order; of each user items by time, equal times in file order, as places in the
    latter; their times; how many repeats were left out.

    A line that repeats user, item and time of an earlier one is refused, or with `drop_repeats` left out.
    Raises: UserError naming the line, or the user with too few interactions.
    """
    table = _read_table(path, _INTER)
    (users, user), (items, item) = (_numbered(_check_ids(table, name)) for name in ("user_id", "item_id"))
    times, place = _times(path, table.column("timestamp"))
    repeats = _repeats(user, item, place)
    if len(repeats) and not drop_repeats:
        row = repeats[0]
        first = np.flatnonzero((user == user[row]) & (item == item[row]) & (place == place[row]))[0]
        raise problem(path, f"line {row + 2}, user {users[user[row]][:80]!r}, item {items[item[row]][:80]!r}",
                      f"the same at the same time as line {first + 2} ({len(repeats)} such lines of {len(user)})",
                      "Remove repeats from the file, or leave them out with --set folder.drop_repeats=true.")
    kept = np.ones(len(user), dtype=bool)
    kept[repeats] = False
    order = np.lexsort((place, user))
    order = order[kept[order]]
    lengths = np.bincount(user[order], minlength=len(users))
    base.check_lengths(path, users, lengths)
    return users, items, Ragged.behind(item[order], lengths), Ragged.behind(times[order], lengths), len(repeats)


def _repeats(*columns: np.ndarray) -> np.ndarray:
    """The rows, ascending, that are equal to an earlier one in all columns."""
    order = np.lexsort(columns)  # equals stay in file order
    again = np.logical_and.reduce([np.diff(column[order]) == 0 for column in columns])
    return np.sort(order[1:][again])


def _numbered(ids: list[str]) -> tuple[list[str], np.ndarray]:
    """The different ids in their order, and (N,) the place of each."""
    ordered = base.ordered_ids(dict.fromkeys(ids))
    places = {name: place for place, name in enumerate(ordered)}
    return ordered, np.fromiter(map(places.__getitem__, ids), dtype=np.int64, count=len(ids))


def _times(path: Path, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) times, int64 or float64, and (N,) whole numbers in the same order, equal where times are exactly equal."""
    try:
        times = [] if any(map(contains, texts, repeat("_"))) else list(map(int, texts))
    except ValueError:
        times = []
    if not times or min(times) < -2**63 or max(times) >= 2**63:
        times = [_timestamp(path, line, text) for line, text in enumerate(texts, 2)]
    if all(type(t) is int and -2**63 <= t < 2**63 for t in times):
        whole = np.array(times, dtype=np.int64)
        return whole, whole
    places = {time: place for place, time in enumerate(sorted(set(times)))}
    return np.array(times, dtype=np.float64), np.array([places[time] for time in times])


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
    columns = [table.column(name) for name in names]
    texts: dict[str, str] = {}
    for row, item in enumerate(_check_ids(table, "item_id")):
        if item in texts:
            raise problem(path, f"line {row + 2}, item {item!r}", "is there twice in the file",
                          "Keep one of the two lines.")
        texts[item] = base.join_fields([column[row] for column in columns])
    return texts


@no_collection()
def read_folder(name: str, inter: Path, item: Path | None, *, text_fields: Sequence[str] = (),
                allow_missing_text: bool = False, drop_repeats: bool = False, source: str = "") -> Interactions:
    """Interactions from an `.inter` file and, where it is there, an `.item` file.

    Raises: UserError for anything wrong in a file, or between the two.
    """
    users, catalogue, sequences, times, dropped = read_interactions(inter, drop_repeats=drop_repeats)
    texts = read_texts(item, text_fields) if item else None
    if texts is not None and not allow_missing_text:
        base.check_covered(item, catalogue, texts, f"line, but occurs in {inter.name}",
                           "Add it, or set allow_missing_text=true where the dataset has that setting.")
    item_texts = None if texts is None else tuple(texts.get(i, "") for i in catalogue)
    if item_texts is not None:
        base.note_empty_texts(item, catalogue, item_texts)
    return Interactions(name, tuple(users), tuple(catalogue), sequences, item_texts, None, source, times, dropped)
