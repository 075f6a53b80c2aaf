"""`python -m benchmarks.scale --items 10000,100000`: what stages cost as the catalogue grows, on made-up data.

N items, N / 2 users with 20 interactions each on average, unique IDs of four levels of 256 codes, written as a folder
in our own format. Each stage has a child process of its own on one thread: processor seconds, and memory beyond what
it held before. The exact searches are those of a small TIGER with random weights whose logits are trebled: untrained
logits lie so close together that every prefix is read.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from genrec_bench.cli import Parser
from genrec_bench.commands.common import comma_list
from genrec_bench.contracts import Split
from genrec_bench.core import memory, registry
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.datasets import parsed
from genrec_bench.datasets.base import Dataset
from genrec_bench.running.data_check import check_data
from genrec_bench.splits.leave_one_out import LeaveOneOut

LEVELS, CODES, SHARP = 4, 256, 3.0
SIZES = {"width": 64, "num_layers": 2, "num_heads": 4, "head_width": 16, "feed_forward_width": 256}  # profile quick


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


def _baseline(name: str, *, fitted: bool) -> Callable[[Split], Callable[[], Any]]:
    """A stage that fits a baseline or, fitted already, ranks validation and test rows by it."""
    def prepare(split: Split) -> Callable[[], Any]:
        baseline = registry.baselines.build({"name": name})
        if not fitted:
            return lambda: baseline.fit(split)
        job: Any = SimpleNamespace(split=split, config=SimpleNamespace(evaluation=SimpleNamespace(max_k=20)))
        found = baseline.fit(split)
        return lambda: [baseline.rank(job, found, part) for part in ("valid", "test")]
    return prepare


def _exact(users: int) -> Callable[[Split], Callable[[], Any]]:
    """A stage that finds the exact top 20 of some test users together."""
    def prepare(split: Split) -> Callable[[], Any]:
        import torch

        from genrec_bench.backbones.tiger import TigerSettings
        from genrec_bench.batches import TokenisedInstances
        from genrec_bench.search.exact import exact_top_k
        from genrec_bench.tokenizers.given import Given
        from genrec_bench.trie import Trie

        torch.set_num_threads(1)
        ids = Given().fit(split.interactions)
        model, trie = TigerSettings(**SIZES).build(ids.vocab_size, 0).eval(), Trie.from_codes(ids.tokens)
        with torch.no_grad():
            model.decoder.final_layer_norm.weight.mul_(SHARP)
        data = TokenisedInstances(split.test, ids, model.history_suffix, "cpu")
        histories = data.histories(np.arange(min(users, len(data))))
        return lambda: exact_top_k(model, histories, trie, k=20)
    return prepare


def _dataset(folder: Path) -> Dataset:
    return registry.datasets.build({"name": "folder", "path": str(folder)})


def _keep(dataset: Dataset, folder: Path) -> None:
    parsed.read(dataset, None, folder).keep(dataset, None)


def _kept(folder: Path) -> Callable[[], Any]:
    """A stage that reads what another process has read and kept."""
    dataset = _dataset(folder)
    other = multiprocessing.Process(target=_keep, args=(dataset, folder / "kept"))
    other.start()
    other.join()
    return lambda: parsed.read(dataset, None, folder / "kept").data


def _fingerprint(split: Split) -> Callable[[], Any]:
    return lambda: split.fingerprint


def _split(folder: Path) -> Callable[[], Any]:
    """A stage that splits data."""
    data = _dataset(folder).load(None)
    return lambda: LeaveOneOut().split(data)


OF_FOLDERS: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "data check": lambda folder: lambda: check_data(_dataset(folder), None),
    "reading": lambda folder: lambda: _dataset(folder).load(None),
    "reading what was kept": _kept, "splitting": _split}
OF_SPLITS: dict[str, Callable[[Split], Callable[[], Any]]] = {
    "fingerprint of a split": _fingerprint, "popularity ranking": _baseline("popularity", fitted=True),
    "item-kNN similarities": _baseline("item_knn", fitted=False),
    "item-kNN ranking": _baseline("item_knn", fitted=True),
    "exact top 20 of 1 user": _exact(1), "exact top 20 of 8 users": _exact(8)}
STAGES = (*OF_FOLDERS, *OF_SPLITS)


def measured(stage: str, folder: Path) -> dict[str, float]:
    """Processor seconds of a stage and the MiB that it added, by this process."""
    work = OF_FOLDERS[stage](folder) if stage in OF_FOLDERS else OF_SPLITS[stage](_split(folder)())
    memory.reset_peak()
    before, began = memory.peak_bytes(), time.process_time()
    work()
    return {"seconds": time.process_time() - began, "mib": (memory.peak_bytes() - before) / 2**20}


def run(words: Sequence[str]) -> None:
    """Measure, or be the child that does so. Raises: UserError."""
    parser = Parser(prog="python -m benchmarks.scale", description="Costs as the catalogue grows.", allow_abbrev=False)
    parser.add_argument("--items", type=comma_list, default=["10000", "100000"], metavar="N,N", help="catalogues")
    parser.add_argument("--only", default="", metavar="NAME", help=f"one stage: {', '.join(STAGES)}")
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.only and args.only not in STAGES:
        raise unknown("stage", args.only, STAGES, "--only")
    if args.folder:
        print(json.dumps(measured(args.only, args.folder)))
        return
    if not all(size.isdecimal() and int(size) >= 100 for size in args.items):
        raise UserError(f"--items: whole numbers from 100, got {', '.join(args.items)}.")
    print(f"{'items':>10}  {'stage':<24}{'CPU s':>10}{'MiB more':>10}")
    for items in map(int, args.items):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), items)
            for stage in [args.only] if args.only else STAGES:
                print(f"{items:>10,}  {stage:<24}{_told(stage, folder)}", flush=True)


def _told(stage: str, folder: str) -> str:
    """The columns that a child process fills."""
    words = [sys.executable, "-m", "benchmarks.scale", "--only", stage, "--folder", folder]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        return f"  failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}"
    found = json.loads(done.stdout.splitlines()[-1])
    return f"{found['seconds']:>10.2f}{found['mib']:>10.0f}"


def main(words: Sequence[str]) -> int:
    """The exit code: 0, or 2 after a mistake in the command."""
    try:
        run(words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
