"""`plan`: which runs share an estimate, what a probe trains, and what `--save` keeps for reports."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from genrec_bench.commands import plan, report
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.experiments.grid import Selection, expand, selected_rows
from genrec_bench.reporting.cost import PLAN, PLAN_HEADER, read_plan
from genrec_bench.running import estimates, scheduler
from genrec_bench.running.suites import prepare_all
from genrec_bench.running.workspace import Prepared, Workspace
from tests.small_records import record_of, stored

torch.set_num_threads(1)


def arguments(*words: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    plan.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def prepared(folder: Path, workspace: Workspace, *rows: str, **training) -> list[Prepared]:
    """The runs of some rows of suite apao on a folder of data, with seeds 0 and 1."""
    selection = Selection("apao", "smoke", datasets=(str(folder),), baselines=(), seeds=(0, 1), rows=rows,
                          overrides={"training": training, "second_stage": training} if training else {})
    return [workspace.prepare(config, keep=False) for config in expand(selection)]


MSL, KNN = "TIGER + MSL", "item_knn"


@pytest.mark.parametrize(("named", "generative", "baselines"), [
    ({}, "all", "all"), ({"baselines": (KNN,)}, [], [KNN]), ({"objectives": ("msl",)}, [MSL], []),
    ({"rows": (MSL,)}, [MSL], []), ({"baselines": (KNN,), "objectives": ("msl",)}, [MSL], [KNN]),
    ({"baselines": (KNN,), "rows": (MSL,)}, [MSL], [KNN]), ({"baselines": ()}, "all", []),
    ({"objectives": ()}, [], "all"), ({"objectives": ("all",), "baselines": (KNN,)}, "all", [KNN]),
    ({"rows": (MSL,), "baselines": ("all",)}, [MSL], "all"), ({"baselines": ("gru4rec", KNN)}, [], [KNN, "gru4rec"])])
def test_what_is_named_is_all_that_runs(named, generative, baselines):
    """Rows of a kind that is not named run only where none of the other kind is named either, or `none` is."""
    rows = selected_rows(Selection("apao", **named))
    whole = {kind: [row[kind] for row in selected_rows(Selection("apao")) if kind in row]
             for kind in ("label", "baseline")}
    assert len(whole["label"]) > 5 and len(whole["baseline"]) == 4
    for kind, expected in (("label", generative), ("baseline", baselines)):
        assert [row[kind] for row in rows if kind in row] == (whole[kind] if expected == "all" else expected)


def test_rows_that_differ_in_numbers_share_an_estimate(toy_folder, tmp_path):
    """beta and eta cost nothing; words, and the number of negatives, do."""
    runs = prepared(toy_folder, Workspace(tmp_path), "TIGER + APAO-Pairwise", "TIGER + APAO-Pairwise, weight = 0.4",
                    "TIGER + APAO-Pairwise, eta = 0.0005", "TIGER + APAO-Pairwise, uniform weights",
                    "TIGER + CE → DPO", "TIGER + CE → DPO, 100 negatives")
    kinds: dict[str, set[str]] = {}
    for run in runs:
        kinds.setdefault(estimates.kind_of(run.identity), set()).add(run.config.label)
    assert list(kinds.values()) == [
        {"TIGER + CE → DPO: first stage"}, {"TIGER + CE → DPO"},
        {"TIGER + APAO-Pairwise", "TIGER + APAO-Pairwise, weight = 0.4", "TIGER + APAO-Pairwise, eta = 0.0005"},
        {"TIGER + APAO-Pairwise, uniform weights"}, {"TIGER + CE → DPO, 100 negatives"}]


def test_a_probe_trains_one_epoch_of_each_stage(toy_folder, tmp_path):
    workspace = Workspace(tmp_path)
    first, second = prepared(toy_folder, workspace, "TIGER + CE → CE", epochs=500)[:2]
    assert second.config.training.epochs == first.config.training.epochs == 500
    seconds = estimates._probe(second, workspace)
    known = workspace.store.read_all()
    assert sorted(r.label for r in known) == ["TIGER + CE → CE", "TIGER + CE → CE: first stage"]
    assert all(r.training["epochs"] == 1 for r in known)
    record = next(r for r in known if "uses" in r.config)
    assert seconds > record.timings["total_seconds"] + 500 * record.timings["seconds_per_epoch"]
    assert estimates._probe(first, workspace) > 0 and len(workspace.store.read_all()) == 2  # not made again


@pytest.mark.parametrize(("items", "measured"), [(10_000, 50), (100_000, 2_370), (1_000_000, 70 * 3600)])
def test_what_sasrec_takes_is_said_before(items, measured, tmp_path):
    """RecBole's epochs as they were measured on one thread with half as many users as items, 17 rows each."""
    split = SimpleNamespace(train=range(items // 2 * 17), valid=range(items // 2), num_items=items,
                            interactions=SimpleNamespace(name="made", num_users=items // 2))
    baseline = registry.baselines.build({"name": "sasrec", "epochs": 80})
    item = Prepared(SimpleNamespace(label="SASRec", baseline=baseline), split, None, {"baseline": "sasrec"}, "run")
    costs = baseline.epoch_seconds(split)
    assert costs[""] == pytest.approx(measured, rel=0.2)
    line, = estimates.long_rows([item, item], Workspace(tmp_path))
    assert f"an epoch takes about {estimates.duration(costs[''])} of processor time, and there are at most 80." in line
    assert ("sasrec.loss_type = BPR (" in line) == (items > 10_000)
    assert "split.train_targets_per_user = 1 (" in line and "valid_users" not in line
    assert estimates._costs(item, Workspace(tmp_path, device="cuda")) == {}  # whose speed nobody knows here


def test_long_rows_are_told_by_plan_and_before_a_run(toy_folder, tmp_path, monkeypatch, capsys):
    """Here an hour is short: rows that nothing is known of are not told, finished ones by their seconds."""
    words = ("--suite", "apao", "--profile", "smoke", "--datasets", toy_folder, "--baselines", "sasrec,item_knn")
    monkeypatch.setattr(estimates, "LONG", 0.0)
    assert plan.run(arguments(*words, "--results", tmp_path)) == 0
    told = capsys.readouterr().out
    assert "SASRec (RecBole, CE), toy: an epoch takes about" in told and "item_knn, toy: " not in told
    workspace = Workspace(tmp_path)
    items = prepare_all(Selection("apao", "smoke", datasets=(str(toy_folder),), baselines=("item_knn",)), workspace,
                        keep=False)
    monkeypatch.setattr(scheduler, "work", lambda tasks, workspace, means, done, notes: notes)
    monkeypatch.setattr(scheduler, "long_rows", lambda items, _: [f"{len(items)} asked"])
    assert "1 asked" in scheduler.run_all(items, workspace)


def test_save_keeps_the_lines_of_other_grids(toy_folder, tmp_path, monkeypatch, capsys):
    """Five rows and two seeds of smoke at 10 s each, one line a dataset, replaced when saved again."""
    monkeypatch.setattr(estimates, "_probe", lambda *_: 10.0)
    results = tmp_path / "results"
    words = ("--suite", "bear-sid", "--profile", "smoke", "--datasets", toy_folder, "--results", results, "--probe",
             "--save")
    assert plan.run(arguments(*words)) == 0
    key = {"suite": "bear-sid", "profile": "smoke", "grid": "core", "dataset": "toy"}
    first, = read_plan(results / PLAN)
    assert first == {**key, "runs": first["runs"], "seconds": str(10 * int(first["runs"])), "device": "cpu",
                     "threads": "1"}
    assert f"saved: {results / PLAN}" in capsys.readouterr().out
    with open(results / PLAN, "a") as file:
        file.write("other,quick,full,ml-100k,402,36000,cpu,2\n")
    monkeypatch.setattr(estimates, "_probe", lambda *_: 20.0)
    assert plan.run(arguments(*words)) == 0
    again, other = read_plan(results / PLAN)
    assert again == {**first, "seconds": str(20 * int(first["runs"]))}
    assert list(other.values()) == ["other", "quick", "full", "ml-100k", "402", "36000", "cpu", "2"]


@pytest.mark.parametrize(("words", "named"), [
    (("--seeds", "0"), "--seeds"), (("--row", "TIGER + BEAR"), "--row"), (("--objectives", "bear"), "--objectives"),
    (("--baselines", "none", "--set", "training.epochs=1"), "--baselines and --set")])
def test_only_whole_grids_are_saved(tmp_path, words, named):
    with pytest.raises(UserError, match=f"but {named} changes? it"):
        plan.run(arguments("--suite", "bear-sid", "--save", "--results", tmp_path / "results", *words))
    assert not (tmp_path / "results").exists()


def test_nothing_is_saved_where_something_is_unknown(toy_folder, tmp_path):
    with pytest.raises(UserError, match="Give --probe"):
        plan.run(arguments("--suite", "bear-sid", "--profile", "smoke", "--datasets", toy_folder, "--save",
                           "--results", tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_report_reads_the_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "print", lambda *_: None, raising=False)
    results = tmp_path / "results"
    stored(results, [record_of("ml-100k", "item_knn", 0)])
    (results / PLAN).write_text(",".join(PLAN_HEADER) + "\napao,quick,full,ml-100k,318,72000,cpu,1\n")
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    report.run(parser.parse_args(["--suite", "apao", "--results", str(results)]))
    text = (results / "reports" / "apao" / "appendix.md").read_text()
    row = next(line for line in text.split("## What the grids cost")[1].splitlines() if "full" in line)
    assert [c.strip() for c in row.strip("|").split("|")] == ["apao", "quick", "full", "ml-100k", "cpu", "318", "20.0"]
