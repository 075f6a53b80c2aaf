"""Readers of the JSON files that generative recommenders share (LETTER, LC-Rec, APAO), plain or gzip.

`X.inter.json`: object, user id -> list of item numbers, oldest first. `X.index*.json`: object, item number -> codes,
as tokens `["<a_12>", "<b_3>", ...]` or as integers `[12, 3, ...]`. `X.item.json` or `X.title.json`: object, item
number -> text, or an object of named texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from genrec_bench.contracts import PREFIX_REMEDY, Interactions, prefix_pair
from genrec_bench.core.errors import unknown
from genrec_bench.core.memory import no_collection
from genrec_bench.core.ragged import Ragged
from genrec_bench.core.settings import setting
from genrec_bench.datasets import base, causes
from genrec_bench.datasets.base import Dataset, problem

MAX_LEVELS = 26  # a level is named by a letter
_TOKEN = re.compile(r"<([a-z])_(0|[1-9][0-9]{0,8})>")
ITEM_NUMBER = re.compile(r"0|[1-9][0-9]{0,99}")  # JSON's own whole numbers, exact at any length
MANY_CODES, SPARSE = 5_000, 10  # a vocabulary is told of that is this large, and so many times what occurs
_NUMBERS = "Items are whole numbers from 0; `data convert` numbers ids of any kind."


class _Repeated(dict):
    """An object of the JSON text that names a key twice; `key` is that key."""

    key: str = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    seen: set[str] = set()
    repeated = _Repeated(result)
    repeated.key = next(key for key, _ in pairs if key in seen or seen.add(key))
    return repeated


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON value")


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """The object of a JSON file whose keys are of one kind ("user", "item"), each named once in the text.

    Raises: UserError with line and column for text that is not JSON, or the key that is there twice.
    """
    return parse_json(path, base.read_text(path), kind)


def parse_json(path: Path, text: str, kind: str) -> dict[str, Any]:
    """The same of the text of a file, which may be one that can be read only once."""
    wanted = f'{{"<{kind} id>": ...}}'
    try:
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise problem(path, f"line {error.lineno}, column {error.colno}",
                      *causes.json_problem(text, error, wanted)) from None
    except (ValueError, RecursionError) as error:
        raise problem(path, "", f"is not valid JSON ({error})", "Fix the file or get it again.") from None
    if not isinstance(data, dict):
        raise problem(path, "top level", f"is {_kind_of(data)}, an object is needed", f"Write {wanted}.")
    if isinstance(data, _Repeated):
        raise problem(path, f"{kind} {data.key[:80]!r}{_second_line(text, data.key)}", "is there twice in the file",
                      "Keep one of the two entries.")
    return data


def _second_line(text: str, key: str) -> str:
    found = list(re.finditer(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", text))
    return f", line {text.count(chr(10), 0, found[1].start()) + 1}" if len(found) > 1 else ""


def _kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    """A short form for messages; a container is not spelled out, since it may be nested without end."""
    return _kind_of(value) if isinstance(value, (list, dict)) else json.dumps(value)[:80]


def read_interactions(path: Path) -> tuple[list[str], Ragged]:
    """User ids in their order, and of each the item numbers, oldest first. Raises: UserError naming user and position.
    """
    data = read_json(path, "user")
    numbers = _item_numbers(data.values())
    if numbers is None or not all(map(str.strip, data)) or not base.is_text("".join(data)):
        _wrong_user(path, data)
    given, users = list(data), base.ordered_ids(data)
    base.check_lengths(path, given, numbers.lengths)
    if users != given:
        places = {user: place for place, user in enumerate(given)}
        numbers = numbers[np.array([places[user] for user in users])]
    return users, numbers


def _item_numbers(lists: Collection[Any]) -> Ragged | None:
    """The same lists as arrays; None where one is no list of whole numbers from 0."""
    if not set(map(type, lists)) <= {list}:
        return None
    flat = list(chain.from_iterable(lists))
    if not set(map(type, flat)) <= {int}:
        return None
    numbers = _whole_numbers(flat)
    return None if len(flat) and numbers.min() < 0 else Ragged.behind(numbers, list(map(len, lists)))


def _whole_numbers(numbers: Sequence[int]) -> np.ndarray:
    """Whole numbers as int64, or as Python's own where one is too large for that."""
    try:
        return np.fromiter(numbers, dtype=np.int64, count=len(numbers))
    except OverflowError:
        return np.array(numbers, dtype=object)


