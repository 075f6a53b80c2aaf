"""What the order of a data set hides: equal times, repeats, mixed units, ids that differ by blanks; and who says so."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec_bench.cli import main
from genrec_bench.commands import data
from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import datasets
from genrec_bench.datasets.causes import alike
from genrec_bench.splits.last_n import LastN
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.splits.order import AS_GIVEN, BY_TIME, order_facts, order_sentences

HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"
ROWS = [("u", "a", 1), ("u", "b", 2), ("u", "c", 2), ("u", "d", 3), ("u ", "a", 4), ("u ", "b", 5), ("u ", "c", 6),
        ("u ", "c", 6.5)]


def written(folder: Path, rows: list[tuple[str, str, float]] = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "X.inter").write_text(HEADER + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in rows), encoding="utf-8")
    return folder


def facts(interactions: Interactions, **changes: int) -> dict:
    return order_facts(LeaveOneOut(**changes).split(interactions))


def test_facts_by_hand(tmp_path: Path) -> None:
    """Of six pairs one has equal times, in no user the last two; the second user's target is what came before it."""
    read = datasets.build({"name": "folder", "path": str(written(tmp_path))}).load(None)
    assert [t.tolist() for t in read.times] == [[1, 2, 2, 3], [4, 5, 6, 6.5]] and read.times[0].dtype == np.float64
    found = facts(read)
    assert found == {"rule": BY_TIME, "users": 2, "targets": 2, "neighbours": 6, "equal_times": 1, "tied_targets": 0,
                     "newest_again": 1, "repeated": 1, "trained_validate": False, "repeats": 0,
                     "dropped": 0, "units": {"seconds": 8}}
    json.dumps(found)
    assert facts(read, max_users=1)["neighbours"] == 3, "of the users kept"
    told = order_sentences(found)
    assert len(told) == 2 and "ties as in the file: 1 of 6 (17%) neighbouring" in told[0]
    assert told[1].startswith("1 of 2 (50%) test targets equal the newest item of their history, and 1 are somewhere")
    moved = replace(read, times=(np.array([1, 1, 7, 7]), np.array([10**18, 10**18 + 1, 10**18 + 2, 10**18 + 2])))
    assert (facts(moved)["equal_times"], facts(moved)["tied_targets"]) == (3, 2), "nanoseconds fit"
    assert facts(moved)["repeats"] == 1 and "1 kept, 0 left out" in " ".join(order_sentences(facts(moved)))


def test_every_row_of_a_user_counts(tmp_path: Path) -> None:
    """Two test rows a user: times 4, 4, 5 tie the target before the last, not the last."""
    rows = [("u", item, time) for item, time in zip("abcdef", (1, 2, 3, 4, 4, 5), strict=True)]
    read = datasets.build({"name": "folder", "path": str(written(tmp_path, rows))}).load(None)
    found = order_facts(LastN(test_targets=2).split(read))
    assert (found["users"], found["targets"], found["tied_targets"]) == (1, 2, 1)
    assert "picks 1 of 2 (50%) test targets" in order_sentences(found)[0]


def test_data_without_times_are_in_the_order_given(toy_interactions: Interactions) -> None:
    found = facts(toy_interactions)
    assert set(found) == {"rule", "users", "targets", "neighbours", "newest_again", "repeated", "trained_validate"}
    assert found["rule"] == AS_GIVEN
    assert order_sentences(found)[0] == "The data have no times: order as given."


def test_ml_100k_shares_seconds() -> None:
    dataset = datasets.build({"name": "ml-100k"})
    if dataset.missing_files(None):
        pytest.skip("recbole is not installed")
    read = dataset.load(None)
    found = facts(read)
    assert read.times[0].dtype == np.int64 and (found["equal_times"], found["neighbours"]) == (50561, 99057)
    assert (found["tied_targets"], found["newest_again"], found["repeats"]) == (415, 0, 0)


def test_times_do_not_change_a_split(toy_interactions: Interactions) -> None:
    timed = replace(toy_interactions, times=tuple(np.arange(len(s)) for s in toy_interactions.sequences))
    for config in (LeaveOneOut(), LeaveOneOut(max_users=7)):
        assert config.split(timed).fingerprint == config.split(toy_interactions).fingerprint


