"""Readers of what `data convert` takes: texts with a line a user or an interaction, and JSON with ids of any kind.

Each gives user id -> item ids, oldest first, as the file has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from genrec_bench.core.errors import unknown
from genrec_bench.datasets import base, generative_format
from genrec_bench.datasets.base import problem
from genrec_bench.datasets.causes import AS_TABLE, is_called

Sequences = dict[str, list[str]]
FORMATS = ("lines", "pairs", "json")  # `user item item ...`, `user item`, {"user": ["item", ...]}

_BLANKS = re.compile(r"[ \t]+")
_ATOMIC = re.compile(r"\w+:(token|float)(_seq)?")
_MARK = re.compile(r"<\|[A-Za-z_]+\|>")  # such as <|sid_begin|>
_TOKEN = re.compile(r"<[^<>]+>")
_LONG_TOKEN = re.compile(r"<(?:[A-Za-z0-9]+_)+([a-z]_[0-9]+)>")  # <s_a_12> is <a_12>
_CODES = re.compile(rf"(?:{_MARK.pattern})?(?:<(?:[A-Za-z0-9]+_)*[a-z]_[0-9]+>)+(?:{_MARK.pattern})?")


def read_sequences(path: Path, kind: str | None) -> tuple[str, Sequences]:
    """The kind of a file, by its content where none is named, and its users' items.

    Raises: UserError naming file, place and remedy, also for what needs no conversion.
    """
    if kind is not None and kind not in FORMATS:
        raise unknown("format", kind, FORMATS, "--format")
    text = base.read_text(path)
    if not text.strip():
        raise problem(path, "", "is empty", "Get the file again.")
    if kind == "json" or (kind is None and text.lstrip()[0] in "{["):
        return "json", _read_json(path, text)
    if kind and _is_json(text):
        raise problem(path, "", f"is JSON and not of the format {kind}", "Leave --format out, or give json.")
    lines = [(number, _BLANKS.split(line.strip(" \t\r")))
             for number, line in enumerate(text.split("\n"), 1) if line.strip(" \t\r")]
    _refuse_tables(path, lines)
    users = {words[0] for _, words in lines}
    are_pairs = len(users) < len(lines) and all(len(words) == 2 for _, words in lines)
    kind = kind or ("pairs" if are_pairs else "lines")
    return kind, _read_pairs(path, lines) if kind == "pairs" else _read_lines(path, lines)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_tables(path: Path, lines: list[tuple[int, list[str]]]) -> None:
    """Raises: UserError for an atomic file, which is read as it is, and for other tables."""
    number, words = lines[0]
    if sum(bool(_ATOMIC.fullmatch(word)) for word in words) > 1:
        raise problem(path, f"line {number}", "is the header of an atomic file, which is read as it is",
                      "Put it into a folder as X.inter and give --datasets FOLDER.")
    cells = [cell for word in words for cell in re.split("[,;]", word)]
    header = all(any(is_called(cell, name) for cell in cells) for name in ("user_id", "item_id"))
    if header or (len(words) == 1 and len(cells) > 1):
        raise problem(path, f"line {number}", "looks like a table",
                      f"{AS_TABLE}. Without times, leave `user item` on every line and no header.")


def _read_lines(path: Path, lines: list[tuple[int, list[str]]]) -> Sequences:
    sequences: Sequences = {}
    first: dict[str, int] = {}
    for number, (user, *items) in lines:
        if not items:
            raise problem(path, f"line {number}", "holds one word", "Write a user and its items, separated by blanks.")
        if user in sequences:
            raise problem(path, f"line {number}", f"user {user[:80]!r} has line {first[user]} already",
                          f"Give every user one line that begins with its id. {AS_TABLE}.")
        sequences[user], first[user] = items, number
    return sequences


def _read_pairs(path: Path, lines: list[tuple[int, list[str]]]) -> Sequences:
    sequences: Sequences = {}
    for number, words in lines:
        if len(words) != 2:
            raise problem(path, f"line {number}", f"holds {len(words)} words", "Write `user item`, oldest first.")
        sequences.setdefault(words[0], []).append(words[1])
    return sequences


def _read_json(path: Path, text: str) -> Sequences:
    sequences: Sequences = {}
    for user, items in generative_format.parse_json(path, text, "user").items():
        place = f"user {user[:80]!r}"
        check_id(path, place, user)
        if not isinstance(items, list):
            raise problem(path, place, "holds no list of items", 'Write ["item", "item", ...], oldest first.')
        sequences[user] = [check_id(path, f"{place}, interaction {n}", item) for n, item in enumerate(items, 1)]
    return sequences


def check_id(path: Path, place: str, value: Any) -> str:
    """An id as text: 5 and "5" are the same. Raises: UserError for what is neither text nor a whole number."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        held = "is empty" if isinstance(value, str) else "is neither text nor a whole number"
        raise problem(path, place, f"the id {held}", "Write ids as texts or whole numbers.")
    return base.check_text(path, place, value)


def read_index(path: Path, codebook_size: int) -> dict[str, tuple[int, ...]]:
    """Item id -> codes from 0, one a level. Raises: UserError naming item and level."""
    values = generative_format.read_json(path, "item")
    return _checked(path, {check_id(path, f"item {item[:80]!r}", item): value for item, value in values.items()},
                    codebook_size)


def codes_of_ids(path: Path, sequences: Sequences, codebook_size: int) -> dict[str, tuple[int, ...]] | None:
    """Item id -> the codes that it is written as, or None where ids are no codes. Raises: UserError where some are."""
    items = list(dict.fromkeys(item for items in sequences.values() for item in items))
    other = [item for item in items if not _CODES.fullmatch(item)]
    if len(other) == len(items):
        return None
    if other:
        raise problem(path, f"item {other[0][:80]!r}",
                      f"is not written as codes, as {len(items) - len(other)} other items are",
                      "Write all items as codes or none.")
    return _checked(path, {item: item for item in items}, codebook_size)


def _checked(path: Path, values: Mapping[str, Any], codebook_size: int) -> dict[str, tuple[int, ...]]:
    if not values:
        raise problem(path, "", "has no items", "Give every item its codes.")
    index = {item: generative_format.item_codes(path, f"item {item[:80]!r}", _tokens(path, item, value), codebook_size)
             for item, value in values.items()}
    codes = generative_format.codes_of(list(map(list, index.values())), codebook_size)
    generative_format.check_beginnings(path, list(index), codes)
    return index


def _tokens(path: Path, item: str, value: Any) -> Any:
    """Codes as our own format has them, `["<a_1>", "<b_7>"]`; what are no codes comes back as it is."""
    if isinstance(value, str):
        if not _TOKEN.search(value) or _TOKEN.sub("", value).strip():
            _no_codes(path, item, value)
        value = _TOKEN.findall(value)
    if not isinstance(value, list):
        return value
    plain = [token for token in value if not (isinstance(token, str) and _MARK.fullmatch(token))]
    return [_LONG_TOKEN.sub(r"<\1>", token) if isinstance(token, str) else token for token in plain]


def _no_codes(path: Path, item: str, value: str) -> NoReturn:
    raise problem(path, f"item {item[:80]!r}", f"{value[:80]!r} is no row of codes",
                  'Write "<s_a_1><s_b_7>", ["<a_1>", "<b_7>"] or [1, 7].')
