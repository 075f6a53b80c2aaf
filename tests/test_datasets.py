"""Datasets: the papers' counts, the formats a folder may have, and the `data` verb."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genrec_bench import api
from genrec_bench.cli import main
from genrec_bench.commands import data
from genrec_bench.contracts import Interactions
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import datasets
from genrec_bench.datasets.base import dataset_spec, join_fields, ordered_ids
from genrec_bench.experiments import grid
from genrec_bench.splits.base import summary
from genrec_bench.splits.leave_one_out import LeaveOneOut

# users, items, interactions, train rows, distinct semantic IDs; rows whose history is cut to 20: train, valid, test
APAO = {"apao_office": (4905, 2420, 53258, 38543, 2415, 4461, 434, 479),
        "apao_grocery": (14681, 8713, 151254, 107211, 8683, 17614, 1055, 1143),
        "apao_beauty": (22363, 12101, 198502, 131413, 12089, 14219, 935, 1019),
        "apao_yelp": (30431, 20033, 316354, 225061, 19154, 33880, 2188, 2398)}
WITHOUT_TEXT = {"apao_office": 0, "apao_grocery": None, "apao_beauty": 27, "apao_yelp": 0}


@pytest.fixture(scope="module", params=sorted(APAO))
def apao(request: pytest.FixtureRequest, data_dir: Path) -> Interactions:
    """One of the four datasets of APAO, read once."""
    dataset = datasets.build({"name": request.param})
    missing = dataset.missing_files(data_dir)
    if missing:
        pytest.skip(f"{missing[0]} is not in {data_dir}")
    return dataset.load(data_dir)


def test_apao_counts_equal_the_published_ones(apao: Interactions):
    """Users, items and interactions as in APAO Table 2; rows and cut histories as counted from the same files."""
    users, items, interactions, train, distinct, *cut = APAO[apao.name]
    split = LeaveOneOut().split(apao)
    assert summary(split, len(np.unique(apao.given_codes, axis=0))) == {
        "users": users, "items": items, "interactions": interactions, "train": train, "valid": users, "test": users,
        "distinct_semantic_ids": distinct}
    whole = LeaveOneOut(max_history=1000).split(apao)
    assert [int((part.lengths > 20).sum()) for part in (whole.train, whole.valid, whole.test)] == cut
    assert max(part.lengths.max() for part in (split.train, split.valid, split.test)) == 20


def test_apao_contents(apao: Interactions):
    assert apao.user_ids == tuple(map(str, range(apao.num_users)))
    assert apao.item_ids == tuple(map(str, range(apao.num_items)))
    assert apao.given_codes.shape == (apao.num_items, 4)
    assert apao.given_codes.min() == 0 and apao.given_codes.max() == 255
    without = None if apao.item_texts is None else sum(not text for text in apao.item_texts)
    assert without == WITHOUT_TEXT[apao.name]


def test_apao_office_first_rows(data_dir: Path):
    """The first user and item as they stand in the files; an empty title leaves the first line of a text empty."""
    office = datasets.build({"name": "apao_office"}).load(data_dir)
    assert office.sequences[0].tolist() == [0, 1, 2, 3, 4]
    assert office.given_codes[0].tolist() == [159, 42, 1, 0]
    title = "VTECH CS6114 DECT 6.0 Cordless Phone, White/Grey, 1 Handset"
    assert office.item_texts[0].split("\n")[:2] == [title, "VTech"]
    assert [i for i, text in enumerate(office.item_texts) if text.startswith("\n")] == [828, 1429, 1786]


def test_tiger_beauty_as_a_folder(data_dir: Path):
    """Files without a prefix and an index of integer lists."""
    folder = data_dir / "tiger_beauty"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    read = datasets.build({"name": "folder", "path": str(folder), "index": "rqkmeans"}).load(None)
    assert (read.num_users, read.num_items, read.num_interactions) == (22363, 12101, 198502)
    assert len(np.unique(read.given_codes, axis=0)) == 12101


@pytest.fixture(scope="module")
def ml_100k() -> Interactions:
    """MovieLens 100K from the installed RecBole."""
    dataset = datasets.build({"name": "ml-100k"})
    if dataset.missing_files(None):
        pytest.skip("recbole is not installed")
    return dataset.load(None)


def test_ml_100k(ml_100k: Interactions):
    assert (ml_100k.num_users, ml_100k.num_items, ml_100k.num_interactions) == (943, 1682, 100_000)
    assert ml_100k.user_ids == tuple(map(str, range(1, 944)))
    assert ml_100k.item_ids == tuple(map(str, range(1, 1683)))
    assert ml_100k.item_texts[0] == "Toy Story\n1995\nAnimation Children's Comedy"
    assert ml_100k.given_codes is None
    assert len(LeaveOneOut().split(ml_100k).train) == 100_000 - 3 * 943


def test_ml_100k_order_is_by_time_then_file(ml_100k: Interactions):
    dataset = datasets.build({"name": "ml-100k"})
    rows = [line.split("\t") for line in (dataset._folder() / "ml-100k.inter").read_text().splitlines()[1:]]
    mine = [(int(time), place, int(item)) for place, (user, item, _, time) in enumerate(rows) if user == "42"]
    assert (ml_100k.sequences[41] + 1).tolist() == [item for _, _, item in sorted(mine)]


def test_ml_100k_does_not_import_recbole():
    code = ("import sys; from genrec_bench.core.registry import datasets; "
            "datasets.build({'name': 'ml-100k'}).load(None); "
            "sys.exit('recbole' in sys.modules or 'torch' in sys.modules)")
    if datasets.build({"name": "ml-100k"}).missing_files(None):
        pytest.skip("recbole is not installed")
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    assert subprocess.run([sys.executable, "-c", code], cwd=root, env=environment).returncode == 0


def _same(read: Interactions, expected: Interactions) -> None:
    assert read.user_ids == expected.user_ids and read.item_ids == expected.item_ids
    assert [s.tolist() for s in read.sequences] == [s.tolist() for s in expected.sequences]


def test_toy_folder_comes_back_as_written(toy_folder: Path, toy_interactions: Interactions):
    dataset = datasets.build({"name": "folder", "path": str(toy_folder)})
    read = dataset.load(None)
    _same(read, toy_interactions)
    assert read.name == "toy" and read.item_texts == toy_interactions.item_texts
    assert read.given_codes.tolist() == toy_interactions.given_codes.tolist()
    assert dataset.preferred_tokenizer() == "given"


def test_packed_folder_is_read_alike(toy_folder: Path, toy_interactions: Interactions):
    for path in list(toy_folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    read = datasets.build({"name": "folder", "path": str(toy_folder)}).load(None)
    _same(read, toy_interactions)
    assert read.given_codes.tolist() == toy_interactions.given_codes.tolist()


def test_atomic_folder(tmp_path: Path):
    """Rows out of order, equal times in file order, a column nobody asked for, ids that are no numbers."""
    inter = ("item_id:token\tuser_id:token\trating:float\ttimestamp:float\n"
             "b\tzoe\t1\t30\nc\tzoe\t1\t10.5\na\tzoe\t1\t30\nc\tann\t5\t3\nd\tann\t5\t1\nc\tann\t5\t2\n")
    (tmp_path / "X.inter").write_text(inter, encoding="utf-8")
    item = "item_id:token\tname:token_seq\tprice:float\tkind:token\n"
    item += "".join(f"{i}\tThe {i}\t1\tk\n" for i in "dcbae")
    (tmp_path / "X.item").write_text(item, encoding="utf-8")
    dataset = datasets.build({"name": "folder", "path": str(tmp_path), "label": "mine"})
    read = dataset.load(None)
    assert read.name == "mine" and read.user_ids == ("ann", "zoe") and read.item_ids == ("a", "b", "c", "d")
    assert [s.tolist() for s in read.sequences] == [[3, 2, 2], [2, 1, 0]]
    assert read.item_texts[0] == "The a\nk" and read.given_codes is None
    assert dataset.preferred_tokenizer() == "rq_kmeans"


def test_ragged_index_items_without_interactions_and_missing_texts(tmp_path: Path):
    (tmp_path / "X.inter.json").write_text('{"9": [3, 1, 3, 1], "10": [1, 3, 5, 1]}')
    (tmp_path / "X.index.a.json").write_text('{"1": [0, 7], "3": [4], "5": [2, 2, 2], "8": [0, 0]}')
    (tmp_path / "X.index.b.json").write_text('{"1": ["<a_1>"], "3": ["<a_300>"], "5": ["<a_0>"]}')
    (tmp_path / "X.title.json").write_text('{"1": "one", "5": {"maker": "M", "title": "five", "n": 3}}')
    spec = {"name": "folder", "path": str(tmp_path), "allow_missing_text": True}
    read = datasets.build({**spec, "index": "a"}).load(None)
    assert read.user_ids == ("9", "10") and read.item_ids == ("1", "3", "5", "8")
    assert read.given_codes.tolist() == [[0, 7, -1], [4, -1, -1], [2, 2, 2], [0, 0, -1]]
    assert read.item_texts == ("one", "", "five\nM", "")
    assert datasets.build({**spec, "index": "b"}).load(None).item_ids == ("1", "3", "5")


def test_spec_and_label_of_a_datasets_value(toy_folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert dataset_spec("ml-100k") == {"name": "ml-100k"}
    assert dataset_spec(str(toy_folder)) == {"name": "folder", "path": str(toy_folder)}
    monkeypatch.chdir(toy_folder.parent)
    assert dataset_spec("toy") == dataset_spec("./toy") == {"name": "folder", "path": str(toy_folder)}
    assert datasets.build(dataset_spec("toy")).title == "toy" and datasets.build({"name": "ml-100k"}).title == "ml-100k"
    with pytest.raises(UserError, match="'apao_office'"):
        dataset_spec("apao_ofice")


def test_a_folder_keeps_the_name_it_is_given(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where that is a link; what it points at may be called anything."""
    (tmp_path / "latest").symlink_to(toy_folder)
    for text in (str(tmp_path / "latest"), f"{tmp_path}/latest/", f"{toy_folder}/../latest"):
        assert datasets.build(dataset_spec(text)).title == "latest"
    monkeypatch.chdir(toy_folder)
    assert [datasets.build(dataset_spec(text)).title for text in ("./", "../latest", "../latest/..")] == [
        "toy", "latest", tmp_path.name]
    assert list(api.check_data([tmp_path / "latest"])) == ["latest"]


