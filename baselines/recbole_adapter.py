"""The classic sequential models: our split in, trained by RecBole in a child process, per-user ranks out.

A child process, because RecBole patches numpy, reads `sys.argv`, writes to the current directory and sets
CUDA_VISIBLE_DEVICES. Only `_recbole_child` imports it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genrec_bench.contracts import Baseline, Job, Outcome, Rankings, Split
from genrec_bench.core import settings
from genrec_bench.core.errors import DoesNotFit, UserError
from genrec_bench.core.files import dump_json
from genrec_bench.core.seeds import stream_seed
from genrec_bench.core.settings import setting
from genrec_bench.experiments.config import GivesUp, RunConfig

# JSON under other names: below --results every *.json is a record
LOG, SPEC, DATA, RESULT, RANKS, WEIGHTS = (
    "run.log", "input.settings", "input.npz", "output.result", "output.npz", "best.safetensors")
PARTS = ("train", "valid", "test")
LISTS = ("values", "starts", "lengths")
RANKED = ("valid", "test", "unseen")  # what the child hands back, as `Outcome` has it
LOG_LINES = 8
GRACE_SECONDS = 5.0
ROW, SOFTMAX, ADAM, RANKED_ITEM, WIDTH = 3e-4, 24e-9, 640e-9, 5e-9, 64  # seconds, and the width of what was measured


@dataclass(frozen=True)
class RecBole(GivesUp, Baseline):
    """Base of RecBole's sequential models (Zhao et al. 2021, arXiv 2011.01731): RecBole's training epoch and loaders.

    Ours are the split, the epoch at which to stop and every number of the evaluation: training stops when our
    validation NDCG@10 has not risen for `patience` epochs, and the best weights are ranked over the full catalogue.
    Rows have one target each. An interrupted run is never resumed: it starts anew (`resumes`).
    model: RecBole's class. samples: it has the loss BPR. softmaxes: over all items, with CE, of a training row.
    """

    model: ClassVar[str]
    samples: ClassVar[bool] = True
    softmaxes: ClassVar[int] = 1
    resumes: ClassVar[bool] = False

    loss_type: str = setting("CE", "softmax over all items, or one sampled negative", choices=("CE", "BPR"))
    learning_rate: float = setting(1e-3, "Adam", low=0.0)
    weight_decay: float = setting(0.0, "L2 penalty of Adam", low=0.0)
    batch_size: int = setting(256, "rows of one optimiser step", low=1)
    eval_batch_size: int = setting(512, "users scored together", low=1)
    epochs: int = setting(200, "most epochs", low=1)
    patience: int = setting(10, "epochs without a better validation NDCG@10 before stopping", low=1)

    @property
    def label(self) -> str:
        """The model with its loss."""
        return f"{self.model} (RecBole, {self.loss_type})"

    def run(self, job: Job) -> Outcome:
        """Train in a child process, then read ranks and curve from the run's folder.

        The curve's loss is RecBole's: the mean over batches, in nats. A run always starts anew.
        Raises: UserError where RecBole is missing or a setting does not fit the data; RuntimeError with the end
        of `run.log` where the child fails.
        """
        if importlib.util.find_spec("recbole") is None:
            raise UserError(f"baseline {self.name} needs RecBole: pip install --no-deps recbole==1.2.1 (see the "
                            "README).")
        self.check_fit(job.config, job.split)
        folder = job.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for name in (RESULT, RANKS, WEIGHTS):
            (folder / name).unlink(missing_ok=True)  # what an interrupted run left must not pass for this run's
        environment, gpu = child_environment(job.device, job.threads)
        write_input(folder, job, self.child_settings(), gpu)
        with _child(folder, environment) as child:
            for line in child.stdout:
                point = json.loads(line)
                note = f"loss {point['loss']:.4f}, validation NDCG@10 {point['valid_ndcg@10']:.4f}"
                job.progress.step(point["epoch"], self.epochs, note)
        if child.returncode != 0 or not (folder / RESULT).exists():
            raise RuntimeError(f"RecBole's {self.model} failed (exit code {child.returncode}); the end of "
                               f"{folder / LOG}:\n{log_tail(folder / LOG)}")
        return read_outcome(folder)

    def check_fit(self, config: RunConfig, split: Split) -> None:
        """Refuse data that RecBole could not draw a negative for. Raises: DoesNotFit."""
        self.check_draws(split, len(split.train) if self.loss_type == "BPR" and split.num_items < 2 else 0)

    def check_draws(self, split: Split, full: int) -> None:
        """RecBole draws for ever where a row has every item. full: how many do. Raises: DoesNotFit."""
        if full:
            raise DoesNotFit(f"baseline {self.name}: loss_type = BPR draws an item that a row does not have, but "
                             f"{full} training rows have all of the {split.num_items} items. Use loss_type = CE.")

    def epoch_seconds(self, split: Split) -> dict[str, float]:
        """By measurements of SASRec, GRU4Rec and BERT4Rec of width 64 on 10,000 to 1,000,000 items, on one thread of a
        server's processor (AVX-512, 2.x GHz): a row's softmax over all items, a step of Adam on all of them, a ranking
        of all of them, and what a row takes otherwise."""
        def seconds(rows: int, valid: int, softmaxes: int) -> float:
            wide = getattr(self, "embedding_size", getattr(self, "hidden_size", WIDTH)) / WIDTH
            return (rows * ROW + split.num_items * (softmaxes * rows * SOFTMAX + rows / self.batch_size * ADAM) * wide
                    + valid * split.num_items * RANKED_ITEM)

        rows, valid = len(split.train), len(split.valid)
        softmaxes = self.softmaxes if self.loss_type == "CE" else 0
        return {"": seconds(rows, valid, softmaxes),
                **({f"{self.name}.loss_type = BPR": seconds(rows, valid, 0)} if softmaxes and self.samples else {}),
                "split.train_targets_per_user = 1": seconds(min(rows, split.interactions.num_users), valid, softmaxes),
                "split.valid_users = 1000": seconds(rows, min(valid, 1000), softmaxes)}

    def child_settings(self) -> dict[str, Any]:
        """RecBole's class and the settings, as plain data."""
        return {"model": self.model, **settings.to_dict(self)}


