"""The generative system: tokenised data, a backbone, objectives, the training loop and the decoder."""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from genrec_bench.backbones.base import Backbone
from genrec_bench.batches import TokenisedInstances, decoding_batches
from genrec_bench.contracts import PREFIX_REMEDY, Job, Outcome, Rankings, SemanticIds, Split, prefix_pair
from genrec_bench.core.devices import before_cuda, is_cuda, on_device
from genrec_bench.core.errors import UserError
from genrec_bench.core.seeds import stream_seed
from genrec_bench.evaluate import KS, items_by_id, misses, rankings_from_lists, score
from genrec_bench.experiments.config import RunConfig, TrainingConfig, from_dict
from genrec_bench.objectives.base import Objective
from genrec_bench.search.beam import beam_search, users_per_pass
from genrec_bench.training import checkpoints
from genrec_bench.training.feed import InputFeed, States, row_losses
from genrec_bench.training.loop import train
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

    def lists(self, model: Backbone, *, unseen: bool = False) -> np.ndarray:
        """(N, K) numbers of the semantic IDs found for every row, best first, -1 = unused.

        unseen: search the trie without the items that the row's user had before.
        """
        decoding = self.config.decoding
        width = min(decoding.num_beams, self.trie.num_ids)
        found = torch.full((len(self.data), width), -1, dtype=torch.long, device=self.data.device)
        for rows in self._passes(model):
            beams = beam_search(model, self.data.histories(rows), self.trie, num_beams=decoding.num_beams,
                                normaliser=decoding.normaliser, temperature=decoding.temperature,
                                precision=decoding.precision, eos=decoding.eos,
                                without=[self.data.instances.seen[row] for row in rows] if unseen else None)
            found[on_device(found.device, rows)] = beams.ids
        return found.cpu().numpy()

    def _passes(self, model: Backbone) -> Iterator[np.ndarray]:
        """Rows decoded together: like lengths, within the memory that the settings allow."""
        decoding, depth = self.config.decoding, self.trie.depth + self.config.decoding.eos
        children = 12 * decoding.num_beams * max(self.trie.max_children(level) for level in range(self.trie.depth))
        tokens = self.data.history_tokens + len(self.data.suffix)

        def floats(history: int) -> int:
            return children + model.decoding_floats(history, decoding.num_beams, depth)

        for rows in decoding_batches(self.data.instances.lengths, decoding.batch_size):
            while len(rows):
                count = users_per_pass(tokens[rows].tolist(), floats, num_beams=decoding.num_beams,
                                       memory_gib=decoding.memory_gib, cached=self.data.device == "cpu")
                yield rows[:count]
                rows = rows[count:]

    def rank(self, model: Backbone) -> Rankings:
        """The rank of every row's target among all items."""
        return self._ranked(self.lists(model))

    def rank_unseen(self, model: Backbone) -> Rankings:
        """The same without the items that the row's user had before: a second search, so that lists stay full."""
        rows = self.data.instances
        taken = items_by_id(rows.seen, self.trie.id_of_item, self.trie.num_ids)
        return misses(self._ranked(self.lists(model, unseen=True), taken), rows.seen, rows.targets)

    def _ranked(self, lists: np.ndarray, taken: sparse.csr_array | None = None) -> Rankings:
        ranked = rankings_from_lists(lists, self.targets, self.trie.id_sizes, max_k=self.config.evaluation.max_k,
                                     taken=taken)
        return replace(ranked, users=self.data.instances.groups)


def warm_up() -> None:
    """Load what the first run of a process would: torch's first optimiser alone takes seconds."""
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])


def run(job: Job) -> Outcome:
    """Train and rank one generative run, going on from the checkpoint in `job.folder` where there is one."""
    with deterministic(job.threads, job.device):
        return _run(job)


