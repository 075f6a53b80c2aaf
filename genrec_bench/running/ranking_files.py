"""Files of anybody's rankings: reading them, and one clear message for whatever is wrong with one.

Ids are taken as written, blanks included, as in data files. Scores keep the order and the ties that they have as
written: what a 64-bit float cannot hold is not rounded.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.datasets.causes import header_problem, id_hint

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
    if path.is_dir() or not path.exists():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'missing'}. {FORMAT}")
    if path.is_file() and path.stat().st_size == 0:
        raise UserError(f"{path} is empty. {FORMAT}")


def _csv_rows(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """(line, user, item, score) of each line, in the order of COLUMNS whatever their order in the file."""
    try:
        with _opened(path) as handle:
            reader = csv.reader(handle, strict=True)
            # Not strict: whatever the columns are separated by, their names are read.
            header = [name.strip() for name in next(csv.reader([handle.readline()]), [])]
            _check_header(f"{path}, line 1", header)
            order = [header.index(name) for name in COLUMNS]
            for row in reader:
                line = reader.line_num + 1
                if not row:
                    continue
                if len(row) != len(COLUMNS):
                    raise UserError(f"{path}, line {line}: {len(row)} values instead of {len(COLUMNS)}. {FORMAT}")
                user, item, value = (row[place] for place in order)
                yield line, user, item, value
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num + 1}: {error}. {FORMAT}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file ({error}). Get the file again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from None


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOWrapper]:
    """A file or a pipe as text, unpacked where it is gzip, which its first bytes say. Raises: UserError for Parquet."""
    with open(path, "rb") as raw:
        start = raw.peek(4)[:4]
        if not start:
            raise UserError(f"{path} is empty. {FORMAT}")
        if start == b"PAR1":
            raise UserError(f"{path} is Parquet, which is read from a file whose name ends in .parquet.")
        yield io.TextIOWrapper(gzip.open(raw) if start[:2] == b"\x1f\x8b" else raw, encoding="utf-8-sig", newline="")


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
    if any(name in COLUMNS for name in table.index.names):
        table = table.reset_index()
    _check_header(str(path), [str(name) for name in table.columns])
    columns = (table[name].tolist() for name in COLUMNS)
    for row, (user, item, value) in enumerate(zip(*columns, strict=True), start=1):
        yield row, str(user), str(item), value


def _check_header(where: str, header: list[str]) -> None:
    if sorted(header) != sorted(COLUMNS):
        raise UserError(f"{where}: {header_problem(header, COLUMNS)} {FORMAT}")


def _score(value: Any, where: str) -> tuple[float, float | int | Decimal]:
    """The score as a float, and as written where a float does not hold it; NaN and infinity are refused."""
    try:
        # Python reads "1_0" as ten, which no writer of a CSV file means.
        number = float("" if isinstance(value, str) and "_" in value else value)
    except (TypeError, ValueError, OverflowError):
        hint = " Write decimals with a point." if isinstance(value, str) and value.count(",") == 1 else ""
        raise UserError(f"{where}: the score {repr(value)[:80]} is not a number.{hint}") from None
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
    return UserError(f"{where}: unknown {kind} {wrong[:80]!r}; dataset {dataset!r} has no such {kind}."
                     f"{id_hint(wrong, known)} Use the ids of the dataset's own files.")


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
