"""One run from its settings to its record; the same for baselines and generative models."""

from __future__ import annotations

import dataclasses
import fcntl
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from genrec_bench.contracts import Interactions, Job, Outcome, Progress, SemanticIds, Split
from genrec_bench.core import memory
from genrec_bench.core.errors import UserError
from genrec_bench.core.meter import Meter
from genrec_bench.core.provenance import device_name, provenance
from genrec_bench.evaluate import KS, score
from genrec_bench.experiments import identity
from genrec_bench.experiments.config import RunConfig
from genrec_bench.results import test_users
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.running import tracking
from genrec_bench.splits.leave_one_out import history_fingerprint, leave_one_out, summary
from genrec_bench.splits.order import order_facts
from genrec_bench.tokenizers.base import fit_cached

FAILURE = "failure.txt"
BEST = "best.safetensors"
KEPT = (BEST, "run.log")


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start: its data, its semantic IDs and its name. uses: what is taken -> the run with it."""

    config: RunConfig
    split: Split
    semantic_ids: SemanticIds | None
    identity: dict[str, Any]
    run_id: str
    uses: Mapping[str, Prepared] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        return self.split.interactions.name

    @property
    def before(self) -> list[Prepared]:
        """The runs that it uses, each once."""
        return list({used.run_id: used for used in self.uses.values()}.values())


@dataclass
class Workspace:
    """Where runs read and write, and what they share: each dataset is read once, each tokenizer fitted once.

    Below `results`: `<dataset>/<run_id>.json` and `.ranks.npz` of finished runs, `<dataset>/<split>.users.npz` of their
    splits, `work/<run_id>/` with checkpoints and logs, `cache/` with fitted tokenizers. track: names of trackers.
    plugins: the user's own files, `FILE.py` or `FILE.py:CLASS`, which a process that runs for this workspace loads
    first.
    """

    results: Path
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1
    track: tuple[str, ...] = ()
    command: str = ""
    plugins: tuple[str, ...] = ()
    _interactions: dict[Any, Interactions] = field(default_factory=dict, repr=False)
    _splits: dict[Any, Split] = field(default_factory=dict, repr=False)
    _ids: dict[Any, SemanticIds] = field(default_factory=dict, repr=False)

    @cached_property
    def store(self) -> RecordStore:
        """The records below `results`."""
        return RecordStore(self.results)

    def folder(self, run_id: str) -> Path:
        """The working folder of one run."""
        return self.results / "work" / run_id

    def split(self, config: RunConfig) -> Split:
        """The split of a run's dataset, read once."""
        dataset, key = config.dataset, (config.dataset, config.split)
        if dataset not in self._interactions:
            self._interactions[dataset] = dataset.load(self.data_dir)
        if key not in self._splits:
            self._splits[key] = leave_one_out(self._interactions[dataset], config.split)
        return self._splits[key]

    def prepare(self, config: RunConfig, *, keep: bool = True) -> Prepared:
        """Read the data, split it, make the semantic IDs and name the run. keep=False leaves no file behind."""
        split = self.split(config)
        ids = self._semantic_ids(config, keep) if config.tokenizer else None
        uses = {used.take: self.prepare(used.run, keep=keep) for used in config.uses}
        histories = history_fingerprint(split) if config.evaluation.exclude_history else None
        parts = identity.identity_parts(config, split.fingerprint, ids.fingerprint if ids else None,
                                        {take: used.run_id for take, used in uses.items()}, histories)
        return Prepared(config, split, ids, parts, identity.run_id(parts), uses)

    def _semantic_ids(self, config: RunConfig, keep: bool) -> SemanticIds:
        key = config.dataset, config.tokenizer
        if key not in self._ids:
            cache = self.results / "cache" / "tokenizers"
            self._ids[key] = fit_cached(config.tokenizer, self._interactions[config.dataset],
                                        cache if keep or cache.is_dir() else None)
        return self._ids[key]

    def status(self, run_id: str) -> str:
        """done, damaged (finished once, its files cannot be read), failed, interrupted (begun, not finished) or
        missing."""
        if self.store.find(run_id):
            return "done"
        if self.store.damage(run_id):
            return "damaged"
        folder = self.folder(run_id)
        if (folder / FAILURE).exists():
            return "failed"
        return "interrupted" if folder.is_dir() else "missing"


