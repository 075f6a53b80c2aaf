"""Data of any size, and the stages whose cost is measured on them.

N items, N / 2 users with 20 interactions each on average, unique IDs of four levels of 256 codes, written as a folder
in our own format. A stage is a function from the folder to the work that is timed. Searches are those of a small TIGER
with random weights; where they are exact, its logits are trebled: untrained logits lie so close together that every
prefix is read.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from genrec_bench.contracts import Instances, Split
from genrec_bench.core import memory, registry
from genrec_bench.datasets import parsed
from genrec_bench.datasets.base import Dataset
from genrec_bench.experiments.config import TrainingConfig
from genrec_bench.splits.leave_one_out import LeaveOneOut

LEVELS, CODES, SHARP = 4, 256, 3.0
SIZES = {"width": 64, "num_layers": 2, "num_heads": 4, "head_width": 16, "feed_forward_width": 256}  # profile quick
STEPS, DECODED, DIAGNOSED, SAMPLED = 100, 1_000, 100, 100_000
Stage = Callable[[Path], Callable[[], Any]]


def write_folder(folder: Path, items: int, seed: int = 0) -> None:
    """Interactions, the more of an item the smaller its number, and given IDs."""
    random = np.random.default_rng(seed)
    codes = np.unique(random.integers(CODES**LEVELS, size=items + items // 8 + 64))
    codes = random.permutation(codes)[:items][:, None] // CODES ** np.arange(LEVELS)[::-1] % CODES
    lengths = random.integers(10, 31, size=items // 2)
    ends = np.cumsum(lengths)
    drawn = (items * random.random(ends[-1]) ** 1.5).astype(np.int64).tolist()
    users = {str(user): drawn[end - length:end] for user, (end, length) in enumerate(zip(ends, lengths, strict=True))}
    for name, data in (("inter", users), ("index", {str(item): row for item, row in enumerate(codes.tolist())})):
        (folder / f"made.{name}.json").write_text(json.dumps(data), encoding="utf-8")


def measured(stage: str, folder: Path) -> dict[str, float]:
    """By this process: processor seconds of a stage, the MiB that it added, and the MiB that were held at most."""
    work = STAGES[stage](folder)
    memory.reset_peak()
    before, began = memory.peak_bytes(), time.process_time()
    work()
    seconds, most = time.process_time() - began, memory.peak_bytes()
    return {"seconds": seconds, "mib_more": max(0, most - before) / 2**20, "mib": most / 2**20}


def _dataset(folder: Path) -> Dataset:
    return registry.datasets.build({"name": "folder", "path": str(folder)})


def _split(folder: Path) -> Split:
    return LeaveOneOut().split(_dataset(folder).load(None))


def _check(folder: Path) -> Callable[[], Any]:
    from genrec_bench.running.data_check import check_data

    return lambda: check_data(_dataset(folder), None)


def _keep(dataset: Dataset, folder: Path) -> None:
    parsed.read(dataset, None, folder).keep(dataset, None)


def _kept(folder: Path) -> Callable[[], Any]:
    """What a process costs that needs data which another one has read and kept."""
    dataset, place = _dataset(folder), folder / "kept"
    other = multiprocessing.Process(target=_keep, args=(dataset, place))
    other.start()
    other.join()
    return lambda: parsed.read(dataset, None, place).data


def _fingerprint(folder: Path) -> Callable[[], Any]:
    split = _split(folder)
    return lambda: split.fingerprint


def _splitting(folder: Path) -> Callable[[], Any]:
    data = _dataset(folder).load(None)
    return lambda: LeaveOneOut().split(data)


def _baseline(name: str) -> Stage:
    """Fit a baseline that is not trained, and rank validation and test rows by it."""
    def prepare(folder: Path) -> Callable[[], Any]:
        split, baseline = _split(folder), registry.baselines.build({"name": name})
        job: Any = SimpleNamespace(split=split, config=SimpleNamespace(evaluation=SimpleNamespace(max_k=20)))

        def work() -> None:
            found = baseline.fit(split)
            for part in ("valid", "test"):
                baseline.rank(job, found, part)
        return work
    return prepare


def _rq_kmeans(folder: Path) -> Callable[[], Any]:
    """Fit residual k-means to made-up texts of eight words, the rarer the larger their number."""
    from genrec_bench.tokenizers.rq_kmeans import RQKMeans

    data, random = _dataset(folder).load(None), np.random.default_rng(0)
    words = (20_000 * random.random((data.num_items, 8)) ** 3).astype(np.int64)
    data = replace(data, item_texts=tuple(" ".join(f"w{word}" for word in row) for row in words.tolist()))
    return lambda: RQKMeans(fit_items=SAMPLED).fit(data)


def _network(folder: Path, part: str) -> SimpleNamespace:
    """What training and searches begin with."""
    import torch

    from genrec_bench.backbones.tiger import TigerSettings
    from genrec_bench.batches import TokenisedInstances
    from genrec_bench.tokenizers.given import Given
    from genrec_bench.trie import Trie

    torch.set_num_threads(1)
    split = _split(folder)
    ids = Given().fit(split.interactions)
    model = TigerSettings(**SIZES).build(ids.vocab_size, 0)
    return SimpleNamespace(split=split, ids=ids, model=model, trie=Trie.from_codes(ids.tokens),
                           data=TokenisedInstances(getattr(split, part), ids, model.history_suffix, "cpu"))


def _training(folder: Path) -> Callable[[], Any]:
    """Steps of cross-entropy, or an epoch where that is less."""
    from genrec_bench.training.feed import InputFeed
    from genrec_bench.training.loop import initial_states, one_epoch
    from genrec_bench.training.optimiser import adamw

    made, config = _network(folder, "train"), TrainingConfig(schedule="released")
    pairs = [(1.0, registry.objectives.build({"name": "cross_entropy"}))]
    feed, optimiser = InputFeed(made.model, made.data, [pairs[0][1]]), adamw(made.model, config)
    return lambda: one_epoch(made.model, feed, pairs, initial_states(pairs, made.data), optimiser, config, 0,
                             {"epoch": 0, "step": 0}, STEPS)


def _negatives(folder: Path) -> Callable[[], Any]:
    """100 negatives for the rows of as many steps."""
    from genrec_bench.training.feed import InputFeed

    made, config = _network(folder, "train"), TrainingConfig()
    feed = InputFeed(made.model, made.data, [registry.objectives.build({"name": "s_dpo", "num_negatives": 100})],
                     trie=made.trie)
    rows = np.random.default_rng(0).integers(len(made.data), size=(STEPS, config.batch_size * config.accumulation))

    def work() -> None:
        feed.begin(1)
        for step in rows:
            feed.negatives(step)
    return work


def _decoding(folder: Path) -> Callable[[], Any]:
    """Beam search as a run ranks its test rows."""
    from genrec_bench.experiments.config import DecodingConfig
    from genrec_bench.running.generative import Ranker

    made = _network(folder, "test")
    split = replace(made.split, test=_first(made.split.test, DECODED))
    ranker = Ranker(split, "test", made.ids, made.trie, SimpleNamespace(
        decoding=DecodingConfig(), evaluation=SimpleNamespace(max_k=20)), made.model.history_suffix, "cpu")
    return lambda: ranker.rank(made.model.eval())


def _first(rows: Instances, count: int) -> Instances:
    return rows.where(np.arange(len(rows)) < count)


def _sharp(folder: Path) -> SimpleNamespace:
    import torch

    made = _network(folder, "test")
    with torch.no_grad():
        made.model.eval().decoder.final_layer_norm.weight.mul_(SHARP)
    return made


def _diagnosis(folder: Path) -> Callable[[], Any]:
    """The facts of a diagnosis, as the command asks for them."""
    from genrec_bench.running.diagnosis import BEAMS, CAP, NORMALISERS, TOP
    from genrec_bench.search.diagnose import diagnose_rows

    made = _sharp(folder)
    rows = np.arange(min(DIAGNOSED, len(made.data)))
    return lambda: diagnose_rows(made.model, made.data, rows, made.trie, beams=BEAMS, normalisers=NORMALISERS, top=TOP,
                                 cap=CAP)


def _exact(users: int) -> Stage:
    """The exact top 20 of some test users together."""
    def prepare(folder: Path) -> Callable[[], Any]:
        from genrec_bench.search.exact import exact_top_k

        made = _sharp(folder)
        histories = made.data.histories(np.arange(min(users, len(made.data))))
        return lambda: exact_top_k(made.model, histories, made.trie, k=20)
    return prepare


def _pair(folder: Path) -> Callable[[], Any]:
    """Test and interval of two methods with five seeds, a third of whose users have a hit."""
    from genrec_bench.analysis.significance import compare_ranks

    random, users = np.random.default_rng(0), _dataset(folder).load(None).num_users
    a, b = random.integers(0, 60, size=(2, 5, users))
    b = np.where(random.random(b.shape) < 0.5, a, b)
    return lambda: compare_ranks(a, b, metric="ndcg", k=20)


STAGES: dict[str, Stage] = {
    "data check": _check, "reading": lambda folder: lambda: _dataset(folder).load(None),
    "reading what was kept": _kept, "split": _splitting, "fingerprint of a split": _fingerprint,
    "popularity": _baseline("popularity"), "item-kNN": _baseline("item_knn"),
    f"RQ-K-means on {SAMPLED:,} items": _rq_kmeans, f"training, {STEPS} steps of 1,024 rows": _training,
    f"100 negatives for {STEPS} steps": _negatives, f"decoding {DECODED:,} users": _decoding,
    f"diagnosis of {DIAGNOSED} users": _diagnosis, "exact top 20 of 1 user": _exact(1),
    "exact top 20 of 8 users": _exact(8), "test and interval of a pair": _pair}
# Processor seconds that a stage may take at GOAL_ITEMS items, and the MiB that any of them may hold.
GOAL_ITEMS, GOAL_MIB = 1_000_000, 12 * 1024
GOALS = {"data check": 12, "split": 1, "popularity": 300, "item-kNN": 300, f"diagnosis of {DIAGNOSED} users": 60,
         "test and interval of a pair": 2}
