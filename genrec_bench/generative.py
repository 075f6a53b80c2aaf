"""The generative system: tokenised data, a backbone, objectives, the training loop and the decoder."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec_bench import checkpoints, registry
from genrec_bench.backbones.base import Backbone
from genrec_bench.config import RunConfig, from_dict
from genrec_bench.contracts import Job, Outcome, Rankings, SemanticIds, Split
from genrec_bench.datasets.base import dataset_label
from genrec_bench.decode import beam_search
from genrec_bench.errors import UserError
from genrec_bench.evaluate import KS, id_exclusions, rankings_from_lists, score
from genrec_bench.inputs import TokenisedInstances, check_needs, decoding_batches
from genrec_bench.objectives.base import Objective
from genrec_bench.seeds import stream_seed
from genrec_bench.splits import seen_items
from genrec_bench.train import median_seconds, train
from genrec_bench.trie import Trie

RECBOLE_TENSOR = "item_embedding.weight"  # every sequential model of RecBole has it, no checkpoint of ours


class Ranker:
    """Ranks the rows of one part of a split with a backbone: beam search, then the evaluator."""

    def __init__(self, split: Split, part: str, semantic_ids: SemanticIds, trie: Trie, config: RunConfig,
                 suffix: tuple[int, ...], device: str) -> None:
        instances = getattr(split, part)
        self.trie, self.config = trie, config
        self.data = TokenisedInstances(instances, semantic_ids, suffix, device)
        self.targets = trie.id_of_item[instances.targets]
        self.exclude = None
        if config.evaluation.exclude_history:
            self.exclude = id_exclusions(seen_items(split, part), instances.targets, trie.id_of_item)

    def lists(self, model: Backbone) -> np.ndarray:
        """(U, K) numbers of the semantic IDs found for every row, best first, -1 = unused."""
        decoding = self.config.decoding
        width = min(decoding.num_beams, self.trie.num_ids)
        found = torch.full((len(self.data), width), -1, dtype=torch.long, device=self.data.device)
        for rows in decoding_batches(self.data.instances.lengths, decoding.batch_size):
            beams = beam_search(model, self.data.histories(rows), self.trie, num_beams=decoding.num_beams,
                                normaliser=decoding.normaliser)
            found[torch.from_numpy(rows).to(found.device)] = beams.ids
        return found.cpu().numpy()

    def rank(self, model: Backbone) -> Rankings:
        """Where every row's target stands."""
        return rankings_from_lists(self.lists(model), self.targets, self.trie.id_sizes,
                                   max_k=self.config.evaluation.max_k, exclude=self.exclude)


def build_objectives(config: RunConfig) -> list[tuple[float, Objective]]:
    """(weight, objective) pairs of a run. Raises: UserError where one needs what nobody provides."""
    pairs = [(float(spec.get("weight", 1.0)),
              registry.objectives.build({k: v for k, v in spec.items() if k != "weight"}))
             for spec in config.objective]
    check_needs(objective for _, objective in pairs)
    return pairs


def run(job: Job) -> Outcome:
    """Train and rank one generative run, going on from the checkpoint in `job.folder` where there is one."""
    with _deterministic(job.threads):
        return _run(job)