def test_datasets_may_be_repeated_and_a_folder_may_have_a_comma(toy_folder: Path, capsys: pytest.CaptureFixture,
                                                                monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(toy_folder.parent)
    toy_folder.rename("a,b")
    for words, names in ((["a,b"], "a,b"), (["./a,b", "--datasets", "ml-100k,apao_yelp"], "a,b ml-100k apao_yelp"),
                         (["ml-100k", "--datasets", "ml-100k", "--datasets", "./a,b"], "ml-100k a,b")):
        code = main(["data", "list", "--datasets", *words])
        assert (code, " ".join(line.split()[0] for line in capsys.readouterr().out.splitlines()[1:])) == (0, names)


def test_long_numbers_of_items_are_exact(tmp_path: Path):
    """Both files hold numbers of 19 and more digits, of which floats and 64-bit integers would make one."""
    numbers = [10**19 + n for n in range(3)]
    (tmp_path / "inter.json").write_text(json.dumps({"u": [numbers[2], numbers[0], numbers[1], numbers[0]]}))
    (tmp_path / "index.json").write_text(json.dumps({str(number): [n] for n, number in enumerate(numbers)}))
    read = datasets.build({"name": "folder", "path": str(tmp_path)}).load(None)
    assert read.item_ids == tuple(map(str, numbers)) and read.sequences[0].tolist() == [2, 0, 1, 0]
    assert read.given_codes.tolist() == [[0], [1], [2]]


def test_a_vocabulary_that_is_almost_empty_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture):
    """At each level 65,536 codes or 256; gaps of a small vocabulary are nobody's trouble."""
    (tmp_path / "inter.json").write_text(json.dumps({"u": [0, 1, 2, 0]}))
    for largest in (65_535, 255):
        codes = {str(n): [largest - n] * 4 for n in range(3)}
        (tmp_path / "index.json").write_text(json.dumps(codes))
        datasets.build({"name": "folder", "path": str(tmp_path)}).load(None)
        told = capsys.readouterr().err
        assert (told == "") == (largest == 255)
        assert largest == 255 or ("codes go up to 65,535, which makes a vocabulary of 262,144 tokens, and 12 of them "
                                  "occur in 3 items") in told


