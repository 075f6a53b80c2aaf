"""THE scheduler: every process walks the same list of tasks and does the next one that nobody else is doing.

There is no queue and no pipe. The files that a task leaves say that it is done, the lock of its folder says that
somebody does it, and a small file in that folder says how far it is. So processes of another command on the same folder
are more walkers.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from genrec_bench.core.ending import children
from genrec_bench.core.errors import UserError, first_line
from genrec_bench.core.files import write_atomically

LOCK, TOLD = "lock", "progress.json"
POLL_SECONDS = 0.2
MOST_DEATHS = 3  # of walkers in one task, without a step between them, before the task counts as failed
MOST_EARLY_DEATHS = 30  # of walkers that had begun no task


class Busy(UserError):
    """Another process holds the lock."""


class TimeUp(KeyboardInterrupt):
    """The limit of time is reached: a task under way stops between two steps."""


class Task(Protocol):
    """One thing to do, such as a run. key: its name, fit for a file's; uses: keys of tasks that have to be done first,
    where they are in the list; folder: its own, which holds its lock and how far it is.
    """

    key: str
    uses: Sequence[str]

    @property
    def folder(self) -> Path:
        """Made where it is not there."""

    def done(self) -> bool:
        """Whether there is nothing left to do, whoever did it."""

    def needs(self) -> float | None:
        """Seconds to the next thing that stays when it is stopped; None = nothing is known."""

    def run(self, tell: Told) -> None:
        """Do it; `tell.step` after each step, where it may be stopped. Called with the lock held."""

    def gave_up(self, why: str) -> None:
        """Note that it has failed because processes died in it."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if needed and removed if left empty. Raises: Busy."""
    folder.mkdir(parents=True, exist_ok=True)
    busy = Busy(f"run {folder.name} is being made by another process in {folder}. Wait for it, or choose other runs "
                "or another --results for this one.")
    path = folder / LOCK
    try:
        file = open(path, "wb")  # noqa: SIM115  closed below
    except FileNotFoundError:  # its last holder has just taken the folder away
        raise busy from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = path.stat().st_ino == os.fstat(file.fileno()).st_ino  # not what its last holder has just deleted
        except OSError:
            mine = False
        if not mine:
            raise busy
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()


