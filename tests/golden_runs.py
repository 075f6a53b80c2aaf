"""The golden runs: tiny runs named by what they do, whose numbers are stored in `tests/golden/runs.json`.

They start `benchmark.py` and read the files that it writes, nothing else, and they give every setting that matters, so
that neither a moved module nor another profile touches them. When an option is renamed or a record changes its form,
the lines here follow; the stored numbers change only with a reason in the commit and a raised version.
`python -m tests.golden_runs` makes the runs and writes the numbers of this machine.
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
STORED = Path(__file__).parent / "golden" / "runs.json"
ITEMS, USERS = 60, 150

SMALL = {"width": 16, "num_layers": 1, "num_heads": 2, "head_width": 8, "feed_forward_width": 32}
SHARED = {
    **{f"tiger.{k}": v for k, v in SMALL.items()}, "tiger.dropout": 0.0,
    "split.max_history": 6, "split.train_targets_per_user": 0, "split.max_users": 0,
    "training.learning_rate": 0.01, "training.weight_decay": 0.01, "training.warmup_ratio": 0.05, "training.epochs": 3,
    "training.patience": 3, "training.batch_size": 32, "training.accumulation": 1, "training.bucket_steps": 4,
    "training.clip_norm": 1.0, "decoding.num_beams": 20, "decoding.batch_size": 64, "evaluation.max_k": 20}
LLAMA = {f"llama.{k}": v for k, v in SMALL.items()}
NETWORKS = {**LLAMA, "second_stage.learning_rate": 0.003, "second_stage.epochs": 1, "apao.num_negatives": 5,
            "s_dpo.num_negatives": 5, "bear.num_beams": 8, "bear_beam.num_beams": 8}
CLASSICS = {f"{baseline}.{k}": v for baseline in ("sasrec", "bert4rec") for k, v in {
    "n_layers": 1, "hidden_size": 16, "inner_size": 32, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1,
    "learning_rate": 0.01, "batch_size": 64, "epochs": 3, "patience": 3}.items()}
SCRIPTS = {"tiger.dropout": 0.1, "training.accumulation": 2, "training.accumulation_reduction": "sum",
           "training.selection": "last_batch_loss", "negatives.redraw": "never", "apao.num_negatives": 5,
           "cross_entropy.preset": "released", "apao.preset": "released", "apao.eta": 1e-4}
REAL = {"split.train_targets_per_user": 5, "split.max_users": 200, "rq_kmeans.levels": 2, "rq_kmeans.codebook_size": 16}


@dataclass(frozen=True)
class Group:
    """Runs that one command makes. data: "made" = the folder that `write_data` writes, else a registered name.
    baselines, rows: the golden name of each, by what the command line and the record call it."""

    data: str
    baselines: dict[str, str]
    rows: dict[str, str]
    settings: dict[str, Any]


GROUPS = {
    "networks": Group("made", {}, {
        "TIGER + cross-entropy": "tiger, cross-entropy",
        "TIGER + MSL": "tiger, MSL over the trie",
        "TIGER + APAO-Pointwise": "tiger, APAO pointwise",
        "TIGER + APAO-Pairwise": "tiger, APAO pairwise",
        "TIGER + CE → S-DPO": "tiger, cross-entropy then S-DPO",
        "TIGER + BEAR": "tiger, BEAR",
        "TIGER + BEAR, released code": "tiger, BEAR, released preset",
        "TIGER + objective (3.1)": "tiger, objective (3.1)",
        "Llama + cross-entropy": "llama, cross-entropy, unpacked"}, SHARED | NETWORKS),
    "packed": Group("made", {}, {"Llama + cross-entropy": "llama, cross-entropy, packed"},
                    {k: v for k, v in (SHARED | LLAMA).items() if not k.startswith("tiger")}
                    | {"training.group_users": True}),
    "scripts": Group("made", {}, {"TIGER + APAO-Pairwise": "tiger, APAO pairwise, like the scripts"},
                     SHARED | SCRIPTS),
    "baselines": Group("made", {"popularity": "popularity", "item_knn": "item-kNN", "sasrec": "SASRec",
                                "bert4rec": "BERT4Rec"}, {},
                       {k: v for k, v in SHARED.items() if not k.startswith("tiger")} | CLASSICS),
    "real": Group("ml-100k", {"popularity": "popularity, ml-100k", "item_knn": "item-kNN, ml-100k"},
                  {"TIGER + cross-entropy": "tiger, cross-entropy, IDs from titles"}, SHARED | REAL),
}
DIAGNOSED = Group("made", {}, {"TIGER + cross-entropy": ""}, SHARED)  # one of the networks


def write_data(folder: Path) -> Path:
    """150 users, 60 items with given IDs (two items share one); the next item is one of three, mostly the first.

    Only `random.random` draws, which Python keeps the same.
    """
    draw, folder = random.Random(0).random, folder / "made"
    folder.mkdir()
    users = {}
    for user in range(USERS):
        items = [int(draw() * ITEMS)]
        for _ in range(4 + int(draw() * 8)):
            step = next(step for step, below in ((1, 0.6), (7, 0.85), (1 + int(draw() * (ITEMS - 1)), 1.0))
                        if draw() < below)
            items.append((items[-1] + step) % ITEMS)
        users[str(user)] = items
    index = {str(item): [f"<a_{item // 16}>", f"<b_{item // 4 % 4}>", f"<c_{item % 4}>"] for item in range(ITEMS)}
    index["41"] = index["40"]
    for name, data in (("inter", users), ("index", index)):
        (folder / f"Made.{name}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def kind() -> dict[str, str]:
    """What must be equal for equal bits: the processor's kind and the libraries that compute."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping")
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if path.exists() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "scipy", "scikit-learn", "recbole")}
    forced = {name: os.environ[name] for name in ("ATEN_CPU_CAPABILITY", "OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS")
              if name in os.environ}
    return {"machine": platform.machine(), **{k: found[k] for k in wanted if k in found}, **versions, **forced}


