"""Windows that data bring with them: read, merged, split and counted, by hand and on BEAR's files."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.contracts import Instances, Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import datasets
from genrec_bench.running.data_check import check_data
from genrec_bench.running.plugin_checks import check_plugin
from genrec_bench.running.split_checks import unique_items
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.splits.order import order_facts, order_sentences
from genrec_bench.splits.windows import Windows

HEADER = "user_id,item_ids,timestamp\n"
DAY = 86_400
Row = tuple[str, list[int], int]  # user, items, day
# User 7 has items 1 to 8 in windows of 4, of which [3 4 5 6] is missing; 12 and 30 have one window each; 9 is nobody's.
TRAIN: list[Row] = [("7", [1, 2, 3, 4], 10), ("12", [3, 1, 2], 10), ("7", [2, 3, 4, 5], 11)]
VALID: list[Row] = [("7", [4, 5, 6, 7], 13)]
TEST: list[Row] = [("30", [2, 8, 1], 13), ("7", [5, 6, 7, 8], 13)]
BOOK: list[Row] = [("1", [1, 2, 3], 1), ("2", [4, 5, 6], 2), ("1", [2, 3, 4], 3), ("2", [5, 6, 7], 3),
                   ("1", [3, 4, 5], 3)]


def csv_of(rows: list[Row]) -> str:
    return HEADER + "".join(f'{user},"{items}",{day * DAY}\n' for user, items, day in rows)


def written(data_dir: Path, folder: str = "Office", **parts: list[Row]) -> Path:
    """A data folder with one of BEAR's data sets in it; without `parts` the rows above."""
    place = data_dir / "bear" / folder
    place.mkdir(parents=True, exist_ok=True)
    for part, rows in (parts or {"train": TRAIN, "valid": VALID, "test": TEST}).items():
        (place / f"{part}.csv").write_text(csv_of(rows), encoding="utf-8")
    (place / "id2name4Rec.json").write_text(json.dumps({str(n): f"item {n}" for n in range(1, 10)}), encoding="utf-8")
    return data_dir


def read(data_dir: Path, name: str = "bear_office") -> Interactions:
    return datasets.build({"name": name}).load(data_dir)


def rows_of(rows: Instances) -> list[tuple[int, list[int], int]]:
    """Rows with the items' own names, which are 1 higher than their numbers."""
    return [(int(user), (rows.history(n) + 1).tolist(), int(rows.targets[n]) + 1) for n, user in enumerate(rows.users)]


def test_reading_by_hand(tmp_path: Path) -> None:
    """User 7 is number 0. Its window [4 5 6 7] overlaps [2 3 4 5] by two; of its item 6 no day is known."""
    made = read(written(tmp_path))
    assert made.user_ids == ("7", "12", "30") and made.item_ids == tuple("123456789")
    assert [(s + 1).tolist() for s in made.sequences] == [[1, 2, 3, 4, 5, 6, 7, 8], [3, 1, 2], [2, 8, 1]]
    assert made.item_texts[0] == "item 1" and made.times is None and made.given_codes is None
    assert list(made.rows) == ["train", "valid", "test"]
    assert rows_of(made.rows["train"]) == [(0, [1, 2, 3], 4), (0, [2, 3, 4], 5), (1, [3, 1], 2)]
    assert rows_of(made.rows["valid"]) == [(0, [4, 5, 6], 7)]
    assert rows_of(made.rows["test"]) == [(0, [5, 6, 7], 8), (2, [2, 8], 1)]
    assert made.rows["train"].seen is None and [(s + 1).tolist() for s in made.rows["test"].seen] == [[5, 6, 7], [2, 8]]
    assert {part: rows.same_day.tolist() for part, rows in made.rows.items()} == {
        "train": [-1, 0, -1], "valid": [-1], "test": [1, -1]}
    assert made.rows["train"].order.tolist() == [0, 2, 1], "places in the file"


def test_the_contract_of_data_sets_is_kept(tmp_path: Path) -> None:
    found = check_plugin(datasets, datasets.build({"name": "bear_office"}), written(tmp_path))
    assert len(found) == 9 and not [f for f in found if not f.passed]


