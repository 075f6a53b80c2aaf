"""The classic sequential models: our split in, trained by RecBole in a child process, per-user places out.

A child process, because RecBole patches numpy, reads `sys.argv`, writes to the current directory and sets
CUDA_VISIBLE_DEVICES. Only `_recbole_child` imports it.
"""

from __future__ import annotations

import dataclasses
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

from genrec_bench.contracts import Instances, Job, Outcome, Rankings, Split
from genrec_bench.core import settings
from genrec_bench.core.errors import DoesNotFit, UserError, unknown
from genrec_bench.core.files import dump_json
from genrec_bench.core.registry import systems
from genrec_bench.core.seeds import stream_seed
from genrec_bench.core.settings import setting
from genrec_bench.experiments.config import RunConfig
from genrec_bench.splits.leave_one_out import seen_items

# JSON under other names: below --results every *.json is a record
LOG, SPEC, DATA, RESULT, PLACES, WEIGHTS = (
    "run.log", "input.settings", "input.npz", "output.result", "output.npz", "best.safetensors")
PARTS = ("train", "valid", "test")
LOG_LINES = 8
GRACE_SECONDS = 5.0

_TRANSFORMER = {"n_layers": 2, "n_heads": 2, "hidden_size": 64, "inner_size": 256, "hidden_act": "gelu",
                "layer_norm_eps": 1e-12, "initializer_range": 0.02}
# Which settings each model has, with RecBole 1.2.1's own defaults. A setting of another model is an error.
MODEL_SETTINGS: dict[str, dict[str, Any]] = {
    "SASRec": {**_TRANSFORMER, "hidden_dropout_prob": 0.5, "attn_dropout_prob": 0.5},
    "BERT4Rec": {**_TRANSFORMER, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "mask_ratio": 0.2,
                 "ft_ratio": 0.5, "protocol": "target_appended"},
    "GRU4Rec": {"embedding_size": 64, "hidden_size": 128, "num_layers": 1, "dropout_prob": 0.3},
    "Caser": {"embedding_size": 64, "dropout_prob": 0.4, "reg_weight": 1e-4, "nv": 4, "nh": 8},
    "NextItNet": {"embedding_size": 64, "kernel_size": 3, "block_num": 5, "dilations": (1, 4), "reg_weight": 1e-5},
    "CORE": {"embedding_size": 64, "inner_size": 256, "n_layers": 2, "n_heads": 2, "hidden_dropout_prob": 0.5,
             "attn_dropout_prob": 0.5, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02,
             "dnn_type": "trm", "sess_dropout": 0.2, "item_dropout": 0.2, "temperature": 0.07},
}
_SHARE = {"low": 0.0, "high": 1.0}


