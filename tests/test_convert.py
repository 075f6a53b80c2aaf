"""`data convert`: every format it reads, what it leaves out, what it refuses, and that a folder is whole or absent."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_bench import api
from genrec_bench.cli import main
from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import datasets
from genrec_bench.datasets import convert as engine

Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file, JSON where it is no text."""

    def put(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return put


def load(folder: Path) -> Interactions:
    return datasets.build({"name": "folder", "path": str(folder)}).load(None)


def parts(folder: Path, part: str) -> Any:
    return json.loads((folder / f"{folder.name}.{part}.json").read_text(encoding="utf-8"))


def ids(folder: Path) -> dict[tuple[str, str], str]:
    """(kind, id as given) -> id as written."""
    with open(folder / f"{folder.name}.ids.csv", encoding="utf-8", newline="") as handle:
        return {(row["kind"], row["given"]): row["written"] for row in csv.DictReader(handle)}


def given_sequences(folder: Path) -> dict[str, list[str]]:
    """The sequences of a folder in the ids that were given."""
    data = load(folder)
    back = {(kind, written): given for (kind, given), written in ids(folder).items()}
    return {back["user", user]: [back["item", data.item_ids[i]] for i in items]
            for user, items in zip(data.user_ids, data.sequences, strict=True)}


def same_interactions(a: Interactions, b: Interactions) -> bool:
    return (a.user_ids, a.item_ids) == (b.user_ids, b.item_ids) and all(
        map(np.array_equal, a.sequences, b.sequences))


# Formats

@pytest.mark.parametrize(("kind", "text"), [
    ("lines", "u1 9 30 9\nu2\t30  9 4 \r\n\n"),
    ("pairs", "u1 9\nu2 30\nu1 30\nu2 9\nu1 9\nu2 4\n"),
    ("json", '{"u1": [9, "30", 9], "u2": ["30", "9", 4]}')])
def test_numbers_stay_as_they_are(kind: str, text: str, write: Write, tmp_path: Path) -> None:
    done = api.convert_data(write("data.txt", text), tmp_path / "new")
    assert (done.format, done.users, done.items, done.interactions, done.dropped_users) == (kind, 2, 3, 6, 0)
    assert parts(tmp_path / "new", "inter") == {"u1": [9, 30, 9], "u2": [30, 9, 4]}
    assert sorted(os.listdir(tmp_path / "new")) == ["new.ids.csv", "new.inter.json"]
    again = api.convert_data(tmp_path / "data.txt", tmp_path / "again", format=kind)
    assert again.format == kind and parts(tmp_path / "again", "inter") == parts(tmp_path / "new", "inter")


@pytest.mark.parametrize("text", ["zoë B7 a,1 007\n5 a,1 B7 7\n",
                                  '{"zoë": ["B7", "a,1", "007"], "5": ["a,1", "B7", 7]}'])
def test_ids_of_text_are_numbered_and_mapped(text: str, write: Write, tmp_path: Path) -> None:
    api.convert_data(write("data.txt", text), tmp_path / "new")
    assert parts(tmp_path / "new", "inter") == {"5": [3, 2, 1], "zoë": [2, 3, 0]}
    assert ids(tmp_path / "new") == {("user", "5"): "5", ("user", "zoë"): "zoë", ("item", "007"): "0",
                                     ("item", "7"): "1", ("item", "B7"): "2", ("item", "a,1"): "3"}
    assert given_sequences(tmp_path / "new") == {"zoë": ["B7", "a,1", "007"], "5": ["a,1", "B7", "7"]}


CODES = {"one string": ["<s_a_1><s_b_7><s_c_3>", "<s_a_1><s_b_7><s_c_0>"],
         "marks around": ["<|sid_begin|><s_a_1><s_b_7><s_c_3><|sid_end|>",
                          "<|sid_begin|><s_a_1><s_b_7><s_c_0><|sid_end|>"],
         "one string of short tokens": ["<a_1><b_7><c_3>", "<a_1> <b_7> <c_0>"],
         "lists": [["<s_a_1>", "<s_b_7>", "<s_c_3>"], ["<s_a_1>", "<s_b_7>", "<s_c_0>"]],
         "lists with marks": [["<|sid_begin|>", "<a_1>", "<b_7>", "<c_3>", "<|sid_end|>"], ["<a_1>", "<b_7>", "<c_0>"]],
         "prefix tokens": [["<a_1>", "<b_7>", "<c_3>"], ["<a_1>", "<b_7>", "<c_0>"]],
         "whole numbers": [[1, 7, 3], [1, 7, 0]]}


@pytest.mark.parametrize("codes", CODES.values(), ids=CODES)
def test_codes_beside_interactions(codes: list[Any], write: Write, tmp_path: Path) -> None:
    write("in/My.inter.json", {"u": ["x", "y", "x"]})
    write("in/My.index.rq.json", dict(zip("xy", codes, strict=True)))
    done = api.convert_data(tmp_path / "in", tmp_path / "new")
    assert [path.name for path in done.sources] == ["My.inter.json", "My.index.rq.json"]
    assert parts(tmp_path / "new", "index") == {"0": ["<a_1>", "<b_7>", "<c_3>"], "1": ["<a_1>", "<b_7>", "<c_0>"]}
    assert load(tmp_path / "new").given_codes.tolist() == [[1, 7, 3], [1, 7, 0]]


@pytest.mark.parametrize("name", ["one string", "marks around"])
def test_items_that_are_codes_need_no_index(name: str, write: Write, tmp_path: Path) -> None:
    a, b = CODES[name]
    api.convert_data(write("u.json", {"u": [a, b, a]}), tmp_path / "new")
    assert parts(tmp_path / "new", "inter") == {"u": [1, 0, 1]}
    assert load(tmp_path / "new").given_codes.tolist() == [[1, 7, 0], [1, 7, 3]]


def test_texts_go_along_and_those_that_lack_are_counted(write: Write, tmp_path: Path) -> None:
    texts = write("t.json", {"x": {"title": "Ex", "price": 3}, "y": "Why", "unused": "no"})
    done = api.convert_data(write("d.txt", "u x y z\n"), tmp_path / "new", texts=texts)
    assert done.empty_texts == 1
    assert parts(tmp_path / "new", "item") == {"0": {"title": "Ex", "price": 3}, "1": "Why", "2": {"title": ""}}
    assert load(tmp_path / "new").item_texts == ("Ex", "Why", "")


def test_a_folder_of_ours_comes_back_the_same(toy_folder: Path, tmp_path: Path) -> None:
    api.convert_data(toy_folder, tmp_path / "new")
    ours, new = load(toy_folder), load(tmp_path / "new")
    assert same_interactions(ours, new) and ours.item_texts == new.item_texts
    assert np.array_equal(ours.given_codes, new.given_codes)
    assert api.check_data([toy_folder])["toy"] == api.check_data([tmp_path / "new"])["new"]


def test_office_as_lines_has_the_papers_counts(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "apao/Office/Office.inter.json.gz"
    if not source.is_file():
        pytest.skip("no APAO Office")
    given = json.loads(gzip.decompress(source.read_bytes()))
    with gzip.open(tmp_path / "office.txt.gz", "wt", encoding="utf-8") as handle:
        handle.writelines(f"{user} {' '.join(map(str, items))}\n" for user, items in given.items())
    done = api.convert_data(tmp_path / "office.txt.gz", tmp_path / "new")
    assert (done.users, done.items, done.interactions, done.dropped_interactions) == (4905, 2420, 53258, 0)
    assert same_interactions(load(tmp_path / "new"), datasets.build({"name": "apao_office"}).load(data_dir))


# What is left out

def test_users_too_short_for_leave_one_out_are_left_out(write: Write, tmp_path: Path) -> None:
    index = write("index.json", {item: [n] for n, item in enumerate("abcde")})
    source = write("d.json", {"u": ["a", "b", "a"], "short": ["a", "c"], "none": []})
    done = api.convert_data(source, tmp_path / "new")
    assert (done.dropped_users, done.dropped_items, done.dropped_interactions) == (2, 1, 2)
    done = api.convert_data(source, tmp_path / "coded", index=index)
    assert (done.items, done.dropped_items) == (5, 0), "an item of the index stays in the catalogue"


def test_users_and_items_below_a_number_leave_until_none_is_left(write: Write, tmp_path: Path) -> None:
    """d is rare; without it w has 2 left; without w's, c has 2 left; without it u and v are as before."""
    text = "u a b a b a b c\nv a b a b a c\nw d c d\n"
    index = write("index.json", {item: [n] for n, item in enumerate("abcde")})
    done = api.convert_data(write("d.txt", text), tmp_path / "new", min_interactions=3, index=index)
    assert (done.users, done.items, done.interactions) == (2, 2, 11)
    assert (done.dropped_users, done.dropped_items, done.dropped_interactions) == (1, 3, 5)
    assert given_sequences(tmp_path / "new") == {"u": list("ababab"), "v": list("ababa")}
    assert list(parts(tmp_path / "new", "index")) == ["0", "1"]


# What is refused

LINES, WHOLE = "u 1 2 3\n", {"u": [1, 2, 3]}
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "format misspelt": (LINES, {"format": "line"}, r"unknown format 'line' in --format. Did you mean 'lines'\?"),
    "JSON Lines": ('{"u": [1, 2, 3]}\n{"v": [1, 2, 3]}', {}, r"line 2, column 1: is JSON Lines, a value a line"),
    "JSON as lines": (WHOLE, {"format": "lines"}, r"in: is JSON and not of the format lines. Leave --format out"),
    "lines as JSON": (LINES, {"format": "json"}, r"in: line 1, column 1: is not valid JSON"),
    "atomic": ("user_id:token\titem_id:token\ttimestamp:float\nu\t1\t5\n", {},
               r"in: line 1: is the header of an atomic file, which is read as it is.*--datasets FOLDER"),
    "a table": ("user_id,item_id,timestamp\nu,1,5\n", {}, r"line 1: looks like a table.*user_id:token, item_id:token"),
    "a table of other names": ("customer_id product_id\nu 1\n", {}, r"line 1: looks like a table"),
    "a table without header": ("1,2,5\n", {}, r"line 1: looks like a table"),
    "ratings": ("1 2 5 88\n2 2 4 89\n1 3 3 90\n", {}, r"line 3: user '1' has line 1 already"),
    "a user alone": ("u 1 2 3\nv\n", {}, r"line 2: holds one word. Write a user and its items"),
    "no pair": ("u 1\nu 2 3\n", {"format": "pairs"}, r"line 2: holds 3 words. Write `user item`"),
    "empty": (" \n", {}, r"in: is empty"),
    "a list": ("[1, 2]", {}, r"top level: is a list"),
    "twice": ('{"u": [1, 2, 3],\n"u": [1]}', {}, r"user 'u', line 2: is there twice"),
    "no list": ({"u": "1 2 3"}, {}, r"user 'u': holds no list of items"),
    "half an item": ({"u": [1, 2.5, 3]}, {}, r"user 'u', interaction 2: the id is neither text nor a whole number"),
    "true": ({"u": [1, 2, True]}, {}, r"interaction 3: the id is neither"),
    "empty id": ({"u": [1, 2, " "]}, {}, r"interaction 3: the id is empty"),
    "surrogate": ('{"u": ["\\ud800", 2, 3]}', {}, r"interaction 1: the text holds half of a surrogate pair"),
    "some codes": ({"u": ["<a_1><b_2>", "x", "y"]}, {}, r"item 'x': is not written as codes, as 1 other"),
    "all too short": ("u 1 2\n", {}, r"no user has 3 interactions or more that stay"),
    "too few wanted": (LINES, {"min_interactions": 2}, r"is 2: leave-one-out needs 3"),
    "an item without codes": (WHOLE, {"index": {"1": "<a_1>", "2": "<a_2>"}}, r"index: item 3: has no semantic ID"),
    "codes that are none": (WHOLE, {"index": {"1": "12-7"}}, r"index: item '1': '12-7' is no row of codes"),
    "wrong level": (WHOLE, {"index": {"1": "<s_a_1><s_c_7>"}}, r"item '1', level 2: code '<c_7>' belongs to another"),
    "leading zero": (WHOLE, {"index": {"1": "<a_01>"}}, r"item '1', level 1: code '<a_01>' is malformed"),
    "large code": (WHOLE, {"index": {"1": [65536]}}, r"is not within 0..65535"),
    "only marks": (WHOLE, {"index": {"1": "<|sid_begin|><|sid_end|>"}}, r"item '1': holds 0 codes"),
    "one the beginning": (WHOLE, {"index": {"1": "<a_1>", "2": "<a_1><b_1>", "3": "<a_3>"}}, r"the beginning of those"),
    "no texts": (WHOLE, {"texts": {"1": 5}}, r"texts: item '1': holds a number, not an item's texts"),
    "no such file": (None, {}, r"in: cannot be read \(No such file"),
}


@pytest.mark.parametrize(("content", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_before_anything_is_written(content: Any, options: dict[str, Any], message: str, write: Write,
                                            tmp_path: Path) -> None:
    if content is not None:
        write("in", content)
    files = {name: write(name, options[name]) for name in ("index", "texts") if name in options}
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError, match=message):
        api.convert_data(tmp_path / "in", tmp_path / "new", **options | files)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(("names", "message"), [
    (["a.txt", "b.inter.json"], "several files of interactions: a.txt, b.inter.json. Give the file itself"),
    (["a.txt", "index.x.json", "index.y.json"], "several files of codes: .* Choose one with --index FILE"),
    (["a.txt", "item.json", "title.json"], "several files of texts"),
    (["a.csv"], "holds no interactions by the names")])
def test_a_folder_that_is_not_clear(names: list[str], message: str, write: Write, tmp_path: Path) -> None:
    for name in names:
        write(f"in/{name}", LINES)
    with pytest.raises(UserError, match=message):
        api.convert_data(tmp_path / "in", tmp_path / "new")
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize(("to", "message"), [
    ("file", "is a file"), ("full", "not empty"), ("no/new", "is not a folder"), ("work", "cannot name data"),
    (".hidden", "cannot name data")])
def test_places_that_will_not_do(to: str, message: str, write: Write, tmp_path: Path) -> None:
    source = write("file", LINES)
    write("full/x", "")
    with pytest.raises(UserError, match=message):
        api.convert_data(source, tmp_path / to)
    assert sorted(os.listdir(tmp_path)) == ["file", "full"]


def test_a_pipe_into_a_folder_whose_name_has_a_comma(tmp_path: Path) -> None:
    """A pipe can be read but once."""
    ends = os.pipe()
    os.write(ends[1], b'{"u": ["a", "b", "a", "c"], "v": ["b", "c", "a"]}')
    os.close(ends[1])
    assert api.convert_data(f"/dev/fd/{ends[0]}", tmp_path / "a,b").format == "json"
    os.close(ends[0])
    assert given_sequences(tmp_path / "a,b") == {"u": list("abac"), "v": list("bca")}
    assert main(["data", "check", "--datasets", str(tmp_path / "a,b")]) == 0


def test_an_empty_folder_is_filled_and_the_current_one_is_not(write: Write, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    source = write("file", LINES)
    (tmp_path / "new").mkdir()
    api.convert_data(source, tmp_path / "new")
    assert load(tmp_path / "new").num_users == 1
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="the folder you are in"):
        api.convert_data(source, ".")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_nothing_is_left_of_what_is_broken_off(stop: type[BaseException], write: Write, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    source = write("file", LINES)

    def broken(*paths: Path) -> None:
        assert paths[0].is_dir() and len(os.listdir(paths[0])) == 2
        raise stop

    monkeypatch.setattr(engine.os, "replace", broken)
    with pytest.raises(stop):
        api.convert_data(source, tmp_path / "new")
    assert os.listdir(tmp_path) == ["file"]


# The command

def test_the_command_says_what_it_did_and_what_comes_next(write: Write, tmp_path: Path, capsys: Any,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("in.txt", "u a b c a\nv a b c\nw a\n")
    assert main(["data", "convert", "in.txt", "my shop", "--min-interactions", "4"]) == 2
    assert "no user has 4 interactions" in capsys.readouterr().err
    assert main(["data", "convert", "in.txt", "my shop"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["read as lines: in.txt", "written to my shop: my shop.inter.json, my shop.ids.csv",
                     "2 users, 3 items, 7 interactions; left out: 1 users, 0 items, 1 interactions",
                     "next: python benchmark.py data check --datasets './my shop'"]
    assert main(["data", "check", "--datasets", "./my shop"]) == 0
    assert main(["data", "convert", "in.txt", "other", "--format", "jason"]) == 2
    assert "Did you mean 'json'?" in capsys.readouterr().err
    assert main(["data", "convert", "in.txt", "other", "--min-interaction", "5"]) == 2
    assert "Did you mean --min-interactions?" in capsys.readouterr().err