def test_packed_files_are_read_alike(tmp_path: Path) -> None:
    plain = read(written(tmp_path))
    for path in (tmp_path / "bear" / "Office").iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert Windows().split(read(tmp_path)).fingerprint == Windows().split(plain).fingerprint


def test_the_time_of_every_interaction_tells_every_day(tmp_path: Path) -> None:
    """Item 6 was bought on the day of item 7, and 8 a day before 1; a user without a window is passed over."""
    bought = {"7": [9, 9, 9, 10, 11, 13, 13, 13], "12": [10, 10, 10], "30": [1, 12, 13], "55": [1]}
    items = {"7": range(1, 9), "12": [3, 1, 2], "30": [2, 8, 1], "55": [9]}
    lines = [f"{user},{item},{day * DAY}" for user, days in bought.items()
             for item, day in zip(items[user], days, strict=True)]
    path = written(tmp_path) / "bear" / "Office" / "interactions.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    made = read(tmp_path)
    assert {part: rows.same_day.tolist() for part, rows in made.rows.items()} == {
        "train": [0, 0, 1], "valid": [1], "test": [1, 0]}
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines[1:]]))
    with pytest.raises(UserError, match="user '7': its items are not those of the windows"):
        read(tmp_path)


@pytest.mark.parametrize(("windows", "merged"), [
    ([[2, 1, 1], [1, 1, 1], [1, 1, 1]], [2, 1, 1, 1, 1]), ([[1, 2, 3], [4, 5, 6]], [1, 2, 3, 4, 5, 6]),
    ([[1, 2, 1, 2], [1, 2, 1, 3]], [1, 2, 1, 2, 1, 3]), ([[1, 2, 3, 4, 5], [5, 6, 7]], [1, 2, 3, 4, 5, 6, 7])])
def test_merging_takes_the_largest_overlap_and_adds_each_target(windows: list[list[int]], merged: list[int]) -> None:
    rows = Instances(np.ones(len(windows), dtype=np.int64), np.array([w[-1] for w in windows]),
                     [w[:-1] for w in windows])
    (nobody, sequence), places = rows.merged(2)
    assert sequence.tolist() == merged and sequence.dtype == nobody.dtype == np.int64 and len(nobody) == 0
    assert [merged[place] for place in places] == rows.targets.tolist() and places[-1] == len(merged) - 1


def test_the_split_by_hand(tmp_path: Path) -> None:
    made = read(written(tmp_path))
    split = Windows().split(made)
    assert all(rows_of(getattr(split, part)) == rows_of(made.rows[part]) for part in made.rows)
    assert [(s + 1).tolist() for s in split.train_sequences] == [[1, 2, 3, 4, 5], [3, 1, 2], []]
    assert split.test.same_day.tolist() == [1, -1]


def test_cut_histories_and_fewer_rows(tmp_path: Path) -> None:
    """The newest items of a history, a user's newest training rows, the first users."""
    made = read(written(tmp_path))
    cut = Windows(max_history=2).split(made)
    assert rows_of(cut.train) == [(0, [2, 3], 4), (0, [3, 4], 5), (1, [3, 1], 2)]
    assert rows_of(cut.test) == [(0, [6, 7], 8), (2, [2, 8], 1)] and (cut.test.seen[0] + 1).tolist() == [5, 6, 7]
    assert [(s + 1).tolist() for s in cut.train_sequences] == [[2, 3, 4, 5], [3, 1, 2], []]
    fewer = Windows(train_targets_per_user=1).split(made)
    assert rows_of(fewer.train) == [(0, [2, 3, 4], 5), (1, [3, 1], 2)]
    assert [(s + 1).tolist() for s in fewer.train_sequences] == [[2, 3, 4, 5], [3, 1, 2], []]
    first = Windows(max_users=1).split(made)
    assert rows_of(first.test) == [(0, [5, 6, 7], 8)] and len(first.train) == 2 and len(first.train_sequences) == 1
    assert rows_of(first.interactions.rows["test"]) == rows_of(first.test), "also in the interactions"


