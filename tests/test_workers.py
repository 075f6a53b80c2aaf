"""Runs in several processes: order, a first stage that fails, a process that is killed, Ctrl-C, a parent that dies."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec_bench.cli import main
from genrec_bench.commands.run import prepare_configs, run_all
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.results.records import RecordStore
from genrec_bench.running.runner import Workspace
from genrec_bench.running.workers import _death, _Queue
from tests.processes import processes_of, until
from tests.test_cli import MAX_ERROR_LINES, ROOT, TINY, environment

torch.set_num_threads(1)  # small tensors: more threads only wait for each other


# Order, without any process

@dataclass(eq=False)
class Item:
    run_id: str
    first: Any = None


def test_a_second_stage_waits_for_its_first() -> None:
    first, other = Item("first"), Item("other")
    second = Item("second", first)
    queue = _Queue([second, first, other])
    assert [queue.take(), queue.take(), queue.take()] == [first, other, None]
    queue.over(other, None)
    assert queue.take() is None and queue.lost() == []
    queue.over(first, None)
    assert queue.take() is second and queue.take() is None


def test_a_second_stage_is_lost_with_its_first() -> None:
    first = Item("first")
    second, other = Item("second", first), Item("other")
    queue = _Queue([first, second, other])
    assert queue.take() is first
    queue.over(first, "broken")
    assert queue.lost() == [second] and queue.lost() == [] and queue.take() is other and queue.take() is None


def test_a_first_stage_that_is_done_already_holds_nothing_up() -> None:
    second = Item("second", Item("first"))
    assert _Queue([second]).take() is second


def test_how_a_process_ended_is_told() -> None:
    assert "ended by SIGKILL" in _death(-signal.SIGKILL) and "lower --jobs" in _death(-signal.SIGKILL)
    assert "code 1" in _death(1) and "--jobs" not in _death(1)


# With processes

@pytest.mark.parametrize("jobs", [1, 2])
def test_a_first_stage_that_fails(jobs: int, toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    """Its second stage is not begun, and both are told; other runs end well."""
    workspace = Workspace(tmp_path / "results")
    items = prepare_configs(expand(Selection("apao", "smoke", (str(toy_folder),), None, ("item_knn",), (0,),
                                             rows=("TIGER + CE → CE",))), workspace, keep=True)
    knn, first, second = items
    assert second.first.run_id == first.run_id
    workspace.folder(first.run_id).parent.mkdir(parents=True)
    workspace.folder(first.run_id).write_text("a file in the way of the run's folder")
    assert run_all(items, workspace, jobs) == 2
    told = capsys.readouterr().err
    assert told.count("FAILED") == 2 and "its first stage failed" in told and "Traceback" not in told
    assert [r.run_id for r in workspace.store.read_all()] == [knn.run_id]
    assert workspace.status(second.run_id) == "missing" and not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_process_that_is_killed_costs_its_run_alone(toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    """Both processes are: their runs are told with the reason and may go on, and a new process makes the third."""
    workspace = Workspace(tmp_path / "results")
    configs = expand(Selection("apao", "smoke", (str(toy_folder),), None, ("item_knn",), (0, 1),
                               {"training": {"epochs": 2000, "patience": 2000}}, rows=("TIGER + cross-entropy",)))
    items = sorted(prepare_configs(configs, workspace, keep=True), key=lambda item: item.config.baseline is not None)

    def kill() -> None:
        until(lambda: len(list(workspace.results.glob("work/*/state.safetensors"))) == 2)
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert run_all(items, workspace, 2) == 2
    killer.join()
    told = capsys.readouterr().err
    assert len(re.findall(r"^FAILED  TIGER \+ cross-entropy, toy, seed \d: its process was ended by SIGKILL; .*--jobs",
                          told, re.M)) == 2 and "Traceback" not in told
    assert [workspace.status(item.run_id) for item in items] == ["interrupted", "interrupted", "done"]
    assert not multiprocessing.active_children() and not list(workspace.results.rglob("failure.txt"))


def endless(folder: Path, results: Path, *more: str) -> list[str]:
    """Two runs of TIGER in two processes, for whose end nobody waits."""
    words = ["run", "--suite", "apao", "--profile", "smoke", "--datasets", folder, *more, "--row",
             "TIGER + cross-entropy", *TINY, "--seeds", "0,1", "--jobs", "2", "--results", results, "--set",
             "training.epochs=2000", "--set", "training.patience=2000"]
    return [str(w) for w in words]


def started(folder: Path, results: Path) -> subprocess.Popen[str]:
    """The command in a session of its own, both runs past an epoch."""
    process = subprocess.Popen([sys.executable, "benchmark.py", *endless(folder, results, "--baselines", "none")],
                               cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    until(lambda: process.poll() is not None or len(list(results.glob("work/*/state.safetensors"))) == 2)
    assert process.poll() is None, process.communicate()
    return process


def ended(process: subprocess.Popen[str]) -> None:
    """Whatever a failed test may have left."""
    if processes_of(process.pid):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_a_terminal_that_is_closed_ends_all_processes(toy_folder: Path, tmp_path: Path) -> None:
    """It sends SIGHUP to every process of the group, as it does Ctrl-C; exit 129, how to go on, and nobody is left."""
    results = tmp_path / "results"
    process = started(toy_folder, results)
    try:
        assert len(processes_of(process.pid)) >= 3, "the command and its two processes"
        os.killpg(process.pid, signal.SIGHUP)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 129 and out == "" and "Traceback" not in err, err
        assert "interrupted: 0 of 2 runs are done" in err and len(err.splitlines()) <= MAX_ERROR_LINES
        until(lambda: not processes_of(process.pid), 10)
    finally:
        ended(process)
    assert not RecordStore(results).read_all() and not list(results.rglob("failure.txt"))
    assert not list(results.rglob("*.tmp")) and len(list(results.glob("work/*/state.safetensors"))) == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_processes_end_when_their_parent_dies(toy_folder: Path, tmp_path: Path) -> None:
    """Their runs count as interrupted, not as failed."""
    process = started(toy_folder, tmp_path / "results")
    try:
        process.kill()
        until(lambda: not processes_of(process.pid), 30)
    finally:
        ended(process)
    process.communicate()
    assert not list((tmp_path / "results").rglob("failure.txt"))


def test_one_run_needs_no_process(toy_folder: Path, tmp_path: Path) -> None:
    """`--jobs 2` for a single run stays in this process, where an interrupted one may also go on."""
    words = ["run", "--suite", "apao", "--profile", "smoke", "--datasets", str(toy_folder), "--baselines", "item_knn",
             "--objectives", "none", "--jobs", "2", "--results", str(tmp_path)]
    assert main(words) == 0 and not multiprocessing.active_children()
