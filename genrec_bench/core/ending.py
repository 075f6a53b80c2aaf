"""How our processes begin and end: a child ends soon after its parent, and a command by a signal as by Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

POLL_SECONDS = 0.5


class Ended(KeyboardInterrupt):
    """A signal that does what Ctrl-C does, with its own exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_code(stopped: KeyboardInterrupt) -> int:
    """128 and the number of the signal, as a shell has it; 130 for Ctrl-C."""
    return 128 + getattr(stopped, "number", signal.SIGINT)


def raise_ended(number: int, frame: Any) -> None:
    """The handler: breaks off what the main thread does, so that it can tidy up."""
    raise Ended(number)


@contextmanager
def signals_as_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Ended` in here, except one that is not at its default, as SIGHUP under nohup."""
    changed = []
    if threading.current_thread() is threading.main_thread():
        changed = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, raise_ended)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def children() -> Iterator[dict[int, BaseProcess]]:
    """A dict for processes, which are ended on the way out."""
    processes: dict[int, BaseProcess] = {}
    try:
        yield processes
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def start_child(method: str, target: Callable[..., None], *args: Any) -> BaseProcess:
    """Start `target(*args)` in a new process, which SIGTERM breaks off; method: "spawn" or "fork".

    It ignores Ctrl-C from its first moment, as `begin_child` goes on doing.
    """
    process = multiprocessing.get_context(method).Process(target=_child, args=(os.getpid(), target, *args))
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        process.start()
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    return process


def _child(parent: int, target: Callable[..., None], *args: Any) -> None:
    begin_child(parent, on_sigterm=raise_ended)
    try:
        target(*args)
    except KeyboardInterrupt as stopped:
        sys.exit(exit_code(stopped))


def begin_child(parent: int, *, on_sigterm: Any = signal.SIG_DFL) -> None:
    """The first thing that every child process of ours does: it ends soon after its parent, whatever ended that.

    parent: the parent's process id, which the parent gives, for it may be dead by now. What a terminal sends to a
    whole group, Ctrl-C and SIGHUP, is the parent's to answer; it ends its children by SIGTERM.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_sigterm)
    threading.Thread(target=_outlive_nobody, args=(parent,), daemon=True).start()


def _outlive_nobody(parent: int) -> None:
    """Ask for the parent: a pipe does not do, because forked children inherit each other's ends of pipes."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)