@systems.register("recbole")
@dataclass(frozen=True)
class RecBole:
    """A sequential model of RecBole 1.2.1 (Zhao et al. 2021, arXiv 2011.01731) with its training epoch and loaders.

    Ours are the split, the epoch at which to stop and every number of the evaluation: training stops when our
    validation NDCG@10 has not risen for `patience` epochs, and the best weights are ranked over the full catalogue.
    A model setting that is not given has RecBole's default; one the chosen model does not have is an error.
    Models: SASRec (Kang and McAuley 2018, arXiv 1808.09781), BERT4Rec (Sun et al. 2019, arXiv 1904.06690),
    GRU4Rec, Caser, NextItNet, CORE.
    Differs from the paper: SASRec and the others train one target a row with a softmax over all items (SASRec's
    paper: every position, binary cross-entropy). BERT4Rec as shipped never trains on a row's target and cuts the
    oldest item when it ranks; `protocol` "target_appended" mends both, "stock" keeps them.
    An interrupted run is never resumed: it starts anew (`resumes`).
    """

    resumes: ClassVar[bool] = False
    version: ClassVar[int] = 2  # BERT4Rec with CE draws no negatives, so its masks are other ones

    model: str = setting(dataclasses.MISSING, "RecBole's class", choices=tuple(MODEL_SETTINGS))
    loss_type: str = setting("CE", "softmax over all items, or one sampled negative", choices=("CE", "BPR"))
    learning_rate: float = setting(1e-3, "Adam", low=0.0)
    weight_decay: float = setting(0.0, "L2 penalty of Adam", low=0.0)
    batch_size: int = setting(256, "rows of one optimiser step", low=1)
    eval_batch_size: int = setting(512, "users scored together", low=1)
    epochs: int = setting(200, "most epochs", low=1)
    patience: int = setting(10, "epochs without a better validation NDCG@10 before stopping", low=1)
    protocol: str | None = setting(None, "BERT4Rec: how rows are read", choices=("target_appended", "stock"))
    mask_ratio: float | None = setting(None, "BERT4Rec: share of items masked", **_SHARE)
    ft_ratio: float | None = setting(None, "BERT4Rec: share of batches that mask only the last item", **_SHARE)
    n_layers: int | None = setting(None, "transformer layers", low=1)
    n_heads: int | None = setting(None, "attention heads", low=1)
    hidden_size: int | None = setting(None, "width", low=1)
    inner_size: int | None = setting(None, "width of the feed-forward layer", low=1)
    hidden_dropout_prob: float | None = setting(None, "dropout of hidden states", **_SHARE)
    attn_dropout_prob: float | None = setting(None, "dropout of attention weights", **_SHARE)
    hidden_act: str | None = setting(None, "activation", choices=("gelu", "relu", "swish", "tanh", "sigmoid"))
    layer_norm_eps: float | None = setting(None, "epsilon of layer normalisation", low=0.0)
    initializer_range: float | None = setting(None, "standard deviation of initial weights", low=0.0)
    embedding_size: int | None = setting(None, "width of embeddings", low=1)
    num_layers: int | None = setting(None, "GRU4Rec: layers", low=1)
    dropout_prob: float | None = setting(None, "dropout", **_SHARE)
    reg_weight: float | None = setting(None, "L2 penalty inside the loss", low=0.0)
    nv: int | None = setting(None, "Caser: vertical filters", low=1)
    nh: int | None = setting(None, "Caser: horizontal filters", low=1)
    kernel_size: int | None = setting(None, "NextItNet: width of a filter", low=1)
    block_num: int | None = setting(None, "NextItNet: residual blocks", low=1)
    dilations: tuple[int, ...] | None = setting(None, "NextItNet: dilation of each layer of a block", low=1)
    dnn_type: str | None = setting(None, "CORE: how item weights are made", choices=("trm", "ave"))
    sess_dropout: float | None = setting(None, "CORE: dropout of session items", **_SHARE)
    item_dropout: float | None = setting(None, "CORE: dropout of candidates", **_SHARE)
    temperature: float | None = setting(None, "CORE: temperature of the softmax", low=0.0)

    def __post_init__(self) -> None:
        own = MODEL_SETTINGS[self.model]
        for name in MODEL_ONLY:
            given = getattr(self, name)
            if given is not None and name not in own:
                raise unknown("setting", name, own, f"system recbole with model {self.model}")
            if given is None and name in own:
                object.__setattr__(self, name, own[name])
        if self.model == "CORE" and self.loss_type != "CE":
            raise UserError("system recbole: CORE has loss_type CE only.")
        if self.n_heads and (self.hidden_size or self.embedding_size) % self.n_heads:
            raise UserError(f"system recbole: n_heads = {self.n_heads} must divide the width "
                            f"{self.hidden_size or self.embedding_size}.")

    def run(self, job: Job) -> Outcome:
        """Train in a child process, then read places and curve from the run's folder.

        The curve's loss is RecBole's: the mean over batches, in nats. A run always starts anew.
        Raises: UserError where RecBole is missing or a setting does not fit the data; RuntimeError with the end
        of `run.log` where the child fails.
        """
        if importlib.util.find_spec("recbole") is None:
            raise UserError("system recbole needs RecBole: pip install --no-deps recbole==1.2.1 (see the README).")
        self.check_fit(job.config, job.split)
        folder = job.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for name in (RESULT, PLACES, WEIGHTS):
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
        """Refuse settings that do not fit the rest of the run, or its data. Raises: DoesNotFit."""
        appended = self.protocol == "target_appended"
        width = config.split.max_history + appended
        if self.mask_ratio is not None and int(self.mask_ratio * width) < 1:
            raise DoesNotFit(f"system recbole: mask_ratio = {self.mask_ratio} masks no item of a sequence of {width}; "
                             f"it must be at least {1 / width:.2g}.")
        full = self._full_rows(split, appended) if self.loss_type == "BPR" else 0
        if full:  # RecBole would draw for ever
            raise DoesNotFit(f"system recbole: loss_type = BPR draws an item that a row does not have, but {full} "
                             f"training rows have all of the {split.num_items} items. Use loss_type = CE.")

    def _full_rows(self, split: Split, appended: bool) -> int:
        """How many training rows leave no item to draw. BERT4Rec draws outside a whole row, others take any other item.
        """
        rows, items = split.train, split.num_items
        if self.model != "BERT4Rec":
            return len(rows) if items < 2 else 0
        return sum(len({*rows.history(n), *rows.targets[n:n + appended]}) == items
                   for n in np.flatnonzero(rows.lengths + appended >= items))

    def child_settings(self) -> dict[str, Any]:
        """The settings that apply to this model, as plain data."""
        return {k: v for k, v in settings.to_dict(self).items() if v is not None}


