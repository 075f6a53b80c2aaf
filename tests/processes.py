"""What tests ask about processes, which they look up in /proc."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def until(holds: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _state(pid: int | str) -> list[str]:
    """State, parent, group, session and more of a process; ["X"] where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return ["X"]


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    return _state(pid)[0] not in "ZX"


def processes_of(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    states = {int(path.name): _state(path.name) for path in Path("/proc").glob("[0-9]*")}
    return [pid for pid, state in states.items() if state[0] not in "ZX" and int(state[3]) == session]
