"""The child process of `recbole_adapter`, and the only file that imports RecBole.

Reads `input.settings` and `input.npz` of the folder it is given, writes one JSON line an epoch to stdout, and leaves
`output.result`, `output.npz` and `best.safetensors`. Whatever RecBole prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.data.utils import create_samplers, get_dataloader
from recbole.model.sequential_recommender import BERT4Rec
from recbole.trainer import trainer as recbole_trainer
from recbole.utils import FeatureSource, FeatureType, get_model, get_trainer, init_seed
from safetensors.torch import save_file

from baselines._common import flat_histories, selection_value
from baselines.recbole_adapter import DATA, LISTS, PARTS, RANKED, RANKS, RESULT, SPEC, WEIGHTS
from genrec_bench.contracts import Instances, Rankings
from genrec_bench.core.ending import begin_child
from genrec_bench.core.files import dump_json, write_atomically
from genrec_bench.core.meter import Meter
from genrec_bench.core.ragged import Ragged
from genrec_bench.evaluate import Ranked, rank_rows
from genrec_bench.experiments.config import gives_up

NUMPY_ALIASES = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}  # gone in numpy 2
OURS = ("model", "protocol", "batch_size", "patience", "give_up_after", "give_up_below")  # not RecBole's settings
BLOCK = 2**18  # rows of a table that are written together
NEGATIVES = {"CE": None, "BPR": {"distribution": "uniform", "sample_num": 1}}


class InstanceDataset(SequentialDataset):
    """RecBole's dataset made of our rows, over the full catalogue: token n + 1 is our item (or user) n.

    Nothing is read from files, filtered, augmented or split again. Rows are right-padded with 0. `appended`
    writes a training row's target behind its history.
    """

    def __init__(self, config: Config, rows: dict[str, Instances], sizes: dict[str, int], appended: bool) -> None:
        self._rows, self._sizes, self._appended = rows, sizes, appended
        super().__init__(config)

    def _from_scratch(self) -> None:
        self._get_preset()
        self._get_field_from_config()
        items, single = self.iid_field + self.config["LIST_SUFFIX"], 1
        for name, size in ((self.uid_field, self._sizes["users"]), (self.iid_field, self._sizes["items"])):
            self.set_field_property(name, FeatureType.TOKEN, FeatureSource.INTERACTION, single)
            self.field2id_token[name] = np.array(["[PAD]", *map(str, range(size))])
            self.field2token_id[name] = {token: n for n, token in enumerate(self.field2id_token[name])}
        self.set_field_property(items, FeatureType.TOKEN_SEQ, FeatureSource.INTERACTION, self.max_item_list_len)
        self.set_field_property(self.item_list_length_field, FeatureType.TOKEN, FeatureSource.INTERACTION, single)
        self.field2id_token[items] = self.field2id_token[self.iid_field]
        self.field2token_id[items] = self.field2token_id[self.iid_field]
        setattr(self, f"{self.iid_field}_list_field", items)
        self.user_feat = self.item_feat = None
        self.feat_name_list = ["inter_feat"]
        self.tables = {part: self._table(rows, items, self._appended and part == "train")
                       for part, rows in self._rows.items()}
        self.inter_feat = self.tables["train"]

    def _table(self, rows: Instances, items: str, appended: bool) -> Interaction:
        """The rows in int32, half the memory; `batch_of` gives the network what it indexes with."""
        width = self.max_item_list_len
        room = width - appended
        lengths = np.minimum(rows.lengths, room)
        histories = np.zeros((len(rows), width), dtype=np.int32)
        for start in range(0, len(rows), BLOCK):
            block = np.arange(start, min(start + BLOCK, len(rows)))
            where, values, age = flat_histories(rows, block)
            kept = age < room
            where = block[where[kept]]
            histories[where, lengths[where] - 1 - age[kept]] = values[kept] + 1
        if appended:
            histories[np.arange(len(rows)), lengths] = rows.targets + 1
        columns = {self.uid_field: rows.users + 1, items: histories, self.iid_field: rows.targets + 1,
                   self.item_list_length_field: lengths + appended}
        return Interaction({name: torch.from_numpy(v.astype(np.int32, copy=False)) for name, v in columns.items()})

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        return batch_of(super().__getitem__(index, join))

    def build(self) -> list[InstanceDataset]:
        """The three parts, as RecBole's loaders want them."""
        return [self.copy(self.tables[part]) for part in PARTS]


def batch_of(rows: Interaction) -> Interaction:
    """Rows of a table as int64."""
    return Interaction({name: values.long() for name, values in rows.interaction.items()})


class GuardedBERT4Rec(BERT4Rec):
    """RecBole's BERT4Rec, except that a batch without any masked position that counts adds no gradient.

    RecBole divides by the number of such positions (position 0 never counts), so the batch would give NaN.
    """

    def calculate_loss(self, interaction: Interaction) -> torch.Tensor:
        """The mean loss of the masked positions."""
        if (interaction[self.MASK_INDEX] > 0).any():
            return super().calculate_loss(interaction)
        return self.output_bias.sum() * 0.0