def test_path_and_label_do_not_name_a_run():
    folder = datasets.build({"name": "folder", "path": "/somewhere", "label": "x", "allow_missing_text": True})
    assert registry.identity(folder) == {"name": "folder", "version": folder.version, "allow_missing_text": True}


BAD_LABELS = ["../../esc", "a/b", "a\\b", "/", ".hidden", "..", " ", "work", "cache", "reports", "a\nb"]


@pytest.mark.parametrize("label", BAD_LABELS)
def test_a_label_stays_inside_the_results(label: str, toy_folder: Path):
    with pytest.raises(UserError, match=r"folder\.label") as caught:
        datasets.build({"name": "folder", "path": str(toy_folder), "label": label})
    assert repr(label) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["work", "cache", "reports", ".hidden"])
def test_a_folders_own_name_may_not_do_as_a_label(name: str, toy_folder: Path):
    folder = toy_folder.rename(toy_folder.with_name(name))
    for spec in ({"path": str(folder)}, {"path": f"{folder}/x/.."}, {"path": str(folder), "label": name}):
        with pytest.raises(UserError, match="the folder's name .*--set folder.label="):
            datasets.build({"name": "folder", **spec})
    assert datasets.build({"name": "folder", "path": str(folder), "label": "mine"}).load(None).name == "mine"
    with pytest.raises(UserError, match="the folder's name"):
        grid.expand(grid.Selection("apao", "smoke", datasets=(str(folder),)))
    runs = grid.expand(grid.Selection("apao", "smoke", datasets=(str(folder),), overrides={"folder": {"label": "m"}}))
    assert {run.dataset.title for run in runs} == {"m"}


