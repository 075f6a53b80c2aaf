"""THE training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec_bench.backbones.base import Backbone
from genrec_bench.batches import TokenisedInstances, training_batches
from genrec_bench.contracts import Progress
from genrec_bench.core.devices import on_device
from genrec_bench.core.meter import Meter
from genrec_bench.core.seeds import stream_seed
from genrec_bench.experiments.config import TrainingConfig, gives_up
from genrec_bench.objectives.base import Objective
from genrec_bench.training import checkpoints
from genrec_bench.training.feed import InputFeed, States, add_gradient
from genrec_bench.training.optimiser import adamw, learning_rate, planned_steps

STATE, BEST = "state.safetensors", "best.safetensors"


@dataclass(frozen=True)
class Trained:
    """What training leaves: `history` is equal for equal runs, `seconds` (one a trained epoch) is not."""

    history: dict[str, Any]
    seconds: list[float]
    validation_seconds: list[float]


def train(model: Backbone, feed: InputFeed, objectives: list[tuple[float, Objective]], *,
          config: TrainingConfig, validate: Callable[[States], dict[str, float]], seed: int, folder: Path,
          progress: Progress, meter: Meter, about: dict[str, Any], attached: dict[str, torch.Tensor],
          scalars: Any = None) -> Trained:
    """Train to the best validation value and leave the model with the weights of that epoch.

    objectives: (weight, objective) pairs, added up. validate: what goes into the curve, computed on the model in eval
    mode: "valid_ndcg@10" and, where the selection is by loss, "valid_loss". folder: where `state.safetensors` (the
    last epoch, to go on from) and `best.safetensors` live; an existing state is continued, bit for bit as if never
    interrupted, on the same device and thread count. meter: of the whole run, which goes on like the state.
    about, attached: plain data and tensors that make `best.safetensors` complete in itself. scalars: a writer or None.
    Raises: FloatingPointError where the loss is not finite; UserError where the state was made on another device or
    with another thread count.
    """
    optimiser = adamw(model, config)
    states = initial_states(objectives, feed.data)
    state = {"epoch": 0, "step": 0, "best": None, "best_epoch": 0, "waited": 0, "curve": [],
             "seconds": [], "validation_seconds": [], "passes": feed.passes, **checkpoints.place(feed.data.device)}
    if (folder / STATE).exists():
        tensors, state = checkpoints.read(folder / STATE)
        checkpoints.check_place(state, checkpoints.place(feed.data.device), folder)
        checkpoints.load_training(tensors, model, optimiser)
        states = checkpoints.unnumbered("run_state", tensors, len(objectives), feed.data.device)
        feed.passes.update(state.get("passes", {}))
        meter.go_on(state.get("cost", {}))
    steps = planned_steps(len(feed.data), config)

    def validated() -> dict[str, float]:
        """What validation says of the epochs so far; the weights are kept where they are the best."""
        began = meter.seconds()
        model.eval()
        found = validate(states)
        value = found["valid_ndcg@10"] if config.selection == "ndcg@10" else -found["valid_loss"]
        state["validation_seconds"].append(meter.seconds() - began)
        state["waited"] += 1
        if state["best"] is None or value > state["best"]:
            state.update(best=value, best_epoch=epoch, waited=0)
            checkpoints.write(folder / BEST, checkpoints.named("model", model.state_dict()) | attached,
                              {**about, "epoch": epoch, "valid_ndcg@10": found["valid_ndcg@10"]})
        return found

    epoch = 0
    if config.epochs == 0:
        validated()
    while (stopped := _stopped(state, config, steps)) is None:
        epoch = state["epoch"] + 1
        began = meter.seconds()
        loss = one_epoch(model, feed, objectives, states, optimiser, config, seed, state, steps)
        entry = {"epoch": epoch, "loss": loss}
        entry |= _logged(objectives, states)
        state["seconds"].append(meter.seconds() - began)
        state["epoch"] = epoch
        if epoch % config.valid_every == 0 or _stopped(state, config, steps) == "epochs":
            entry |= validated()
        state["curve"].append(entry)
        state |= {"passes": dict(feed.passes), "cost": meter.state()}
        tensors = checkpoints.training_tensors(model, optimiser) | checkpoints.numbered("run_state", states)
        checkpoints.write(folder / STATE, tensors, state)
        _tell(entry, scalars, progress, config.epochs)
    tensors, _ = checkpoints.read(folder / BEST)
    model.load_state_dict(checkpoints.unnamed("model", tensors))
    model.eval()
    history = {"epochs": state["epoch"], "best_epoch": state["best_epoch"], "curve": state["curve"],
               "parameters": model.num_parameters(), "stopped": stopped, "steps": state["step"],
               "passes": dict(feed.passes)}
    return Trained(history, state["seconds"], state["validation_seconds"])


def _stopped(state: dict[str, Any], config: TrainingConfig, steps: int) -> str | None:
    """Why training ends here; None = it goes on. steps: of the whole training, as planned."""
    if state["epoch"] >= config.epochs or state["step"] >= steps:
        return "epochs"
    if state["waited"] >= config.patience:
        return "patience"
    return "gave up" if gives_up(state["curve"], config.give_up_after, config.give_up_below) else None


def initial_states(objectives: list[tuple[float, Objective]], data: TokenisedInstances) -> States:
    """The run state of each objective before the first step."""
    return [{name: on_device(data.device, tensor) for name, tensor in o.initial_state(data.table.shape[1]).items()}
            for _, o in objectives]


def _logged(objectives: list[tuple[float, Objective]], states: States) -> dict[str, Any]:
    """The run state for the curve, such as {"state": {"apao.weights": [...]}}; nothing where there is none."""
    values = {f"{objective.name}.{name}": tensor.tolist()
              for (_, objective), state in zip(objectives, states, strict=True) for name, tensor in state.items()}
    return {"state": values} if values else {}


def one_epoch(model: Backbone, feed: InputFeed, objectives: list[tuple[float, Objective]], states: States,
              optimiser: torch.optim.Optimizer, config: TrainingConfig, seed: int, state: dict[str, Any],
              num_steps: int) -> float:
    """One pass over the data; returns the mean loss. The device is asked for numbers once, at the end.

    state: "epoch" and "step" that are done; "step" is counted on. num_steps: of the whole training; with
    `training.schedule` = "released" the pass breaks off where they are made.
    Raises: FloatingPointError where the loss is not finite.
    """
    model.train(config.dropout)
    epoch, data = state["epoch"] + 1, feed.data
    torch.manual_seed(stream_seed(seed, "dropout", epoch))
    order = np.random.default_rng(stream_seed(seed, "batches", epoch))
    feed.begin(epoch)
    total = torch.zeros((), dtype=torch.float64, device=data.device)
    steps = training_batches(data.instances.lengths, batch_size=config.batch_size, accumulation=config.accumulation,
                             bucket_steps=config.bucket_steps, generator=order,
                             groups=data.users if config.group_users else None)
    seen, left = 0, num_steps - state["step"] if config.schedule == "released" else None
    for one, rows in feed.each_pass(islice(steps, left), feed.joins(config.batch_size, config.accumulation)):
        total += add_gradient(feed, objectives, states, one, rows, config.accumulation_reduction)
        if one.closes_step:
            if config.clip_norm > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(state["step"], num_steps, config)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            state["step"] += 1
            seen += one.step_rows
    mean = float(total) / seen
    if not math.isfinite(mean):
        raise FloatingPointError(f"the training loss of epoch {epoch} is {mean}")
    return mean


def _tell(entry: dict[str, float], scalars: Any, progress: Progress, epochs: int) -> None:
    if scalars is not None:
        for name in ("loss", "valid_ndcg@10"):
            if name in entry:
                scalars.add_scalar(name, entry[name], entry["epoch"])
        for name, value in entry.get("state", {}).items():
            for level, part in enumerate(value if isinstance(value, list) else [value], 1):
                scalars.add_scalar(f"{name}/{level}", part, entry["epoch"])
    value = entry.get("valid_ndcg@10")
    progress.step(entry["epoch"], epochs, f"loss {entry['loss']:.4f}"
                  + (f", validation NDCG@10 {value:.4f}" if value is not None else ""))
