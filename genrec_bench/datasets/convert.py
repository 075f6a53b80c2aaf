"""`data convert`: what people have, written as a folder in the generative format, with what became of every id."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec_bench.contracts import MIN_INTERACTIONS
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import csv_text
from genrec_bench.datasets import base, foreign, generative_format
from genrec_bench.datasets.base import problem
from genrec_bench.datasets.causes import split_already
from genrec_bench.datasets.folder import Folder, can_name_data
from genrec_bench.datasets.foreign import Sequences

_INTER = r"(?:.*\.)?inter\.json|.*\.(?:txt|inter)"
_INDEX = r"(?:.*[._-])?index(?:[._-].*)?\.json"
_TEXTS = r"(?:.*[._-])?(?:item|title)\.json"


@dataclass(frozen=True)
class Converted:
    """What was written, what was read as which format, and what was left out of it.

    empty_texts: items without a text in a file of texts.
    """

    folder: Path
    files: tuple[str, ...]
    sources: tuple[Path, ...]
    format: str
    users: int
    items: int
    interactions: int
    dropped_users: int
    dropped_items: int
    dropped_interactions: int
    empty_texts: int


def convert(source: Path, to: Path, *, format: str | None = None, min_interactions: int | None = None,
            index: Path | None = None, texts: Path | None = None) -> Converted:
    """Write interactions, and codes and texts where there are some, as a new folder that `--datasets` reads.

    source: a file of interactions, or a folder with one and maybe an index and texts. format: one of
    `foreign.FORMATS`; None = by content. min_interactions: users and items with fewer are left out until none is
    left; None = only users that leave-one-out cannot split. index, texts: JSON files by item id.
    Raises: UserError before anything is written.
    """
    name = _check_place(to)
    if min_interactions is not None and min_interactions < MIN_INTERACTIONS:
        raise UserError(f"min_interactions (--min-interactions) is {min_interactions}: leave-one-out needs "
                        f"{MIN_INTERACTIONS}. Give {MIN_INTERACTIONS} or more, or leave it out.")
    inter, index, texts = _find_sources(source, index, texts)
    kind, given = foreign.read_sequences(inter, format)
    size = Folder.codebook_size
    codes = foreign.codes_of_ids(inter, given, size) if index is None else foreign.read_index(index, size)
    kept = _frequent(given, min_interactions)
    if not kept:
        raise problem(inter, "", f"no user has {min_interactions or MIN_INTERACTIONS} interactions or more that stay",
                      "Give a smaller --min-interactions, or other data.")
    seen = {item for items in kept.values() for item in items}
    if index is not None:
        base.check_covered(index, base.ordered_ids(seen), codes, f"semantic ID, but occurs in {inter.name}",
                           "Add it to the index.")
    catalogue = base.ordered_ids(codes if index is not None and min_interactions is None else seen)
    numbers = _numbers(catalogue)
    written = {"inter": {user: [numbers[i] for i in kept[user]] for user in base.ordered_ids(kept)}}
    if codes is not None:
        written["index"] = {str(numbers[i]): _as_tokens(codes[i]) for i in catalogue}
    empty = 0
    if texts is not None:
        held, empty = _read_texts(texts, catalogue)
        written["item"] = {str(numbers[i]): held[i] for i in catalogue}
    ids = csv_text(("kind", "given", "written"), [*(("user", user, user) for user in written["inter"]),
                                                  *(("item", i, numbers[i]) for i in catalogue)])
    contents = {f"{name}.{part}.json": _json_lines(data) for part, data in written.items()} | {f"{name}.ids.csv": ids}
    _write_folder(to, contents)
    before, after = _count(given), _count(kept)
    all_items = {i for items in given.values() for i in items} | (codes or {}).keys()
    return Converted(to, tuple(contents), tuple(path for path in (inter, index, texts) if path is not None), kind,
                     len(kept), len(catalogue), after, len(given) - len(kept), len(all_items) - len(catalogue),
                     before - after, empty)


def _check_place(to: Path) -> str:
    """The name of the new folder. Raises: UserError where it cannot be made or cannot name data."""
    place = to.expanduser().resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        held = "is a folder that is not empty" if place.is_dir() else "is a file"
        raise UserError(f"{to}: {held}. Name a new folder: nothing is replaced.")
    if place == Path.cwd():
        raise UserError(f"{to}: is the folder you are in, which cannot be put in place as a whole. Name another.")
    if not place.parent.is_dir():
        raise UserError(f"cannot write {to}: {place.parent} is not a folder. Make it first.")
    if not can_name_data(place.name):
        raise UserError(f"{to}: {place.name!r} cannot name data. Give a name without separators that does not begin "
                        "with a dot, and that no folder of records has, such as my_data.")
    return place.name


def _find_sources(source: Path, index: Path | None, texts: Path | None) -> tuple[Path, Path | None, Path | None]:
    """The files of interactions, codes and texts. Raises: UserError for none or several."""
    if not source.is_dir():
        return source, index, texts
    if parts := split_already(p.name for p in source.iterdir() if p.is_file()):
        raise problem(source, "", *parts)
    inter = _only(source, "interactions", _INTER, "Give the file itself instead of its folder, with --index and "
                  "--texts where there are such files.")
    if inter is None:
        raise problem(source, "", "holds no interactions by the names X.inter.json and X.txt (.gz)",
                      "Give the file itself, with --index and --texts where there are such files.")
    return (inter, index or _only(source, "codes", _INDEX, "Choose one with --index FILE."),
            texts or _only(source, "texts", _TEXTS, "Choose one with --texts FILE."))


def _only(folder: Path, what: str, pattern: str, remedy: str) -> Path | None:
    found = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")
                   and re.fullmatch(rf"(?:{pattern})(?:\.gz)?", p.name))
    if len(found) > 1:
        raise problem(folder, "", f"holds several files of {what}: {', '.join(p.name for p in found)}", remedy)
    return found[0] if found else None


def _frequent(sequences: Sequences, low: int | None) -> Sequences:
    """Without users below `low` interactions and then items below it, over and over; None: only users too short."""
    if low is None:
        return {user: items for user, items in sequences.items() if len(items) >= MIN_INTERACTIONS}
    while True:
        kept = {user: items for user, items in sequences.items() if len(items) >= low}
        counts = Counter(item for items in kept.values() for item in items)
        kept = {user: [item for item in items if counts[item] >= low] for user, items in kept.items()}
        if len(kept) == len(sequences) and _count(kept) == _count(sequences):
            return kept
        sequences = kept


def _count(sequences: Sequences) -> int:
    return sum(map(len, sequences.values()))


def _numbers(catalogue: Sequence[str]) -> dict[str, int]:
    """Item id -> item number: the same where all ids are such numbers, else counted from 0 in the order of ids."""
    if all(map(generative_format.ITEM_NUMBER.fullmatch, catalogue)):
        return {item: int(item) for item in catalogue}
    return {item: number for number, item in enumerate(catalogue)}


def _as_tokens(codes: Sequence[int]) -> list[str]:
    return [f"<{chr(ord('a') + level)}_{code}>" for level, code in enumerate(codes)]


def _read_texts(path: Path, catalogue: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The texts of the items as they are given, empty where there is none; how many are empty."""
    given = generative_format.read_json(path, "item")
    texts = {item: given.get(item, {"title": ""}) for item in catalogue}
    empty = 0
    for item, value in texts.items():
        place = f"item {item[:80]!r}"
        empty += not generative_format.item_text(path, place, value).strip()
        base.check_text(path, place, json.dumps(value, ensure_ascii=False))
    return texts, empty


def _json_lines(data: Mapping[str, Any]) -> str:
    """A JSON object with a key a line."""
    rows = (f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
            for key, value in data.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"


def _write_folder(to: Path, contents: Mapping[str, str]) -> None:
    """All files or none: they are written beside the place and the folder is renamed."""
    place = to.expanduser().resolve()
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        for name, text in contents.items():
            (temporary / name).write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
