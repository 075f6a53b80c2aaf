"""Progress bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


class Bars:
    """Two bars with ETA: runs of the grid, epochs of the run. Outside a terminal one line a finished run."""

    def __init__(self, total: int, done: int) -> None:
        self.terminal = sys.stderr.isatty()
        self._grid = tqdm(total=total, initial=done, desc="runs", unit="run", position=0, disable=not self.terminal)
        self._run: tqdm | None = None

    @contextmanager
    def run(self, name: str) -> Iterator[Bars]:
        """Show one run while it lasts."""
        self._run = tqdm(desc=name, unit="epoch", position=1, leave=False, disable=not self.terminal)
        try:
            yield self
        finally:
            self._run.close()
            self._run = None

    def step(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` epochs of the current run are over."""
        bar = self._run
        if bar is None or bar.disable:
            return
        bar.total = total
        if bar.n == 0 and done > 1:  # a resumed run: the epochs before this one cost no time now
            bar.initial = done - 1
        bar.set_postfix_str(note, refresh=False)
        bar.n = done
        bar.refresh()

    def finished(self, text: str) -> None:
        """One run of the grid is over."""
        self.say(text)
        self._grid.update(1)

    def say(self, text: str) -> None:
        """A line that does not disturb the bars."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Take the bars away."""
        self._grid.close()


class Quiet:
    """A progress that tells nobody."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """Nothing."""
