"""A corpus of bad data files: each is refused with a message that names the file and the place in it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import datasets

INTER = json.dumps({"0": [0, 1, 2, 0], "1": [2, 1, 0]})
INDEX = json.dumps({"0": ["<a_0>", "<b_1>"], "1": ["<a_255>", "<b_0>"], "2": ["<a_0>", "<b_1>"]})
ITEM = json.dumps({str(i): {"title": f"t{i}", "brand": "b", "categories": "c", "description": ""} for i in range(3)})
GENERATIVE = {"Office.inter.json": INTER, "Office.index.rq-kmeans.json": INDEX, "Office.item.json": ITEM}
ATOMIC = {"X.inter": "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\nu\tb\t2\nu\ta\t3\nu\tb\t4\n",
          "X.item": "item_id:token\ttitle:token_seq\na\tA\nb\tB\n"}


def _write(folder: Path, files: Mapping[str, str | bytes | None]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def _message(folder: Path, **fields: object) -> str:
    with pytest.raises(UserError) as caught:
        datasets.build({"name": "folder", "path": str(folder), **fields}).load(None)
    message = str(caught.value)
    assert message.count("\n") == 0 and len(message) < 700
    return message


def _inter(text: str) -> dict[str, str]:
    return {"Office.inter.json": text}


def _index(text: str) -> dict[str, str]:
    return {"Office.index.rq-kmeans.json": text}


def _first_codes(codes: str) -> dict[str, str]:
    return _index(INDEX.replace('["<a_0>", "<b_1>"]', codes, 1))


def _item(text: str) -> dict[str, str]:
    return {"Office.item.json": text}


USERS_TWICE = '{\n"0": [0, 1, 2, 0],\n"1": [2, 1, 0],\n"0": [1, 1, 1]\n}'

# name -> (files that replace good ones, what the message must hold beside the name of the first of them)
BAD_GENERATIVE = {
    "truncated JSON": (_inter('{"0": [0, 1, 2, 0],\n "1": [2, 1'), "line 2, column 12: is not valid JSON (Expecting "
                       "',' delimiter). The file ends too early"),
    "JSON Lines": (_inter('{"0": [0, 1, 2]}\n{"1": [2, 1, 0]}'), "line 2, column 1: is JSON Lines, a value a line."),
    "JSON Lines of interactions": (_inter('{"userId": 5, "asin": "B0"}\n{"userId": 5, "asin": "B1"}'),
                                   "is JSON Lines, a value a line. A table with a line an interaction"),
    "Python's own notation": (_inter("{'0': [0, 1, 2]}"), "double quotes). This is Python's own notation"),
    "not JSON": (_inter("user 1 items 3"), "line 1, column 1"),
    "empty file": (_inter(""), "is empty. Get the file again"),
    "trailing text": (_inter(INTER + "]"), f"column {len(INTER) + 1}"),
    "NaN as an item": (_inter('{"0": [0, NaN, 2]}'), "NaN"),
    "endless nesting": (_inter('{"0": ' + "[" * 200_000), "not valid JSON"),
    "a number too long to read": (_inter('{"0": [' + "1" * 5000 + "]}"), "not valid JSON"),
    "a list at the top": (_inter("[[0, 1, 2]]"), "top level: is a list"),
    "a string at the top": (_inter('"users"'), "top level: is a string"),
    "no users": (_inter("{}"), "no users"),
    "user twice": (_inter(USERS_TWICE), "user '0', line 4: is there twice"),
    "user id empty": (_inter('{"0": [0, 1, 2], "": [2, 1, 0]}'), "user ''"),
    "half a surrogate pair": (_inter('{"\\ud800": [0, 1, 2]}'), "surrogate"),
    "user without items": (_inter('{"0": [0, 1, 2], "1": []}'), "user '1': no interactions"),
    "user with two items": (_inter('{"0": [0, 1, 2], "1": [0, 2]}'), "user '1': 2 interactions, 3 or more"),
    "items of a user no list": (_inter('{"0": {"a": 1}}'), "user '0': holds an object"),
    "items of a user null": (_inter('{"0": null}'), "user '0': holds null"),
    "item a float": (_inter('{"0": [0, 1.0, 2]}'), "interaction 2: item 1.0 is not a whole number. It is a float"),
    "item a string": (_inter('{"0": [0, 1, "2"]}'), "interaction 3: item \"2\" is not a whole number. Items are"),
    "item true": (_inter('{"0": [true, 1, 2]}'), "user '0', interaction 1: item true"),
    "item nested": (_inter('{"0": [0, [1], 2]}'), "user '0', interaction 2: item a list"),
    "item negative": (_inter('{"0": [0, 1, 2, -5]}'), "user '0', interaction 4: item -5 is negative"),
    "not UTF-8": ({"Office.inter.json": b'{\n"caf\xe9": [0, 1, 2]}'}, "line 2: byte 6 is not UTF-8"),
    "index without an item": (_index('{"0": [0, 1], "1": [0, 2]}'), "item 2: has no semantic ID"),
    "index empty": (_index("{}"), "no items"),
    "item twice in the index": (_index('{"0": [0, 1], "1": [0, 2],\n "0": [1, 1], "2": [1, 2]}'), "item '0', line 2"),
    "index key no number": (_index('{"zero": [0, 1]}'), "item 'zero': is not an item number"),
    "index key with leading zero": (_index('{"0": [1], "01": [1], "2": [1]}'), "item '01'"),
    "index key very long": (_index('{"' + "1" * 5000 + '": [1]}'), "is not an item number"),
    "no codes": (_first_codes("[]"), "item 0: holds 0 codes"),
    "codes a string": (_first_codes('"<a_0><b_1>"'), "item 0: holds a string"),
    "code malformed": (_first_codes('["<a_0>", "<b1>"]'), "item 0, level 2: code '<b1>'"),
    "code with leading zero": (_first_codes('["<a_00>", "<b_1>"]'), "item 0, level 1: code '<a_00>'"),
    "code with a sign": (_first_codes('["<a_0>", "<b_-1>"]'), "item 0, level 2: code '<b_-1>'"),
    "levels in wrong order": (_first_codes('["<b_1>", "<a_0>"]'), "item 0, level 1: code '<b_1>' belongs to another"),
    "integer code negative": (_first_codes("[0, -1]"), "item 0, level 2: code -1 is not within"),
    "code a float": (_first_codes("[0, 1.0]"), "item 0, level 2: code 1.0"),
    "code true": (_first_codes("[0, true]"), "item 0, level 2: code true"),
    "code nested": (_first_codes("[0, [1]]"), "item 0, level 2: code a list"),
    "code beyond the bound": (_first_codes('["<a_0>", "<b_65536>"]'), "0..65535"),
    "too many levels": (_first_codes(json.dumps([0] * 27)), "item 0: holds 27 codes"),
    "code of one that goes on in another": (_index('{"0": [0, 1, 2], "1": [1], "2": [0, 1]}'),
                                            "item 2: its codes are the beginning of those of item 0. Give the items"),
    "text for an item missing": (_item('{"0": "a", "2": "c"}'), "item 1: has no text"),
    "text a number": (_item('{"0": 5}'), "item 0: holds a number"),
    "field twice": (_item('{"0": {"title": "a", "title": "b"}}'), "item 0, field 'title': is there twice"),
    "text key no number": (_item('{"B00X": "a"}'), "item 'B00X'"),
    "text half a surrogate pair": (_item('{"0": "\\udc00"}'), "item 0: the text holds half"),
}


@pytest.mark.parametrize("case", BAD_GENERATIVE)
def test_bad_generative_file(case: str, tmp_path: Path):
    files, place = BAD_GENERATIVE[case]
    folder = _write(tmp_path / "mine", {**GENERATIVE, **files})
    message = _message(folder)
    assert str(folder / next(iter(files))) in message and place in message


BAD_ATOMIC = {
    "empty file": ("X.inter", "", "line 1"),
    "header without types": ("X.inter", "user_id\titem_id\ttimestamp\nu\ta\t1\n", "line 1: 'user_id'"),
    "unknown type": ("X.inter", ATOMIC["X.inter"].replace(":float", ":double"), "line 1: 'timestamp:double'"),
    "no time": ("X.inter", "user_id:token\titem_id:token\nu\ta\n", "line 1: the header has no column timestamp"),
    "column named otherwise": ("X.inter", ATOMIC["X.inter"].replace("item_id", "itemno"), "Rename 'itemno' to item_id"),
    "product_id": ("X.inter", ATOMIC["X.inter"].replace("item_id", "product_id"), "Rename 'product_id' to item_id."),
    "columns of another data set": ("X.inter", "business_id:token\tcustomer_id:token\tdate:float\nu\ta\t1\n",
                                    "Rename 'customer_id' to user_id, 'business_id' to item_id, 'date' to timestamp."),
    "separated by commas": ("X.inter", ATOMIC["X.inter"].replace("\t", ","), "line 1: columns are separated by ','"),
    "wrong type": ("X.inter", ATOMIC["X.inter"].replace("item_id:token", "item_id:token_seq"), "line 1: column item"),
    "column twice": ("X.inter", "user_id:token\tuser_id:token\nu\tu\n", "line 1: column 'user_id' is there twice"),
    "column missing in a line": ("X.inter", ATOMIC["X.inter"].replace("u\tb\t2", "u\tb"), "line 3: has 2 columns"),
    "column too many in a line": ("X.inter", ATOMIC["X.inter"] + "u\ta\t5\t6\n", "line 6: has 4 columns"),
    "empty line": ("X.inter", ATOMIC["X.inter"].replace("u\tb\t2", ""), "line 3: has 1 columns"),
    "user empty": ("X.inter", ATOMIC["X.inter"].replace("u\tb\t2", "\tb\t2"), "line 3: user_id is empty"),
    "item empty": ("X.inter", ATOMIC["X.inter"].replace("u\tb\t2", "u\t\t2"), "line 3: item_id is empty"),
    "time no number": ("X.inter", ATOMIC["X.inter"].replace("\t3\n", "\tnoon\n"), "line 4: timestamp 'noon'"),
    "time NaN": ("X.inter", ATOMIC["X.inter"].replace("\t3\n", "\tnan\n"), "line 4: timestamp 'nan'"),
    "time infinite": ("X.inter", ATOMIC["X.inter"].replace("\t3\n", "\t1e999\n"), "line 4: timestamp '1e999'"),
    "time beyond doubles": ("X.inter", ATOMIC["X.inter"].replace("\t3\n", f"\t{10**400}\n"), "line 4: timestamp '1000"),
    "time empty": ("X.inter", ATOMIC["X.inter"].replace("\t3\n", "\t\n"), "line 4: timestamp ''"),
    "user with one item": ("X.inter", ATOMIC["X.inter"] + "v\ta\t5\n", "user 'v': 1 interactions"),
    "header only": ("X.inter", "user_id:token\titem_id:token\ttimestamp:float\n", "no users"),
    "item twice": ("X.item", ATOMIC["X.item"] + "a\tC\n", "line 4, item 'a': is there twice"),
    "item without text": ("X.item", "item_id:token\ttitle:token_seq\na\tA\n", "item b: has no line"),
    "not UTF-8": ("X.item", b"item_id:token\ttitle:token_seq\na\tA\nb\t\xff\n", "line 3: byte"),
}


@pytest.mark.parametrize("case", BAD_ATOMIC)
def test_bad_atomic_file(case: str, tmp_path: Path):
    name, content, place = BAD_ATOMIC[case]
    folder = _write(tmp_path / "mine", {**ATOMIC, name: content})
    message = _message(folder)
    assert str(folder / name) in message and place in message


BAD_APAO = {
    "code 256": (_first_codes('["<a_0>", "<b_256>"]'), "item 0, level 2: code \"<b_256>\" is not within 0..255"),
    "ragged": (_first_codes('["<a_0>"]'), "item 0: has 1 codes, others have 2"),
    "semantic ID missing": (_index('{"0": [0, 1], "1": [0, 2]}'), "item 2: has no semantic ID"),
    "user twice": (_inter(USERS_TWICE), "user '0', line 4"),
    "field missing": (_item('{"0": {"titel": "x"}}'), "item 0"),
    "interactions missing": ({"Office.inter.json": None}, "is missing"),
    "index missing": ({"Office.index.rq-kmeans.json": None}, "is missing"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("case", BAD_APAO)
def test_bad_apao_file(case: str, packed: bool, tmp_path: Path):
    files, place = BAD_APAO[case]
    content = {k: v for k, v in {**GENERATIVE, **files}.items() if v is not None}
    if packed:
        content = {f"{k}.gz": gzip.compress(v.encode()) for k, v in content.items()}
    folder = _write(tmp_path / "apao" / "Office", content)
    with pytest.raises(UserError) as caught:
        datasets.build({"name": "apao_office"}).load(tmp_path)
    assert str(folder / next(iter(files))) in str(caught.value) and place in str(caught.value)


def test_the_good_files_are_good(tmp_path: Path):
    folder = _write(tmp_path / "apao" / "Office", GENERATIVE)
    assert datasets.build({"name": "apao_office"}).load(tmp_path).num_items == 3
    assert datasets.build({"name": "folder", "path": str(folder)}).load(None).num_users == 2
    assert datasets.build({"name": "folder", "path": str(_write(tmp_path / "b", ATOMIC))}).load(None).num_items == 2


PACKED = gzip.compress(INTER.encode(), mtime=0)
BAD_GZIP = {
    "truncated": PACKED[:-12],
    "without its checksum": PACKED[:-8],
    "one bit wrong": PACKED[:-5] + bytes([PACKED[-5] ^ 1]) + PACKED[-4:],
    "not gzip": INTER.encode(),
    "text after the end": PACKED + b"more",
}


@pytest.mark.parametrize("case", BAD_GZIP)
def test_damaged_gzip(case: str, tmp_path: Path):
    folder = _write(tmp_path / "mine", {"Office.inter.json.gz": BAD_GZIP[case]})
    message = _message(folder)
    assert str(folder / "Office.inter.json.gz") in message and "whole gzip file" in message


BAD_FOLDER = {
    "nothing in it": ({}, "holds no interactions"),
    "only other files": ({"notes.txt": "x"}, "notes.txt"),
    "two datasets": ({"A.inter.json": INTER, "B.inter.json": INTER}, "A.inter.json, B.inter.json"),
    "two formats": ({**ATOMIC, **GENERATIVE}, "Office.inter.json, X.inter"),
    "several indices": ({**GENERATIVE, "Office.index.letter.json": INDEX}, "letter, rq-kmeans"),
    "split by RecBole": ({f"X.{part}.inter": "" for part in ("train", "valid", "test")},
                         "is split already, which is not read yet: X.test.inter, X.train.inter, X.valid.inter. Put all "
                         "interactions into one file X.inter"),
    "split and whole": ({f"X{part}.inter": "" for part in ("", ".train", ".test")}, "X.test.inter, X.train.inter"),
    "split into other files": ({"train.parquet": "", "test.parquet": ""}, "test.parquet, train.parquet. Put all"),
    "packed and plain": ({**GENERATIVE, "Office.inter.json.gz": PACKED}, "Office.inter.json.gz is here as well"),
}


@pytest.mark.parametrize("case", BAD_FOLDER)
def test_bad_folder(case: str, tmp_path: Path):
    files, place = BAD_FOLDER[case]
    message = _message(_write(tmp_path / "mine", files))
    assert str(tmp_path / "mine") in message and place in message


def test_bad_choices(tmp_path: Path):
    folder = _write(tmp_path / "mine", GENERATIVE)
    assert "Did you mean 'rq-kmeans'" in _message(folder, index="rqkmeans")
    assert "Did you mean 'title'" in _message(folder, text_fields=["titel"])
    assert "0..127" in _message(folder, codebook_size=128)
    assert "atomic files have no index" in _message(_write(tmp_path / "b", ATOMIC), index="x")
    assert "no text column 'titel'" in _message(tmp_path / "b", text_fields=["titel"])
    assert "there is no such folder" in _message(tmp_path / "absent")


def test_ml_100k_without_recbole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install recbole"):
        datasets.build({"name": "ml-100k"}).load(None)