def benchmark(*words: str | Path) -> None:
    """`python benchmark.py ...`. Raises: RuntimeError with what it printed where it fails."""
    done = subprocess.run([sys.executable, "benchmark.py", *map(str, words)], cwd=ROOT, capture_output=True,
                          encoding="utf-8", check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"benchmark.py {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")


def make(group: Group, data: Path, results: Path, verb: str = "run", *more: str) -> None:
    """One command for a group."""
    settings = [word for key, value in group.settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    rows = [word for row in group.rows for word in ("--row", row)] or ["--objectives", "none"]
    baselines = ["--baselines", ",".join(group.baselines) or "none"] if verb == "run" else []
    benchmark(verb, "--suite", "all", "--profile", "smoke", "--grid", "full", "--seeds", "0", "--threads", "1",
              "--jobs", "2", "--datasets", data if group.data == "made" else group.data, *rows, *baselines, *settings,
              "--results", results, *more)


def read(group: Group, results: Path) -> dict[str, Any]:
    """{golden name: losses, validation values and ranks} of the runs that a command left."""
    names, found = {**group.baselines, **group.rows}, {}
    for path in sorted(results.rglob("*.json")):
        ranks = path.with_name(f"{path.stem}.ranks.npz")
        if not ranks.exists():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        baseline = record["config"].get("baseline")
        name = names.get(baseline["name"] if baseline else record["label"])
        if name is not None:
            with np.load(ranks) as file:
                arrays = {key: file[key].tolist() for key in ("ranks", "ties", "id_ranks")}
            curve = record["training"].get("curve", [])
            found[name] = {"losses": [point["loss"] for point in curve],
                           "valid_ndcg@10": record["metrics"]["valid_ndcg@10"], **arrays}
    return found


def all_runs(folder: Path) -> dict[str, Any]:
    """Make every golden run below a folder and return {"runs", "diagnosis"}."""
    data, runs = write_data(folder), {}
    for name, group in GROUPS.items():
        make(group, data, folder / name)
        runs |= read(group, folder / name)
    make(DIAGNOSED, data, folder / "networks", "diagnose", "--beams", "5,20", "--users", "40")
    path, = (folder / "networks").rglob("*.diagnosis.npz")
    with np.load(path) as file:
        diagnosis = {key: file[key].tolist() for key in sorted(file.files) if file[key].dtype.kind in "iufb"}
    return {"runs": runs, "diagnosis": diagnosis}


def write() -> None:
    """Make the runs and store their numbers, a line a run."""
    with tempfile.TemporaryDirectory() as folder:
        found = {"kind": kind(), **all_runs(Path(folder))}
    parts = [f"{json.dumps(part)}: {{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}"
             for name, value in sorted(values.items())) + "}" for part, values in found.items()]
    STORED.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
