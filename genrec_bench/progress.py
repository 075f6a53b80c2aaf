"""Progress bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys

from tqdm import tqdm


class Bars:
    """Bars with ETA: runs of the grid, epochs of each run under way. Outside a terminal one line a finished run."""

    def __init__(self, total: int, done: int) -> None:
        self.terminal = sys.stderr.isatty()
        self._grid = tqdm(total=total, initial=done, desc="runs", unit="run", position=0, disable=not self.terminal)
        self._runs: dict[str, tqdm] = {}

    def began(self, key: str, name: str) -> None:
        """Show one run, by a key of the caller's."""
        taken = {bar.pos for bar in self._runs.values()}
        position = next(n for n in range(1, len(taken) + 2) if -n not in taken)
        self._runs[key] = tqdm(desc=name, unit="epoch", position=position, leave=False, disable=not self.terminal)

    def ended(self, key: str) -> None:
        """Take one run's bar away."""
        self._runs.pop(key).close()

    def step(self, key: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` epochs of a run are over."""
        bar = self._runs.get(key)
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
        for bar in self._runs.values():
            bar.close()
        self._grid.close()


class One:
    """The progress of one run among the bars."""

    def __init__(self, bars: Bars, key: str) -> None:
        self.bars, self.key = bars, key

    def step(self, done: int, total: int, note: str = "") -> None:
        """Pass it on."""
        self.bars.step(self.key, done, total, note)


class Quiet:
    """A progress that tells nobody."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """Nothing."""
