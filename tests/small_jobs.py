"""What tests share that is no fixture: small jobs for baselines, and where the papers' data are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from genrec_bench.contracts import Interactions, Job, Outcome
from genrec_bench.core import registry
from genrec_bench.experiments.config import EvaluationConfig, RunConfig
from genrec_bench.splits.leave_one_out import LeaveOneOut

SHORT = LeaveOneOut(max_history=5)


def papers_data() -> Path | None:
    """The papers' data: GENREC_BENCH_DATA, else shared/datasets beside the repository; None where neither is there."""
    named = os.environ.get("GENREC_BENCH_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "datasets"
    return folder if (folder / "apao").is_dir() else None


class Quiet:
    """Keeps what a system tells."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def step(self, done: int, total: int, note: str = "") -> None:
        """Remember the step."""
        self.steps.append((done, total))


def made_of(sequences: list[list[int]], num_items: int) -> Interactions:
    users = tuple(f"u{n}" for n in range(len(sequences)))
    return Interactions("toy", users, tuple(f"i{n}" for n in range(num_items)), tuple(map(np.array, sequences)))


def toy(num_users: int = 40, num_items: int = 12, seed: int = 0) -> Interactions:
    """Users with 3 to 9 items out of all but the last two, which nobody ever saw; repeats happen."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 10, size=num_users)
    return made_of([rng.integers(0, num_items - 2, size=n).tolist() for n in lengths], num_items)


def job_of(folder: Path, interactions: Interactions, *, split: LeaveOneOut = SHORT, seed: int = 0, **evaluation) -> Job:
    config = RunConfig("toy", "smoke", registry.datasets.build({"name": "ml-100k"}), seed, split=split,
                       evaluation=EvaluationConfig(**evaluation))
    return Job(config, split.split(interactions), None, seed, folder, "cpu", 1, Quiet())


def run(spec: dict, folder: Path, **context) -> Outcome:
    context.setdefault("interactions", toy())
    return registry.baselines.build(spec).run(job_of(folder, **context))


def write_toy(folder: Path, interactions: Interactions) -> None:
    """Interactions and index of a toy as a new folder in the generative format."""
    folder.mkdir()
    inter = {u: s.tolist() for u, s in zip(interactions.user_ids, interactions.sequences, strict=True)}
    (folder / "Toy.inter.json").write_text(json.dumps(inter), encoding="utf-8")
    index = {str(i): [f"<{letter}_{c}>" for letter, c in zip("abc", codes, strict=True)]
             for i, codes in enumerate(interactions.given_codes.tolist())}
    (folder / "Toy.index.json").write_text(json.dumps(index), encoding="utf-8")