def run_one(prepared: Prepared, workspace: Workspace, progress: Progress, *, weights: bool = False) -> RunRecord:
    """Run once, or return the record of an equal run that is already there.

    A run that raises leaves `failure.txt` in its working folder and no record; an interrupted one leaves its
    checkpoint and goes on from it next time. weights: run again also where the record is there and its weights are
    not. What a run uses is run before it, with weights.
    Raises: UserError where that was made on another device or with other threads, or gives other weights when it is
    made again.
    """
    if workspace.store.find(prepared.run_id) and not (weights and not has_weights(prepared, workspace)):
        record = workspace.store.read(prepared.run_id)
        test_users.keep_users(workspace.store, record.dataset, prepared.split)
        return record
    for used in prepared.before:
        _same_place(run_one(used, workspace, progress, weights=True), prepared, workspace)
    record = _run_locked(prepared, workspace, progress)
    if weights and not has_weights(prepared, workspace):
        raise UserError(f"run {prepared.run_id}, made again for its weights, is not what its record says. The record "
                        f"was made elsewhere: delete {workspace.store.path(record)} and start again.")
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
    """Refuse to go on from a run of another place: the numbers could not be made again."""
    here = {"device": device_name(workspace.device), "threads": workspace.threads}
    there = {name: used.provenance.get(name) for name in here}
    if there != here:
        raise UserError(f"run {used.run_id} ({used.label}), which {prepared.config.label} goes on from, was made with "
                        f"{', '.join(f'{k} = {v}' for k, v in there.items())}; here are "
                        f"{', '.join(f'{k} = {v}' for k, v in here.items())}. Go on as it was made, or give another "
                        "--results.")


def _run_locked(prepared: Prepared, workspace: Workspace, progress: Progress) -> RunRecord:
    folder = workspace.folder(prepared.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, prepared.run_id), tracking.tracked(workspace.track, prepared.config.to_dict(), folder) as told:
        return _run(prepared, workspace, folder, progress, told)


def _run(prepared: Prepared, workspace: Workspace, folder: Path, progress: Progress,
         told: tracking.Tracked) -> RunRecord:
    (folder / FAILURE).unlink(missing_ok=True)
    config = prepared.config
    memory.reset_peak()
    job = Job(config, prepared.split, prepared.semantic_ids, config.seed, folder, workspace.device,
              workspace.threads, progress, told, {take: _best(used, workspace) for take, used in prepared.uses.items()},
              Meter(workspace.device))
    try:
        outcome = _system(config).run(job)
        record = _record(prepared, outcome, workspace, job.meter)
        for used in prepared.before:
            record = _with_first_stage(record, workspace.store.read(used.run_id))
        workspace.store.write(record, outcome.test)
        test_users.keep_users(workspace.store, record.dataset, prepared.split)
        told.done(record)
    except Exception:
        (folder / FAILURE).write_text(traceback.format_exc(), encoding="utf-8")
        raise
    _tidy(folder)
    return record


@contextmanager
def _alone(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the run's folder for this process. Raises: UserError where another process holds it."""
    with open(folder / "lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"run {run_id} is being made by another process in {folder}. Wait for it, or give this "
                            "process other runs or another --results.") from None
        yield


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
    """Whether a run's method can work on its data. Raises: DoesNotFit."""
    if prepared.config.baseline is not None:
        prepared.config.baseline.check_fit(prepared.config, prepared.split)
        return
    from genrec_bench.running.generative import check_fit

    check_fit(prepared.config, prepared.semantic_ids.tokens.shape[1])


def _record(prepared: Prepared, outcome: Outcome, workspace: Workspace, meter: Meter) -> RunRecord:
    ids, config = prepared.semantic_ids, prepared.config
    ks = tuple(k for k in KS if k <= config.evaluation.max_k)
    metrics = {**score(outcome.test, ks=ks), **{f"valid_{k}": v for k, v in score(outcome.valid, ks=ks).items()}}
    data = {"name": config.dataset.name, **summary(prepared.split, ids.num_distinct if ids else None),
            "train_interactions": sum(len(s) for s in prepared.split.train_sequences),
            "order": order_facts(prepared.split)}
    tokenizer = {"name": config.tokenizer.name, **ids.table, "fingerprint": ids.fingerprint} if ids else {}
    timings = {"peak_memory_bytes": float(meter.peak_bytes()), **outcome.timings, "total_seconds": meter.seconds()}
    return RunRecord(prepared.run_id, identity.method(config), config.label, config.profile, config.to_dict(),
                     prepared.identity,
                     dict(sorted(metrics.items())), data, tokenizer, outcome.training, timings,
                     provenance(workspace.device, workspace.threads, workspace.command))


def _with_first_stage(record: RunRecord, first: RunRecord) -> RunRecord:
    """The record with what its first stage cost, for a stage counts like the rest of the training."""
    stage = {k: first.training[k] for k in ("epochs", "best_epoch", "steps", "passes") if k in first.training}
    return dataclasses.replace(
        record, training={**record.training, "first_stage": {"run_id": first.run_id, **stage}},
        timings={**record.timings, "first_stage_seconds": first.timings["train_seconds"]})


def _tidy(folder: Path) -> None:
    """Keep what a finished run is asked for later (best weights, log, scalars), drop what only running needs."""
    for path in folder.iterdir():
        if path.is_file() and path.name not in KEPT:
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
