"""How much memory this process has held at most, and a rest for its collector."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def reset_peak() -> None:
    """Count the peak from now on, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    except OSError:
        pass


def peak_bytes() -> int:
    """The largest resident size since the last reset; since the process began where there is no /proc.

    VmHWM comes first: `ru_maxrss` knows no reset, and a child begins with at least its parent's.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    scale = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@contextmanager
def no_collection() -> Iterator[None]:
    """Without searches for cycles, which take most of the time where millions of objects are made and none is freed."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
