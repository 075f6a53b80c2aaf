"""Files of anybody's rankings: reading them, and one clear message for whatever is wrong with one.

Ids are taken as written, blanks included, as in data files. Scores keep the order and the ties that they have as
written: what a 64-bit float cannot hold is not rounded.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import UserError, nearest

COLUMNS = ("user_id", "item_id", "score")
WHOLE = 2**53  # up to here a 64-bit float holds every whole number
DIGITS = 16  # characters of a decimal that a float may not hold begin here
FORMAT = f"Expected the header {','.join(COLUMNS)} and one item of one user's ranking a line."


@dataclass(frozen=True)
class RankingFile:
    """The rows of a file: numbers of users and items, scores, and the line (or row) each is on, all (M,).

    scores: as written, or where floats cannot hold one of them exactly, the place of each among the file's scores.
    """

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray
    lines: np.ndarray


def read_rankings(path: Path, interactions: Interactions) -> RankingFile:
    """Read and check a file of rankings. Raises: UserError naming file, line and user."""
    check_file(path)
    parquet = path.suffix.lower() in (".parquet", ".pq")
    word = "row" if parquet else "line"
    user_numbers = {user: n for n, user in enumerate(interactions.user_ids)}
    item_numbers = {item: n for n, item in enumerate(interactions.item_ids)}
    users, items, scores, lines = array("q"), array("q"), array("d"), array("q")
    beyond: dict[int, int | Decimal] = {}  # row -> a score that `scores` holds rounded
    for line, user, item, value in _parquet_rows(path) if parquet else _csv_rows(path):
        where = f"{path}, {word} {line}, user {user!r}"
        if user not in user_numbers:
            raise _no_such("user", user, user_numbers, f"{path}, {word} {line}", interactions.name)
        if item not in item_numbers:
            raise _no_such("item", item, item_numbers, where, interactions.name)
        users.append(user_numbers[user])
        items.append(item_numbers[item])
        score, exact = _score(value, where)
        if exact != score:
            beyond[len(scores)] = exact
        scores.append(score)
        lines.append(line)
    if not lines:
        raise UserError(f"{path} holds no rankings. {FORMAT}")
    columns = (users, items, _in_order(scores, beyond) if beyond else scores, lines)
    rows = RankingFile(*(np.array(column) for column in columns))
    _refuse_repeats(path, word, rows, interactions)
    return rows


def check_file(path: Path) -> None:
    """Raises: UserError where there is no file, or nothing in it."""
    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'missing'}. {FORMAT}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty. {FORMAT}")


def _csv_rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """(line, user, item, score) of each line, in the order of COLUMNS whatever their order in the file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            order = [header.index(name) for name in COLUMNS]
            for row in reader:
                if not row:
                    continue
                if len(row) != len(COLUMNS):
                    raise UserError(f"{path}, line {reader.line_num}: {len(row)} values instead of {len(COLUMNS)}. "
                                    f"{FORMAT}")
                user, item, value = (row[place] for place in order)
                yield reader.line_num, user, item, value
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}. {FORMAT}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, str, str, Any]]:
    """(row counted from 1, user, item, score); ids are compared as text."""
    try:
        import pandas
    except ImportError:
        raise UserError(f"{path}: Parquet needs pandas and pyarrow. Install them or save the file as CSV.") from None
    try:
        table = pandas.read_parquet(path)
    except ImportError:
        raise UserError(f"{path}: Parquet needs pyarrow. Install it or save the file as CSV.") from None
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{path} is not a Parquet file ({reason}).") from None
    _check_header(path, [str(name) for name in table.columns])
    columns = (table[name].tolist() for name in COLUMNS)
    for row, (user, item, value) in enumerate(zip(*columns, strict=True), start=1):
        yield row, str(user), str(item), value


def _check_header(path: Path, header: list[str]) -> None:
    if sorted(header) == sorted(COLUMNS):
        return
    wrong = [name for name in header if name not in COLUMNS]
    lacking = [name for name in COLUMNS if name not in header]
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise UserError(f"{path}, line 1: columns must be separated by commas, got {header[0][:80]!r}. {FORMAT}")
    if wrong:
        match = nearest(wrong[0], lacking or COLUMNS)
        hint = f" Did you mean {match!r}?" if match else ""
        raise UserError(f"{path}, line 1: unknown column {wrong[0][:80]!r}.{hint} {FORMAT}")
    problem = f"no column {lacking[0]!r}" if lacking else "a column appears twice"
    raise UserError(f"{path}, line 1: {problem}. {FORMAT}")


def _score(value: Any, where: str) -> tuple[float, float | int | Decimal]:
    """The score as a float, and as written where a float does not hold it; NaN and infinity are refused."""
    try:
        # Python reads "1_0" as ten, which no writer of a CSV file means.
        number = float("" if isinstance(value, str) and "_" in value else value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: the score {repr(value)[:80]} is not a number.") from None
    if not math.isfinite(number):
        raise UserError(f"{where}: the score is {repr(value)[:80]}; scores must be finite numbers.")
    if isinstance(value, str) and (len(value) > DIGITS or abs(number) >= WHOLE):
        exact = Decimal(value)
        return number, number if exact == Decimal(repr(number)) else exact
    return number, value if isinstance(value, (int, Decimal)) else number


def _in_order(scores: array, beyond: Mapping[int, int | Decimal]) -> list[int]:
    """The place of each score among all distinct ones, by their values as written."""
    exact = [beyond[row] if row in beyond else Decimal(repr(score)) for row, score in enumerate(scores)]
    place = {value: n for n, value in enumerate(sorted(set(exact)))}
    return [place[value] for value in exact]


def _no_such(kind: str, wrong: str, known: Iterable[str], where: str, dataset: str) -> UserError:
    match = nearest(wrong, known)
    hint = f" Did you mean {match!r}?" if match else ""
    if wrong != wrong.strip():
        hint += " Blanks are part of an id."
    return UserError(f"{where}: unknown {kind} {wrong[:80]!r}; dataset {dataset!r} has no such {kind}.{hint} "
                     "Use the ids of the dataset's own files.")


def _refuse_repeats(path: Path, word: str, rows: RankingFile, interactions: Interactions) -> None:
    order = np.lexsort((rows.lines, rows.items, rows.users))
    again = (np.diff(rows.users[order]) == 0) & (np.diff(rows.items[order]) == 0)
    if again.any():
        # The repeat that comes first in the file, so that the message does not depend on how ids are numbered.
        repeats = np.flatnonzero(again)
        second = int(repeats[np.argmin(rows.lines[order[repeats + 1]])]) + 1
        first, second = order[second - 1], order[second]
        raise UserError(f"{path}, {word} {rows.lines[second]}: user {interactions.user_ids[rows.users[second]]!r} has "
                        f"item {interactions.item_ids[rows.items[second]]!r} again, as in {word} {rows.lines[first]}.")
