"""The scheduler: order, failures, deaths of walkers, two commands at once, limits of time, signals; real processes."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec_bench.cli import main
from genrec_bench.core.walk import TOLD, Board, Busy, _death, _gives_up, alone, cores, is_held, told, walk, whole_time
from genrec_bench.experiments.grid import Selection, expand
from genrec_bench.results.records import RecordStore
from genrec_bench.running.scheduler import Means, RunTask, run_all
from genrec_bench.running.suites import prepare_configs
from genrec_bench.running.workspace import Workspace
from tests.processes import processes_of, until
from tests.test_cli import MAX_ERROR_LINES, ROOT, TINY, environment

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
in_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")


# The walk, without other processes

@dataclass
class Step:
    """A task that notes that it was done."""

    root: Path
    key: str
    uses: tuple[str, ...] = ()
    error: str = ""
    seconds: float | None = None
    log: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "work" / self.key

    def done(self) -> bool:
        return (self.root / self.key).exists()

    def needs(self) -> float | None:
        return self.seconds

    def run(self, tell: Any) -> None:
        self.log.append(self.key)
        if self.error:
            raise ValueError(self.error)
        tell.step(1, 2)
        (self.root / self.key).touch()

    def gave_up(self, why: str) -> None:
        self.log.append(why)


@pytest.fixture()
def board(tmp_path: Path) -> Board:
    (tmp_path / "board").mkdir()
    return Board(tmp_path / "board")


def steps(root: Path, *parts: tuple[str, dict[str, Any]]) -> tuple[list[Step], list[str]]:
    log: list[str] = []
    return [Step(root, key, log=log, **more) for key, more in parts], log


def test_what_is_used_comes_first_and_what_is_done_stays(tmp_path: Path, board: Board) -> None:
    (tmp_path / "c").touch()
    tasks, log = steps(tmp_path, ("b", {"uses": ("a", "unlisted")}), ("a", {}), ("c", {}), ("d", {"uses": ("c",)}))
    walk(tasks, board)
    assert log == ["a", "b", "d"] and board.ended() == dict.fromkeys("abcd", "")
    assert not list((tmp_path / "work").iterdir()), "neither locks nor empty folders stay"


def test_a_failure_costs_what_uses_it_alone(tmp_path: Path, board: Board) -> None:
    tasks, log = steps(tmp_path, ("a", {"error": "no\nmore"}), ("b", {"uses": ("a",)}), ("c", {"uses": ("b",)}),
                       ("d", {}))
    walk(tasks, board)
    ended = board.ended()
    assert log == ["a", "d"] and (ended["a"], ended["d"]) == ("no", "")
    assert ended["b"] == "not possible, for it uses run a, which failed: no" and "run b, which" in ended["c"]
    walk(steps(tmp_path, ("a", {}))[0], board)  # another walker of this command
    assert not (tmp_path / "a").exists()


def test_what_another_process_does_is_waited_for(tmp_path: Path, board: Board) -> None:
    tasks, log = steps(tmp_path, ("a", {}), ("b", {}), ("c", {"uses": ("a",)}))
    held = alone(tasks[0].folder)
    held.__enter__()
    assert is_held(tasks[0].folder) and not is_held(tasks[1].folder)
    with pytest.raises(Busy), alone(tasks[0].folder):
        pass

    def other() -> None:
        until(lambda: log == ["b"])
        (tmp_path / "a").touch()
        held.__exit__(None, None, None)

    thread = threading.Thread(target=other)
    thread.start()
    walk(tasks, board)
    thread.join()
    assert log == ["b", "c"] and board.ended() == dict.fromkeys("bac", "")


def test_a_lock_that_was_deleted_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last holder deletes it between another's opening and locking: nobody holds a file that has no name."""
    import fcntl

    from genrec_bench.core import walk as module

    def late(file: Any, how: int) -> None:
        (tmp_path / "x" / "lock").unlink()
        fcntl.flock(file, how)

    monkeypatch.setattr(module, "fcntl", type("f", (), {"flock": staticmethod(late), "LOCK_EX": 2, "LOCK_NB": 4}))
    with pytest.raises(Busy), alone(tmp_path / "x"):
        pass


@pytest.mark.parametrize(("files", "expected"), [
    ({}, 8), ({"cpu.max": "max 100000"}, 8), ({"cpu.max": "250000 100000"}, 2), ({"cpu.max": "50000 100000"}, 1),
    ({"cpu.max": "1600000 100000"}, 8), ({"cpu.max": "?"}, 8), ({"cpu/cpu.cfs_quota_us": "-1",
                                                                "cpu/cpu.cfs_period_us": "100000"}, 8),
    ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3)])
