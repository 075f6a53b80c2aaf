"""One run from its settings to its record; the same for baselines and generative models."""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from genrec_bench.contracts import Job, Outcome, Progress
from genrec_bench.core import memory
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import dump_json, write_atomically
from genrec_bench.core.meter import Meter
from genrec_bench.core.provenance import device_name, provenance, told_apart, unlike, versions
from genrec_bench.core.walk import LOCK, alone
from genrec_bench.evaluate import KS, score
from genrec_bench.experiments import identity
from genrec_bench.experiments.config import RunConfig
from genrec_bench.results import test_users
from genrec_bench.results.records import RunRecord
from genrec_bench.running import tracking
from genrec_bench.running.workspace import FAILURE, Prepared, Workspace
from genrec_bench.splits.base import summary
from genrec_bench.splits.order import order_facts

BEST, STATE = "best.safetensors", "state.safetensors"
SESSIONS = "sessions.json"  # what versions an unfinished run was made with, a list
KEPT = (BEST, "run.log")


def run_one(prepared: Prepared, workspace: Workspace, progress: Progress, *, weights: bool = False) -> RunRecord:
    """Run once, or return the record of an equal run that is already there.

    A run that raises leaves `failure.txt` in its working folder and no record; an interrupted one leaves its
    checkpoint and goes on from it next time. weights: run again also where the record is there and its weights are
    not. What a run uses is run before it, with weights.
    Raises: UserError where that was made on another device or with other threads, or gives other weights when it is
    made again; Busy where another process is making it.
    """
    record = _known(prepared, workspace, weights)
    if record is not None:
        return record
    for used in prepared.before:
        run_one(used, workspace, progress, weights=True)
    with alone(workspace.folder(prepared.run_id)):
        return make(prepared, workspace, progress, weights=weights)


def make(prepared: Prepared, workspace: Workspace, progress: Progress, *, weights: bool = False) -> RunRecord:
    """`run_one` for who holds the lock of the run's folder and knows that what it uses is there."""
    record = _known(prepared, workspace, weights)
    if record is not None:
        return record
    for used in prepared.before:
        _same_place(workspace.store.read(used.run_id), prepared, workspace)
    folder = workspace.folder(prepared.run_id)
    with tracking.tracked(workspace.track, prepared.config.to_dict(), folder) as told:
        record = _run(prepared, workspace, folder, progress, told)
    if weights and not has_weights(prepared, workspace):
        raise UserError(f"run {prepared.run_id}, made again for its weights, is not what its record says. The record "
                        f"was made elsewhere: delete {workspace.store.path(record)} and start again.")
    return record


def _known(prepared: Prepared, workspace: Workspace, weights: bool) -> RunRecord | None:
    """The record of a run that is done, with its weights where they are asked for."""
    if not workspace.store.find(prepared.run_id) or (weights and not has_weights(prepared, workspace)):
        return None
    record = workspace.store.read(prepared.run_id)
    test_users.keep_users(workspace.store, record.dataset, prepared.split)
    return record


def has_weights(prepared: Prepared, workspace: Workspace) -> bool:
    """Whether the weights of a finished run are there: of the epoch, and with the validation, that its record states.

    An unfinished run leaves weights too, those of its best epoch so far.
    """
    path = _best(prepared, workspace)
    if not workspace.store.find(prepared.run_id) or not path.exists():
        return False
    from genrec_bench.training import checkpoints

    about, record = checkpoints.read_state(path), workspace.store.read(prepared.run_id)
    return (about.get("epoch"), about.get("valid_ndcg@10")) == (record.training["best_epoch"],
                                                                record.metrics["valid_ndcg@10"])


def _best(prepared: Prepared, workspace: Workspace) -> Path:
    return workspace.folder(prepared.run_id) / BEST


def _same_place(used: RunRecord, prepared: Prepared, workspace: Workspace) -> None:
    """Refuse to go on from a run of another device or thread count: the numbers could not be made again."""
    here = {"device": device_name(workspace.device), "threads": workspace.threads}
    there = {name: used.provenance.get(name) for name in here}
    if there != here:
        raise UserError(f"run {used.run_id} ({used.label}), which {prepared.config.label} goes on from, was made with "
                        f"{', '.join(f'{k} = {v}' for k, v in there.items())}; here are "
                        f"{', '.join(f'{k} = {v}' for k, v in here.items())}. Go on as it was made, or give another "
                        "--results.")


def _run(prepared: Prepared, workspace: Workspace, folder: Path, progress: Progress,
         told: tracking.Tracked) -> RunRecord:
    (folder / FAILURE).unlink(missing_ok=True)
    config = prepared.config
    memory.reset_peak()
    job = Job(config, prepared.split, prepared.semantic_ids, config.seed, folder, workspace.device,
              workspace.threads, progress, told, {take: _best(used, workspace) for take, used in prepared.uses.items()},
              Meter(workspace.device))
    try:
        earlier = _earlier_versions(prepared, workspace, folder)
        outcome = _system(config).run(job)
        outcome = dataclasses.replace(outcome, **{
            name: dataclasses.replace(getattr(outcome, name), users=rows.groups) for name, rows in
            (("valid", prepared.split.valid), ("test", prepared.split.test), ("unseen", prepared.split.test))})
        record = _record(prepared, outcome, workspace, job.meter, earlier)
        for used in prepared.before:
            record = _with_first_stage(record, workspace.store.read(used.run_id))
        workspace.store.write(record, outcome.test, outcome.unseen)
        test_users.keep_users(workspace.store, record.dataset, prepared.split)
        told.done(record)
    except Exception:
        (folder / FAILURE).write_text(traceback.format_exc(), encoding="utf-8")
        raise
    _tidy(folder)
    return record


