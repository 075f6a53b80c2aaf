"""`evaluate --rankings`: the numbers of good files, and one clear message for every bad one."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from genrec_bench import api
from genrec_bench.commands import evaluate as command
from genrec_bench.contracts import Interactions, Rankings, Split
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical
from genrec_bench.datasets.base import Dataset
from genrec_bench.evaluate import rankings_from_scores, score
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.running import folders
from genrec_bench.running import rankings as rank_files
from genrec_bench.running.ranking_files import COLUMNS
from genrec_bench.splits.leave_one_out import LeaveOneOut
from tests.small_records import apao, record_of

USERS, ITEMS = 12, 30
MSL = next(row.source for row in apao().rows if row.label == "TIGER + MSL")
HEADER = "user_id,item_id,score\n"
ROOT = Path(__file__).resolve().parents[1]


def toy_split() -> Split:
    """Users u0..u11, items i0..i29, six items each; the last is the test target."""
    rng = np.random.default_rng(0)
    sequences = tuple(rng.permutation(ITEMS)[:6].astype(np.int64) for _ in range(USERS))
    interactions = Interactions("toy", tuple(f"u{n}" for n in range(USERS)), tuple(f"i{n}" for n in range(ITEMS)),
                                sequences)
    return LeaveOneOut().split(interactions)


@dataclass(frozen=True)
class Toy(Dataset):
    """The toy, as a registered dataset."""

    def load(self, data_dir: Path | None) -> Interactions:
        return toy_split().interactions

    def location(self, data_dir: Path | None) -> str:
        return "here"

    def missing_files(self, data_dir: Path | None) -> list[str]:
        return []


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Split:
    """No runs come with the repository here."""
    monkeypatch.setattr(folders, "REFERENCE", tmp_path / "reference")
    registry.datasets.names()
    monkeypatch.setattr(registry.datasets, "_classes", dict(registry.datasets._classes))
    registry.datasets.register("toy")(Toy)
    return toy_split()


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(w) for w in words])


def evaluate(path: Path, capsys: pytest.CaptureFixture) -> tuple[dict, str]:
    assert command.run(arguments("--rankings", path, "--datasets", "toy", "--json")) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def table(scores: np.ndarray, seed: int = 0) -> pandas.DataFrame:
    """All users and items in a shuffled order."""
    rows = [(f"u{u}", f"i{i}", scores[u, i]) for u in range(len(scores)) for i in range(ITEMS)]
    order = np.random.default_rng(seed).permutation(len(rows))
    return pandas.DataFrame([rows[n] for n in order], columns=list(COLUMNS))


def written(tmp_path: Path, text: str | bytes, name: str = "file.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_full_file_scores_as_the_score_matrix(tmp_path: Path, capsys, toy: Split, suffix: str) -> None:
    """Small integer scores, so that there are many ties."""
    scores = np.random.default_rng(1).integers(0, 6, size=(USERS, ITEMS)).astype(float)
    path = tmp_path / f"file.{suffix}"
    frame = table(scores)
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    result, err = evaluate(path, capsys)
    expected = score(rankings_from_scores(scores, toy.test.targets, max_k=255), id_level=False)
    unseen = score(rankings_from_scores(scores, toy.test.targets, max_k=255, seen=toy.test.seen), id_level=False)
    expected |= {f"unseen_{key}": value for key, value in unseen.items()}
    assert result["metrics"] == pytest.approx(expected, abs=1e-15)
    assert (result["dataset"], result["users"], result["missing_users"], err) == ("toy", USERS, 0, "")
    scored = api.evaluate([path], "toy", results=tmp_path / "none")
    assert scored.metrics == result["metrics"] and not (tmp_path / "none").exists()


def test_lists_by_hand_with_missing_users(tmp_path: Path, capsys, toy: Split) -> None:
    """User 0 has the target first, user 1 second, user 2 not; the other nine are missing: recall@5 = 2/12."""
    targets = toy.test.targets
    others = [next(i for i in range(ITEMS) if i != t) for t in targets]
    lines = [f"u0,i{targets[0]},2", f"u0,i{others[0]},-1.5e0", f"u1,i{others[1]},9", f"u1,i{targets[1]},8.5",
             f"u2,i{others[2]},1"]
    result, err = evaluate(written(tmp_path, HEADER + "\n".join(lines)), capsys)
    assert result["missing_users"] == 9
    assert "9 of 12 test users are not in the file" in err
    assert result["metrics"]["recall@1"] == pytest.approx(1 / 12)
    assert result["metrics"]["recall@5"] == pytest.approx(2 / 12)
    assert result["metrics"]["ndcg@5"] == pytest.approx((1 + 1 / np.log2(3)) / 12)


def test_order_of_columns_bom_blank_lines_and_windows_ends(tmp_path: Path, capsys, toy: Split) -> None:
    target = toy.test.targets[0]
    path = written(tmp_path, f"\ufeffscore, user_id,item_id\r\n\r\n1,u0,i{target}\r\n")
    assert evaluate(path, capsys)[0]["metrics"]["recall@1"] == pytest.approx(1 / 12)


def test_the_printed_table(tmp_path: Path, capsys, toy: Split) -> None:
    path = written(tmp_path, f"{HEADER}u0,i{toy.test.targets[0]},1\n")
    assert command.run(arguments("--rankings", path, "--datasets", "toy")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "toy: 12 test users, 11 of them missing"
    assert lines[1].split() == ["metric", "@1", "@5", "@10", "@20"]
    assert "recall          0.0833   0.0833   0.0833   0.0833" in lines


def test_users_without_a_test_row_are_left_out(tmp_path: Path, capsys, toy: Split, monkeypatch) -> None:
    few = LeaveOneOut(max_users=3).split(toy.interactions)
    whole = Split(toy.interactions, few.train, few.valid, few.test, few.train_sequences)
    monkeypatch.setattr(rank_files, "load_split", lambda name, data_dir: whole)
    result, err = evaluate(written(tmp_path, f"{HEADER}u0,i{few.test.targets[0]},1\nu9,i1,3\n"), capsys)
    assert result["users"] == 3 and result["metrics"]["recall@1"] == pytest.approx(1 / 3)
    assert "1 users without a test row" in err


def test_a_bad_file_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "u0,i1,high\n")
    with pytest.raises(UserError, match="line 2, user 'u0': the score 'high' is not a number") as caught:
        command.run(arguments("--rankings", path, "--datasets", "toy"))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bad_parquet_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a Parquet file"):
        command.run(arguments("--rankings", written(tmp_path, "text", "x.parquet"), "--datasets", "toy"))
    frame = pandas.DataFrame({"user_id": ["u0", "u1"], "item_id": ["i1", "i1"], "score": [1.0, np.nan]})
    frame.to_parquet(tmp_path / "y.parquet")
    with pytest.raises(UserError, match="y.parquet, row 2, user 'u1': the score is nan"):
        command.run(arguments("--rankings", tmp_path / "y.parquet", "--datasets", "toy"))
    frame.rename(columns={"score": "scor"}).to_parquet(tmp_path / "z.parquet")
    with pytest.raises(UserError, match="z.parquet: unknown column 'scor'. Rename 'scor' to score"):
        command.run(arguments("--rankings", tmp_path / "z.parquet", "--datasets", "toy"))


def test_missing_file_folder_and_datasets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing.csv is missing"):
        command.run(arguments("--rankings", tmp_path / "nothing.csv", "--datasets", "toy"))
    with pytest.raises(UserError, match="is a folder"):
        command.run(arguments("--rankings", tmp_path, "--datasets", "toy"))
    path = written(tmp_path, HEADER + "u0,i1,1\n")
    with pytest.raises(UserError, match="names none"):
        command.run(arguments("--rankings", path))
    with pytest.raises(UserError, match="names toy, ml-100k"):
        command.run(arguments("--rankings", path, "--datasets", "toy,ml-100k"))


def test_exactly_one_of_rankings_and_checkpoint(tmp_path: Path, capsys) -> None:
    for words in ((), ("--rankings", "a.csv", "--checkpoint", "b")):
        with pytest.raises(SystemExit):
            arguments(*words)
    with pytest.raises(UserError, match="not a folder"):
        command.run(arguments("--checkpoint", tmp_path / "none"))
    with pytest.raises(UserError, match="leave --datasets and --set out"):
        command.run(arguments("--checkpoint", tmp_path, "--datasets", "toy"))


def test_a_checkpoint_goes_to_the_runner(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def served(folder: Path, data_dir: Path | None, device: str, threads: int) -> dict:
        assert (device, threads) == ("cpu", 3)
        return {"dataset": "toy", "users": 2, "metrics": {"recall@10": 0.5, "id_recall@10": 0.75}}

    module = type(sys)("genrec_bench.running.runner")
    module.evaluate_checkpoint = served
    monkeypatch.setitem(sys.modules, "genrec_bench.running.runner", module)
    monkeypatch.setattr(__import__("genrec_bench"), "runner", module, raising=False)
    assert command.run(arguments("--checkpoint", tmp_path, "--threads", "3")) == 0
    assert "id_recall   0.7500" in capsys.readouterr().out


def test_scoring_a_file_imports_no_torch() -> None:
    code = "import sys, genrec_bench.commands.evaluate; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# Several files, and what they stand against

def lists(tmp_path: Path, split: Split, rankings: Rankings, name: str) -> Path:
    """A file in which every target stands where `rankings` say, in a group of as many equals."""
    lines = []
    for row, (user, target) in enumerate(zip(split.test.users, split.test.targets, strict=True)):
        place, ties = int(rankings.ranks[row]), int(rankings.ties[row])
        others = [i for i in range(split.num_items) if i != target]
        above, equal = others[:place - 1], [target, *others[place - 1:place + ties - 2]]
        if place == 0:
            above, equal = others[:1], []
        ids = split.interactions
        lines += [f"{ids.user_ids[user]},{ids.item_ids[i]},{score}" for score, group in ((2, above), (1, equal))
                  for i in group]
    return written(tmp_path, HEADER + "\n".join(lines) + "\n", name)


def drawn(seed: int, users: int = USERS) -> Rankings:
    """Places at random, some in groups of two, some out of the list."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 8, size=users)
    ties = np.where(places > 0, rng.integers(1, 3, size=users), 1)
    return Rankings(places, ties, places)