class TargetAppendedBERT4Rec(GuardedBERT4Rec):
    """For rows that end in their target: the mask to be filled is behind the whole history."""

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """(B, I + 1) scores of the item behind each history."""
        items, lengths = interaction[self.ITEM_SEQ].clone(), interaction[self.ITEM_SEQ_LEN]
        items[torch.arange(len(items), device=items.device), lengths] = self.mask_token
        hidden = self.gather_indexes(self.forward(items), lengths)
        return hidden @ self.item_embedding.weight[:self.n_items].T + self.output_bias


BERT4REC = {"target_appended": TargetAppendedBERT4Rec, "stock": GuardedBERT4Rec}


class _Silent:
    """Takes the place of a TensorBoard writer, which would write to the current directory."""

    def __getattr__(self, _: str) -> Any:
        return lambda *args, **kwargs: None


@dataclass(frozen=True)
class Setup:
    """What RecBole made of our rows."""

    model: torch.nn.Module
    trainer: Any
    train_data: Any
    tables: dict[str, Interaction]


def recbole_config(spec: dict[str, Any], folder: Path) -> Config:
    """RecBole's Config from our settings alone: no file, no command line."""
    for name, kind in NUMPY_ALIASES.items():
        if not hasattr(np, name):
            setattr(np, name, kind)
    values = {k: v for k, v in spec["settings"].items() if k not in OURS}
    settings = spec["settings"]
    fixed = {
        "data_path": str(folder), "checkpoint_dir": str(folder), "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id",
        "MAX_ITEM_LIST_LENGTH": spec["max_history"] + appends_target(spec), "train_batch_size": settings["batch_size"],
        "train_neg_sample_args": NEGATIVES[settings["loss_type"]], "repeatable": True, "metrics": ["NDCG"],
        "topk": [10], "valid_metric": "NDCG@10", "metric_decimal_place": 8, "stopping_step": settings["patience"],
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "seed": spec["seed"], "reproducibility": True, "worker": 0, "show_progress": False, "state": "INFO",
        "gpu_id": spec["gpu"], "use_gpu": bool(spec["gpu"])}
    return Config(model=settings["model"], dataset="instances", config_dict={**values, **fixed})


def appends_target(spec: dict[str, Any]) -> bool:
    """Whether training rows end in their target (BERT4Rec's remedy)."""
    return spec["settings"].get("protocol") == "target_appended"


def set_up(spec: dict[str, Any], rows: dict[str, Instances], folder: Path) -> Setup:
    """Dataset, model, loader and trainer, from one seed."""
    recbole_trainer.get_tensorboard = lambda logger: _Silent()
    config = recbole_config(spec, folder)
    init_seed(config["seed"], config["reproducibility"])
    sizes = {"users": spec["num_users"], "items": spec["num_items"]}
    dataset = InstanceDataset(config, rows, sizes, appends_target(spec))
    parts = dataset.build()
    # Not `data_preparation`, which unpickles a loader that it finds in the folder.
    sampler = create_samplers(config, dataset, parts)[0]
    train_data = get_dataloader(config, "train")(config, parts[0], sampler, shuffle=True)
    init_seed(config["seed"], config["reproducibility"])
    name = spec["settings"]["model"]
    kind = BERT4REC[spec["settings"]["protocol"]] if name == "BERT4Rec" else get_model(name)
    if name == "BERT4Rec" and spec["settings"]["loss_type"] == "CE":
        train_data.transform._neg_sample = _no_item
    model = kind(config, train_data._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    return Setup(model, trainer, train_data, dataset.tables)


def _no_item(row: list[int], items: int) -> int:
    """For RecBole's negative of a masked position, which CE never reads: a row with all items would be drawn for ever.
    """
    return 0


@dataclass
class Scorer:
    """Ranks the targets of one part with our evaluator, in the row order of the split."""

    model: torch.nn.Module
    table: Any
    rows: Instances
    max_k: int
    batch_size: int

    def rank(self) -> Ranked:
        """Ranks of all rows under both policies. Raises: ValueError for scores that are not finite."""
        self.model.eval()
        return rank_rows(self._scores, self.rows, max_k=self.max_k, batch_size=self.batch_size)

    @torch.no_grad()
    def _scores(self, rows: np.ndarray) -> np.ndarray:
        batch = batch_of(self.table[slice(int(rows[0]), int(rows[-1]) + 1)]).to(self.model.device)
        scores = self.model.full_sort_predict(batch).view(len(rows), -1)
        return scores[:, 1:].float().cpu().numpy()  # column 0 is padding


@dataclass
class Best:
    """The best epoch so far: its validation value, ranks and weights."""

    value: float = -1.0
    epoch: int = 0
    valid: Rankings | None = None
    weights: dict[str, torch.Tensor] | None = None


def read_parts(folder: Path) -> dict[str, Instances]:
    """The rows of train, valid and test, the latter two with what their users had before."""
    with np.load(folder / DATA) as file:
        def lists(name: str) -> Ragged:
            return Ragged(*(file[f"{name}_{part}"] for part in LISTS))

        return {part: Instances(file[f"{part}_users"], file[f"{part}_targets"], lists(f"{part}_histories"),
                                lists(f"{part}_seen") if part != "train" else None) for part in PARTS}


@dataclass
class Clock:
    """Seconds of each epoch's training and validation."""

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)


