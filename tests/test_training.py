"""The training loop: schedule, resuming, accumulation, seeds, early stopping and failures."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec_bench.backbones.tiger import TigerSettings
from genrec_bench.batches import TokenisedInstances
from genrec_bench.cli import main
from genrec_bench.contracts import EOS, Interactions, SemanticIds
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.core.meter import Meter
from genrec_bench.core.progress import Quiet
from genrec_bench.core.seeds import stream_seed
from genrec_bench.experiments.config import TrainingConfig
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.experiments.overrides import parse_overrides
from genrec_bench.objectives.base import Objective, ObjectiveInputs
from genrec_bench.objectives.cross_entropy import CrossEntropy
from genrec_bench.results.records import RunRecord
from genrec_bench.running.generative import median_seconds
from genrec_bench.running.runner import run_one
from genrec_bench.running.workspace import FAILURE, Workspace
from genrec_bench.splits.leave_one_out import LeaveOneOut
from genrec_bench.training import checkpoints
from genrec_bench.training.feed import InputFeed
from genrec_bench.training.loop import STATE, train
from genrec_bench.training.optimiser import learning_rate
from genrec_bench.trie import Trie

torch.set_num_threads(1)  # small tensors: more threads only wait for each other

SMALL = {"tiger": {"width": 16, "num_layers": 1, "num_heads": 2, "head_width": 8, "feed_forward_width": 32},
         "training": {"epochs": 4, "patience": 9, "batch_size": 32, "accumulation": 2, "learning_rate": 3e-3}}


class StopAfter:
    """A progress that interrupts like Ctrl-C once an epoch is over."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def step(self, done: int, total: int, note: str = "") -> None:
        if done == self.epoch:
            raise KeyboardInterrupt


class Notes:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int, str]] = []

    def step(self, done: int, total: int, note: str = "") -> None:
        self.lines.append((done, total, note))


def generative_run(folder: Path, results: Path, seed: int = 0, *changes: str,
                   label: str = "TIGER + cross-entropy") -> tuple[Any, Workspace]:
    """The toy folder's run of one row, prepared, with some settings changed."""
    overrides = {part: dict(values) for part, values in SMALL.items()}
    for part, values in parse_overrides(changes).items():
        overrides.setdefault(part, {}).update(values)
    (config,) = expand(Selection("apao", "smoke", (str(folder),), None, (), (seed,), overrides, rows=(label,)))
    workspace = Workspace(results)
    return workspace.prepare(config), workspace


def run(folder: Path, results: Path, seed: int = 0, *changes: str) -> tuple[RunRecord, dict[str, bytes]]:
    """The record of a run, its ranks and its weights as bytes."""
    prepared, workspace = generative_run(folder, results, seed, *changes)
    record = run_one(prepared, workspace, Quiet())
    return record, left_behind(workspace, record)


def left_behind(workspace: Workspace, record: RunRecord) -> dict[str, bytes]:
    return {"ranks": workspace.store.ranks_bytes(record),
            "weights": (workspace.folder(record.run_id) / "best.safetensors").read_bytes()}


# Schedule

def test_learning_rate_by_hand() -> None:
    """10 steps, peak 1, warm-up 2: 1/2, 1, then cos from step 2 over 8 steps: 1, .., 0.5 at step 6, .. ."""
    config = TrainingConfig(learning_rate=1.0, warmup_ratio=0.2)
    rates = [learning_rate(step, 10, config) for step in range(10)]
    expected = [0.5, 1.0, *(0.5 * (1 + math.cos(math.pi * n / 8)) for n in range(8))]
    assert rates == pytest.approx(expected, abs=1e-15)
    assert rates[6] == pytest.approx(0.5) and rates[4] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert rates[-1] > 0.03  # 0 is the rate of the step that would follow
    assert learning_rate(10, 10, config) == pytest.approx(0.0, abs=1e-15)


