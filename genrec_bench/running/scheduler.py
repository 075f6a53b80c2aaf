"""The work of a command on the runs of a workspace, by one process or several, with what the user sees of it."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import inf
from pathlib import Path
from typing import Any, ClassVar

from genrec_bench.core.ending import exit_code, start_child
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical
from genrec_bench.core.progress import Bars
from genrec_bench.core.provenance import device_name
from genrec_bench.core.walk import Board, Told, crew, is_held, told, walk, whole_time
from genrec_bench.experiments.config import from_dict
from genrec_bench.results import test_users
from genrec_bench.running import runner
from genrec_bench.running.estimates import long_rows
from genrec_bench.running.workspace import Prepared, Workspace

STATE = "state.safetensors"
SUMMED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Means:
    """What a command works with. jobs: walkers; devices: given to them in turn, () = the workspace's; minutes: after
    which nothing goes on, None = no limit.
    """

    jobs: int = 1
    devices: tuple[str, ...] = ()
    minutes: float | None = None


@dataclass(frozen=True)
class Ended:
    """How it ended. failed: errors of the tasks that failed; left: how many there was no time for."""

    failed: tuple[str, ...] = ()
    left: int = 0


@dataclass
class RunTask:
    """A run as a task of the walk: plain data, from which every process makes what it needs. See `core.walk.Task`.

    config: of the run, as in its record; name: for people; weights: it is done only where its weights are there.
    """

    WORD: ClassVar[str] = "done"
    STEP: ClassVar[str] = "epoch"
    ON: ClassVar[str] = "our networks from their last epoch, RecBole's from their start"

    workspace: Workspace
    key: str
    name: str
    config: dict[str, Any]
    uses: tuple[str, ...] = ()
    weights: bool = False

    @classmethod
    def of(cls, item: Prepared, workspace: Workspace, **more: Any) -> RunTask:
        """The task of a run."""
        return cls(workspace, item.run_id, name_of(item), item.config.to_dict(), **more)

    @property
    def folder(self) -> Path:
        return self.workspace.folder(self.key)

    @cached_property
    def item(self) -> Prepared:
        """The run, with data and semantic IDs. Raises: UserError where they are no longer what they were."""
        item = self.workspace.prepare(from_dict(self.config))
        if item.run_id != self.key:
            raise UserError("its data, or the plug-in file it uses, were changed after the command began. Start it "
                            "again.")
        return item

    def done(self) -> bool:
        found = self.workspace.store.find(self.key) is not None
        return found and not (self.weights and not runner.has_weights(self.item, self.workspace))

    def run(self, tell: Told) -> None:
        runner.make(self.item, self.workspace, tell, weights=self.weights)

    def needs(self) -> float | None:
        """Seconds of an epoch, as this run or one of another seed took; of all of a baseline, which starts anew."""
        whole = "baseline" in self.config
        if not whole and (self.folder / STATE).exists():
            from genrec_bench.training import checkpoints

            state = checkpoints.read_state(self.folder / STATE)
            if state.get("seconds"):
                return statistics.median(state["seconds"]) + statistics.median(state["validation_seconds"] or [0.0])
        known = [r.timings for r in self.workspace.store.read_all(lambda _: None) if _kind(r.config) ==
                 _kind(self.config) and r.provenance.get("threads") == self.workspace.threads
                 and r.provenance.get("device") == device_name(self.workspace.device)]
        if known:
            parts = ("total_seconds",) if whole else ("seconds_per_epoch", "validation_seconds")
            return statistics.median(sum(timings.get(part, 0.0) for part in parts) for timings in known)
        return whole_time(self.folder) if whole else None

    def gave_up(self, why: str) -> None:
        (self.folder / runner.FAILURE).write_text(why, encoding="utf-8")

    def line(self) -> str:
        """What is told when it is done."""
        record = self.workspace.store.read(self.key)
        numbers = (f"validation NDCG@10 {record.metrics['valid_ndcg@10']:.4f}" if record.is_trial else
                   f"NDCG@10 {record.metrics['ndcg@10']:.4f}, Recall@10 {record.metrics['recall@10']:.4f}")
        return f"{self.key}  {self.name}: {numbers}, {record.timings['total_seconds']:.0f} s"


def _kind(config: dict[str, Any]) -> str:
    """Runs that differ in their seed alone take the same time."""
    return canonical({k: v for k, v in config.items() if k not in ("seed", "label", "profile")})


def name_of(item: Prepared) -> str:
    """The name of a run for people."""
    return f"{item.config.label}, {item.dataset}, seed {item.config.seed}"


def run_all(prepared: Sequence[Prepared], workspace: Workspace, means: Means = Means(),
            then: Callable[[Prepared], Any] = lambda _: None) -> Ended:
    """Make what is not done; a failed run does not stop the others, and a first stage is made once for all.

    then: the task that follows a run, which may be done already; None = nothing does.
    Raises: SystemExit with the exit code of the signal that broke it off.
    """
    status = {p.run_id: workspace.status(p.run_id) for p in prepared}
    missing = [p for p in prepared if status[p.run_id] != "done"]
    for item in prepared:
        if status[item.run_id] == "done":  # an older version left none beside it
            test_users.keep_users(workspace.store, workspace.store.read(item.run_id).dataset, item.split)
    firsts = {used.run_id: used for p in missing for used in p.before}
    again = [p for run_id, p in firsts.items() if run_id not in {m.run_id for m in missing}
             and not runner.has_weights(p, workspace)]
    done = len(prepared) - len(missing)
    notes = [f"{done} of {len(prepared)} runs are done already."] if done else []
    notes += [f"{name_of(p)}: {workspace.store.damage(p.run_id)}" for p in missing if status[p.run_id] == "damaged"]
    notes += long_rows(missing, workspace)
    if remade := sum(workspace.store.find(p.run_id) is not None for p in again):
        notes.append(f"First stages that are made again, because their records are there and their weights are not: "
                     f"{remade}.")
    todo, tasks = {p.run_id for p in (*again, *missing)}, {}
    for item in prepared:
        for run in (*item.before, item):  # a first stage that is made again comes before its first user
            if run.run_id in todo and (run is item or item.run_id in todo):
                tasks.setdefault(run.run_id, RunTask.of(run, workspace, uses=tuple(u.run_id for u in run.before),
                                                        weights=run.run_id in firsts))
        if (more := then(item)) is not None:
            tasks[more.key] = more
    return work(list(tasks.values()), workspace, means, done=done, notes=notes)


def work(tasks: Sequence[Any], workspace: Workspace, means: Means, *, done: int = 0,
         notes: Iterable[str] = ()) -> Ended:
    """Let this process or several do some tasks, all of a workspace, and show how far they are.

    done: how many more were done before; notes: lines to begin with. Raises: SystemExit where it is broken off.
    """
    until = inf if means.minutes is None else time.time() + 60.0 * means.minutes
    total, jobs = done + len(tasks), min(means.jobs, len(tasks))
    kinds = list(dict.fromkeys(map(type, tasks)))
    noun, word = ("runs", kinds[0].WORD) if len(kinds) == 1 else ("runs and diagnoses", "done")
    on = "; ".join(kind.ON for kind in kinds)
    with tempfile.TemporaryDirectory(prefix="genrec-bench-") as folder:
        show = _Show(tasks, Board(Path(folder)), Bars(total, done))
        for note in notes:
            show.bars.say(note)
        try:
            if jobs > 1:
                crew(tasks, show.board, partial(_start, tasks, show.board, workspace, means, until), jobs, show.look,
                     show.bars.say)
            else:
                walk(tasks, show.board, show.look, until)
        except KeyboardInterrupt as stopped:
            show.bars.close()
            print(f"\ninterrupted: {done + show.count()} of {total} {noun} are {word}, which stays. To go on ({on}):\n"
                  f"  {workspace.command}", file=sys.stderr)
            raise SystemExit(exit_code(stopped)) from None
        finally:
            show.bars.close()
        ended = show.board.ended()
        left = [task for task in tasks if task.key not in ended]
        if left:
            begun = [task for task in left if told(task.folder)]
            others = sum(is_held(task.folder) for task in begun)
            print(f"time is up: {done + show.count()} of {total} {noun} are {word}, {len(begun) - others} stopped, "
                  f"{others} under way in another command, {len(left) - len(begun)} not begun. To go on:\n  "
                  f"{workspace.command}", file=sys.stderr)
        return Ended(tuple(filter(None, ended.values())), len(left))


def _start(tasks: Sequence[Any], board: Board, workspace: Workspace, means: Means, until: float, number: int) -> Any:
    """Start a walker. It gets plain data and reads data sets itself, so that numbers are those a run has alone."""
    device = means.devices[number % len(means.devices)] if means.devices else workspace.device
    bare = dataclasses.replace(workspace, device=device, _parsed={}, _splits={}, _ids={})
    plain = [(type(task), {f.name: getattr(task, f.name) for f in dataclasses.fields(task) if f.name != "workspace"})
             for task in tasks]
    return start_child("spawn", _walker, plain, dataclasses.replace(board), bare, until)


def _walker(plain: Sequence[tuple[type, dict[str, Any]]], board: Board, workspace: Workspace, until: float) -> None:
    """A walker's life."""
    os.environ.update(dict.fromkeys(SUMMED, str(workspace.threads)))
    if workspace.plugins:
        from genrec_bench.running.plugin_file import load_plugins  # which imports torch

        load_plugins(workspace.plugins)
    tasks = [kind(workspace=workspace, **data) for kind, data in plain]
    if any("backbone" in task.config for task in tasks):
        from genrec_bench.running import generative

        generative.warm_up()  # takes seconds, in which a death is no run's fault
    walk(tasks, board, until=until)


