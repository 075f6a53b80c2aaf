"""Runs of two stages, run state over interruptions, and selection by loss."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec_bench.cli import main
from genrec_bench.core.errors import UserError
from genrec_bench.core.progress import Quiet
from genrec_bench.core.provenance import provenance
from genrec_bench.experiments.config import RunConfig, from_dict, weighted
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.experiments.overrides import parse_overrides
from genrec_bench.running import runner
from genrec_bench.running.runner import BEST, run_one
from genrec_bench.running.workspace import Workspace
from genrec_bench.training import checkpoints
from tests.test_training import SMALL, StopAfter

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

SETTINGS = {**SMALL, "second_stage": {"epochs": 2, "learning_rate": 1e-3}}
NEGATIVES = ("s_dpo.num_negatives=6", "dmpo.num_negatives=6", "apao.num_negatives=6")


def configs(folder: Path, *changes: str, seeds: tuple[int, ...] = (0,)) -> list[RunConfig]:
    overrides = {part: dict(values) for part, values in SETTINGS.items()}
    for part, values in parse_overrides([*NEGATIVES, *changes]).items():
        overrides.setdefault(part, {}).update(values)
    return expand(Selection("apao", "smoke", (str(folder),), None, (), seeds, overrides, grid="full"))


def row(folder: Path, label: str, *changes: str) -> RunConfig:
    return next(c for c in configs(folder, *changes) if c.label == label)


def done(config: RunConfig, results: Path) -> tuple[Any, Workspace, runner.Prepared]:
    workspace = Workspace(results)
    prepared = workspace.prepare(config)
    return run_one(prepared, workspace, Quiet()), workspace, prepared


@pytest.mark.parametrize(("label", "own"), [("TIGER + cross-entropy, trie decoding", "TIGER + cross-entropy"),
                                            ("TIGER + MSL, flat decoding", "TIGER + MSL")])
def test_a_row_without_epochs_ranks_the_weights_of_its_own_row(label: str, own: str, toy_folder: Path,
                                                               tmp_path: Path) -> None:
    """Same weights, the other normaliser; no setting of training counts for it."""
    config = row(toy_folder, label)
    record, workspace, prepared = done(config, tmp_path)
    trained = workspace.prepare(row(toy_folder, own))
    assert prepared.uses["weights"].run_id == trained.run_id
    assert (record.training["epochs"], record.training["best_epoch"], record.training["curve"]) == (0, 0, [])
    tensors, first = (checkpoints.read(workspace.folder(p.run_id) / BEST)[0] for p in (prepared, trained))
    assert all(torch.equal(tensors[name], value) for name, value in first.items())
    other = workspace.store.read(trained.run_id)
    assert record.config["decoding"]["normaliser"] != other.config["decoding"]["normaliser"]
    assert record.metrics["valid_ndcg@10"] != other.metrics["valid_ndcg@10"]
    assert row(toy_folder, label, "second_stage.epochs=7").training == config.training
    assert runner.has_weights(prepared, workspace)


def test_the_first_stage_is_the_run_of_its_own_row(toy_folder: Path, tmp_path: Path) -> None:
    """Same name, same weights; the second stage starts from them and counts their cost."""
    second, alone = row(toy_folder, "TIGER + CE → S-DPO"), row(toy_folder, "TIGER + cross-entropy")
    record, workspace, prepared = done(second, tmp_path / "a")
    assert prepared.uses["weights"].run_id == workspace.prepare(alone).run_id
    first = workspace.store.read(prepared.uses["weights"].run_id)
    assert record.training["first_stage"] == {"run_id": first.run_id, **{k: first.training[k] for k in
                                              ("epochs", "best_epoch", "steps", "passes")}}
    assert record.timings["first_stage_seconds"] == first.timings["train_seconds"]
    assert record.training["epochs"] == 2 and first.training["epochs"] == 4
    assert record.config["training"]["learning_rate"] == 1e-3 and first.config["training"]["learning_rate"] == 3e-3
    own, _, _ = done(alone, tmp_path / "b")
    assert own.metrics == first.metrics and own.training == first.training
    assert from_dict(record.config).to_dict() == second.to_dict()


def test_a_second_stage_begins_where_the_first_ended(toy_folder: Path, tmp_path: Path) -> None:
    """With a learning rate of 0 the second stage's numbers are the first's, exactly; and its first loss is that of
    a policy that is its own reference: log(1 + N) without masked negatives."""
    config = row(toy_folder, "TIGER + CE → S-DPO", "second_stage.learning_rate=0.0", "second_stage.weight_decay=0.0",
                 "tiger.dropout=0.0", "s_dpo.num_negatives=1")
    record, workspace, prepared = done(config, tmp_path)
    first = workspace.store.read(prepared.uses["weights"].run_id)
    assert record.metrics == first.metrics
    weights = [checkpoints.unnamed("model", checkpoints.read(workspace.folder(p.run_id) / BEST)[0])
               for p in (prepared, *prepared.before)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    hit = 1 / 27  # a negative that is the target has no weight
    assert record.training["curve"][0]["loss"] == pytest.approx((1 - hit) * 0.693147, abs=0.03)


def test_a_first_stage_whose_weights_are_gone_is_made_again(toy_folder: Path, tmp_path: Path) -> None:
    alone = row(toy_folder, "TIGER + cross-entropy")
    first, workspace, prepared = done(alone, tmp_path)
    path = workspace.folder(prepared.run_id) / BEST
    before = checkpoints.read(path)[0]
    path.unlink()
    second, workspace, _ = done(row(toy_folder, "TIGER + CE → CE"), tmp_path)
    again = checkpoints.read(path)[0]
    assert all(torch.equal(tensor, again[name]) for name, tensor in before.items())
    assert workspace.store.read(first.run_id) == first
    assert second.training["first_stage"]["run_id"] == first.run_id


def test_weights_of_an_unfinished_remake_are_not_gone_on_from(toy_folder: Path, tmp_path: Path) -> None:
    """A remake that is interrupted after its first epoch leaves that epoch's weights; the next start makes the rest."""
    faster = "training.learning_rate=0.02"  # the first epoch is not the best
    alone, second = (row(toy_folder, f"TIGER + {name}", faster) for name in ("cross-entropy", "CE → CE"))
    expected, _, _ = done(second, tmp_path / "whole")
    first, workspace, prepared = done(alone, tmp_path / "parts")
    assert first.training["best_epoch"] > 1 and runner.has_weights(prepared, workspace)
    shutil.rmtree(workspace.folder(prepared.run_id))
    with pytest.raises(KeyboardInterrupt):
        run_one(workspace.prepare(second), workspace, StopAfter(1))
    assert (workspace.folder(prepared.run_id) / BEST).exists() and not runner.has_weights(prepared, workspace)
    record = run_one(workspace.prepare(second), workspace, Quiet())
    assert record.metrics == expected.metrics and record.training == expected.training