def test_learning_rate_at_the_limits() -> None:
    without = TrainingConfig(learning_rate=2.0, warmup_ratio=0.0)
    assert learning_rate(0, 5, without) == 2.0
    always = TrainingConfig(learning_rate=2.0, warmup_ratio=1.0)
    assert [learning_rate(s, 4, always) for s in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert learning_rate(0, 1, TrainingConfig()) == 5e-4
    # the share of steps is rounded up: 1% of 101 steps are 2
    paper = TrainingConfig()
    assert [learning_rate(s, 101, paper) for s in (0, 1)] == [2.5e-4, 5e-4]


def test_median_leaves_the_warm_up_epoch_out() -> None:
    assert median_seconds([9.0]) == 9.0 and median_seconds([9.0, 1.0, 3.0, 2.0]) == 2.0


# The loop itself, on a network of the toy

def toy_training(interactions: Interactions, folder: Path, *, validate: Callable[[], float] | None = None,
                 model: torch.nn.Module | None = None, objectives: list[tuple[float, Objective]] | None = None,
                 seed: int = 0, progress: Any = None, **settings: Any) -> tuple[torch.nn.Module, Any]:
    """Train a small TIGER on the toy with a made-up validation."""
    ids = SemanticIds.from_codes(interactions.given_codes)
    split = LeaveOneOut(train_targets_per_user=2).split(interactions)
    if model is None:
        model = TigerSettings(width=16, num_layers=1, num_heads=2, head_width=8, feed_forward_width=32,
                              dropout=0.0).build(ids.vocab_size, 7)
    data = TokenisedInstances(split.train, ids, (EOS,), "cpu")
    config = TrainingConfig(**{"epochs": 2, "batch_size": 8, "accumulation": 1, "learning_rate": 3e-3, **settings})
    pairs = objectives or [(1.0, CrossEntropy())]
    feed = InputFeed(model, data, [objective for _, objective in pairs], trie=Trie.from_codes(ids.tokens), seed=seed,
                     group_users=config.group_users)
    trained = train(model, feed, pairs, config=config, seed=seed, folder=folder, about={}, attached={},
                    validate=lambda states: {"valid_ndcg@10": validate() if validate else 0.5},
                    progress=progress or Quiet(), meter=Meter())
    return model, trained


def largest_difference(a: torch.nn.Module, b: torch.nn.Module) -> float:
    return max(float((p - q).detach().abs().max()) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_accumulation_equals_one_large_batch(toy_interactions: Interactions, tmp_path: Path) -> None:
    """Losses and weights after 2 epochs: clipping on, the last step of an epoch smaller."""
    models, curves = [], []
    for batch_size, accumulation in ((8, 1), (4, 2), (2, 4)):
        folder = tmp_path / f"{batch_size}"
        folder.mkdir()
        # constant validation keeps the first epoch's weights, rising ones the last epoch's
        rising = iter((0.1, 0.2))
        model, trained = toy_training(toy_interactions, folder, batch_size=batch_size, accumulation=accumulation,
                                      epochs=2, validate=lambda values=rising: next(values))
        models.append(model)
        curves.append([entry["loss"] for entry in trained.history["curve"]])
    assert curves[0] == pytest.approx(curves[1], abs=1e-6) and curves[0] == pytest.approx(curves[2], abs=1e-6)
    # Adam divides by the root of the second moment, so that rounding of tiny gradients shows more in the weights
    assert largest_difference(models[0], models[1]) < 1e-5 and largest_difference(models[0], models[2]) < 1e-5


@pytest.mark.parametrize("batch_size", [4, 3])
def test_accumulated_gradients_are_those_of_one_batch(toy_interactions: Interactions, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    """Gradients at the first optimiser step, unclipped: rows count alike, whichever micro-batch they are in."""
    seen: list[list[Tensor]] = []
    step = torch.optim.AdamW.step

    def spy(optimiser: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        seen.append([p.grad.clone() for group in optimiser.param_groups for p in group["params"]])
        return step(optimiser, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    firsts = []
    for size, accumulation in ((12, 1), (batch_size, 12 // batch_size)):
        folder = tmp_path / str(size)
        folder.mkdir()
        seen.clear()
        toy_training(toy_interactions, folder, batch_size=size, accumulation=accumulation, epochs=1, clip_norm=0.0)
        firsts.append(list(seen[0]))
    for one, other in zip(*firsts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_weights_of_objectives_add_up(toy_interactions: Interactions, tmp_path: Path) -> None:
    pairs = ([(1.0, CrossEntropy())], [(0.25, CrossEntropy()), (0.75, CrossEntropy())])
    losses = []
    for number, objectives in enumerate(pairs):
        (tmp_path / str(number)).mkdir()
        losses.append(toy_training(toy_interactions, tmp_path / str(number), objectives=objectives)[1].history["curve"])
    assert [e["loss"] for e in losses[0]] == pytest.approx([e["loss"] for e in losses[1]], abs=1e-6)


def test_patience_stops_and_the_best_weights_come_back(toy_interactions: Interactions, tmp_path: Path) -> None:
    """Validation .1 .3 .2 .3 .1: best at epoch 2 (an equal value is no improvement), stop after epoch 4 of 9."""
    values = iter((0.1, 0.3, 0.2, 0.3, 0.1))
    kept: list[dict[str, Tensor]] = []
    ids = SemanticIds.from_codes(toy_interactions.given_codes)
    settings = TigerSettings(width=8, num_layers=1, num_heads=1, head_width=8, feed_forward_width=8)
    model = settings.build(ids.vocab_size, 0)

    def validate() -> float:
        assert not model.training
        kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return next(values)

    notes = Notes()
    _, trained = toy_training(toy_interactions, tmp_path, validate=validate, model=model, epochs=9, patience=2,
                              progress=notes)
    history = trained.history
    assert (history["epochs"], history["best_epoch"], history["stopped"]) == (4, 2, "patience")
    assert [e["valid_ndcg@10"] for e in history["curve"]] == [0.1, 0.3, 0.2, 0.3]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert [line[:2] for line in notes.lines] == [(n, 9) for n in (1, 2, 3, 4)]
    assert "validation NDCG@10 0.3000" in notes.lines[1][2]


def test_validation_every_second_epoch_and_at_the_end(toy_interactions: Interactions, tmp_path: Path) -> None:
    _, trained = toy_training(toy_interactions, tmp_path, epochs=5, valid_every=2, validate=lambda: 0.0)
    assert [e["epoch"] for e in trained.history["curve"] if "valid_ndcg@10" in e] == [2, 4, 5]
    assert (trained.history["best_epoch"], trained.history["stopped"]) == (2, "epochs")
    assert len(trained.seconds) == 5 and len(trained.validation_seconds) == 3


def test_dropout_has_a_stream_of_its_own_each_epoch(toy_interactions: Interactions, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    toy_training(toy_interactions, tmp_path, epochs=3, seed=5)
    assert seeds == [stream_seed(5, "dropout", epoch) for epoch in (1, 2, 3)] and len(set(seeds)) == 3


def test_steps_and_parameters_are_counted(toy_interactions: Interactions, tmp_path: Path) -> None:
    """The toy's 2 training targets a user make ceil(rows / 8) steps an epoch."""
    model, trained = toy_training(toy_interactions, tmp_path, epochs=2)
    rows = len(LeaveOneOut(train_targets_per_user=2).split(toy_interactions).train)
    assert trained.history["steps"] == 2 * math.ceil(rows / 8)
    assert trained.history["parameters"] == model.num_parameters()


# Whole runs

def test_a_resumed_run_equals_an_uninterrupted_one(toy_folder: Path, tmp_path: Path) -> None:
    """Dropout is on, so that the streams of random numbers have to go on too. Its cost is that of all sessions."""
    whole, files = run(toy_folder, tmp_path / "whole")
    prepared, workspace = generative_run(toy_folder, tmp_path / "cut")
    spent = 0.0
    for epoch in (2, 3, 4):
        began = time.process_time()
        with pytest.raises(KeyboardInterrupt):
            run_one(prepared, workspace, StopAfter(epoch))
        spent += time.process_time() - began
        assert workspace.status(prepared.run_id) == "interrupted"
        assert not list((tmp_path / "cut").glob("*/*.json"))
        assert not (workspace.folder(prepared.run_id) / FAILURE).exists()
    # a fresh workspace, as a second command has it
    prepared, workspace = generative_run(toy_folder, tmp_path / "cut")
    began = time.process_time()
    resumed = run_one(prepared, workspace, Quiet())
    last = time.process_time() - began
    assert last < 0.8 * spent + last < resumed.timings["total_seconds"] < 1.1 * (spent + last)
    assert resumed.metrics == whole.metrics and resumed.training == whole.training
    assert resumed.run_id == whole.run_id
    assert left_behind(workspace, resumed) == files
    assert not (workspace.folder(resumed.run_id) / STATE).exists()


def test_a_run_in_bfloat16_goes_on_too(toy_folder: Path, tmp_path: Path) -> None:
    """Bit for bit, with weights in float32, and with a name of its own."""
    changes = "training.epochs=2", "training.precision=bfloat16"
    exact, _ = run(toy_folder, tmp_path / "exact", 0, *changes[:1])
    whole, files = run(toy_folder, tmp_path / "whole", 0, *changes)
    prepared, workspace = generative_run(toy_folder, tmp_path / "cut", 0, *changes)
    with pytest.raises(KeyboardInterrupt):
        run_one(prepared, workspace, StopAfter(1))
    tensors, _ = checkpoints.read(workspace.folder(prepared.run_id) / STATE)
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.float64}
    resumed = run_one(*generative_run(toy_folder, tmp_path / "cut", 0, *changes), Quiet())
    assert resumed.training == whole.training and left_behind(workspace, resumed) == files
    losses = [[entry["loss"] for entry in record.training["curve"]] for record in (whole, exact)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)
    assert whole.run_id != exact.run_id


@pytest.mark.parametrize("change", [{"threads": 2}, {"device": "meta"}])
def test_a_run_is_not_resumed_elsewhere(toy_interactions: Interactions, tmp_path: Path, change: dict[str, Any]) -> None:
    """As if the state had been made with another thread count or on another device."""
    folder = tmp_path / "0123456789abcdef"
    folder.mkdir()
    toy_training(toy_interactions, folder, epochs=1)
    tensors, state = checkpoints.read(folder / STATE)
    assert (state["device"], state["threads"]) == ("cpu", 1)
    checkpoints.write(folder / STATE, tensors, state | change)
    ((name, value),) = change.items()
    message = f"run {folder.name} was begun with {name}={value}; go on with --{name} {value}, or delete {folder} to"
    with pytest.raises(UserError, match=message):
        toy_training(toy_interactions, folder, epochs=2)
    checkpoints.write(folder / STATE, tensors, {k: v for k, v in state.items() if k not in ("device", "threads")})
    _, trained = toy_training(toy_interactions, folder, epochs=2)  # an older state does not say
    assert trained.history["epochs"] == 2


def test_same_seed_same_bytes_other_seed_other_numbers(toy_folder: Path, tmp_path: Path) -> None:
    first, first_files = run(toy_folder, tmp_path / "a", 0, "training.epochs=2")
    torch.manual_seed(99)
    np.random.default_rng(3).random(5)
    second, second_files = run(toy_folder, tmp_path / "b", 0, "training.epochs=2")
    other, other_files = run(toy_folder, tmp_path / "c", 1, "training.epochs=2")
    assert first.metrics == second.metrics and first.training == second.training and first_files == second_files
    assert first.run_id != other.run_id and first.training["curve"] != other.training["curve"]
    assert first_files["weights"] != other_files["weights"]


def test_nothing_that_differs_between_equal_runs_is_in_the_metrics(toy_folder: Path, tmp_path: Path) -> None:
    record, _ = run(toy_folder, tmp_path / "a", 0, "training.epochs=1")
    assert all(isinstance(v, float) and math.isfinite(v) for v in record.metrics.values())
    words = ("second", "time", "byte", "host", "memory")
    assert not [k for k in record.metrics if any(word in k for word in words)]
    path = tmp_path / "a" / "toy" / f"{record.run_id}.json"
    assert json.loads(path.read_text())["metrics"] == record.metrics


def test_a_planted_signal_is_learned(toy_folder: Path, tmp_path: Path) -> None:
    """The next item is the last one plus 1, nine times out of ten: TIGER finds that, popularity cannot."""
    record, _ = run(toy_folder, tmp_path / "r", 0, "training.epochs=20", "training.patience=20",
                    "training.accumulation=1", "training.learning_rate=1e-2", "tiger.dropout=0.0", "tiger.width=32",
                    "split.train_targets_per_user=0")
    losses = [entry["loss"] for entry in record.training["curve"]]
    assert losses[-1] < 0.6 * losses[0] and losses[5] < losses[0]
    (config,) = expand(Selection("apao", "smoke", (str(toy_folder),), (), ("popularity",), (0,),
                                 {"split": {"train_targets_per_user": 0}}))
    workspace = Workspace(tmp_path / "r")
    popularity = run_one(workspace.prepare(config), workspace, Quiet())
    assert record.metrics["recall@5"] > popularity.metrics["recall@5"] + 0.2
    assert record.metrics["ndcg@10"] > 1.5 * popularity.metrics["ndcg@10"]


@dataclass(frozen=True)
class Broken(Objective):
    """Cross-entropy that is NaN from the start."""

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        return inputs.target_token_logps.sum(1) * float("nan")


def test_a_loss_that_is_not_finite_fails_that_run_alone(toy_folder: Path, tmp_path: Path, capsys: Any,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    registry.objectives.get("cross_entropy")
    monkeypatch.setattr(Broken, "name", "cross_entropy", raising=False)
    monkeypatch.setitem(registry.objectives._classes, "cross_entropy", Broken)
    words = ["run", "--suite", "apao", "--profile", "smoke", "--datasets", str(toy_folder), "--threads", "1",
             "--baselines", "popularity", "--results", str(tmp_path / "r"), "--seeds", "0,1", "--jobs", "1", "--row",
             "TIGER + cross-entropy", "--row", "TIGER + CE → CE"]
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert printed.count("FAILED") == 4 and printed.count("not possible, for it uses run") == 2
    assert "the training loss of epoch 1 is nan" in printed and FAILURE in printed
    failures = sorted((tmp_path / "r" / "work").glob(f"*/{FAILURE}"))
    assert len(failures) == 2 and "FloatingPointError" in failures[0].read_text()
    records = [json.loads(p.read_text()) for p in (tmp_path / "r" / "toy").glob("*.json")]
    assert [r["config"]["baseline"]["name"] for r in records] == ["popularity"]
    prepared, workspace = generative_run(toy_folder, tmp_path / "other")
    with pytest.raises(FloatingPointError):
        run_one(prepared, workspace, Quiet())
    assert workspace.status(prepared.run_id) == "failed"
    monkeypatch.undo()
    fixed, _ = generative_run(toy_folder, tmp_path / "other")
    assert fixed.run_id == prepared.run_id
    assert run_one(fixed, workspace, Quiet()).metrics["ndcg@10"] >= 0  # from the start
    assert workspace.status(prepared.run_id) == "done"
    assert not (workspace.folder(prepared.run_id) / FAILURE).exists()


def test_a_finished_run_is_not_run_again(toy_folder: Path, tmp_path: Path) -> None:
    prepared, workspace = generative_run(toy_folder, tmp_path, 0, "training.epochs=1")
    first = run_one(prepared, workspace, Quiet())
    assert run_one(prepared, workspace, StopAfter(1)) == first