def test_cores_are_those_of_the_mask_or_of_a_container_s_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              files: dict[str, str], expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert cores(tmp_path) == expected


def test_nothing_begins_that_would_end_too_late(tmp_path: Path, board: Board) -> None:
    """What is stopped at the end of a step goes on with the next command; what uses it has to wait."""
    tasks, log = steps(tmp_path, ("long", {"seconds": 99.0}), ("after", {"uses": ("long",)}),
                       ("short", {"seconds": 1.0}), ("unknown", {}))
    walk(tasks, board, until=time.time() + 20)
    assert log == ["short", "unknown"] and set(board.ended()) == {"short", "unknown"}
    more, log = steps(tmp_path, ("a", {}), ("b", {}))
    more[0].run = lambda tell: (log.append("a"), time.sleep(0.6), tell.step(1, 2), log.append("never"))
    walk(more, board, until=time.time() + 1)
    assert log[0] == "a" and "never" not in log and "a" not in board.ended() and told(more[0].folder)["done"] == 1
    log.clear()
    walk(more, board, until=time.time() - 1)
    assert log == []


def test_the_time_of_a_whole_task_by_hand(tmp_path: Path) -> None:
    """4 s to the first step, 3 s for each of the two after it: 4 + 4 * 3 s for five."""
    assert whole_time(tmp_path) is None
    for done, expected in ((1, None), (3, 16.0)):
        (tmp_path / TOLD).write_text(f'{{"done": {done}, "total": 5, "seconds": 10.0, "first": 4.0}}')
        assert whole_time(tmp_path) == expected


def test_deaths_in_a_task_count_where_no_step_lies_between_them(tmp_path: Path, board: Board) -> None:
    (task,), log = steps(tmp_path, ("a", {}))
    deaths: dict[str, list[int]] = {}

    def dies(done: int, code: int = -9) -> bool:
        task.folder.mkdir(parents=True, exist_ok=True)
        (task.folder / TOLD).write_text(f'{{"pid": 7, "time": {time.time()}, "done": {done}}}')
        return _gives_up([task], board, type("Dead", (), {"pid": 7, "exitcode": code}), _death(code), deaths)

    assert not any(dies(done) for done in (0, 0, 1, 1, 2, 3, 3)) and not board.ended()
    assert not dies(3) and "3 processes ended in it, none of them farther" in board.ended()["a"]
    assert "ended by SIGKILL" in log[0] and "lower --jobs" in log[0]
    assert dies(0, 1) and not dies(0, -9), "a walker that fails before any task would fail again"
    assert "code 1" in _death(1) and "--jobs" not in _death(1)


# Runs, with processes

