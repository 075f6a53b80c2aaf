"""What is run on a lent card, rehearsed on the CPU without the packages that such a machine may lack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.gpu_part import Part
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
    assert "no facts about the test rows of toy" in told
    assert not list((tmp_path / "out" / "records").rglob("*.users.npz"))
    assert merge([tmp_path / "out" / "records"], tmp_path / "merged").moved == 2
    assert "| repeat | done | 0 |" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def part_of(name: str, folder: Path, seconds: float = 60.0) -> Part:
    return Part(name, "tests.test_gpu_rehearsal", ("cpu",), folder, folder, None, None, 1, True, time.time() + seconds,
                "")


def works(part: Part) -> None:
    part.row("process", os.getpid())


def raises(part: Part) -> None:
    part.row("before", 1)
    raise RuntimeError("the reason")


def dies(part: Part) -> None:
    part.row("before", 1)
    os.kill(os.getpid(), signal.SIGKILL)


def waits(part: Part) -> None:
    part.row("before", 1)
    time.sleep(60)


def hangs(part: Part) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    waits(part)


def test_after_a_part_that_raises_dies_waits_or_hangs_comes_the_next(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 1.0)
    worker, found, processes = gpu.Worker(), {}, []
    try:
        for name in ("works", "works", "raises", "works", "dies", "works", "waits", "works", "hangs"):
            found[name] = worker.carry_out(part_of(name, tmp_path, 1.0 if name in ("waits", "hangs") else 60.0))
            processes += [row["value"] for row in found[name]["rows"] if row["what"] == "process"]
    finally:
        worker.end()
    late = worker.carry_out(part_of("works", tmp_path / "late", -1.0))
    assert late["state"].startswith("not begun") and not gpu.failed(late)
    assert {name: part["state"] for name, part in found.items()} == {
        "works": "done", "raises": "failed", "dies": "died", "waits": "broken off", "hangs": "died"}
    assert all([row["what"] for row in part["rows"]] == ["before"] for name, part in found.items() if name != "works")
    assert processes[0] == processes[1] and len(set(processes)) == 4  # one goes on until a part does not end well
    for name, note in (("raises", "RuntimeError: the reason"), ("dies", "code -9"), ("hangs", "did not stop in time")):
        assert note in found[name]["notes"][-1]
    assert {name for name, part in found.items() if gpu.failed(part)} == {"raises", "dies", "hangs"}


def test_a_row_above_its_limit_or_without_a_number_is_a_failure(tmp_path: Path) -> None:
    part = part_of("outputs", tmp_path)
    for value, limit in ((2.0, None), (0.5, 0.5), (0.6, 0.5), (float("nan"), 0.5)):
        part.row("x", value, limit=limit)
    with part.going_on("y"):
        raise RuntimeError("the reason")
    found = part.read()
    assert [row["ok"] for row in found["rows"]] == [True, True, False, False, False]
    assert "RuntimeError: the reason" in found["notes"][0] and gpu.failed({**found, "state": "done"})


def test_a_step_that_is_no_graph_is_noted_with_the_first_reason(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # not above: the processes of the test before would load it too

    from benchmarks import gpu_speed

    def captured(*_: Any) -> Any:
        try:
            raise RuntimeError("a copy from the host")
        finally:
            raise RuntimeError("the capture failed before")  # as its end has it

    monkeypatch.setattr(gpu_speed, "captured", captured)
    part = part_of("speed", tmp_path)
    gpu_speed.beside_graph(part, "x", lambda: (torch.ones(2),), 1e-3)
    found = part.read()
    assert [row["what"] for row in found["rows"]] == ["x, eager"] and part.spoilt
    assert found["notes"] == ["x: no CUDA graph: a copy from the host"]


@pytest.mark.parametrize("words, message", [
    (["--only", "speeed"], "speed"), (["--minutes", "0"], "minutes must be above 0"), (["--runs", "no"], "no file no"),
    (["--device", "cpu,cuda"], "cpu or GPUs"), (["--jobs", "0"], "jobs must be at least 1")])
def test_mistakes_are_told_at_once(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        gpu.options(["--minutes", "1", "--device", "cpu", "--out", str(tmp_path), *words])