def test_the_last_training_windows_validate_where_the_data_bring_none(tmp_path: Path) -> None:
    """Of five training rows the last two of the file, though the third has the same day; of 10 % at least one."""
    made = read(written(tmp_path, "Book", train=BOOK, test=TEST[:1]), "bear_book")
    split = Windows(valid_share=0.4, max_history=1).split(made)
    assert rows_of(split.train) == [(0, [2], 3), (0, [3], 4), (1, [5], 6)]
    assert rows_of(split.valid) == [(0, [4], 5), (1, [6], 7)]
    assert [(s + 1).tolist() for s in split.valid.seen] == [[3, 4], [5, 6]]
    assert [(s + 1).tolist() for s in split.train_sequences] == [[2, 3, 4], [5, 6], []]
    assert rows_of(Windows().split(made).valid) == [(0, [3, 4], 5)]
    assert "training rows in time validate" in " ".join(order_sentences(order_facts(split)))
    assert not set(split.train_sequences[0]) & set(split.valid.targets[split.valid.users == 0])


def test_data_that_the_rule_cannot_split(tmp_path: Path, toy_interactions: Interactions) -> None:
    with pytest.raises(UserError, match="toy brings no windows of its own: use split leave_one_out or last_n"):
        Windows().split(toy_interactions)
    data = unique_items()
    with pytest.raises(UserError, match="neither validation windows nor the order"):
        Windows().split(replace(data, rows={part: data.rows[part] for part in ("train", "test")}))
    with pytest.raises(UserError, match=r"no valid windows are left of 1 users.*Raise split.max_users = 1"):
        Windows(max_users=1).split(read(written(tmp_path, train=TRAIN, valid=TEST[:1], test=TEST)))


def test_what_a_check_of_the_data_tells(tmp_path: Path) -> None:
    """Of targets 8 and 1 only 1 occurs in training; user 30 has no training row."""
    found = check_data(datasets.build({"name": "bear_office"}), written(tmp_path))
    assert found["counts"] == {"users": 3, "items": 9, "interactions": 14, "train": 3, "valid": 1, "test": 2,
                               "distinct_semantic_ids": None}
    told = "\n".join(found["notes"])
    assert "3 train windows of 2 users, 1 valid windows of 1 users, 2 test windows of 2 users" in told
    assert "3 users and 8 of 9 items occur" in told
    assert "Of 2 test targets 1 are warm and 1 cold" in told and "1 test rows are of users without" in told
    assert "Of 1 test targets it is known whether they have the day of the item before: 1 have." in told
    assert "merged from windows" in told and "no times" not in told and "were taken" not in told
    found = check_data(datasets.build({"name": "bear_book"}), written(tmp_path, "Book", train=BOOK, test=TEST))
    assert "no validation windows: 1 were taken from the 5 training windows." in "\n".join(found["notes"])


def test_the_order_of_several_rows_a_user(tmp_path: Path) -> None:
    made = read(written(tmp_path, test=[*TEST, ("7", [6, 7, 8, 8], 14)], train=TRAIN, valid=VALID))
    facts = order_facts(Windows().split(made))
    assert facts == {"rule": "merged from windows", "users": 2, "targets": 3, "neighbours": 12, "newest_again": 1,
                     "repeated": 1, "trained_validate": False}
    assert order_sentences(facts)[1].startswith("1 of 3 (33%) test targets")
    timed = replace(made, times=tuple(np.arange(len(s)) for s in made.sequences))
    assert "tied_targets" not in order_facts(Windows().split(timed)), "a window does not tell where it is"
    assert "picks" not in order_sentences(order_facts(Windows().split(timed)))[0]
    assert order_facts(LeaveOneOut().split(timed))["tied_targets"] == 0


