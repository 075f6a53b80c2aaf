"""Several runs at a time, each in a process of its own with its own threads."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from genrec_bench.core.ending import begin_child, raise_ended
from genrec_bench.experiments.config import from_dict
from genrec_bench.running.plugin_file import load_plugins
from genrec_bench.running.runner import Prepared, Workspace, run_one

STEP, DONE, FAILED = "step", "done", "failed"
FIRST_FAILED = "its first stage failed"


@dataclass
class Events:
    """What the caller wants to hear: a run began, passed an epoch, is over (with its error, or None)."""

    began: Callable[[Prepared], None]
    step: Callable[[Prepared, int, int, str], None]
    ended: Callable[[Prepared, str | None], None]


@dataclass
class _Worker:
    process: Any
    connection: Connection
    item: Prepared | None = None


@dataclass
class _Queue:
    """Runs in order; one whose first stage is still to come or under way waits for it."""

    items: list[Prepared]
    open: set[str] = field(init=False)
    failed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.open = {item.run_id for item in self.items}

    def take(self) -> Prepared | None:
        """The first run that may start, or None."""
        for number, item in enumerate(self.items):
            if not any(used.run_id in self.open for used in item.before):
                return self.items.pop(number)
        return None

    def over(self, item: Prepared, error: str | None) -> None:
        """A run has ended, well or not."""
        self.open.discard(item.run_id)
        if error is not None:
            self.failed.add(item.run_id)

    def lost(self) -> list[Prepared]:
        """Take out the runs whose first stage has failed."""
        lost = [item for item in self.items if any(used.run_id in self.failed for used in item.before)]
        self.items = [item for item in self.items if item not in lost]
        return lost


def run_parallel(items: list[Prepared], workspace: Workspace, jobs: int, events: Events,
                 again: Set[str] = frozenset()) -> None:
    """Run all items, `jobs` at a time; a failed run does not stop the others, nor does a process that dies. again:
    names of finished runs among them that are made again for their weights.

    Every process reads the data and tokenizers itself, so that a run's numbers are those it has alone. Raises:
    KeyboardInterrupt after ending all processes.
    """
    queue = _Queue(list(items))
    bare = dataclasses.replace(workspace, _interactions={}, _splits={}, _ids={})
    with _workers() as workers:
        while True:
            while len(workers) < min(jobs, sum(w.item is not None for w in workers) + len(queue.items)):
                workers.append(_start(bare))
            for worker in workers:
                if worker.item is None and (item := queue.take()) is not None:
                    worker.item = item
                    events.began(item)
                    _give(worker, item, item.run_id in again)
            busy = {worker.connection: worker for worker in workers if worker.item is not None}
            if not busy:
                return
            for connection in wait(list(busy)):
                if not _hear(busy[connection], queue, events):
                    workers.remove(busy[connection])


def _give(worker: _Worker, item: Prepared, weights: bool) -> None:
    try:
        worker.connection.send((item.config.to_dict(), weights))
    except OSError:  # it has died: whoever listens to it finds that out
        pass


def _hear(worker: _Worker, queue: _Queue, events: Events) -> bool:
    """Take what a worker says; False where it has died, which costs the run that it had."""
    alive = True
    try:
        kind, *rest = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        alive, kind, rest = False, FAILED, [_death(worker.process.exitcode)]
    if kind == STEP:
        events.step(worker.item, *rest)
        return alive
    item, worker.item = worker.item, None
    error = rest[0] if kind == FAILED else None
    queue.over(item, error)
    events.ended(item, error)
    for other in queue.lost():
        events.began(other)
        events.ended(other, FIRST_FAILED)
    return alive


def _death(code: int) -> str:
    """How a process ended that did not say so itself."""
    if code < 0:
        return (f"its process was ended by {signal.Signals(-code).name}; where that was for want of memory, lower "
                "--jobs. The same command goes on with it")
    return f"its process ended with code {code}; what it had to say is above"


def _start(workspace: Workspace) -> _Worker:
    """A fresh process (spawned, so that nothing is inherited)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, workspace, os.getpid()), daemon=False)
    with _deaf():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _workers() -> Iterator[list[_Worker]]:
    """A list for workers, which are ended on the way out."""
    workers: list[_Worker] = []
    try:
        yield workers
    finally:
        for worker in workers:
            if worker.item is not None and worker.process.is_alive():
                worker.process.terminate()
            worker.connection.close()
        for worker in workers:
            worker.process.join()


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started inside ignores Ctrl-C from its first moment, as `begin_child` goes on doing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, workspace: Workspace, parent: int) -> None:
    """A process's life: run what is sent until nothing comes any more."""
    begin_child(parent, on_sigterm=raise_ended)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(workspace.threads)
    try:
        load_plugins(workspace.plugins)
        while True:
            connection.send(_run(*connection.recv(), connection, workspace))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _run(config: dict[str, Any], weights: bool, connection: Connection, workspace: Workspace) -> tuple[str, ...]:
    try:
        run_one(workspace.prepare(from_dict(config)), workspace, _Sender(connection), weights=weights)
    except Exception as error:  # noqa: BLE001  told to the parent; the run's folder has the whole story
        lines = str(error).strip().splitlines()
        return (FAILED, lines[0] if lines else type(error).__name__)
    return (DONE,)


@dataclass(frozen=True)
class _Sender:
    """A progress that tells the parent."""

    connection: Connection

    def step(self, done: int, total: int, note: str = "") -> None:
        """Send one epoch's news; an orphan ends like an interrupted run."""
        try:
            self.connection.send((STEP, done, total, note))
        except OSError:
            raise KeyboardInterrupt from None