def test_what_is_odd_in_a_folder_is_noted_on_stderr(toy_folder: Path, capsys: pytest.CaptureFixture):
    spec = {"name": "folder", "path": str(toy_folder), "allow_missing_text": True}
    datasets.build(spec).load(None)
    assert capsys.readouterr().err == ""
    index, item = (json.loads((toy_folder / f"Toy.{kind}.json").read_text()) for kind in ("index", "item"))
    index |= {"77": index["0"], "31": index["0"]}
    item |= {"4": {"title": " ", "group": ""}}
    del item["9"]
    (toy_folder / "Toy.index.json").write_text(json.dumps(index))
    (toy_folder / "Toy.item.json").write_text(json.dumps(item))
    datasets.build(spec).load(None)
    extra, empty = capsys.readouterr().err.splitlines()
    assert extra.startswith(f"note: {toy_folder / 'Toy.index.json'}: 2 items never occur") and "item 31" in extra
    assert "remove them from the index" in extra
    assert empty.startswith(f"note: {toy_folder / 'Toy.item.json'}: 4 of 32 items have no text (first: item 4)")
    (toy_folder / "Toy.item.json").unlink()
    (toy_folder / "Toy.index.json").unlink()
    datasets.build(spec).load(None)
    assert capsys.readouterr().err == "", "no file of texts is nothing odd"


def test_empty_texts_of_atomic_files_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "X.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\nu\tb\t2\nu\ta\t3\n")
    (tmp_path / "X.item").write_text("item_id:token\ttitle:token_seq\na\tA\nb\t\n")
    datasets.build({"name": "folder", "path": str(tmp_path)}).load(None)
    line, = capsys.readouterr().err.splitlines()
    assert "X.item: 1 of 2 items have no text (first: item b)" in line


def test_notes_reach_the_users_terminal(toy_folder: Path):
    index = json.loads((toy_folder / "Toy.index.json").read_text())
    (toy_folder / "Toy.index.json").write_text(json.dumps(index | {"77": index["0"]}))
    (toy_folder / "Toy.item.json").unlink()
    done = subprocess.run([sys.executable, "benchmark.py", "data", "check", "--json", "--datasets", str(toy_folder)],
                          cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.stderr.count("note: ") == 1 and "item 77" in done.stderr and json.loads(done.stdout)


def test_small_helpers():
    assert ordered_ids({"10", "9", "1"}) == ["1", "9", "10"]
    assert ordered_ids({"10", "9", "b"}) == ["10", "9", "b"]
    assert join_fields(["", " a\tb ", ""]) == "\na b" and join_fields(["", ""]) == ""


def _data(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    return data.run(parser.parse_args(arguments))


def test_check_prints_one_json_object(toy_folder: Path, capsys: pytest.CaptureFixture):
    assert _data("check", "--datasets", str(toy_folder), "--json", "--results", str(toy_folder / "r")) == 0
    captured = capsys.readouterr()
    counts = json.loads(captured.out)["toy"]
    assert list(counts) == list(data.COUNTS)
    assert counts == api.check_data([toy_folder])["toy"]["counts"]
    assert counts["users"] == 50 and counts["items"] == 30 and counts["distinct_semantic_ids"] == 27
    assert counts["train"] == counts["interactions"] - 3 * 50
    assert "checking toy" in captured.err
    assert not (toy_folder / "r").exists()


def test_check_table_and_folders_of_one_name(toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    other = tmp_path / "more" / "toy"
    other.mkdir(parents=True)
    (other / "X.inter.json").write_text('{"a": [1, 2, 3, 4]}')
    assert _data("check", "--datasets", f"{toy_folder},{other}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == [str(toy_folder), "50"]
    assert lines[2].split() == [str(other), "1", "4", "4", "1", "1", "1", "-"]


@pytest.mark.parametrize("action", ["list", "fetch"])
def test_list_and_fetch_name_every_dataset(action: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert _data(action, "--data-dir", str(tmp_path)) == 0
    text = capsys.readouterr().out
    for name in datasets.names():
        assert name in text or (action == "fetch" and name == "folder")
    assert str(tmp_path / "apao" / "Office") in text


def test_without_data_folder_the_error_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GENREC_BENCH_DATA", raising=False)
    with pytest.raises(UserError, match="--data-dir DIR or set GENREC_BENCH_DATA"):
        _data("check", "--datasets", "apao_yelp")