def _wrong_user(path: Path, data: Mapping[str, Any]) -> None:
    """Raises: UserError about the first user with whom something is wrong."""
    for user, items in data.items():
        place = f"user {user[:80]!r}"
        if not user.strip():
            raise problem(path, place, "the user id is empty", "Give the user a name.")
        base.check_text(path, place, user)
        if not isinstance(items, list):
            raise problem(path, place, f"holds {_kind_of(items)}, a list of item numbers is needed",
                          "Write [item, item, ...], oldest first.")
        if not all(type(item) is int and item >= 0 for item in items):
            _wrong_item(path, place, items)


def _wrong_item(path: Path, place: str, items: list[Any]) -> NoReturn:
    position, item = next((p, i) for p, i in enumerate(items, 1) if type(i) is not int or i < 0)
    what = "is negative" if type(item) is int else "is not a whole number"
    raise problem(path, f"{place}, interaction {position}", f"item {_shown(item)} {what}",
                  f"It is a float, {causes.FLOATS}: write whole numbers." if type(item) is float else _NUMBERS)


def _item_number(path: Path, key: str) -> int:
    if not ITEM_NUMBER.fullmatch(key):
        raise problem(path, f"item {key[:80]!r}", "is not an item number", f"{_NUMBERS} Leading zeros are none.")
    return int(key)


def read_index(path: Path, *, codebook_size: int, ragged: bool) -> tuple[np.ndarray, np.ndarray]:
    """(I,) item numbers, ascending, and (I, T) their codes from 0, one a level, -1 behind a shorter ID.

    ragged: IDs may differ in length, but none may be the beginning of another. Raises: UserError naming item and level
    for a code that is malformed, at the wrong level or not within 0..codebook_size - 1, and both items of such a pair.
    """
    data = read_json(path, "item")
    if not data:
        raise problem(path, "", "has no items", "Give every item its codes.")
    codes = codes_of(data.values(), codebook_size)
    if codes is None or not all(map(ITEM_NUMBER.fullmatch, data)):
        for key, value in data.items():  # what is wrong is found, and told, item by item
            _item_number(path, key)
            item_codes(path, f"item {key}", value, codebook_size)
    items = _whole_numbers(list(map(int, data)))
    held = (codes >= 0).sum(axis=1)
    short = np.flatnonzero(held < codes.shape[1])
    if len(short) and not ragged:
        raise problem(path, f"item {items[short[0]]}", f"has {held[short[0]]} codes, others have {codes.shape[1]}",
                      "Give every item a code for each level.")
    check_beginnings(path, items, codes)
    order = np.argsort(items)
    return items[order], codes[order]


def codes_of(rows: Collection[Any], codebook_size: int) -> np.ndarray | None:
    """(I, T) codes of what the items have in the file, -1 behind shorter ones; None where one is not as it should be.

    Each different code is looked at once.
    """
    lengths = np.array([len(row) if type(row) is list else 0 for row in rows])
    if lengths.min() < 1 or lengths.max() > MAX_LEVELS:
        return None
    flat = list(chain.from_iterable(rows))
    if not set(map(type, flat)) <= {int, str}:
        return None
    places = {code: place for place, code in enumerate(dict.fromkeys(flat))}
    found = [_level_and_number(code) for code in places]
    which = np.fromiter(map(places.__getitem__, flat), dtype=np.int64, count=len(flat))
    lists = Ragged.behind(which, lengths)
    at = np.arange(len(flat)) - np.repeat(lists.starts, lengths)
    if not all(0 <= number < codebook_size for _, number in found):
        return None
    levels, numbers = np.array(found)[which].T
    if ((levels >= 0) & (levels != at)).any():
        return None
    codes = np.full((len(rows), lengths.max()), -1)
    codes[lists.rows, at] = numbers
    return codes


def _level_and_number(code: int | str) -> tuple[int, int]:
    """The level that a token names, from 0, and its number; -1 where it names none, or is malformed."""
    if isinstance(code, int):
        return -1, code
    match = _TOKEN.fullmatch(code)
    return (ord(match[1]) - ord("a"), int(match[2])) if match else (-1, -1)