def test_mixed_units_are_told(tmp_path: Path) -> None:
    rows = [(u, i, t * 1000 if i == "b" else t) for u, i, t in [(u, i, 1_500_000_000 + t) for u, i, t in ROWS[:-1]]]
    found = facts(datasets.build({"name": "folder", "path": str(written(tmp_path, rows))}).load(None))
    assert found["units"] == {"seconds": 5, "milliseconds": 2}
    assert order_sentences(found)[-1].startswith("Times are of different units, by their size: 5 seconds, 2 millis")


def test_a_doubled_file_is_refused_with_the_option_that_drops_repeats(tmp_path: Path, capsys) -> None:
    folder = written(tmp_path / "shop", ROWS + ROWS)
    assert main(["data", "check", "--datasets", str(folder)]) == 2
    told = capsys.readouterr().err
    assert f"{folder / 'X.inter'}: line 10, user 'u', item 'a': the same at the same time as line 2" in told
    assert "(8 such lines of 16)" in told and "--set folder.drop_repeats=true" in told
    assert main(["data", "check", "--datasets", str(folder), "--set", "folder.drop_repeats=true"]) == 0
    assert "shop: Exact repeats of user, item and time: 0 kept, 8 left out." in capsys.readouterr().out
    spec = {"name": "folder", "path": str(folder), "drop_repeats": True}
    once = datasets.build({"name": "folder", "path": str(written(tmp_path / "once"))}).load(None)
    assert LeaveOneOut().split(datasets.build(spec).load(None)).fingerprint == \
        LeaveOneOut().split(once).fingerprint


def test_the_report_states_the_rule_with_its_counts(tmp_path: Path) -> None:
    words = ["--suite", "apao", "--profile", "smoke", "--baselines", "popularity", "--datasets",
             str(written(tmp_path / "shop", ROWS + ROWS)), "--set", "folder.drop_repeats=true"]
    assert main(["run", *words, "--results", str(tmp_path / "r"), "--jobs", "1"]) == 0
    (record,) = (tmp_path / "r" / "shop").glob("*.json")
    assert json.loads(record.read_text())["data"]["order"]["equal_times"] == 1
    text = (tmp_path / "r" / "reports" / "apao" / "appendix.md").read_text()
    assert "ties as in the file: 1 of 6 (17%) neighbouring ones" in text and "0 kept, 8 left out" in text


def test_a_setting_that_nothing_reads_is_refused(toy_folder: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(UserError, match="drop_repeats: JSON files have no times"):
        datasets.build({"name": "folder", "path": str(toy_folder), "drop_repeats": True}).load(None)
    lists = tmp_path / "mine.csv"
    lists.write_text("user_id,item_id,score\n0,1,1\n")
    for words in (("data", "check"), ("evaluate", "--rankings", str(lists))):
        for change, message in (("ml-100k.x=1", "unknown setting 'x'"),
                                ("training.epochs=3", "this command reads folder and no training"),
                                ("folder.drop_repeat=true", "Did you mean 'drop_repeats'")):
            assert main([*words, "--datasets", str(toy_folder), "--set", change]) == 2
            assert message in capsys.readouterr().err


def test_check_names_ids_that_differ_only_in_their_form(tmp_path: Path, capsys) -> None:
    names = ("a b", "ab", "c", "a  b", "b", "18", "18.0", "018", "usér", "use\u0301r", "USÉR")
    assert {form.differ: pairs for form, pairs in alike(names)} == {
        "blanks": [("a b", "ab"), ("a b", "a  b")], "a '.0' at the end": [("18", "18.0")],
        "leading zeros": [("18", "018")], "their Unicode form (NFC, NFD)": [("usér", "use\u0301r")]}
    twins = [("usér", "a", 1), ("usér", "b", 2), ("usér", "c", 3), ("usér", "a", 4)]
    twins += [("use\u0301r", item, time) for _, item, time in twins]
    assert main(["data", "check", "--datasets", str(written(tmp_path / "twins", twins))]) == 0
    told = r"Users 'use\u0301r' and 'us\xe9r' differ only by their Unicode form (NFC, NFD) and are two (1 such users)."
    assert told in capsys.readouterr().out
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    words = ["check", "--datasets", str(written(tmp_path / "shop"))]
    assert data.run(parser.parse_args(words)) == 0
    told = "shop: Users 'u' and 'u ' differ only by blanks and are two (1 such users).\n"
    assert capsys.readouterr().out.endswith(told)
    assert data.run(parser.parse_args([*words, "--json"])) == 0
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)["shop"]) == list(data.COUNTS) and "differ only by blanks" in captured.err