BAD = [
    ("train.csv", "user_id,items,timestamp\n1,2,3\n", "line 1: the header has no column item_ids"),
    ("train.csv", "customer,item_ids,date\n1,2,3\n", "Rename 'customer' to user_id, 'date' to timestamp"),
    ("train.csv", "user_id,user_id,item_ids,timestamp\n", "line 1: the header has two columns user_id"),
    ("train.csv", "", "line 1: the header has no column user_id"),
    ("test.csv", HEADER, "has no rows below its header"),
    ("train.csv", HEADER + '7,"[1, 2, 3]",5\n7,"[1, 2', "line 3: is not valid csv"),
    ("train.csv", HEADER + '7,"[1, 2, 3]",5\n7\n', "line 3: has 1 columns, the header has 3"),
    ("valid.csv", HEADER + ' ,"[1, 2, 3]",5\n', "line 2: user_id is empty"),
    ("train.csv", HEADER + '7,"[1, 2, 3",5\n', "line 2: item_ids '[1, 2, 3' is not a list of item numbers"),
    ("train.csv", HEADER + '7,"[1, true, 3]",5\n', "is not a list of item numbers"),
    ("train.csv", HEADER + f'7,"{"[" * 50_000}",5\n', "is not a list of item numbers"),
    ("train.csv", HEADER + f'7,"[1, 2, {"9" * 5_000}]",5\n', "is not a list of item numbers"),
    ("train.csv", HEADER + '7,"[1, 2]",5\n', "line 2: the window has 2 items, 3 or more are needed"),
    ("train.csv", HEADER + '7,"[1, 2, 3]",1_0\n', "line 2: timestamp '1_0' is not a whole number"),
    ("id2name4Rec.json", '{"1": "A", "2": "B"}', "item 3 (and 2 more items): has no title, but occurs in train.csv"),
    ("id2name4Rec.json", '{"1": "one", "2": ', "line 1, column 19: is not valid JSON"),
    ("interactions.csv", "user_id,item_id,timestamp\n7,x,3\n", "line 2: item_id 'x' is not a whole number"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_a_bad_file_is_named_with_the_place(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path) / "bear" / "Office" / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    folder = written(tmp_path) / "bear" / "Office"
    (folder / "valid.csv").rename(folder / "other.csv")
    assert datasets.build({"name": "bear_office"}).missing_files(tmp_path) == ["bear/Office/valid.csv.gz"]
    with pytest.raises(UserError, match=r"valid.csv.gz: is missing \(or without .gz\); bear_office needs it"):
        read(tmp_path)
    (folder / "valid.csv.gz").write_bytes(gzip.compress(b"user_id")[:-3])
    with pytest.raises(UserError, match="is not a whole gzip file"):
        read(tmp_path)


# users, items, interactions, windows of train, valid and test as the data bring them, items that never occur,
# test targets in no training window, test rows of users without one, test targets whose day before is known, and same
REAL = {"bear_office": (4895, 2414, 53149, (15400, 1925, 1925), 0, 896, 642, 1408, 477),
        "bear_toy": (19124, 11758, 165247, (38344, 4793, 4794), 0, 1263, 3101, 4794, 1915),
        "bear_clothing": (39230, 22948, 277534, (44351, 5544, 5544), 0, 207, 4744, 5544, 2253),
        "bear_book": (14585, 6344, 136956, (35060, 0, 4383), 1, 2812, 2728, 1339, 48)}


@pytest.mark.parametrize("name", sorted(REAL))
def test_counts_equal_those_of_the_files(name: str, data_dir: Path) -> None:
    missing = datasets.build({"name": name}).missing_files(data_dir)
    if missing:
        pytest.skip(f"{missing[0]} is not in {data_dir}")
    made = read(data_dir, name)
    train, test = made.rows["train"], made.rows["test"]
    occurring = np.unique(np.concatenate(made.sequences))
    cold = ~np.isin(test.targets, np.concatenate([train.targets, train.histories.flat]))
    assert REAL[name] == (
        made.num_users, made.num_items, made.num_interactions,
        tuple(len(made.rows[part]) if part in made.rows else 0 for part in ("train", "valid", "test")),
        made.num_items - len(occurring), cold.sum(), (~np.isin(test.users, train.users)).sum(),
        (test.same_day >= 0).sum(), (test.same_day == 1).sum())
    split = Windows().split(made)
    assert len(split.train) + len(split.valid) == len(train) + (len(made.rows["valid"]) if "valid" in made.rows else 0)
    assert max(part.lengths.max() for part in (split.train, split.valid, split.test)) == 10