MODEL_ONLY = tuple(f.name for f in dataclasses.fields(RecBole) if f.default is None)


def child_environment(device: str, threads: int, base: Mapping[str, str] = os.environ) -> tuple[dict[str, str], str]:
    """The child's environment, and the GPU it may use ("" = CPU) as RecBole's `gpu_id`.

    "cuda:n" counts within CUDA_VISIBLE_DEVICES, which RecBole overwrites with `gpu_id`: so both are set to the
    physical name of that one GPU. Raises: UserError for another device or a GPU that is not visible.
    """
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UserError(f"system recbole runs on cpu, cuda or cuda:<number>, not on {device!r}.")
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
    """Write what the child needs: `input.npz` (rows, own items to exclude) and `input.settings` (JSON)."""
    arrays = {f"{part}_{name}": getattr(getattr(job.split, part), name)
              for part in PARTS for name in (f.name for f in dataclasses.fields(Instances))}
    exclude = job.config.evaluation.exclude_history
    for part in PARTS[1:] if exclude else ():
        arrays |= _flat(seen_items(job.split, part), f"{part}_seen")
    np.savez(folder / DATA, **arrays)
    spec = {"settings": values, "seed": stream_seed(job.seed, "recbole") % 2**31, "threads": job.threads, "gpu": gpu,
            "max_history": job.config.split.max_history, "max_k": job.config.evaluation.max_k,
            "exclude_history": exclude, "num_items": job.split.num_items,
            "num_users": job.split.interactions.num_users}
    (folder / SPEC).write_text(dump_json(spec), encoding="utf-8")


def _flat(lists: list[np.ndarray], name: str) -> dict[str, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(values) for values in lists])]).astype(np.int64)
    return {f"{name}_offsets": offsets, f"{name}_items": np.concatenate(lists)}


def read_outcome(folder: Path) -> Outcome:
    """What the child left in the run's folder."""
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    with np.load(folder / PLACES) as file:
        valid, test = (Rankings(*(file[f"{part}_{name}"] for name in ("places", "ties", "id_places")))
                       for part in PARTS[1:])
    return Outcome(valid, test, result["training"], result["timings"])


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
