"""What a run costs over all its sessions: seconds of processor time, and memory."""

from __future__ import annotations

import resource
import time
from typing import Any

from genrec_bench.core import memory


class Meter:
    """Counts from its making on, and goes on from what earlier sessions of the same run had cost.

    Seconds are processor time, of all threads and of children that have ended, so that a process that is stopped or
    waits for others costs nothing. device: on a GPU, whose time is no processor's, they are those of the clock.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._now = time.perf_counter if device.startswith("cuda") else _processor_seconds
        self._began = self._now()
        self._peak = 0

    def seconds(self) -> float:
        """Seconds so far, earlier sessions included."""
        return self._now() - self._began

    def peak_bytes(self) -> int:
        """The most memory that a session has held so far."""
        return max(self._peak, memory.peak_bytes())

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"seconds": self.seconds(), "peak_bytes": self.peak_bytes()}

    def go_on(self, state: dict[str, Any]) -> None:
        """Add what the sessions up to a checkpoint had cost, if the checkpoint says it."""
        self._began -= state.get("seconds", 0.0)
        self._peak = max(self._peak, state.get("peak_bytes", 0))


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