def test_a_first_stage_of_another_thread_count_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    _, workspace, _ = done(row(toy_folder, "TIGER + cross-entropy"), tmp_path)
    other = Workspace(tmp_path, threads=2)
    with pytest.raises(UserError, match="threads = 1; here are .*threads = 2"):
        run_one(other.prepare(row(toy_folder, "TIGER + CE → CE")), other, Quiet())


def test_a_record_names_all_versions_that_took_part(toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sessions that made a state, and of the run whose weights are taken; said in one line each."""
    second, workspace = row(toy_folder, "TIGER + CE → CE"), Workspace(tmp_path)

    def session(version: str, progress: Any) -> Any:
        made = {**provenance("cpu", 1, "here"), "torch": version, "commit": version * 40}
        monkeypatch.setattr(runner, "provenance", lambda *words: made)
        return run_one(workspace.prepare(second), workspace, progress)

    for version, epoch in (("1", 1), ("1", 2), ("2", 1)):  # the last one in the second stage
        with pytest.raises(KeyboardInterrupt):
            session(version, StopAfter(epoch))
    record = session("3", Quiet())
    (first,) = [r for r in workspace.store.read_all() if r.run_id != record.run_id]
    assert [[made["torch"] for made in r.provenance["earlier"]] for r in (first, record)] == [["1"], ["2", "1"]]
    assert (first.provenance["torch"], record.provenance["torch"]) == ("2", "3")
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": goes on from ")[1].split(" (")[0] for line in told] == [
        "a state of other versions", f"run {first.run_id} of other versions"] * 2
    assert "(torch 1 there, 2 here; commit 1111111111 there, 2222222222 here), which its record names. Del" in told[0]
    assert not list(tmp_path.rglob("sessions.json"))


def test_a_stage_that_only_the_reference_takes(toy_folder: Path, tmp_path: Path) -> None:
    """continues = false: the network starts at random with the plain schedule; another reference, other numbers."""
    label = "TIGER + CE + S-DPO, one stage"
    trained = row(toy_folder, f"{label}, trained reference")
    assert [used.take for used in trained.uses] == ["reference"]
    assert trained.training == trained.used("reference").training == row(toy_folder, "TIGER + cross-entropy").training
    losses = [done(row(toy_folder, f"{label}{which}"), tmp_path)[0].training["curve"][-1]["loss"]
              for which in ("", ", initial reference", ", trained reference")]
    assert len(set(losses)) == 3


def test_first_stages_stand_before_what_follows_them(toy_folder: Path) -> None:
    """Also where --objectives leaves only the second stage; and each run stands once."""
    found = configs(toy_folder)
    plain = [dataclasses.replace(c, label="") for c in found]
    assert all(plain.count(c) == 1 for c in plain)
    for number, config in enumerate(found):
        assert all(dataclasses.replace(used.run, label="") in plain[:number] for used in config.uses)
    only = expand(Selection("apao", "smoke", (str(toy_folder),), ("dmpo",), (), (0,), SETTINGS))
    assert [[w.objective.name for w in c.objectives] for c in only] == [["cross_entropy"], ["dmpo"]]


def test_names_tell_stages_apart(toy_folder: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    found = configs(toy_folder)
    names = [workspace.prepare(c).run_id for c in found]
    assert len(set(names)) == len(names)
    longer = row(toy_folder, "TIGER + CE → S-DPO", "training.epochs=5")
    assert workspace.prepare(longer).run_id not in names  # its first stage is another


def test_a_reference_of_a_stage_that_is_not_there(toy_folder: Path) -> None:
    with pytest.raises(UserError, match="TIGER \\+ CE \\+ S-DPO, one stage: reference = .*has no first stage"):
        configs(toy_folder, "s_dpo.reference=first_stage")


# Run state

@pytest.mark.parametrize("label", ["TIGER + APAO-Pairwise", "TIGER + CE → S-DPO"])
def test_an_interrupted_run_with_state_and_stages_goes_on_bit_for_bit(toy_folder: Path, tmp_path: Path,
                                                                      label: str) -> None:
    config = row(toy_folder, label, "apao.eta=0.1")
    whole, there, prepared = done(config, tmp_path / "whole")
    workspace = Workspace(tmp_path / "parts")
    for epoch in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run_one(workspace.prepare(config), workspace, StopAfter(epoch))
    resumed = run_one(workspace.prepare(config), workspace, Quiet())
    assert resumed.training == whole.training and resumed.metrics == whole.metrics
    assert workspace.store.ranks_bytes(resumed) == there.store.ranks_bytes(whole)
    left = [(w.folder(prepared.run_id) / BEST).read_bytes() for w in (workspace, there)]
    assert left[0] == left[1]


def test_adaptive_weights_are_logged_and_move(toy_folder: Path, tmp_path: Path) -> None:
    record, _, _ = done(row(toy_folder, "TIGER + APAO-Pointwise", "apao.eta=0.05"), tmp_path)
    weights = [entry["state"]["apao.weights"] for entry in record.training["curve"]]
    assert all(sum(w) == pytest.approx(1.0) and len(w) == 3 for w in weights) and len({str(w) for w in weights}) == 4
    json.dumps(record.training)


def test_weights_may_move_once_an_optimiser_step(toy_folder: Path, tmp_path: Path) -> None:
    """The same where a step is one pass, other weights where it is two."""
    for accumulation, equal in ((1, True), (2, False)):
        curves = [done(row(toy_folder, "TIGER + APAO-Pointwise", "apao.eta=0.01", f"apao.update={how}",
                           f"training.accumulation={accumulation}"), tmp_path)[0].training["curve"]
                  for how in ("forward", "step")]
        assert (curves[0] == curves[1]) == equal


def test_validation_by_loss_does_not_move_the_state(toy_folder: Path, tmp_path: Path) -> None:
    """Selection by loss evaluates the objective on validation rows; the weights stay those of a run without it."""
    label, changes = "TIGER + APAO-Pairwise", ("apao.eta=0.1",)
    plain, _, _ = done(row(toy_folder, label, *changes), tmp_path)
    for rule in ("loss", "last_batch_loss"):
        other, _, _ = done(row(toy_folder, label, *changes, f"training.selection={rule}"), tmp_path)
        curve = other.training["curve"]
        assert [e["state"] for e in curve] == [e["state"] for e in plain.training["curve"]]
        assert [e["loss"] for e in curve] == [e["loss"] for e in plain.training["curve"]]
        losses = [e["valid_loss"] for e in curve]
        assert other.training["best_epoch"] == 1 + losses.index(min(losses))
    assert "valid_loss" not in plain.training["curve"][0]


def test_summed_accumulation_is_a_larger_gradient(toy_folder: Path, tmp_path: Path) -> None:
    """Two passes a step: the summed gradient is twice the mean's, which only clipping and Adam's epsilon notice."""
    mean, summed = (done(row(toy_folder, "TIGER + cross-entropy", f"training.accumulation_reduction={how}",
                             "tiger.dropout=0.0"), tmp_path)[0] for how in ("mean", "sum"))
    assert mean.run_id != summed.run_id
    assert [e["loss"] for e in mean.training["curve"]] != [e["loss"] for e in summed.training["curve"]]
    free = [done(row(toy_folder, "TIGER + cross-entropy", f"training.accumulation_reduction={how}",
                     "tiger.dropout=0.0", "training.clip_norm=0.0"), tmp_path)[0].training["curve"][0]["loss"]
            for how in ("mean", "sum")]
    assert free[0] == pytest.approx(free[1], abs=1e-3)


# Limits at which a method is cross-entropy

@pytest.mark.parametrize("others", [[{"name": "apao", "weight": 0.0}], [{"name": "bear", "weight": 0.0}],
                                    [{"name": "bear_beam", "weight": 0.0}],
                                    [{"name": "msl", "weight": 0.0}, {"name": "apao", "weight": 0.0}]],
                         ids=lambda specs: " and ".join(s["name"] for s in specs))
def test_with_weight_0_a_run_is_cross_entropy_bit_for_bit(toy_folder: Path, tmp_path: Path, others: list) -> None:
    """Equal seeds give equal weights, batches and dropout, whatever else is computed beside."""
    plain = row(toy_folder, "TIGER + cross-entropy")
    more = dataclasses.replace(plain, objectives=(*plain.objectives, *map(weighted, others)))
    records = [done(config, tmp_path)[0] for config in (plain, more)]
    assert records[0].run_id != records[1].run_id and records[0].metrics == records[1].metrics
    assert [e["loss"] for e in records[0].training["curve"]] == [e["loss"] for e in records[1].training["curve"]]


def test_pairwise_with_weight_0_is_cross_entropy_up_to_rounding(toy_folder: Path, tmp_path: Path) -> None:
    """Its logits come from a wider pass, which rounds otherwise."""
    changes = ("tiger.dropout=0.0", "training.epochs=1")
    plain = done(row(toy_folder, "TIGER + cross-entropy", *changes), tmp_path)[0]
    label = "TIGER + APAO-Pairwise"
    other = done(row(toy_folder, label, *changes, "apao.weight=0.0"), tmp_path)[0]
    assert other.training["curve"][0]["loss"] == pytest.approx(plain.training["curve"][0]["loss"], abs=1e-5)


def test_methods_that_do_not_fit_the_ids_are_left_out_and_named(toy_folder: Path, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture) -> None:
    """Weights for four levels on IDs of three; alone they are the user's error."""
    words = ["plan", "--suite", "apao", "--profile", "smoke", "--datasets", str(toy_folder), "--results",
             str(tmp_path), "--baselines", "none"]
    static = ["--row", "TIGER + APAO-Pointwise, static weights"]
    assert main([*words, *static, "--row", "TIGER + cross-entropy"]) == 0
    printed = capsys.readouterr()
    assert "left out: TIGER + APAO-Pointwise, static weights" in printed.err and "1 missing" in printed.out
    assert main([*words, *static]) == 2
    assert "static_weights has 4 values" in capsys.readouterr().err
    narrow = ["--row", "Llama + cross-entropy", "--set", "llama.max_positions=8"]
    assert main([*words, *narrow]) == 2
    assert "max_positions" in capsys.readouterr().err
