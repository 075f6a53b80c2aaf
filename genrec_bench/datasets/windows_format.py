"""Readers of the files that BEAR and its relatives share: windows of a user's items in csv, plain or gzip.

`train.csv`, `valid.csv`, `test.csv`: columns `user_id`, `item_ids` (a list such as `[3, 1, 2]`, oldest first, the last
one the target) and `timestamp` (whole seconds since 1970, of the target). `id2name4Rec.json`: object, item number ->
title; its items are the catalogue. `interactions.csv` (optional): `user_id`, `item_id`, `timestamp`, a user's items
oldest first, for the day of every interaction.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genrec_bench.contracts import MIN_INTERACTIONS, Instances, Interactions
from genrec_bench.datasets import base
from genrec_bench.datasets.base import Dataset, problem
from genrec_bench.datasets.causes import rename_hint
from genrec_bench.datasets.generative_format import read_texts

PARTS = ("train", "valid", "test")
TITLES, TIMED = "id2name4Rec.json", "interactions.csv"
DAY = 86_400  # seconds


@dataclass(frozen=True)
class _Windows:
    """The rows of one file, in its order: users, items of the window, time of its last item."""

    users: list[str]
    items: list[list[int]]
    times: list[int]


def _read_table(path: Path, columns: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Place ("line 7") and cells of the named columns, row by row; other columns are ignored.

    Raises: UserError naming the line that is no csv, has too few or many cells, or a column that the header lacks.
    """
    reader = csv.reader(io.StringIO(base.read_text(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        for name in columns:
            if header.count(name) != 1:
                held = "two columns" if name in header else "no column"
                raise problem(path, "line 1", f"the header has {held} {name}",
                              f"It must name {', '.join(columns)} once each.{rename_hint(header, columns)}")
        wanted = [header.index(name) for name in columns]
        rows = []
        for cells in reader:
            place = f"line {reader.line_num}"
            if len(cells) != len(header):
                raise problem(path, place, f"has {len(cells)} columns, the header has {len(header)}",
                              "Separate columns by commas and quote lists; the last line may be cut off.")
            rows.append((place, [cells[n] for n in wanted]))
    except csv.Error as error:
        raise problem(path, f"line {reader.line_num}", f"is not valid csv ({error})",
                      "The file may be cut off: fix it or get it again.") from None
    if not rows:
        raise problem(path, "", "has no rows below its header", "Get the file again.")
    return rows


def read_windows(path: Path) -> _Windows:
    """The windows of one file. Raises: UserError naming the line and what is wrong with it."""
    found = _Windows([], [], [])
    for place, (user, items, time) in _read_table(path, ("user_id", "item_ids", "timestamp")):
        found.users.append(_user(path, place, user))
        found.items.append(_items(path, place, items))
        found.times.append(_whole(path, place, "timestamp", time))
    return found


def _user(path: Path, place: str, text: str) -> str:
    if not text.strip():
        raise problem(path, place, "user_id is empty", "Give every line its user.")
    return base.check_text(path, place, text)


def _items(path: Path, place: str, text: str) -> list[int]:
    try:
        items: Any = json.loads(text)
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(type(item) is int and item >= 0 for item in items):
        raise problem(path, place, f"item_ids {text[:80]!r} is not a list of item numbers",
                      'Write "[3, 1, 2]", whole numbers from 0, oldest first.')
    if len(items) < MIN_INTERACTIONS:
        raise problem(path, place, f"the window has {len(items)} items, {MIN_INTERACTIONS} or more are needed",
                      "Leave such windows out.")
    return items


def _whole(path: Path, place: str, column: str, text: str, digits: int = 18) -> int:
    """A number from 0; of more than 18 digits an array could not hold it."""
    if not (text.isascii() and text.isdecimal() and len(text) <= digits):
        raise problem(path, place, f"{column} {text[:80]!r} is not a whole number", "Write it in digits alone.")
    return int(text)


def read_parts(name: str, files: dict[str, Path], titles: Path, timed: Path | None, source: str) -> Interactions:
    """Rows by part, and each user's windows of all parts merged to one sequence.

    files: part -> its csv. Rows are ordered by user, time and file; ties between files are in the order of PARTS.
    `seen` of a validation or test row is the window's own history: what its user had before is not in the row. `times`
    stays None, as the day of an interaction is known for some alone; `same_day` says it where it is.
    Raises: UserError for anything wrong in a file, or between two of them.
    """
    texts = read_texts(titles)
    read = {part: read_windows(path) for part, path in files.items()}
    for part, windows in read.items():
        base.check_covered(titles, dict.fromkeys(chain.from_iterable(windows.items)), texts,
                           f"title, but occurs in {files[part].name}", "Add it.")
    catalogue = sorted(texts)
    item_texts = tuple(texts[item] for item in catalogue)
    base.note_empty_texts(titles, catalogue, item_texts)
    user_ids = base.ordered_ids({user for windows in read.values() for user in windows.users})
    part, times, rows = _joined(list(read.values()), user_ids, catalogue)
    sequences, places = rows.merged(len(user_ids))
    days = _days(sequences, rows.users, places, times // DAY)
    if timed is not None:
        days = _days_of_all(timed, user_ids, catalogue, sequences)
    before = np.array([days[user][place - 1] for user, place in zip(rows.users, places, strict=True)])
    rows = replace(rows, same_day=np.where(before < 0, -1, before == times // DAY).astype(np.int8))
    made = {kind: rows.where(part == n) for n, kind in enumerate(read)}
    made |= {kind: replace(r, seen=r.histories)
             for kind, r in made.items() if kind != "train"}
    return Interactions(name, tuple(user_ids), tuple(map(str, catalogue)), sequences, item_texts, None, source,
                        rows=made)


def _joined(read: Sequence[_Windows], user_ids: Sequence[str],
            catalogue: Sequence[int]) -> tuple[np.ndarray, np.ndarray, Instances]:
    """All rows by user, time and file, with (N,) the number of the file each is of and (N,) its time."""
    user_numbers = {user: n for n, user in enumerate(user_ids)}
    part = np.repeat(np.arange(len(read)), [len(windows.users) for windows in read])
    users = np.array([user_numbers[user] for windows in read for user in windows.users], dtype=np.int64)
    times = np.array([time for windows in read for time in windows.times], dtype=np.int64)
    order = np.concatenate([np.argsort(np.argsort(windows.times, kind="stable")) for windows in read])
    by_user = np.lexsort((times, users))
    numbered = base.number_items((items for windows in read for items in windows.items), catalogue)
    ordered = numbered[by_user]
    rows = Instances(users[by_user], ordered.values[ordered.ends - 1], replace(ordered, lengths=ordered.lengths - 1),
                     order=order[by_user])
    return part[by_user], times[by_user], rows


def _days(sequences: Sequence[np.ndarray], users: np.ndarray, places: np.ndarray,
          known: np.ndarray) -> list[np.ndarray]:
    """The day of each interaction of a sequence: of those that are a window's target; -1 for the others."""
    days = [np.full(len(sequence), -1, dtype=np.int64) for sequence in sequences]
    for user, place, day in zip(users, places, known, strict=True):
        days[user][place] = day
    return days


def _days_of_all(path: Path, user_ids: Sequence[str], catalogue: Sequence[int],
                 sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same from a file with the time of every interaction; users without a window are passed over.

    Raises: UserError for a user whose items in it are not those of the windows, in their order.
    """
    items: dict[str, list[int]] = {user: [] for user in user_ids}
    days: dict[str, list[int]] = {user: [] for user in user_ids}
    for place, (user, item, time) in _read_table(path, ("user_id", "item_id", "timestamp")):
        if user in items:
            items[user].append(_whole(path, place, "item_id", item, digits=99))
            days[user].append(_whole(path, place, "timestamp", time) // DAY)
    for user, sequence in zip(user_ids, sequences, strict=True):
        if items[user] != [catalogue[item] for item in sequence]:
            raise problem(path, f"user {user[:80]!r}", "its items are not those of the windows, in their order",
                          "Get the files again, or remove this one: it only tells days.")
    return [np.array(days[user], dtype=np.int64) for user in user_ids]


@dataclass(frozen=True)
class WindowsDataset(Dataset):
    """A dataset of BEAR: windows of at most 11 items, cut 8:1:1 in time, whose texts are titles.

    needed: the parts without which it is not whole; `valid` is read wherever it is there.
    """

    default_split: ClassVar[str] = "windows"
    default_tokenizer: ClassVar[str] = "rq_kmeans"
    folder: ClassVar[str] = ""
    needed: ClassVar[tuple[str, ...]] = PARTS

    def _names(self) -> list[str]:
        return [*(f"{part}.csv" for part in self.needed), TITLES]

    def location(self, data_dir: Path | None) -> str:
        """The dataset's folder below the data folder."""
        return f"{data_dir if data_dir else 'DATA_DIR'}/bear/{self.folder}"

    def missing_files(self, data_dir: Path | None) -> list[str]:
        """The windows and the titles are needed, the days of all interactions are not."""
        names = [f"bear/{self.folder}/{name}" for name in self._names()]
        return [f"{n}.gz" for n in names if data_dir is None or base.find_file(data_dir, n) is None]

    def load(self, data_dir: Path | None) -> Interactions:
        """Read the files below the data folder. Raises: UserError naming a missing or wrong file."""
        found = self._found(data_dir)
        return read_parts(self.name, {part: found[part] for part in PARTS if found[part]}, found[TITLES], found[TIMED],
                          self.how_to_get)

    def files(self, data_dir: Path | None) -> list[Path]:
        """Those of windows and titles and, where it is there, of days. Raises: UserError as `load` for a missing one.
        """
        return [path for path in self._found(data_dir).values() if path]

    def _found(self, data_dir: Path | None) -> dict[str, Path | None]:
        folder = base.data_folder(self.name, data_dir, f"bear/{self.folder}")
        for name in self._names():
            if base.find_file(folder, name) is None:
                raise problem(folder / f"{name}.gz", "", f"is missing (or without .gz); {self.name} needs it",
                              "Point --data-dir or GENREC_BENCH_DATA at the folder above bear/, or see `data fetch`.")
        return {**{part: base.find_file(folder, f"{part}.csv") for part in PARTS},
                **{name: base.find_file(folder, name) for name in (TITLES, TIMED)}}