def items(folder: Path, workspace: Workspace, *rows: str, baselines: tuple[str, ...] = (),
          seeds: tuple[int, ...] = (0,), **training: int) -> list[Any]:
    """Runs of the suite apao, made tiny."""
    settings = {"tiger": {"width": 16, "head_width": 8, "feed_forward_width": 32}, "training": training}
    configs = expand(Selection("apao", "smoke", (str(folder),), None, baselines, seeds, settings, rows=rows))
    return prepare_configs(configs, workspace, keep=True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_first_stage_that_fails(jobs: int, toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    """Its second stage is not begun, and both are told; other runs end well."""
    workspace = Workspace(tmp_path / "results")
    knn, first, second = items(toy_folder, workspace, "TIGER + CE → CE", baselines=("item_knn",))
    assert second.uses["weights"].run_id == first.run_id
    workspace.folder(first.run_id).parent.mkdir(parents=True)
    workspace.folder(first.run_id).write_text("a file in the way of the run's folder")
    assert len(run_all([knn, first, second], workspace, Means(jobs)).failed) == 2
    said = capsys.readouterr().err
    assert said.count("FAILED") == 2 and f"it uses run {first.run_id}, which failed: " in said
    assert "Traceback" not in said and [r.run_id for r in workspace.store.read_all()] == [knn.run_id]
    assert workspace.status(second.run_id) == "missing" and not multiprocessing.active_children()


def numbers(results: Path) -> dict[str, Any]:
    """What equal runs have in common."""
    store = RecordStore(results)
    return {r.run_id: (r.metrics, r.training, store.ranks_bytes(r)) for r in store.read_all()}


def killed(toy_folder: Path, results: Path, kills: int, epochs: int, pause: float) -> tuple[list[Any], int]:
    """The runs of a grid with a stage that is used, while its walkers are killed at random moments."""
    workspace, random_ = Workspace(results), random.Random(0)
    found = items(toy_folder, workspace, "TIGER + CE → CE", baselines=("item_knn",), seeds=(0, 1), epochs=epochs,
                  patience=epochs)
    over, count = threading.Event(), [0]

    def kill() -> None:
        while count[0] < kills and not over.is_set():
            time.sleep(random_.uniform(0, pause))
            if walkers := multiprocessing.active_children():
                os.kill(random_.choice(walkers).pid, signal.SIGKILL)
                count[0] += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        ended = run_all(found, workspace, Means(2))
    finally:
        over.set()
        killer.join()
    assert ended.failed == () and ended.left == 0
    return found, count[0]


@pytest.mark.parametrize(("kills", "epochs", "pause"), [
    pytest.param(2, 8, 6.0), pytest.param(20, 40, 12.0, marks=pytest.mark.slow)])
def test_killed_walkers_cost_nothing_but_their_time(kills: int, epochs: int, pause: float, toy_folder: Path,
                                                    tmp_path: Path, capsys: Any) -> None:
    """Every run is done, with the numbers that it has undisturbed."""
    found, count = killed(toy_folder, tmp_path / "killed", kills, epochs, pause)
    said = capsys.readouterr().err
    assert said.count("a process is replaced: it was ended by SIGKILL") >= count - 2 and "FAILED" not in said
    workspace = Workspace(tmp_path / "whole")
    assert run_all(found, workspace).failed == ()
    whole = numbers(tmp_path / "whole")
    assert numbers(tmp_path / "killed") == whole and len(whole) == len(found)
    half = list(tmp_path.rglob("*.tmp"))  # what was being written when the kill came, at most: nobody reads it
    assert len(half) <= count and all(path.name.startswith(".") for path in half)
    assert not list(tmp_path.rglob("failure.txt"))


# Commands

def words(folder: Path, results: Path, *more: str | Path, epochs: int = 2000) -> list[str]:
    """Two seeds of a tiny TIGER; for the end of 2000 epochs nobody waits."""
    base = ["run", "--suite", "apao", "--profile", "smoke", "--datasets", folder, "--row", "TIGER + cross-entropy",
            *TINY, "--seeds", "0,1", "--results", results, "--set", f"training.epochs={epochs}", "--set",
            f"training.patience={epochs}", *more]
    return [str(word) for word in base]


@contextmanager
def started(*commands: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Commands in sessions of their own, of which nothing stays."""
    processes = [subprocess.Popen([sys.executable, "benchmark.py", *line], cwd=ROOT, env=environment(), text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
                 for line in commands]
    try:
        yield processes
    finally:
        for process in processes:
            if processes_of(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@in_proc
def test_two_commands_share_the_work(toy_folder: Path, tmp_path: Path) -> None:
    """First stages whose weights are gone are made once; both commands end well, with every run made by one of them."""
    results = tmp_path / "results"
    workspace = Workspace(results)
    rows = ("TIGER + CE → CE",)
    firsts = [item for item in items(toy_folder, workspace, *rows, seeds=(0, 1), epochs=12, patience=12)
              if not item.uses]
    run_all(firsts, workspace)
    for item in firsts:
        (workspace.folder(item.run_id) / "best.safetensors").unlink()
    line = words(toy_folder, results, "--row", rows[0], "--baselines", "popularity,item_knn", "--jobs", "1", epochs=12)
    with started(line, line) as commands:
        said = [process.communicate(timeout=240) for process in commands]
        assert [process.returncode for process in commands] == [0, 0], said
    for out, err in said:
        assert "FAILED" not in err and "report: " in out
        before = int(re.search(r"^(\d) of 6 runs are done already", err, re.M)[1])  # 2, or more
        assert len(re.findall(r"^[0-9a-f]{16}  ", err, re.M)) == 6 - (before - 2)
    assert len(RecordStore(results).read_all()) == 6 and any("in another command" in err for _, err in said)
    assert not list(results.rglob("failure.txt")) and not list(results.rglob("lock"))


@in_proc
def test_a_terminal_that_is_closed_ends_all_processes(toy_folder: Path, tmp_path: Path) -> None:
    """It sends SIGHUP to every process of the group, as it does Ctrl-C; exit 129, how to go on, and nobody is left."""
    results = tmp_path / "results"
    with started(words(toy_folder, results, "--baselines", "none", "--jobs", "2")) as (process,):
        until(lambda: process.poll() is not None or len(list(results.glob("work/*/state.safetensors"))) == 2)
        assert process.poll() is None and len(processes_of(process.pid)) >= 3, "the command and its two processes"
        os.killpg(process.pid, signal.SIGHUP)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 129 and out == "" and "Traceback" not in err, err
        assert "interrupted: 0 of 2 runs are done" in err and len(err.splitlines()) <= MAX_ERROR_LINES
        until(lambda: not processes_of(process.pid), 10)
    assert not RecordStore(results).read_all() and not list(results.rglob("failure.txt"))
    assert not list(results.rglob("*.tmp")) and len(list(results.glob("work/*/state.safetensors"))) == 2


@pytest.mark.slow
@in_proc
def test_processes_end_when_their_parent_dies(toy_folder: Path, tmp_path: Path) -> None:
    """Their runs count as interrupted, not as failed."""
    results = tmp_path / "results"
    with started(words(toy_folder, results, "--baselines", "none", "--jobs", "2")) as (process,):
        until(lambda: process.poll() is not None or len(list(results.glob("work/*/state.safetensors"))) == 2)
        process.kill()
        until(lambda: not processes_of(process.pid), 30)
    assert not list(results.rglob("failure.txt"))


def test_a_limit_of_time(toy_folder: Path, tmp_path: Path, capsys: Any) -> None:
    """A run stops at the end of an epoch, exit 0; the next command goes on from there."""
    results = tmp_path / "results"
    line = words(toy_folder, results, "--baselines", "item_knn", "--jobs", "1", "--seeds", "0")
    assert main([*line, "--minutes", "0.02"]) == 0
    printed = capsys.readouterr()
    assert re.search(r"time is up: 1 of 2 runs are done, 1 stopped, 0 under way in another command, 0 not begun. To go "
                     r"on:\n  python ", printed.err), printed.err
    assert "report: " in printed.out
    first = told(next(results.glob("work/*")))["done"]
    assert main([*line, "--minutes", "0.02"]) == 0
    assert told(next(results.glob("work/*")))["done"] > first >= 1
    assert main([*line, "--minutes", "0.02", "--set", "training.epochs=1"]) == 0  # ends in time
    assert "time is up" not in capsys.readouterr().err.split("runs are done already.")[-1]
    assert main([*line, "--minutes", "0"]) == 2 and "--minutes must be above 0" in capsys.readouterr().err


def test_what_a_run_needs(toy_folder: Path, tmp_path: Path) -> None:
    """Of a network an epoch of other seeds, of a baseline the whole run; nothing is known at first."""
    workspace = Workspace(tmp_path / "results")
    knn, first, second = items(toy_folder, workspace, "TIGER + cross-entropy", baselines=("item_knn",), seeds=(0, 1),
                               epochs=2)
    tasks = [RunTask.of(item, workspace) for item in (knn, first, second)]
    assert [task.needs() for task in tasks] == [None] * 3
    run_all([knn, first], workspace)
    timings = workspace.store.read(first.run_id).timings
    assert tasks[2].needs() == timings["seconds_per_epoch"] + timings["validation_seconds"]
    assert tasks[0].needs() == workspace.store.read(knn.run_id).timings["total_seconds"]
    workspace.threads = 2
    assert tasks[2].needs() is None


def test_every_walker_has_its_device(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     capsys: Any) -> None:
    from genrec_bench.running import scheduler

    given: list[str] = []

    def start(method: str, target: Any, plain: list, board: Any, workspace: Workspace, until: float) -> Any:
        given.append(workspace.device)
        process = multiprocessing.get_context("fork").Process(target=int)
        process.start()
        return process

    monkeypatch.setattr(scheduler, "start_child", start)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    line = words(toy_folder, tmp_path / "results", "--baselines", "none")
    main([*line, "--device", "cuda:0,cuda:1"])
    main([*line, "--device", "cuda:1,cuda:0", "--seeds", "0,1,2", "--jobs", "3"])
    assert given == ["cuda:0", "cuda:1", "cuda:1", "cuda:0", "cuda:1"]
    capsys.readouterr()
    for names, message in (("cuda:0,cuda:2", "--device cuda:2: torch sees 2"), ("cpu,cuda:0", "not both")):
        assert main([*line, "--device", names]) == 2 and message in capsys.readouterr().err
    assert main(["evaluate", "--checkpoint", str(tmp_path), "--device", "cuda:0,cuda:1"]) == 2
    assert "one device here" in capsys.readouterr().err
