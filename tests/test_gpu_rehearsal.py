"""What is run on a lent card, rehearsed on the CPU where only torch, numpy, scipy and what transformers brings exist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, gpu_part
from genrec_bench.core.errors import UserError
from genrec_bench.results.merge import merge

ROOT = Path(__file__).resolve().parents[1]
ABSENT = ("recbole", "tabulate", "threadpoolctl", "sklearn", "pyarrow", "matplotlib", "seaborn", "markdown", "rich",
          "tensorboard", "mlflow", "wandb", "sentence_transformers", "transformers", "pandas")
BLOCKED = f"""
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, *rest, **more: None if name.partition(".")[0] in {ABSENT} else find(name, *rest, **more))
"""


def rehearse(tmp_path: Path, *words: str | Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, report and what was printed."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    environment.pop("GENREC_BENCH_DATA", None)
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--out",
                           tmp_path / "out", *words], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    path = tmp_path / "out" / "report.json"
    return done.returncode, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}, done.stderr


def test_every_part_works_without_packages_that_a_lent_machine_lacks(tmp_path: Path, toy_folder: Path) -> None:
    line = f"--suite apao --profile smoke --datasets {toy_folder} --row 'TIGER + cross-entropy' --baselines"
    (tmp_path / "runs.txt").write_text(f"# two lines that name one run\n{line} sasrec\n\n{line} popularity,sasrec\n",
                                       encoding="utf-8")
    code, report, told = rehearse(tmp_path, "--minutes", "5", "--runs", tmp_path / "runs.txt")
    assert code == 0, told
    parts = report["parts"]
    assert {name: found["state"] for name, found in parts.items()} == dict.fromkeys((*gpu.PARTS, "records"), "done")
    rows = {name: {row["what"]: row for row in found["rows"]} for name, found in parts.items()}
    for backbone in ("tiger", "llama"):
        for objective in ("cross_entropy", "msl", "bear_beam", "s_dpo", "apao, pairwise"):
            assert rows["outputs"][f"{backbone}: {objective}: gradients"]["value"] == 0.0
        assert rows["repeat"][f"{backbone}: broken off after an epoch and resumed"]["value"] == 0.0
        assert rows["speed"][f"{backbone}, bfloat16: the network in a beam search, graph"]["value"] > 0.0
    assert len(rows["runs"]) == 3  # two runs, and how many failed
    assert any("needs RecBole" in note for note in parts["runs"]["notes"])
    assert merge([tmp_path / "out" / "records"], tmp_path / "merged").moved == 2
    assert "| repeat | done | 0 |" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_a_part_that_dies_hangs_or_raises_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 0.2)
    monkeypatch.setitem(gpu.PARTS, "dies", ("tests.test_gpu_rehearsal", 1))
    found = {}
    for name, seconds in (("outputs", 60.0), ("repeat", 60.0), ("speed", 2.5), ("runs", 2.5)):
        part = gpu_part.Part(name, ("cpu",), tmp_path, tmp_path, None, None, 1, True, gpu.time.time() + seconds, "")
        found[name] = gpu.carried_out(part)
    assert found


def test_a_row_above_its_limit_or_without_a_number_is_a_failure(tmp_path: Path) -> None:
    part = gpu_part.Part("outputs", ("cpu",), tmp_path, tmp_path, None, None, 1, True, 0.0, "")
    for value, limit in ((2.0, None), (0.5, 0.5), (0.6, 0.5), (float("nan"), 0.5)):
        part.row("x", value, limit=limit)
    with part.going_on("y"):
        raise RuntimeError("the reason")
    found = part.read()
    assert [row["ok"] for row in found["rows"]] == [True, True, False, False, False]
    assert "RuntimeError: the reason" in found["notes"][0] and gpu.failed({**found, "state": "done"})


@pytest.mark.parametrize("words, message", [
    (["--only", "speeed"], "speed"), (["--minutes", "0"], "minutes must be above 0"), (["--runs", "no"], "no file no"),
    (["--device", "cpu,cuda"], "cpu or GPUs"), (["--jobs", "0"], "jobs must be at least 1")])
def test_mistakes_are_told_at_once(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        gpu.options(["--minutes", "1", "--device", "cpu", "--out", str(tmp_path), *words])