def opponent(store: RecordStore, split: Split, rankings: Rankings, seed: int = 0, config: LeaveOneOut | None = None,
             **changes: Any) -> RunRecord:
    """A stored run on the toy, as the profile quick makes it: of plain TIGER, or of another row."""
    config = config or LeaveOneOut()
    record = record_of("apao_office", "tiger", seed, profile="quick", split=config, **changes)
    identity = {**record.identity, "dataset": {"name": "toy", "version": 1},
                "split_fingerprint": config.split(split.interactions).fingerprint}
    record = dataclasses.replace(record, run_id=f"{len(store.read_all()):016x}", identity=identity,
                                 config={**record.config, "dataset": {"name": "toy"}})
    store.write(record, rankings, rankings)
    return record


def compared(tmp_path: Path, *words: str | Path) -> tuple[int, Path]:
    results = tmp_path / "stored"
    code = command.run(arguments("--datasets", "toy", "--compare", "--results", results, "--rankings", *words))
    return code, results / "reports" / "evaluate"


def test_several_files_are_seeds_of_one_method(tmp_path: Path, capsys, toy: Split) -> None:
    paths = [lists(tmp_path, toy, drawn(n), f"{n}.csv") for n in range(3)]
    assert command.run(arguments("--rankings", *paths, "--datasets", "toy", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    for n, found in enumerate(result["files"]):
        assert found["metrics"].items() >= score(drawn(n), id_level=False).items()
    assert all(result["metrics"][k] == pytest.approx(np.mean([f["metrics"][k] for f in result["files"]]))
               for k in ("ndcg@10", "unseen_ndcg@10", "recall@20"))
    assert command.run(arguments("--rankings", *paths, "--datasets", "toy")) == 0
    assert capsys.readouterr().out.startswith("toy: 12 test users, mean of 3 files\n")
    with pytest.raises(UserError, match="0.csv twice"):
        command.run(arguments("--rankings", *paths, paths[0], "--datasets", "toy"))


def test_a_stored_runs_own_lists_are_no_different(tmp_path: Path, capsys, toy: Split) -> None:
    """Its places written to files and read back, ties included: a difference of exactly 0 at p = 1."""
    store = RecordStore(tmp_path / "stored")
    for seed in range(2):
        opponent(store, toy, drawn(seed), seed)
        opponent(store, toy, drawn(7), seed, row=MSL)
    paths = [lists(tmp_path, toy, drawn(n), f"{n}.csv") for n in range(2)]
    code, reports = compared(tmp_path, *paths, "--label", "My  Method!")
    assert code == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == f"report: {reports / 'my-method' / 'comparison.md'}"
    assert out[-2] == ("My Method! on toy, beside profile quick: no difference detected from 1 of 1 (every user has "
                       "the same value in both).")
    text = (reports / "my-method" / "comparison.md").read_text(encoding="utf-8")
    (same,) = [line for line in text.splitlines() if "and TIGER + cross-entropy (" in line]
    assert "No difference detected between My Method! and TIGER + cross-entropy (toy, 2 files, 2 seeds" in same
    assert "+0.0000 [+0.0000, +0.0000], p = 1.000; every user has the same value in both." in same
    assert "TIGER + MSL" in text.split("## Described only")[1] and "Left out" not in text
    assert "in the order given: 1. 0.csv; 2. 1.csv." in text and "not which" not in text
    assert "matched in order" in text and str(tmp_path) not in text
    assert compared(tmp_path, *paths, "--label", "My  Method!")[0] == 0
    assert (reports / "my-method" / "comparison.md").read_text(encoding="utf-8") == text


def test_json_holds_the_verdicts(tmp_path: Path, capsys, toy: Split) -> None:
    opponent(RecordStore(tmp_path / "stored"), toy, drawn(0))
    path = written(tmp_path, f"{HEADER}u0,i{toy.test.targets[0]},1\n", "mine.csv")
    assert compared(tmp_path, path, "--json")[0] == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["recall@1"] == pytest.approx(1 / 12) and result["missing_users"] == 11
    (sentence,) = result["comparison"]["sentences"]
    assert result["comparison"]["summary"] == "mine on toy, beside profile quick: worse than TIGER + cross-entropy."
    assert "mine" in sentence.split() and "(toy, 1 file, 1 seed of the baseline)" in sentence
    assert Path(result["comparison"]["report"]).is_file()
    text = Path(result["comparison"]["report"]).read_text(encoding="utf-8")
    assert "mine.csv (11 of 12 test users missing" in text
    assert "Of one file it cannot say" in text


def test_the_same_test_targets_are_what_counts(toy: Split, tmp_path: Path) -> None:
    """Other histories or training rows are none of the test's business; other users, or lists cut otherwise, are."""
    store = RecordStore(tmp_path)
    kept = [opponent(store, toy, drawn(0)), opponent(store, toy, drawn(0), config=LeaveOneOut(max_history=2)),
            opponent(store, toy, drawn(0), config=LeaveOneOut(train_targets_per_user=1))]
    left = [opponent(store, toy, drawn(0, 3), config=LeaveOneOut(max_users=3))]
    other = dataclasses.replace(kept[0], identity={**kept[0].identity, "split_fingerprint": "0" * 64})
    assert set(rank_files.same_targets([*kept, *left, other], toy)) == {record.run_id for record in kept}
    assert len({canonical(r.config["split"]) for r in kept}) == 3


def test_a_method_that_is_stored_with_two_splits_is_tested_once(tmp_path: Path, capsys, toy: Split) -> None:
    """The split and profile of most rows of suites is taken, then of most methods; the report names what is left out.
    """
    store, short = RecordStore(tmp_path / "stored"), LeaveOneOut(max_history=2)
    opponent(store, toy, drawn(3))
    opponent(store, toy, drawn(3), config=short)
    opponent(store, toy, drawn(4), config=short, row=MSL)
    assert compared(tmp_path, lists(tmp_path, toy, drawn(0), "mine.csv"), "--json")[0] == 0
    result = json.loads(capsys.readouterr().out)["comparison"]
    text = Path(result["report"]).read_text(encoding="utf-8")
    assert len(result["sentences"]) == 1 and "all 1 comparisons" in text
    other = short.split(toy.interactions).fingerprint
    (note,) = [line for line in text.splitlines() if "Left out though" in line]
    assert f"are the same: TIGER + MSL, TIGER + cross-entropy (toy, split {other[:8]}, profile quick). " in note


def test_whatever_may_be_wrong_with_a_comparison(tmp_path: Path, capsys, toy: Split, monkeypatch) -> None:
    """One line, before the data are read where that can be, and nothing is written."""
    path = lists(tmp_path, toy, drawn(0), "mine.csv")
    store = RecordStore(tmp_path / "stored")
    steps = [(lambda: None, (), "no stored run of toy .* there are runs of no data at all"),
             (lambda: store.write(record_of("ml-100k", "tiger", 0), drawn(0), drawn(0)), (),
              "no stored run of toy .* there are runs of ml-100k"),
             (lambda: opponent(store, toy, drawn(0, 3), config=LeaveOneOut(max_users=3)),
              ("--label", "TIGER + cross-entropy"), "is called 'TIGER \\+ cross-entropy' too"),
             (lambda: None, (), "none of the 1 stored runs of toy")]
    for happens, words, message in steps:
        happens()
        with pytest.raises(UserError, match=message) as caught:
            compared(tmp_path, path, *words)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="give --rankings"):
        command.run(arguments("--checkpoint", tmp_path, "--compare"))
    assert not (store.root / "reports").exists() and capsys.readouterr().out == ""


def test_lists_for_ml_100k_against_stored_runs(tmp_path: Path, capsys) -> None:
    """What a newcomer does, on real data; the lists are those of a stored method, so that the answer is known."""
    interactions, store = registry.datasets.build({"name": "ml-100k"}).load(None), RecordStore(tmp_path / "stored")
    split = LeaveOneOut().split(interactions)
    for method, last in (("tiger", 40), ("sasrec", 10)):  # ranks from 0 or 1 to the last
        for seed in range(2):
            record = record_of("ml-100k", method, seed)
            own = registry.splits.build(record.config["split"]).split(interactions)
            ranks = np.repeat(np.random.default_rng(seed).integers(method == "sasrec", last, size=len(split.test)), 5)
            record = dataclasses.replace(record, identity={**record.identity, "split_fingerprint": own.fingerprint})
            store.write(record, *[Rankings(ranks, np.ones_like(ranks), ranks, own.test.groups)] * 2)
    stored = {r.seed: r for r in store.read_all() if r.label == "TIGER + cross-entropy"}
    each = {s: store.read_ranks(record).ranks[4::5] for s, record in sorted(stored.items())}  # five rows a user
    paths = [lists(tmp_path, split, Rankings(r, np.ones_like(r), r), f"{s}.csv") for s, r in each.items()]
    assert command.run(arguments("--rankings", *paths, "--datasets", "ml-100k", "--compare", "--label", "theirs",
                                 "--results", store.root)) == 0
    summary, report = capsys.readouterr().out.splitlines()[-2:]
    text = Path(report.removeprefix("report: ")).read_text(encoding="utf-8")
    (same,) = [line for line in text.splitlines() if " and TIGER + cross-entropy (" in line]
    assert "2 files, 2 seeds of the baseline" in same and "+0.0000 [+0.0000, +0.0000]" in same
    mean = np.mean([score(store.read_ranks(r))["ndcg@10"] for r in stored.values()])
    assert f"NDCG@10 {mean:.4f} against {mean:.4f}" in same
    assert "worse than SASRec" in summary