def check_beginnings(path: Path, items: Sequence[Any], codes: np.ndarray) -> None:
    """No codes are the beginning of other ones. codes: (I, T), -1 = none. Raises: UserError naming both items."""
    pair = prefix_pair(codes + 1)
    if pair is not None:
        a, b = (items[row] for row in pair)
        raise problem(path, f"item {a}", f"its codes are the beginning of those of item {b}", PREFIX_REMEDY)


def item_codes(path: Path, place: str, value: Any, codebook_size: int) -> tuple[int, ...]:
    """The codes of one item, as tokens or whole numbers. Raises: UserError naming the place and the level."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_LEVELS:
        held = f"{len(value)} codes" if isinstance(value, list) else _kind_of(value)
        raise problem(path, place, f"holds {held}, a list of 1 to {MAX_LEVELS} codes is needed",
                      'Write ["<a_1>", "<b_2>"] or [1, 2].')
    return tuple(_code(path, f"{place}, level {level}", code, level, codebook_size)
                 for level, code in enumerate(value, 1))


def _code(path: Path, place: str, code: Any, level: int, codebook_size: int) -> int:
    letter = chr(ord("a") + level - 1)
    number = code
    if isinstance(code, str):
        match = _TOKEN.fullmatch(code)
        if match is None:
            raise problem(path, place, f"code {code[:80]!r} is malformed", f"Write it like <{letter}_12>.")
        if match[1] != letter:
            raise problem(path, place, f"code {code!r} belongs to another level",
                          f"Level {level} is lettered {letter!r}: order the codes by level.")
        number = int(match[2])
    if type(number) is not int:
        raise problem(path, place, f"code {_shown(code)} is neither a token nor a whole number",
                      f'Write "<{letter}_12>" or 12.')
    if not 0 <= number < codebook_size:
        raise problem(path, place, f"code {_shown(code)} is not within 0..{codebook_size - 1}",
                      "Correct the code, or the setting codebook_size where the dataset has one.")
    return number


def read_texts(path: Path, fields: Sequence[str] = ()) -> dict[int, str]:
    """Item number -> text, one named field a line in the order of `fields`.

    Without `fields`: the title, then all further fields that hold text, in the order of the file.
    Raises: UserError naming the item and what is wrong with its text.
    """
    texts = {}
    for key, value in read_json(path, "item").items():
        item = _item_number(path, key)
        texts[item] = base.check_text(path, f"item {key}", item_text(path, f"item {key}", value, fields))
    return texts


def item_text(path: Path, place: str, value: Any, fields: Sequence[str] = ()) -> str:
    """The text of one item, as in `read_texts`. Raises: UserError naming the place."""
    if isinstance(value, str) and not fields:
        return base.join_fields([value])
    if not isinstance(value, dict):
        raise problem(path, place, f"holds {_kind_of(value)}, not an item's texts",
                      'Write {"title": "..."}' + ("." if fields else ' or a string.'))
    if isinstance(value, _Repeated):
        raise problem(path, f"{place}, field {value.key!r}", "is there twice in the file", "Keep one of the two.")
    texts = {name: _field_text(text) for name, text in value.items()}
    if not fields:
        names = sorted(texts, key=lambda name: name != "title")
        return base.join_fields([texts[name] for name in names if texts[name] is not None])
    for name in fields:
        if texts.get(name) is None:
            raise unknown("text field", name, [n for n in texts if texts[n] is not None], f"{path}, {place}")
    return base.join_fields([texts[name] for name in fields])


def _field_text(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return value if isinstance(value, str) else None


@no_collection()
def read_folder(name: str, inter: Path, index: Path | None, item: Path | None, *, codebook_size: int = 256,
                ragged: bool = False, text_fields: Sequence[str] = (), allow_missing_text: bool = False,
                source: str = "") -> Interactions:
    """Interactions from one set of files; the index and item files may be None.

    Raises: UserError for anything wrong in a file, or between two of them.
    """
    users, sequences = read_interactions(inter)
    seen = base.distinct(sequences.values)
    numbers, codes = read_index(index, codebook_size=codebook_size, ragged=ragged) if index else (seen, None)
    catalogue = numbers.tolist()
    if codes is not None:
        base.check_covered(index, seen.tolist(), set(catalogue), f"semantic ID, but occurs in {inter.name}",
                           "Add it to the index.")
        if len(codes) > len(seen):
            held = set(seen.tolist())
            extra = next(i for i in catalogue if i not in held)
            base.note(index, f"{len(codes) - len(seen)} items never occur in {inter.name} (first: item {extra})",
                      "They stay in the catalogue and can be recommended: remove them from the index where that is "
                      "not meant.")
        _note_vocabulary(index, codes)
    texts = read_texts(item, text_fields) if item else None
    if texts is not None and not allow_missing_text:
        base.check_covered(item, catalogue, texts, "text",
                           "Add it, or set allow_missing_text=true where the dataset has that setting.")
    item_texts = None if texts is None else tuple(texts.get(i, "") for i in catalogue)
    if item_texts is not None:
        base.note_empty_texts(item, catalogue, item_texts)
    places = Ragged.behind(base.places(sequences.flat, numbers), sequences.lengths)
    return Interactions(name, tuple(users), tuple(map(str, catalogue)), places, item_texts, codes, source)


def _note_vocabulary(path: Path, codes: np.ndarray) -> None:
    """Tell that a vocabulary, which holds at each level all codes up to the largest, is almost empty."""
    size = int((codes.max(axis=0) + 1).sum())
    used = sum(np.count_nonzero(np.bincount(level[level >= 0])) for level in codes.T)
    if size > max(MANY_CODES, SPARSE * used):
        base.note(path, f"codes go up to {codes.max():,}, which makes a vocabulary of {size:,} tokens, and {used:,} of "
                  f"them occur in {len(codes):,} items",
                  "Networks hold and train a vector for each: number the codes of every level from 0 without gaps "
                  "where that is not meant.")


@dataclass(frozen=True)
class ApaoDataset(Dataset):
    """A dataset of APAO (arXiv 2603.02730) with its own semantic IDs: 4 levels of RQ-K-means, 256 codes each."""

    index: str = setting("rq-kmeans", "which index file: X.index.<this>.json")

    default_tokenizer: ClassVar[str] = "given"
    folder: ClassVar[str] = ""
    item_file: ClassVar[str] = ""
    text_fields: ClassVar[tuple[str, ...]] = ("title",)

    def _names(self) -> Mapping[str, str]:
        names = {"inter": f"{self.folder}.inter.json", "index": f"{self.folder}.index.{self.index}.json"}
        return names | ({"item": self.item_file} if self.item_file else {})

    def location(self, data_dir: Path | None) -> str:
        """The dataset's folder below the data folder."""
        return f"{data_dir if data_dir else 'DATA_DIR'}/apao/{self.folder}"

    def missing_files(self, data_dir: Path | None) -> list[str]:
        """Interactions and index are needed, texts are not."""
        names = [f"apao/{self.folder}/{self._names()[kind]}" for kind in ("inter", "index")]
        return [f"{n}.gz" for n in names if data_dir is None or base.find_file(data_dir, n) is None]

    def load(self, data_dir: Path | None) -> Interactions:
        """Read the files below the data folder. Raises: UserError naming a missing or wrong file."""
        found = self._found(data_dir)
        return read_folder(self.name, found["inter"], found["index"], found.get("item"), text_fields=self.text_fields,
                           allow_missing_text=True, source=f"github.com/yuyq18/APAO, data/{self.folder}")

    def files(self, data_dir: Path | None) -> list[Path]:
        """Interactions, index and, where they are there, texts. Raises: UserError as `load` for a missing file."""
        return [path for path in self._found(data_dir).values() if path]

    def _found(self, data_dir: Path | None) -> dict[str, Path | None]:
        folder = base.data_folder(self.name, data_dir, f"apao/{self.folder}")
        found = {kind: base.find_file(folder, name) for kind, name in self._names().items()}
        for kind in ("inter", "index"):
            if found[kind] is None:
                raise problem(folder / f"{self._names()[kind]}.gz", "",
                              f"is missing (or without .gz); {self.name} needs it",
                              "Point --data-dir or GENREC_BENCH_DATA at the folder above apao/, or see `data fetch`.")
        return found
