"""`tune`: which trials a row has, that validation alone chooses, and that no report takes a trial for a row."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from genrec_bench import api
from genrec_bench.core.errors import UserError
from genrec_bench.core.seeds import TUNING_SEED, check_seeds
from genrec_bench.experiments import grid, suite_files, trials
from genrec_bench.experiments.config import gives_up
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.experiments.overrides import parse_overrides, parts_used
from genrec_bench.reporting.load import arrange
from genrec_bench.reporting.rows import load_suite
from genrec_bench.reporting.trials import page
from genrec_bench.results.records import RecordStore
from tests.small_records import all_records, contents, record_of
from tests.test_cli import MAX_ERROR_LINES, TINY, call, files, records

SUITE = """
[suite]
name = "mine"
title = "Mine"

[tune.item_knn]
decay = [0.3, 0.6]
shrink = [0.0, 5.0]

[tune.training]
learning_rate = [1e-3, 3e-3]

[[row]]
baseline = "popularity"

[[row]]
baseline = "item_knn"

[[row]]
label = "TIGER + cross-entropy"
backbone = { name = "tiger" }
objective = [{ name = "cross_entropy" }]
"""


@pytest.fixture()
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Item-kNN with two settings of two values, decay as it stands 0.6; TIGER with the learning rate of smoke, 3e-3."""
    monkeypatch.delenv("GENREC_BENCH_DATA", raising=False)
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return path


def searched(suite: Path, number: int, *pairs: str, datasets: tuple[str, ...] = ("ml-100k",),
             **more: Any) -> dict[str, trials.Search]:
    selection = Selection(str(suite), "smoke", datasets, overrides=parse_overrides(pairs), **more)
    return {f"{s.label}, {s.dataset}" if len(datasets) > 1 else s.label:
            dataclasses.replace(s, trials=s.trials[:number]) for s in trials.searches(selection)}


def changes(search: trials.Search) -> list[dict[str, Any]]:
    return [trial.changes for trial in search.trials]


# Which trials

def test_the_space_by_hand(suite: Path) -> None:
    found = searched(suite, 10)
    first, *others = changes(found["Item-kNN"])
    assert first == {} and found["Item-kNN"].trials[0].config.baseline.decay == 0.6
    assert sorted(map(str, others)) == sorted(map(str, [
        {"item_knn": {"decay": 0.3}}, {"item_knn": {"shrink": 5.0}}, {"item_knn": {"decay": 0.3, "shrink": 5.0}}]))
    assert changes(found["TIGER + cross-entropy"]) == [{}, {"training": {"learning_rate": 1e-3}}]
    assert changes(found["Popularity"]) == [{}]
    assert {t.config.seed for s in found.values() for t in s.trials} == {TUNING_SEED}
    assert [t.number for t in found["Item-kNN"].trials] == [1, 2, 3, 4]


def test_equal_trials_in_one_order_on_all_data(suite: Path) -> None:
    found = searched(suite, 3, datasets=("ml-100k", "apao_office"))
    office, movies = (found[f"Item-kNN, {name}"] for name in ("apao_office", "ml-100k"))
    assert changes(office) == changes(movies) and len(changes(office)) == 3
    assert changes(movies) == changes(searched(suite, 10)["Item-kNN"])[:3]


def test_a_value_more_moves_no_trial_before_another(suite: Path) -> None:
    before = changes(searched(suite, 10)["Item-kNN"])
    suite.write_text(SUITE.replace("decay = [0.3, 0.6]", "decay = [0.9, 0.3, 0.6]"))
    after = changes(searched(suite, 10)["Item-kNN"])
    assert len(after) == 6 and [c for c in after if c in before] == before


def test_set_holds_for_every_trial(suite: Path) -> None:
    found = searched(suite, 10, "item_knn.decay=0.9")["Item-kNN"]
    assert {t.config.baseline.decay for t in found.trials} == {0.9}
    assert changes(found) == [{}, {"item_knn": {"shrink": 5.0}}]