def _run(job: Job) -> Outcome:
    config, ids = job.config, job.semantic_ids
    backbone = registry.backbones.build(config.backbone)
    model = backbone.build(ids.vocab_size, stream_seed(job.seed, "init")).to(job.device)
    trie = Trie.from_codes(ids.tokens)
    ranker = {part: Ranker(job.split, part, ids, trie, config, model.history_suffix, job.device)
              for part in ("valid", "test")}
    data = TokenisedInstances(job.split.train, ids, model.history_suffix, job.device)
    last: dict[str, Rankings] = {}

    def validate() -> float:
        last["valid"] = ranker["valid"].rank(model)
        return score(last["valid"], ks=(10,), id_level=False)["ndcg@10"]

    with _scalars(job) as scalars:
        trained = train(model, data, build_objectives(config), config=config.training, validate=validate,
                        seed=job.seed, folder=job.folder, progress=job.progress, scalars=scalars,
                        about={"config": config.to_dict(), "codebook_sizes": list(ids.codebook_sizes),
                               "split_fingerprint": job.split.fingerprint},
                        attached={"semantic_ids": torch.from_numpy(ids.tokens)})
    began = time.perf_counter()
    test = ranker["test"].rank(model)
    seconds = time.perf_counter() - began
    timings = {"train_seconds": sum(trained.seconds), "seconds_per_epoch": median_seconds(trained.seconds),
               "validation_seconds": statistics.median(trained.validation_seconds),
               "decode_users_per_second": len(test.places) / seconds}
    return Outcome(ranker["valid"].rank(model), test, trained.history, timings)


def load_checkpoint(path: Path, device: str) -> tuple[Backbone, SemanticIds, dict[str, Any]]:
    """Network, semantic IDs and what else a `best.safetensors` says. Raises: UserError."""
    if RECBOLE_TENSOR in checkpoints.stateless_names(path):
        raise UserError(f"{path} holds the weights of a RecBole baseline (such as SASRec or BERT4Rec), which this "
                        "command cannot score: it scores checkpoints of generative runs. The baseline's numbers are "
                        "in its record.")
    tensors, about = checkpoints.read(path, "Give the working folder of a generative run.")
    if "config" not in about or "semantic_ids" not in tensors:
        raise UserError(f"{path} is not a checkpoint of a generative run.")
    ids = SemanticIds(tensors["semantic_ids"].numpy(), tuple(about["codebook_sizes"]))
    model = registry.backbones.build(about["config"]["backbone"]).build(ids.vocab_size, 0)
    model.load_state_dict(checkpoints.unnamed("model", tensors))
    return model.to(device).eval(), ids, about


def score_checkpoint(path: Path, split_of: Callable[[RunConfig], Split], device: str, threads: int) -> dict[str, Any]:
    """Decode and score the test rows with the weights of a checkpoint. Raises: UserError where the data differ."""
    model, ids, about = load_checkpoint(path, device)
    config = from_dict(about["config"])
    split = split_of(config)
    _check_split(path, split, ids, about)
    ranker = Ranker(split, "test", ids, Trie.from_codes(ids.tokens), config, model.history_suffix, device)
    with _deterministic(threads):
        rankings = ranker.rank(model)
    ks = [k for k in KS if k <= config.evaluation.max_k]
    return {"dataset": dataset_label(config.dataset), "users": len(rankings.places), "epoch": about["epoch"],
            "metrics": score(rankings, ks=ks)}


def _check_split(path: Path, split: Split, ids: SemanticIds, about: dict[str, Any]) -> None:
    """The data are those the checkpoint was trained on; an older one does not say, which is worth a warning.

    Raises: UserError.
    """
    name, known = split.interactions.name, about.get("split_fingerprint")
    if len(ids.tokens) != split.num_items:
        raise UserError(f"{path} was trained on {len(ids.tokens)} items, but dataset {name} has {split.num_items} "
                        "here. Give the data it was trained on.")
    if known is None:
        print(f"{path} does not say which data it was trained on; scored on dataset {name} as it is here",
              file=sys.stderr)
    elif known != split.fingerprint:
        raise UserError(f"{path} was trained on another split of dataset {name}: its fingerprint is {known[:16]}, that "
                        f"of the data here {split.fingerprint[:16]}. Give the data it was trained on.")


@contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    """Fix the thread count and choose algorithms that give the same bits every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _scalars(job: Job) -> Iterator[Any]:
    """A TensorBoard writer in the run's folder where one was asked for, else None."""
    if not job.tensorboard:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(job.folder / "tensorboard"))
    try:
        yield writer
    finally:
        writer.close()
