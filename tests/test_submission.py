"""Records from elsewhere: what a check finds, what it leaves alone, and what is said of who made a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec_bench import api
from genrec_bench.cli import main
from genrec_bench.contracts import Rankings
from genrec_bench.core.errors import UserError
from genrec_bench.evaluate import score
from genrec_bench.experiments import identity
from genrec_bench.reporting.leaderboard import board
from genrec_bench.reporting.markdown import Source
from genrec_bench.results import diagnoses
from genrec_bench.results.makers import badge, makers
from genrec_bench.results.merge import merge
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.running.submission import Checked, check_records
from genrec_bench.running.workspace import Workspace
from tests.small_records import config_of, record_of
from tests.test_diagnoses import diagnosis
from tests.test_merge import contents

RANKS = Rankings(np.array([1, 0, 3]), np.array([1, 1, 2]), np.array([1, 0, 2]))
UNSEEN = Rankings(np.array([1, 0, 0]), np.ones(3, dtype=int), np.array([1, 0, 0]))
METRICS = score(RANKS) | {f"unseen_{name}": value for name, value in score(UNSEEN).items()} | {"valid_ndcg@10": 0.1}
KNN = record_of("apao_office", "item_knn", 0)
GOOD = replace(KNN, metrics=METRICS, data={**KNN.data, "test": 3}, timings={"total_seconds": 1.25})
OURS = replace(GOOD, timings={"total_seconds": 1.5})


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of tests have splits of their own: the papers' data are not looked for."""
    monkeypatch.delenv("GENREC_BENCH_DATA", raising=False)


def sent(folder: Path, record: RunRecord = GOOD, ranks: Rankings = RANKS) -> Path:
    RecordStore(folder).write(record, ranks, UNSEEN)
    return folder


def checked(folder: Path) -> Checked:
    return check_records(folder, None)


def test_a_sound_folder(tmp_path):
    found = checked(sent(tmp_path))
    assert (found.records, found.problems, found.absent, found.compared) == (1, [], {"apao_office"}, set())
    assert found.notes == ["made with commit 0123456789abcdef, dirty False, torch 2.13.0, python 3.11.7, cpu a CPU, "
                           "device cpu, threads 1: 1 of 1 runs"]


def with_config(**parts: Any) -> RunRecord:
    return replace(GOOD, config={**GOOD.config, **parts})


def with_metric(name: str, value: float | None) -> RunRecord:
    metrics = {key: number for key, number in GOOD.metrics.items() if key != name}
    return replace(GOOD, metrics=metrics if value is None else {**metrics, name: value})