def fit(setup: Setup, valid: Scorer, settings: dict[str, Any], lines: IO[str],
        meter: Meter) -> tuple[Best, dict[str, Any], Clock]:
    """RecBole's epochs under the suite's stopping rule. Returns the best epoch, `training` and the times."""
    best, curve, clock = Best(), [], Clock()
    while (stopped := _stopped(curve, best, settings)) is None:
        epoch, started = len(curve) + 1, meter.seconds()
        loss = setup.trainer._train_epoch(setup.train_data, epoch - 1, show_progress=False)
        trained = meter.seconds()
        ranks = valid.rank().kept
        clock.training.append(trained - started)
        clock.validation.append(meter.seconds() - trained)
        total = sum(loss) if isinstance(loss, tuple) else loss
        point = {"epoch": epoch, "loss": total / len(setup.train_data), "valid_ndcg@10": selection_value(ranks)}
        curve.append(point)
        print(json.dumps(point), file=lines, flush=True)
        if point["valid_ndcg@10"] > best.value:
            weights = {k: v.detach().clone() for k, v in setup.model.state_dict().items()}
            best = Best(point["valid_ndcg@10"], epoch, ranks, weights)
    training = {"epochs": len(curve), "best_epoch": best.epoch, "curve": curve,
                "parameters": sum(p.numel() for p in setup.model.parameters() if p.requires_grad),
                "steps": len(curve) * len(setup.train_data), "stopped": stopped}
    return best, training, clock


def _stopped(curve: list[dict[str, Any]], best: Best, settings: dict[str, Any]) -> str | None:
    """Why training ends here; None = it goes on."""
    if len(curve) >= settings["epochs"]:
        return "epochs"
    if len(curve) - best.epoch >= settings["patience"]:
        return "patience"
    return "gave up" if gives_up(curve, settings["give_up_after"], settings["give_up_below"]) else None


def run(folder: Path, lines: IO[str]) -> None:
    """Train, rank, and write the results into `folder`."""
    spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    settings, meter = spec["settings"], Meter("cuda" if spec["gpu"] else "cpu")
    torch.set_num_threads(spec["threads"])
    torch.autograd.set_detect_anomaly(False)  # RecBole's SINE switches it on for all models when it is imported
    if spec["gpu"]:
        if not torch.cuda.is_available():  # RecBole would go on with the CPU and say nothing
            raise RuntimeError(f"no CUDA device for CUDA_VISIBLE_DEVICES={spec['gpu']}")
        torch.use_deterministic_algorithms(True, warn_only=True)
    rows = read_parts(folder)
    setup = set_up(spec, rows, folder)
    scorers = {part: Scorer(setup.model, setup.tables[part], rows[part], spec["max_k"],
                            settings["eval_batch_size"]) for part in PARTS[1:]}
    best, training, clock = fit(setup, scorers["valid"], settings, lines, meter)
    setup.model.load_state_dict(best.weights)
    started = meter.seconds()
    ranked = dict(zip(RANKED, (best.valid, *scorers["test"].rank()), strict=True))
    decode_seconds = meter.seconds() - started
    save_file({k: v.contiguous().cpu() for k, v in best.weights.items()}, folder / WEIGHTS)
    np.savez(folder / RANKS, **{f"{part}_{name}": getattr(ranks, name) for part, ranks in ranked.items()
                                 for name in ("ranks", "ties", "id_ranks")})
    timings = {"train_seconds": sum(clock.training),
               "seconds_per_epoch": statistics.median(clock.training[1:] or clock.training),
               "validation_seconds": statistics.median(clock.validation),
               "decode_users_per_second": len(rows["test"]) / decode_seconds,
               "peak_memory_bytes": float(meter.peak_bytes())}
    write_atomically(folder / RESULT, dump_json({"training": training, "timings": timings}).encode())


def main() -> None:
    """Entry point: the arguments are the run's folder and the parent's process id, and RecBole must not see them."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    begin_child(parent)
    del sys.argv[1:]  # RecBole's Config lets `--a=b` win over what it is given
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)  # anything RecBole prints would break the protocol
        run(folder, lines)


if __name__ == "__main__":
    main()