@dataclass
class _Show:
    """Tells the user what the board and the folders of the tasks say."""

    tasks: Sequence[Any]
    board: Board
    bars: Bars
    _shown: dict[str, tuple[bool, int]] = field(default_factory=dict)  # whether it is ours, and steps so far
    _heard: int = 0

    def count(self) -> int:
        """How many tasks are done."""
        return sum(not error for error in self.board.ended().values())

    def look(self) -> None:
        """Tell what is new."""
        ended = self.board.ended()
        named = {task.key: task for task in self.tasks}
        for key in list(ended)[self._heard:]:
            self._end(named[key], ended[key])
        self._heard = len(ended)
        pids = {os.getpid(), *(process.pid for process in multiprocessing.active_children())}
        for task in (task for key, task in named.items() if key not in ended):
            now = told(task.folder)
            ours = now is not None and self.board.is_of(now, pids)
            if ours or (now is not None and is_held(task.folder)):
                self._under_way(task, now, ours)
            else:
                self._away(task.key)

    def _under_way(self, task: Any, now: dict[str, Any], ours: bool) -> None:
        if task.key not in self._shown or self._shown[task.key][0] != ours:
            self._away(task.key)
            self.bars.began(task.key, task.name if ours else f"{task.name} (another command)", task.STEP)
            if not ours:
                self.bars.say(f"{task.name}: under way in another command")
            self._shown[task.key] = (ours, 0)
        if now["done"] > self._shown[task.key][1]:
            self._shown[task.key] = (ours, now["done"])
            self.bars.step(task.key, now["done"], now["total"], now["note"])

    def _away(self, key: str) -> None:
        if self._shown.pop(key, None):
            self.bars.ended(key)

    def _end(self, task: Any, error: str) -> None:
        self._away(task.key)
        if not error:
            self.bars.finished(task.line())
            return
        log = task.folder / runner.FAILURE
        self.bars.say(f"FAILED  {task.name}: {error}" + (f" (log: {log})" if log.exists() else ""))