def test_a_profile_makes_trials_cheaper_and_nothing_else(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = grid.load_profile("smoke")
    monkeypatch.setattr(grid, "load_profile", lambda name: {
        **whole, "trials": {"training": {"epochs": 7}},
        "datasets_settings": {"apao_office": {"training": {"epochs": 5}}}})
    label = "TIGER + cross-entropy"
    assert [(t.config.training.epochs, t.config.training.learning_rate) for t in searched(suite, 9)[label].trials] == [
        (7, 3e-3), (7, 1e-3)]
    assert {t.config.training.epochs for t in searched(suite, 9, "training.epochs=9")[label].trials} == {9}
    office = searched(suite, 9, datasets=("apao_office",))[label]
    assert {t.config.training.epochs for t in office.trials} == {5}
    assert {c.training.epochs for c in expand(Selection(str(suite), "smoke", ("ml-100k",), rows=(label,)))} == {2}


def test_settings_that_go_together(suite: Path) -> None:
    suite.write_text(SUITE.replace("decay = [0.3, 0.6]\nshrink = [0.0, 5.0]",
                                   '"decay+shrink" = [[0.6, 0.0], [0.3, 5.0], [0.3, 0.0]]'))
    first, *others = changes(searched(suite, 10)["Item-kNN"])
    assert first == {} and sorted(map(str, others)) == sorted(map(str, [
        {"item_knn": {"decay": 0.3, "shrink": 5.0}}, {"item_knn": {"decay": 0.3}}]))
    assert changes(searched(suite, 10, "item_knn.decay=0.3")["Item-kNN"]) == [{}, {"item_knn": {"shrink": 5.0}}]
    with pytest.raises(UserError, match=r"mine.toml, tune: .* decay\+shrink, none has item_knn.decay = 0.4. Take one"):
        searched(suite, 10, "item_knn.decay=0.4")


def test_an_objective_has_its_weight_and_a_second_stage_its_own_section(suite: Path) -> None:
    suite.write_text(SUITE.replace("learning_rate = [1e-3, 3e-3]", """epochs = [2]
[tune.second_stage]
epochs = [1, 3]
[tune.dpo]
weight = [1.0, 0.5]
""").replace('objective = [{ name = "cross_entropy" }]', """objective = [{ name = "dpo" }]
first_stage = { objective = [{ name = "cross_entropy" }] }"""))
    found = searched(suite, 10)["TIGER + cross-entropy"]
    assert len(found.trials) == 4 and found.trials[0].config.training.epochs == 1
    assert {(t.config.training.epochs, t.config.objectives[0].weight) for t in found.trials} == {
        (1, 1.0), (3, 1.0), (1, 0.5), (3, 0.5)}
    assert {t.config.uses[0].run.seed for t in found.trials} == {TUNING_SEED}
    assert ("dpo", "weight") in found.stated and ("training", "epochs") not in found.stated


@pytest.mark.parametrize("name", [n for n in suite_files.suite_names() if suite_files.load_suite(n).get("tune")])
def test_the_spaces_of_our_suites(name: str) -> None:
    """Every combination can be made, and every part that is listed is a row's."""
    found = trials.searches(Selection(name, "standard", ("apao_office", "bear_office")))
    assert all(len(s.trials) >= 3 for s in found if len(s.trials) > 1)
    used = set().union(*(parts_used(s.trials[0].config) for s in found))
    assert set(suite_files.load_suite(name)["tune"]) <= used


# Mistakes

WRONG = {
    "part": ("[tune.item_knn]", "[tune.item_nkn]", ["mine.toml", "'item_nkn'", "'item_knn'"]),
    "setting": ("decay =", "decoy =", ["mine.toml", "tune.item_knn", "'decoy'", "'decay'"]),
    "value": ("[0.3, 0.6]", '["much"]', ["mine.toml", "decay", "'much'"]),
    "out of range": ("[0.3, 0.6]", "[1.5]", ["mine.toml", "decay", "at most 1"]),
    "no list": ("[0.3, 0.6]", "0.3", ["mine.toml", "tune.item_knn.decay", "a list"]),
    "empty": ("[0.3, 0.6]", "[]", ["mine.toml", "tune.item_knn.decay", "a list"]),
    "no table": ("[tune.item_knn]", "[tune]", ["mine.toml", "tune.decay", "a table"]),
    "not together": ("decay = [0.3, 0.6]", '"decay+shrink" = [[0.3]]', ["mine.toml", "decay+shrink", "a list of 2"]),
    "other rows": ("[tune.training]\nlearning_rate", "[tune.split]\nmax_history", ["mine.toml", "cannot be tuned"]),
    "nothing": (SUITE[SUITE.index("[tune.item"):SUITE.index("[[row]]")], "", ["mine.toml", "no search space for"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_space_is_one_line_before_any_work(case: str, suite: Path, toy_folder: Path, tmp_path: Path,
                                                   capsys: Any) -> None:
    old, new, held = WRONG[case]
    assert old in SUITE
    suite.write_text(SUITE.replace(old, new))
    refused(suite, toy_folder, tmp_path, capsys, held)


@pytest.mark.parametrize(("words", "held"), [
    (("--trials", "0"), ["--trials", "at least 1"]), (("--seeds", "0"), ["--seeds"]),
    (("--baselines", "popularity", "--objectives", "none"), ["no search space for Popularity"]),
    (("--row", "TIGER + cross-entrpy"), ["'TIGER + cross-entropy'"]),
    (("--set", "item_knn.dekay=1"), ["'dekay'", "'decay'"]),
    (("--save", "chosen.txt"), ["--save", "chosen.txt"]), (("--save", "no/such/folder.toml"), ["--save"]),
    (("--save", str(suite_files.FOLDERS["profile"] / "new.toml")), ["edited by hand"]),
    (("--save", str(Path(__file__).parents[1] / "pyproject.toml")), ["pyproject.toml", "Give another name"]),
])
def test_mistakes_are_one_line(words: tuple[str, ...], held: list[str], suite: Path, toy_folder: Path, tmp_path: Path,
                               capsys: Any) -> None:
    refused(suite, toy_folder, tmp_path, capsys, held, *words)


def refused(suite: Path, toy_folder: Path, tmp_path: Path, capsys: Any, held: list[str], *words: str) -> None:
    results = tmp_path / "results"
    assert call("tune", "--suite", suite, "--profile", "smoke", "--datasets", toy_folder, "--trials", "2",
                "--results", results, *words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and len(printed.err.splitlines()) <= MAX_ERROR_LINES and not printed.out
    assert all(word in printed.err for word in held), printed.err
    assert not results.exists()


def test_no_result_has_the_seed_of_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f"--seeds: {TUNING_SEED} is the seed of the trials"):
        check_seeds(["0", str(TUNING_SEED)], "--seeds")
    with pytest.raises(UserError, match="seed of the trials"):
        expand(Selection("apao", "smoke", seeds=(TUNING_SEED,)))
    (tmp_path / "bad.toml").write_text(f'title = "x"\nseeds = [{TUNING_SEED}]\ndatasets = ["ml-100k"]')
    with pytest.raises(UserError, match="bad.toml.*seed of the trials"):
        suite_files.load_profile("bad", tmp_path)


# From end to end

def tune(suite: Path, toy_folder: Path, results: Path, *more: str | Path) -> list[str | Path]:
    return ["tune", "--suite", suite, "--profile", "smoke", "--datasets", toy_folder, "--trials", "3", *TINY, "--set",
            "training.epochs=1", "--jobs", "1", "--results", results, *more]


def test_validation_alone_chooses_and_a_second_call_runs_nothing(suite: Path, toy_folder: Path, tmp_path: Path,
                                                                 capsys: Any) -> None:
    results, saved, found = tmp_path / "results", tmp_path / "chosen.toml", searched(suite, 3)["Item-kNN"]
    assert call(*tune(suite, toy_folder, results)) == 0
    printed = capsys.readouterr()
    assert "TIGER + cross-entropy, toy: 2 trials, not 3: " in printed.err and "left out: Popularity: " in printed.err
    assert "Recall" not in printed.err and "validation NDCG@10" in printed.err
    made = records(results)
    assert len(made) == 5 and {r["config"]["seed"] for r in made.values()} == {TUNING_SEED}
    for record in made.values():  # of Item-kNN, trial 2 is best on validation and trial 3 on test
        spec = record["config"].get("baseline")
        if spec:
            (number,) = [t.number for t in found.trials if (t.config.baseline.decay, t.config.baseline.shrink) ==
                         (spec["decay"], spec["shrink"])]
            record["metrics"] |= dict(zip(("valid_ndcg@10", "ndcg@10"),
                                          {1: (0.3, 0.1), 2: (0.4, 0.1), 3: (0.2, 0.7777)}[number], strict=True))
            next(results.rglob(f"{record['run_id']}.json")).write_text(json.dumps(record))
    before = files(results / "toy")
    assert call(*tune(suite, toy_folder, results, "--save", saved)) == 0
    printed = capsys.readouterr()
    assert "2 of 2 runs are done" in printed.err and "3 of 3 runs are done" in printed.err
    assert files(results / "toy") == before
    assert "chosen: trial 2  --set item_knn." in printed.out and trials.words(found.trials[1].changes) in printed.out
    told = (results / "reports/mine/trials.md").read_text()
    assert "3 of the 4 trials" in told and told.count("| chosen |") == 2
    assert "0.7777" not in printed.out + told and "0.4000" in told
    assert call(*tune(suite, toy_folder, results, "--save", saved)) == 0, "its own file may be replaced"
    text = saved.read_text()
    assert text.splitlines()[1].startswith("#   python ")
    assert tomllib.loads(text) == {} and "not here: item_knn." in text and "a folder" in text


def test_reports_take_no_trial_for_a_row(suite: Path, toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    results = tmp_path / "results"
    words = ["--suite", suite, "--profile", "smoke", "--datasets", toy_folder, "--objectives", "none", "--results",
             results, "--jobs", "1"]
    assert call("run", *words) == 0
    report = results / "reports/mine/appendix.md"
    alone = report.read_text()
    assert call("tune", *words, "--trials", "3") == 0
    assert len(RecordStore(results).read_all()) == 5 and len(RecordStore(results).read_results()) == 2
    assert call("report", "--suite", suite, "--results", results) == 0
    together = report.read_text()
    assert together.replace("What `tune` tried: [trials.md](trials.md).\n\n", "") == alone
    assert call("report", "--suite", suite, "--results", results, "--check") == 0
    capsys.readouterr()
    assert call("export", "--to", tmp_path / "all.csv", "--results", results) == 0
    assert "of 2 runs" in capsys.readouterr().out


def test_trials_alone_are_a_report_of_their_own(suite: Path, toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    done = api.tune(str(suite), 2, profile="smoke", datasets=[toy_folder], baselines=["item_knn"], objectives=[],
                    results=tmp_path / "results")
    (one,) = done.searches
    assert (one.label, [t.number for t in one.trials]) == ("Item-kNN", [1, 2])
    assert call("report", "--suite", suite, "--results", tmp_path / "results") == 0
    assert capsys.readouterr().out.strip().endswith("reports/mine/trials.md")


def test_nothing_is_chosen_before_all_trials_are_there(suite: Path, toy_folder: Path, tmp_path: Path,
                                                       capsys: Any) -> None:
    words = tune(suite, toy_folder, tmp_path / "results", "--baselines", "none", "--minutes", "0.0001")
    assert call(*words) == 0
    printed = capsys.readouterr()
    assert "time is up" in printed.err and "nothing chosen" in printed.out and "not finished" in printed.out


# Hopeless trials

def test_a_hopeless_trial_ends_at_a_third_by_hand(suite: Path) -> None:
    """Trial 1 had 0.3 after a third of its epochs, so others need 0.225 after a third of theirs."""
    suite.write_text(SUITE.replace("learning_rate = [1e-3, 3e-3]", "epochs = [15, 25]"))
    one, other = searched(suite, 2, "training.patience=99")["TIGER + cross-entropy"].trials
    first = dataclasses.replace(one.config, training=dataclasses.replace(one.config.training, epochs=15))
    curve = [{"epoch": n, "valid_ndcg@10": 0.3 if n == 4 else 0.1 if n < 6 else 0.9} for n in range(1, 16)]

    def point(trial: trials.Trial, epochs: int) -> tuple[int, float]:
        trial = dataclasses.replace(trial, config=dataclasses.replace(
            trial.config, training=dataclasses.replace(trial.config.training, epochs=25)))
        made = trials.hopeless(trial, first, {"epochs": epochs, "curve": curve[:epochs]}).config
        assert trials.undisturbed(made) == trial.config != made
        return made.training.give_up_after, made.training.give_up_below

    assert point(other, 15) == (9, 0.225)
    assert point(other, 6) == (4, 0.075), "trial 1 ended by patience after 6 of 15, so the other has 10 of 25 to go by"
    knn = searched(suite, 2)["Item-kNN"].trials
    assert trials.hopeless(knn[1], knn[0].config, {}) == knn[1], "nothing to end"
    still = dataclasses.replace(first, training=dataclasses.replace(first.training, epochs=0))
    assert trials.hopeless(other, still, {"epochs": 0, "curve": []}) == other, "a row that trains nothing"


def test_a_run_gives_up_once_and_stays_so() -> None:
    curve = [{"valid_ndcg@10": value} for value in (0.1, 0.2, 0.5)] + [{"epoch": 4}]
    assert [gives_up(curve[:n], 2, 0.3) for n in range(5)] == [False, False, True, True, True]
    assert not gives_up(curve, 2, 0.2) and not gives_up(curve, 3, 0.5) and not gives_up(curve, 0, 1.0)
    assert not gives_up([{"epoch": 1}], 1, 0.1), "nothing was validated yet"


def test_a_trial_is_given_up_and_shown_so(suite: Path, toy_folder: Path, tmp_path: Path, capsys: Any,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "LEAST", 1.8)  # hardly to be reached
    suite.write_text(SUITE.replace("learning_rate = [1e-3, 3e-3]", 'learning_rate = [1e-6, 3e-3]'))
    words = ["tune", "--suite", suite, "--profile", "smoke", "--datasets", toy_folder, "--trials", "2", *TINY, "--set",
             "training.epochs=3", "--jobs", "1", "--results", tmp_path / "results", "--baselines", "none"]
    assert call(*words) == 0
    printed = capsys.readouterr().out
    assert printed.count("given up after epoch 1") == 1 and "chosen: trial 1" in printed
    made = {r["training"]["stopped"]: r for r in records(tmp_path / "results").values()}
    assert set(made) == {"epochs", "gave up"} and made["gave up"]["training"]["epochs"] == 1
    assert made["gave up"]["config"]["training"]["give_up_after"] == 1
    page = (tmp_path / "results/reports/mine/trials.md").read_text()
    assert page.count("given up after epoch 1") == 1 and "2 of the 2 trials" in page


# Records and tables

def test_no_block_and_no_comparison_holds_a_trial() -> None:
    rows = all_records()
    tried = [record_of("ml-100k", method, TUNING_SEED) for method in ("item_knn", "tiger", "sasrec")]
    assert contents(arrange(load_suite("apao"), rows + tried)) == contents(arrange(load_suite("apao"), rows))
    assert not arrange(load_suite("apao"), tried)


def test_the_page_of_planted_records(suite: Path) -> None:
    """Equal values: the earlier trial. A record that no combination gives is not shown."""
    values = {(): 0.2, (("decay", 0.3),): 0.25, (("shrink", 5.0),): 0.25, (("decay", 0.5),): 0.9}
    planted = []
    for settings, value in values.items():
        record = record_of("ml-100k", "item_knn", TUNING_SEED, baseline={"name": "item_knn", **dict(settings)})
        planted.append(dataclasses.replace(record, metrics={**record.metrics, "valid_ndcg@10": value}))
    text = page(str(suite), load_suite(str(suite)), planted, {})
    order = [c for c in changes(searched(suite, 9)["Item-kNN"]) if len(c.get("item_knn", {})) == 1]
    lines = [line for line in text.splitlines() if "0.2500" in line]
    assert [trials.words(c) in line for c, line in zip(order, lines, strict=True)] == [True, True]
    assert ["chosen" in line for line in lines] == [True, False] and "0.9000" not in text
    assert page(str(suite), load_suite(str(suite)), all_records(), {}) == ""


# Datasets that a suite names

def test_a_suite_names_its_datasets(suite: Path, tmp_path: Path, capsys: Any) -> None:
    suite.write_text(SUITE.replace('title = "Mine"', 'title = "Mine"\ndatasets = ["apao_office", "ml-100k"]'))
    words = ("plan", "--suite", suite, "--profile", "smoke", "--results", tmp_path / "results", "--objectives", "none")
    assert call(*words) == 0
    printed = capsys.readouterr()
    assert printed.err == "left out: apao_office: no files there (--data-dir, GENREC_BENCH_DATA)\n"
    assert "ml-100k" in printed.out and "apao_office" not in printed.out
    suite.write_text(suite.read_text().replace('["apao_office", "ml-100k"]', '["apao_office", "bear_toy"]'))
    assert call(*words) == 2 and "no files of its datasets are there: apao_office, bear_toy" in capsys.readouterr().err
    suite.write_text(suite.read_text().replace('"bear_toy"', '"bear_toi"'))
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert "mine.toml, datasets" in error and "'bear_toi'" in error and "'bear_toy'" in error


def test_methods_that_need_texts_are_left_out_in_a_line(tmp_path: Path, toy_folder: Path, capsys: Any) -> None:
    (toy_folder / "Toy.item.json").unlink()
    for words in (("run",), ("tune", "--trials", "2")):
        assert call(*words, "--suite", "training-free", "--profile", "smoke", "--datasets", toy_folder, "--jobs", "1",
                    "--results", tmp_path / "results") == 0
        told = [line for line in capsys.readouterr().err.splitlines() if "no item texts" in line]
        assert len(told) == 2 and told[0].startswith("left out: Content-kNN, toy: ")