def child_environment(device: str, threads: int, base: Mapping[str, str] = os.environ) -> tuple[dict[str, str], str]:
    """The child's environment, and the GPU it may use ("" = CPU) as RecBole's `gpu_id`.

    "cuda:n" counts within CUDA_VISIBLE_DEVICES, which RecBole overwrites with `gpu_id`: so both are set to the
    physical name of that one GPU. Raises: UserError for another device or a GPU that is not visible.
    """
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UserError(f"RecBole runs on cpu, cuda or cuda:<number>, not on {device!r}.")
    gpu = ""
    if kind == "cuda":
        number = int(index or 0)
        visible = base.get("CUDA_VISIBLE_DEVICES")
        names = [name.strip() for name in visible.split(",") if name.strip()] if visible is not None \
            else [str(n) for n in range(number + 1)]
        if number >= len(names):
            raise UserError(f"device {device!r} is not visible: CUDA_VISIBLE_DEVICES is {visible!r}.")
        gpu = names[number]
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [base.get("PYTHONPATH")])])
    count = str(threads)
    return {**base, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": gpu, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}, gpu


def write_input(folder: Path, job: Job, values: dict[str, Any], gpu: str) -> None:
    """Write what the child needs: `input.npz` (rows, and what their users had before) and `input.settings` (JSON)."""
    arrays: dict[str, np.ndarray] = {}
    for part in PARTS:
        rows = getattr(job.split, part)
        lists = {"histories": rows.histories, **({} if rows.seen is None else {"seen": rows.seen})}
        arrays |= {f"{part}_users": rows.users, f"{part}_targets": rows.targets,
                   **{f"{part}_{which}_{name}": getattr(held, name) for which, held in lists.items() for name in LISTS}}
    np.savez(folder / DATA, **arrays)
    spec = {"settings": values, "seed": stream_seed(job.seed, "recbole") % 2**31, "threads": job.threads, "gpu": gpu,
            "max_history": job.config.split.max_history, "max_k": job.config.evaluation.max_k,
            "num_items": job.split.num_items,
            "num_users": job.split.interactions.num_users}
    (folder / SPEC).write_text(dump_json(spec), encoding="utf-8")


def read_outcome(folder: Path) -> Outcome:
    """What the child left in the run's folder."""
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    with np.load(folder / RANKS) as file:
        ranked = [Rankings(*(file[f"{part}_{name}"] for name in ("ranks", "ties", "id_ranks"))) for part in RANKED]
    return Outcome(*ranked, result["training"], result["timings"])


def log_tail(path: Path) -> str:
    """The last lines of a log, for an error message."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return "\n".join(lines[-LOG_LINES:]) or "(empty)"


@contextmanager
def _child(folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen]:
    """Run the child in its own session, so that Ctrl-C reaches only us; end it on the way out."""
    command = [sys.executable, "-P", "-m", "baselines._recbole_child", str(folder), str(os.getpid())]
    with open(folder / LOG, "wb") as log:
        child = subprocess.Popen(command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=log, start_new_session=True, encoding="utf-8")
    try:
        yield child
        child.wait()
    finally:
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    """Nothing for a child that is over; else ask it to stop, then make it."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    child.stdout.close()