WRONG = {
    "name": (replace(GOOD, identity={**GOOD.identity, "seed": 7}), "its identity gives the name"),
    "setting": (with_config(baseline={**GOOD.config["baseline"], "shrink": 99.0}),
                "settings or versions of baseline are not those"),
    "seed": (with_config(seed=5), "settings or versions of seed"),
    "version": (replace(GOOD, identity={**GOOD.identity, "engine": 2}), "settings or versions of engine"),
    "method": (replace(GOOD, method="0" * 16), "not 0000000000000000"),
    "item": (with_metric("recall@20", 0.9), "recall@20 is 0.9, its ranks give 0.66"),
    "id": (with_metric("id_ndcg@10", METRICS["id_ndcg@10"] + 1e-7), "id_ndcg@10 is"),
    "unseen": (with_metric("unseen_mrr@5", 0.0), "unseen_mrr@5 is 0.0, its ranks give 0.33"),
    "absent": (with_metric("ndcg@5", None), "ndcg@5 is None"),
    "text": (with_metric("ndcg@5", "0.5"), "is no record of this version (TypeError"),
    "rows": (replace(GOOD, data={**GOOD.data, "test": 4}), "test ranks: 3 rows, the record states 4"),
    "plug-in": (with_config(baseline={"name": "item_kn"}), "Did you mean 'item_knn'?"),
    "folder": (with_config(dataset={"name": "folder", "path": "x", "label": "../x"}), "folder.label"),
    "form": (with_config(evaluation=3), "is no record of this version (TypeError"),
    "list": (replace(GOOD, identity=[]), "is not a run record (its identity is no table)"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_check_finds(tmp_path, what):
    """Each by itself, with the file's name."""
    record, words = WRONG[what]
    store = RecordStore(sent(tmp_path))
    path = store.path(GOOD)
    store.note(replace(record, path=path))
    found = checked(tmp_path)
    assert any(str(path) in text and words in text for text in found.problems), found.problems


@pytest.mark.parametrize(("ranks", "words"), [
    (replace(RANKS, ranks=np.array([1, 0, 21])), "a rank outside 0 to 20"),
    (replace(RANKS, ties=np.array([1, 0, 2])), "a group of no items"),
    (replace(RANKS, ranks=np.array([2, 0, 3])), "its ranks give")])
def test_ranks_that_are_none_or_other_ones(tmp_path, ranks, words):
    problems = checked(sent(tmp_path, ranks=ranks)).problems
    assert problems and all(words in text for text in problems)


def test_files_that_are_damaged_or_belong_to_nothing_are_named(tmp_path):
    folder = sent(tmp_path)
    other = record_of("apao_office", "popularity", 0)
    sent(tmp_path, replace(other, metrics=METRICS, data={**other.data, "test": 3}))
    store = RecordStore(folder)
    cut = store.path(other).with_name(f"{other.run_id}.ranks.npz")
    cut.write_bytes(cut.read_bytes()[:50])
    (folder / "notes.txt").touch()
    (folder / "apao_office" / "0123456789abcdef.json").write_text("{}")
    diagnoses.write(diagnoses.path_of(store, GOOD), diagnosis("fedcba9876543210"))
    found = checked(folder)
    assert len(found.problems) == 2 and str(cut) in found.problems[0] and "fedcba9876543210" in found.problems[1]
    named = [note for note in found.notes if "belongs to no record" in note]
    assert {Path(note.partition(": ")[0]).name for note in named} == {
        "notes.txt", "0123456789abcdef.json", cut.name, f"{other.run_id}.json"}


def real(workspace: Workspace) -> RunRecord:
    """A run on ml-100k under the name that the data give, with a split of five rows a user."""
    made = workspace.prepare(config_of("ml-100k", "popularity", 0), keep=False)
    record = record_of("ml-100k", "popularity", 0)
    rows = len(made.split.test)
    ranks = Rankings(np.ones(rows, int), np.ones(rows, int), np.ones(rows, int), made.split.test.groups)
    metrics = {f"{begin}{name}": value for begin in ("", "unseen_") for name, value in score(ranks).items()}
    record = replace(record, run_id=made.run_id, identity=made.identity, metrics=metrics,
                     data={**record.data, "test": rows})
    workspace.store.write(record, ranks, ranks)
    return record


def test_fingerprints_are_compared_with_data_at_hand(tmp_path):
    record = real(Workspace(tmp_path / "a"))
    found = checked(tmp_path / "a")
    assert found.problems == [] and found.compared == {"ml-100k"}
    parts = {**record.identity, "split_fingerprint": "ab" * 32}
    other = replace(record, identity=parts, run_id=identity.run_id(parts))
    ranks = RecordStore(tmp_path / "a").read_ranks(record)
    RecordStore(tmp_path / "b").write(other, ranks, ranks)
    (problem, name) = checked(tmp_path / "b").problems
    assert "its split is not the one that the data here give" in problem and record.run_id in name


# The command

def test_check_writes_nothing_and_says_so_by_its_exit_code(tmp_path, capsys):
    sent(tmp_path / "a")
    words = ["merge", "--check", "--from", str(tmp_path / "a"), "--into", str(tmp_path / "c")]
    before = contents(tmp_path)
    assert main(words) == 0 and "1 would be new" in capsys.readouterr().out
    sent(tmp_path / "c", with_metric("ndcg@10", 0.5))
    assert main(words) == 1 and "with other numbers (ndcg@10" in capsys.readouterr().err
    assert {p: b for p, b in contents(tmp_path).items() if tmp_path / "c" not in p.parents} == before
    for folder, text in (("none", "no folder of records"), ("empty", "no records below")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert main(["merge", "--check", "--from", str(tmp_path / folder)]) == 2 and text in capsys.readouterr().err


def test_what_is_wrong_is_not_merged_under_a_name(tmp_path, capsys):
    sent(tmp_path / "a", with_metric("id_recall@1", 0.9))  # which a merge of our own does not look at
    before = contents(tmp_path)
    words = ["merge", "--from", str(tmp_path / "a"), "--into", str(tmp_path / "c")]
    assert main([*words, "--as", "a lab"]) == 2 and "id_recall@1 is 0.9" in capsys.readouterr().err
    for name in ("here", "", " x", "a\nb", "x" * 41):
        assert main([*words, "--as", name]) == 2 and "--as takes a name" in capsys.readouterr().err
    assert main(["merge", "--as", "a lab", "--into", str(tmp_path / "c")]) == 2
    assert "--from DIR" in capsys.readouterr().err and contents(tmp_path) == before


# Who made a run

def stored(folder: Path) -> RunRecord:
    (record,) = RecordStore(folder).read_all()
    return record


def test_reported_first_then_run_here_and_the_other_way_round(tmp_path):
    into = tmp_path / "c"
    api.merge([sent(tmp_path / "a")], into, maker="a lab")
    assert makers(stored(into)) == {"a lab"} and badge(stored(into)) == "self-reported"
    merge([sent(tmp_path / "b", OURS)], into)
    assert makers(stored(into)) == {"a lab", "here"} and badge(stored(into)) == "re-run"
    assert stored(into).timings == GOOD.timings  # the record that was there stays
    merge([sent(tmp_path / "b", OURS)], tmp_path / "d")
    assert badge(stored(tmp_path / "d")) == "" and "made_by" not in stored(tmp_path / "d").provenance
    api.merge([sent(tmp_path / "a")], tmp_path / "d", maker="a lab")
    assert badge(stored(tmp_path / "d")) == "re-run" and stored(tmp_path / "d").timings == OURS.timings


def test_a_copy_is_no_second_run_and_a_sender_cannot_speak_for_us(tmp_path):
    into = tmp_path / "c"
    merge([sent(tmp_path / "a")], into)
    before = contents(into)
    api.merge([sent(tmp_path / "a")], into, maker="a lab")
    assert contents(into) == before
    forged = replace(OURS, provenance={**OURS.provenance, "made_by": ["here", "everybody"]})
    api.merge([sent(tmp_path / "b", forged)], tmp_path / "d", maker="a lab")
    assert makers(stored(tmp_path / "d")) == {"a lab"}


def test_makers_go_on_with_a_record_and_two_senders_are_not_us(tmp_path):
    api.merge([sent(tmp_path / "a")], tmp_path / "c", maker="a lab")
    api.merge([sent(tmp_path / "b", OURS)], tmp_path / "c", maker="b lab")
    merge([tmp_path / "c"], tmp_path / "d")
    assert makers(stored(tmp_path / "d")) == {"a lab", "b lab"} and badge(stored(tmp_path / "d")) == "self-reported"
    with pytest.raises(UserError, match="no records below"):
        merge([tmp_path / "c"], tmp_path / "d")


def test_the_leaderboard_says_who_made_a_line(tmp_path):
    def shown() -> dict[str, Any]:
        source = Source(RecordStore(tmp_path / "c").read_all(), tmp_path / "c")
        return board(source.materials("training-free"))["blocks"][0]["lines"][0]

    api.merge([sent(tmp_path / "a")], tmp_path / "c", maker="a lab")
    assert shown()["badges"] == ["self-reported"] and shown()["runs"][0]["makers"] == ["a lab"]
    merge([sent(tmp_path / "b", OURS)], tmp_path / "c")
    assert shown()["badges"] == ["re-run"]
