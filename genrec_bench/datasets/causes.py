"""What is behind ids, headers and files that are not as they should be.

Every reader of what users bring asks here, so that a message names the cause and its remedy and not the symptom alone.
Causes are looked for in the order of how often they happen; a guess by likeness comes last.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from genrec_bench.core.errors import nearest

FLOATS = "as pandas writes a column that has gaps"
AS_TABLE = ("A table with a line an interaction is read as it is once it is an atomic file: name it X.inter, with the "
            "header user_id:token, item_id:token, timestamp:float, separated by tabs")
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)?|-?[0-9]+[eE][+-]?[0-9]+")


# Ids

@dataclass(frozen=True)
class Form:
    """A way in which two spellings of one id differ.

    trace: a pattern that at least one of two such ids holds, where a null character is before each id; plain: the id
    without it; differ: its name; remedy: a sentence; shown: how an id is written so that it is seen.
    """

    trace: str
    plain: Callable[[str], str]
    differ: str
    remedy: str
    shown: Callable[[str], str] = repr


FORMS = (
    Form(r"\.0", lambda name: re.sub(r"^(-?[0-9]+)\.0+$", r"\1", name), "a '.0' at the end",
         f"The ids look like floats, {FLOATS}: write them as text or as Int64."),
    Form(r"\s", lambda name: "".join(name.split()), "blanks", "Blanks are part of an id."),
    Form(r"\x000\d", lambda name: name.lstrip("0") if name.isdecimal() else name, "leading zeros",
         "Zeros are part of an id, and are lost where ids are read as numbers: read them as text (pandas: dtype=str)."),
    Form(r"[^\x00-\x7f]", lambda name: unicodedata.normalize("NFC", name), "their Unicode form (NFC, NFD)",
         "The two look alike in other code points: write ids in one Unicode form, as unicodedata.normalize does.",
         ascii),
)


def id_hint(wrong: str, known: Iterable[str]) -> str:
    """Which known id an unknown one means, and how it came to be another: a sentence or two, or "" where none is near.
    """
    known = list(known)
    for form in FORMS:
        plain = form.plain(wrong)
        match = next((name for name in known if form.plain(name) == plain), None)
        if match is not None:
            return f" Did you mean {form.shown(match)}? {form.remedy}"
    if _FLOAT.fullmatch(wrong) and not any(map(_FLOAT.fullmatch, known)):
        return f" It looks like a float, {FLOATS}: write ids as text or as Int64, which keeps all of their digits."
    match = nearest(wrong, known)
    return f" Did you mean {match!r}?" if match else ""


def alike(ids: Sequence[str]) -> list[tuple[Form, list[tuple[str, str]]]]:
    """The forms in which ids differ from one another, with all pairs of such ids, each with the first of its kind."""
    found, joined = [], "".join(f"\0{name}" for name in ids)
    for form in FORMS:
        if not re.search(form.trace, joined):
            continue
        first: dict[str, str] = {}
        pairs = [(first.setdefault(form.plain(name), name), name) for name in ids]
        found.append((form, [(one, other) for one, other in pairs if one != other]))
    return [(form, pairs) for form, pairs in found if pairs]


# Headers

USUAL: Mapping[str, frozenset[str]] = {name: frozenset(words.split()) for name, words in {
    "user_id": "user uid customer reviewer member visitor account client person author buyer player session viewer "
               "listener reader",
    "item_id": "item iid product business article movie book song track artist video game asin parentasin sku isbn poi "
               "venue place location gmap recipe news post offer listing hotel restaurant app course paper document",
    "timestamp": "time date datetime ts unixtime unixreviewtime reviewtime eventtime createdat",
    "score": "prediction predicted pred logit prob probability relevance similarity rating confidence"}.items()}


def is_called(column: str, name: str) -> bool:
    """Whether a column has a usual name of a wanted one: `productId` for `item_id`."""
    folded = re.sub(r"[^a-z0-9]", "", column.lower())
    return not USUAL.get(name, frozenset()).isdisjoint((folded, folded.removesuffix("id")))


def renames(header: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """The column of a header that is meant by each wanted one it lacks: one of a usual name, else one of a like name.

    What is wanted itself is never to be renamed.
    """
    free, found = [name for name in header if name not in wanted], {}
    for match in (lambda name: next((column for column in free if is_called(column, name)), None),
                  lambda name: nearest(name, free)):
        for name in wanted:
            if name not in header and name not in found and (column := match(name)) is not None:
                found[name] = column
                free.remove(column)
    return found


def rename_hint(header: Sequence[str], wanted: Sequence[str]) -> str:
    """" Rename 'product_id' to item_id.", or "" where no column is meant by what is lacking."""
    told = [f"{column!r} to {name}" for name, column in renames(header, wanted).items()]
    return f" Rename {', '.join(told)}." if told else ""


def header_problem(header: Sequence[str], wanted: Sequence[str]) -> str:
    """What is wrong with a header that has to hold the wanted columns, in any order, and no other: a few sentences."""
    cells, lacking = ",".join(header), [name for name in wanted if name not in header]
    others = [name for name in header if name not in wanted]
    mark = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if re.fullmatch(r"sep=.?,?", cells):
        return f"{cells[:5]!r} is for Excel alone. Delete this line."
    if mark:
        return (f"columns are separated by {mark!r} and not by commas. Save the file with commas, in pandas "
                f"read_csv(file, sep={mark!r}, dtype=str).to_csv(file, index=False).")
    if len(lacking) == len(wanted) and any(re.fullmatch(r"-?[0-9.]+([eE][+-]?[0-9]+)?", name) for name in header):
        return f"{cells[:80]!r} is no header but the first row. Write the header above it."
    if "" in others or any(name.startswith("Unnamed: ") for name in others):
        return "the first column has no name: it is the index of pandas. Leave it out with to_csv(file, index=False)."
    if others:
        told = ", ".join(repr(name[:80]) for name in others)
        hint = rename_hint(header, wanted) or (" Leave it out." if not lacking else "")
        return f"unknown column{'s' * (len(others) > 1)} {told}.{hint}"
    return f"no column {lacking[0]!r}." if lacking else "a column appears twice."


# Files

_PART = re.compile(r"(?:(?P<data>.+)[._-])?(?:train|valid|validation|val|dev|test)\.(?P<kind>.+?)(?:\.gz)?")


def split_already(names: Iterable[str]) -> tuple[str, str] | None:
    """What is wrong with a folder whose files are parts of data, such as RecBole's benchmark files, and the remedy.

    None where fewer than two files are parts of one data set.
    """
    parts: dict[tuple[str | None, str], list[str]] = {}
    for match in filter(None, map(_PART.fullmatch, sorted(names))):
        parts.setdefault((match["data"], match["kind"]), []).append(match[0])
    (data, kind), found = max(parts.items(), key=lambda part: len(part[1]), default=((None, ""), []))
    if len(found) < 2:
        return None
    whole = f"{data or 'X'}.{kind if kind.startswith('inter') else 'inter'}"
    return (f"holds what is split already, which is not read yet: {', '.join(found)}",
            f"Put all interactions into one file {whole} and leave the parts out: the split rule parts them, the same "
            "way for every method.")


def json_problem(text: str, error: json.JSONDecodeError, wanted: str) -> tuple[str, str]:
    """What is wrong with a text that is not JSON, and the remedy. wanted: what the whole file has to be."""
    if not text.strip():
        return "is empty", "Get the file again."
    if error.msg == "Extra data" and text[error.pos:].lstrip()[:1] in ("{", "["):
        return "is JSON Lines, a value a line", (f"{AS_TABLE}." if _is_interaction(text[:error.pos]) else
                                                 f"Write the whole file as one object {wanted}.")
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"is not valid JSON ({error.msg})", "The file ends too early, as one that was cut off: get it again."
    if re.match(r"'|True|False|None|nan", text[error.pos:]):
        return f"is not valid JSON ({error.msg})", "This is Python's own notation: write the file with json.dump."
    return f"is not valid JSON ({error.msg})", "Correct this place, or get the file again."


def _is_interaction(text: str) -> bool:
    """Whether a JSON object has a field for a user and one for an item."""
    value = json.loads(text)
    return isinstance(value, dict) and all(any(is_called(key, name) for key in value) for name in ("user_id",
                                                                                                  "item_id"))