def is_held(folder: Path) -> bool:
    """Whether a process, of this machine or another, holds the lock of a folder."""
    try:
        with open(folder / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class Told:
    """The progress of a task, in a file that every process can read."""

    def __init__(self, folder: Path, look: Callable[[], None], until: float) -> None:
        self.path, self.look, self.until = folder / TOLD, look, until
        self.began = self.last = time.time()
        self.first = 0.0  # seconds to the end of the first step, which has what comes before all steps in it
        self._write(0, 0, "")

    def step(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps are over. Raises: TimeUp where another one like the last would take too long."""
        self.first = self.first or time.time() - self.began
        self._write(done, total, note)
        now = time.time()
        seconds, self.last = now - self.last, now
        if done < total and now + seconds > self.until:
            raise TimeUp

    def _write(self, done: int, total: int, note: str) -> None:
        now = time.time()
        told = {"pid": os.getpid(), "time": now, "done": done, "total": total, "note": note,
                "seconds": now - self.began, "first": self.first}
        write_atomically(self.path, json.dumps(told).encode())
        self.look()


def told(folder: Path) -> dict[str, Any] | None:
    """What a task last said, which one that was stopped has left: pid, time, done, total, note, seconds, first."""
    try:
        return json.loads((folder / TOLD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def whole_time(folder: Path) -> float | None:
    """Seconds that a task takes from its start, by its steps before it was stopped; None = nothing is known."""
    before = told(folder)
    if not before or before["done"] < 2:
        return None
    first = before.get("first", 0.0)
    return first + (before["seconds"] - first) / (before["done"] - 1) * (before["total"] - 1)


@dataclass
class Board:
    """How the tasks of one command ended, known to all its walkers: a file a task, with the error or empty."""

    folder: Path
    since: float = field(default_factory=time.time)
    _known: dict[str, str] = field(default_factory=dict, repr=False)

    def is_of(self, said: dict[str, Any], pids: Container[int | None]) -> bool:
        """Whether what a task said comes from one of these processes of this command."""
        return said["pid"] in pids and said["time"] >= self.since

    def ended(self) -> dict[str, str]:
        """{key: error, or "" where it is done}, in the order of their ends."""
        new = [path for path in self.folder.iterdir() if path.name[0] != "." and path.name not in self._known]
        self._known |= {p.name: p.read_text(encoding="utf-8") for p in sorted(new, key=lambda p: p.stat().st_mtime_ns)}
        return self._known

    def write(self, key: str, error: str = "") -> None:
        """A task is over."""
        write_atomically(self.folder / key, error.encode())


def walk(tasks: Sequence[Task], board: Board, look: Callable[[], None] = lambda: None, until: float = inf) -> None:
    """Do what nobody else does until every task is done, has failed, is impossible, or would end after `until`.

    A task that raises has failed and is not tried again; what uses it is impossible. look: called whenever something
    may have changed.
    """
    left = {task.key: task for task in tasks}
    names = set(left)
    while left:
        if not _next(left, names, board, look, until) and left:
            time.sleep(POLL_SECONDS)
        look()


def _next(left: dict[str, Task], names: set[str], board: Board, look: Callable[[], None], until: float) -> bool:
    """Do the first task that can begin, and remove what is over from `left`; False if nothing can begin now."""
    for key, task in list(left.items()):
        ended = board.ended()
        if key in ended:
            del left[key]
            continue
        lost = next((use for use in task.uses if ended.get(use)), None)
        if lost is not None:
            board.write(key, f"not possible, for it uses run {lost}, which failed: {ended[lost]}")
            continue
        waits = [use for use in task.uses if use in names and use not in ended]
        if waits:
            if not any(use in left for use in waits):  # they would end too late
                del left[key]
            continue
        try:
            if until < inf and not is_held(task.folder) and not (task.done() or _fits(task, until)):
                del left[key]
                continue
            with alone(task.folder):
                tell = Told(task.folder, look, until)  # at once, so that no other's word passes for the holder's
                if not task.done():
                    task.run(tell)
                tell.path.unlink(missing_ok=True)
            board.write(key)
        except Busy:
            if time.time() > until:
                del left[key]
            continue
        except TimeUp:
            del left[key]
        except Exception as error:  # noqa: BLE001  one broken task must not cost the others
            board.write(key, first_line(error))
        return True
    return False


def _fits(task: Task, until: float) -> bool:
    """Whether the next thing that stays comes before `until`; where nothing is known, whether there is time at all."""
    seconds = until - time.time()
    return seconds > 0 and (task.needs() or 0.0) <= seconds


def crew(tasks: Sequence[Task], board: Board, start: Callable[[int], BaseProcess], count: int,
         look: Callable[[], None], say: Callable[[str], None]) -> None:
    """Let `count` processes walk the list until they have finished, and replace one that dies.

    start: start a walker by its number, from 0. A task in which walkers die again and again has failed.
    Raises: UserError where walkers end before they begin; KeyboardInterrupt after ending all.
    """
    deaths: dict[str, list[int]] = {}  # of a task: how many, and how far it was
    with children() as walkers:
        walkers |= {number: start(number) for number in range(count)}
        while walkers:
            wait([walker.sentinel for walker in walkers.values()], POLL_SECONDS)
            look()
            for number, walker in [(n, w) for n, w in walkers.items() if not w.is_alive()]:
                del walkers[number]
                if walker.exitcode == 0:
                    continue
                why = _death(walker.exitcode)
                if _gives_up(tasks, board, walker, why, deaths):
                    if not walkers:
                        raise UserError(f"no process began a run: {why}.")
                    continue
                say(f"a process is replaced: {why}.")
                walkers[number] = start(number)
        look()


def _gives_up(tasks: Sequence[Task], board: Board, walker: BaseProcess, why: str, deaths: dict[str, list[int]]) -> bool:
    """Count the death of a walker, and fail its task if that was one death too many.

    Returns whether walkers die without any task, so that another would too.
    """
    had = next((t for t in tasks if t.key not in board.ended() and (now := told(t.folder))
                and board.is_of(now, [walker.pid])), None)
    done = told(had.folder)["done"] if had else 0
    known = deaths.setdefault(had.key if had else "", [0, 0])
    known[:] = [1, done] if done > known[1] else [known[0] + 1, known[1]]
    if had is None:
        return 0 < walker.exitcode < 128 or known[0] > MOST_EARLY_DEATHS  # an error at its start comes again
    if known[0] >= MOST_DEATHS:
        why = f"{known[0]} processes ended in it, none of them farther than one before; of the last one: {why}"
        had.gave_up(why)
        board.write(had.key, why)
    return False


def _death(code: int) -> str:
    """How a process ended, for one that left no word of it."""
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}; where that was for want of memory, lower --jobs"
    return f"it ended with code {code}; what it had to say is above"


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may use: those of its mask or, where a container has a quota, as many whole ones.

    cgroup: where the quota is told, in the second or the first form of Linux.
    """
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal() and period.isdecimal():  # "max" and -1: no quota
            return max(1, min(mask, int(quota) // max(1, int(period))))
    return mask
