"""Progress bars on a terminal, lines elsewhere, and on both a line about a run that has been silent for long."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass

from tqdm import tqdm

LINE_SECONDS = 60.0  # outside a terminal a line a step, but not more than one a minute
SILENT_SECONDS = 600.0


@dataclass
class _Run:
    """A run under way. told, heard: when its last line was written and its last step ended; patience: seconds."""

    name: str
    unit: str
    bar: tqdm
    told: float
    heard: float
    patience: float
    last: str = "its start"


class Bars:
    """Bars with ETA: runs of the grid, steps of each run under way. Outside a terminal lines."""

    def __init__(self, total: int, done: int) -> None:
        self.terminal = sys.stderr.isatty()
        self._grid = tqdm(total=total, initial=done, desc="runs", unit="run", position=0, disable=not self.terminal)
        self._runs: dict[str, _Run] = {}
        self._closed = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def began(self, key: str, name: str, unit: str) -> None:
        """Show one run, by a key of the caller's. unit: what its steps are, such as "epoch"."""
        taken = {run.bar.pos for run in self._runs.values()}
        position = next(n for n in range(1, len(taken) + 2) if -n not in taken)
        bar = tqdm(desc=name, unit=unit, position=position, leave=False, disable=not self.terminal)
        now = time.monotonic()
        self._runs[key] = _Run(name, unit, bar, now, now, SILENT_SECONDS)
        if self._listener.ident is None:
            self._listener.start()

    def ended(self, key: str) -> None:
        """Take one run's bar away."""
        self._runs.pop(key).bar.close()

    def step(self, key: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of a run are over."""
        run = self._runs.get(key)
        if run is None:
            return
        run.heard, run.patience, run.last = time.monotonic(), SILENT_SECONDS, f"{run.unit} {done} of {total}"
        if not self.terminal:
            if run.heard - run.told >= LINE_SECONDS:
                run.told = run.heard
                self.say(f"{run.name}: {run.last}" + (f", {note}" if note else ""))
            return
        bar = run.bar
        bar.total = total
        if bar.n == 0 and done > 1:  # a resumed run: the steps before this one cost no time now
            bar.initial = done - 1
        bar.set_postfix_str(note, refresh=False)
        bar.n = done
        bar.refresh()

    def _listen(self) -> None:
        """Report runs that have been silent for long, again after twice the time."""
        while not self._closed.wait(SILENT_SECONDS / 10):
            for run in list(self._runs.values()):
                silent = time.monotonic() - run.heard
                if silent >= run.patience:
                    run.patience *= 2
                    self.say(f"{run.name}: nothing for {silent / 60:.0f} minutes, since {run.last}. It is slow, or it "
                             "hangs.")

    def finished(self, text: str) -> None:
        """One run of the grid is over."""
        self.say(text)
        self._grid.update(1)

    def say(self, text: str) -> None:
        """A line that does not disturb the bars."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Take the bars away."""
        self._closed.set()
        for run in self._runs.values():
            run.bar.close()
        self._grid.close()


class Quiet:
    """A progress that tells nobody."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """Nothing."""