def _run(job: Job) -> Outcome:
    config, ids = job.config, job.semantic_ids
    model = _network(job)
    objectives = [(w.weight, w.objective) for w in config.objectives]
    trie = Trie.from_codes(ids.tokens)
    ranker = {part: Ranker(job.split, part, ids, trie, config, model.history_suffix, job.device)
              for part in ("valid", "test")}
    reference = _reference(job, model)

    def feed(part: str) -> InputFeed:
        data = TokenisedInstances(getattr(job.split, part), ids, model.history_suffix, job.device)
        return InputFeed(model, data, [o for _, o in objectives], trie=trie, negatives=config.negatives,
                         reference=reference, seed=job.seed,
                         stream="negatives" if part == "train" else "validation negatives",
                         group_users=config.training.group_users, memory_gib=config.training.memory_gib,
                         precision=config.training.precision)

    valid_feed = feed("valid") if config.training.selection != "ndcg@10" else None

    def validate(states: States) -> dict[str, float]:
        entry = {"valid_ndcg@10": score(ranker["valid"].rank(model), ks=(10,), id_level=False)["ndcg@10"]}
        if valid_feed is not None:
            entry["valid_loss"] = _valid_loss(valid_feed, objectives, states, config.training)
        return entry

    trained = train(model, feed("train"), objectives, config=config.training, validate=validate,
                    seed=job.seed, folder=job.folder, progress=job.progress, meter=job.meter, scalars=job.scalars,
                    about={"config": config.to_dict(), "codebook_sizes": list(ids.codebook_sizes),
                           "split_fingerprint": job.split.fingerprint},
                    attached={"semantic_ids": torch.from_numpy(ids.tokens)})
    began = job.meter.seconds()
    test = ranker["test"].rank(model)
    seconds = job.meter.seconds() - began
    timings = {"train_seconds": sum(trained.seconds), "seconds_per_epoch": median_seconds(trained.seconds),
               "validation_seconds": statistics.median(trained.validation_seconds),
               "decode_users_per_second": len(test.ranks) / seconds}
    return Outcome(ranker["valid"].rank(model), test, ranker["test"].rank_unseen(model), trained.history, timings)


def _network(job: Job) -> Backbone:
    """The network with the weights that training starts from."""
    model = job.config.backbone.build(job.semantic_ids.vocab_size, stream_seed(job.seed, "init"))
    if "weights" in job.uses:
        model.load_state_dict(_weights(job.uses["weights"]))
    return model.to(job.device)


def _reference(job: Job, model: Backbone) -> Backbone | None:
    """A frozen copy of the network in eval mode, with the weights that the objectives ask for."""
    if job.config.reference is None:
        return None
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    if "reference" in job.uses:
        reference.load_state_dict(_weights(job.uses["reference"]))
    return reference


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoints.unnamed("model", checkpoints.read(path)[0])


@torch.no_grad()
def _valid_loss(feed: InputFeed, objectives: list[tuple[float, Objective]], states: States,
                training: TrainingConfig) -> float:
    """The objectives' loss on the validation rows in their order: the mean, or of the last batch alone.

    Works on a copy of the run state, which validation must not move.
    """
    feed.begin(1)
    rows = np.arange(len(feed.data))
    batches = [rows[i:i + training.batch_size] for i in range(0, len(rows), training.batch_size)]
    if training.selection == "last_batch_loss":
        batches = batches[-1:]
    losses = [row_losses(objectives, [dict(s) for s in states], feed.inputs(batch)) for batch in batches]
    return float(torch.cat(losses).mean())


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
    pair = prefix_pair(ids.tokens)
    if pair is not None:
        raise UserError(f"{path} cannot be used: the semantic ID of item number {pair[0]} is the beginning of that of "
                        f"item number {pair[1]} (from 0). {PREFIX_REMEDY}")
    model = from_dict(about["config"]).backbone.build(ids.vocab_size, 0)
    model.load_state_dict(checkpoints.unnamed("model", tensors))
    return model.to(device).eval(), ids, about


def score_checkpoint(path: Path, split_of: Callable[[RunConfig], Split], device: str, threads: int) -> dict[str, Any]:
    """Decode and score the test rows with the weights of a checkpoint. Raises: UserError where the data differ."""
    model, ids, about = load_checkpoint(path, device)
    config = from_dict(about["config"])
    split = split_of(config)
    _check_split(path, split, ids, about)
    ranker = Ranker(split, "test", ids, Trie.from_codes(ids.tokens), config, model.history_suffix, device)
    with deterministic(threads, device):
        rankings, unseen = ranker.rank(model), ranker.rank_unseen(model)
    ks = [k for k in KS if k <= config.evaluation.max_k]
    return {"dataset": config.dataset.title, "users": len(np.unique(split.test.users)), "epoch": about["epoch"],
            "metrics": {**score(rankings, ks=ks), **{f"unseen_{k}": v for k, v in score(unseen, ks=ks).items()}}}


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
def deterministic(threads: int, device: str) -> Iterator[None]:
    """Fix the thread count and, on a GPU, choose algorithms that give the same bits every time. Raises: UserError."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if is_cuda(device):
        before_cuda()
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads it, and filling it takes time
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def median_seconds(seconds: list[float]) -> float:
    """Median over epochs, leaving out the first (warm-up) where there are more; 0 where there was none."""
    return statistics.median(seconds[1:] or seconds or [0.0])