def _earlier_versions(prepared: Prepared, workspace: Workspace, folder: Path) -> list[dict[str, Any]]:
    """The versions other than these that made the state which a run goes on from, or the runs that it uses.

    Each is told in a line. The versions of this session are kept beside the state. A baseline has no state.
    """
    if prepared.config.baseline is not None:
        return []
    here = versions(provenance(workspace.device, workspace.threads, workspace.command))
    path = folder / SESSIONS
    sessions = json.loads(path.read_text(encoding="utf-8")) if path.exists() and (folder / STATE).exists() else []
    write_atomically(path, dump_json([*sessions, *([here] if here not in sessions else [])]).encode())
    made = [(there, "a state", f" Delete {folder} to begin anew.") for there in sessions]
    for used in prepared.before:
        known = workspace.store.read(used.run_id).provenance
        made += [(there, f"run {used.run_id}", "") for there in (versions(known), *known.get("earlier", ()))]
    others: list[dict[str, Any]] = []
    for there, what, remedy in made:
        if unlike(there, here) and there not in others:
            others.append(there)
            print(f"note: {prepared.config.label}, {prepared.dataset}, seed {prepared.config.seed}: goes on from "
                  f"{what} of other versions ({told_apart(there, here)}), which its record names.{remedy}",
                  file=sys.stderr, flush=True)
    return others


def evaluate_checkpoint(folder: Path, data_dir: Path | None, device: str, threads: int = 1) -> dict[str, Any]:
    """Score the best weights in a run's working folder on the test rows of the run's own data.

    Returns {"dataset", "users", "epoch", "metrics"}. Raises: UserError where there is no checkpoint.
    """
    from genrec_bench.running import generative

    path = folder / BEST if folder.is_dir() else folder
    if not path.is_file():
        raise UserError(f"{folder} holds no best.safetensors: give the working folder of a run that has finished an "
                        "epoch, such as results/local/work/<run_id>.")
    return generative.score_checkpoint(path, Workspace(folder, data_dir).split, device, threads)


def _system(config: RunConfig) -> Any:
    if config.baseline is not None:
        return config.baseline
    from genrec_bench.running import generative  # torch is imported only where a network runs

    return generative


def check_fit(prepared: Prepared) -> None:
    """Whether a run's method can work on its data; needs no torch. Raises: DoesNotFit."""
    config = prepared.config
    if config.baseline is not None:
        config.baseline.check_fit(config, prepared.split)
        return
    depth = prepared.semantic_ids.tokens.shape[1]
    config.backbone.check_length((config.split.max_history + 1) * depth + 1)
    for weighted in config.objectives:
        weighted.objective.check_depth(depth)


def _record(prepared: Prepared, outcome: Outcome, workspace: Workspace, meter: Meter,
            earlier: list[dict[str, Any]]) -> RunRecord:
    ids, config = prepared.semantic_ids, prepared.config
    ks = tuple(k for k in KS if k <= config.evaluation.max_k)
    parts = {"": outcome.test, "unseen_": outcome.unseen, "valid_": outcome.valid}
    metrics = {f"{part}{key}": value for part, ranks in parts.items() for key, value in score(ranks, ks=ks).items()}
    data = {"name": config.dataset.name, **summary(prepared.split, ids.num_distinct if ids else None),
            "train_interactions": int(prepared.split.train_sequences.lengths.sum()),
            "order": order_facts(prepared.split)}
    tokenizer = {"name": config.tokenizer.name, **ids.table, "fingerprint": ids.fingerprint} if ids else {}
    timings = {"peak_memory_bytes": float(meter.peak_bytes()), **outcome.timings, "total_seconds": meter.seconds()}
    return RunRecord(prepared.run_id, identity.method(config), config.label, config.profile, config.to_dict(),
                     prepared.identity,
                     dict(sorted(metrics.items())), data, tokenizer, outcome.training, timings,
                     {**provenance(workspace.device, workspace.threads, workspace.command),
                      **({"earlier": earlier} if earlier else {})})


def _with_first_stage(record: RunRecord, first: RunRecord) -> RunRecord:
    """The record with what its first stage cost, for a stage counts like the rest of the training."""
    stage = {k: first.training[k] for k in ("epochs", "best_epoch", "steps", "passes") if k in first.training}
    return dataclasses.replace(
        record, training={**record.training, "first_stage": {"run_id": first.run_id, **stage}},
        timings={**record.timings, "first_stage_seconds": first.timings["train_seconds"]})


def _tidy(folder: Path) -> None:
    """Keep what a finished run is used for later (best weights, log, scalars), delete what only running needs."""
    for path in folder.iterdir():
        if path.is_file() and path.name not in (*KEPT, LOCK):
            path.unlink()
