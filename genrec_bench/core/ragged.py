"""Lists of numbers of different lengths, held as views into one flat array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Ragged(Sequence[np.ndarray]):
    """Many lists: number n is `values[starts[n]:starts[n] + lengths[n]]`, a view.

    Lists may overlap and leave values out, so that the histories of a user's rows share the user's items. To be read
    like a tuple of arrays; a slice, a mask or an array of numbers picks lists and copies no values.
    """

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def __post_init__(self) -> None:
        """Read-only, as whoever changed a list would change every other one that holds the same values."""
        values = self.values.view()
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    @classmethod
    def of(cls, lists: Sequence[np.ndarray]) -> Ragged:
        """The same lists; those that are not a `Ragged` yet are copied behind each other."""
        if isinstance(lists, Ragged):
            return lists
        held = [one for one in lists if len(one)]  # an empty array has no type that matters
        return cls.behind(np.concatenate(held) if held else np.empty(0, dtype=np.int64), list(map(len, lists)))

    @classmethod
    def behind(cls, values: np.ndarray, lengths: Sequence[int] | np.ndarray) -> Ragged:
        """Lists that stand in `values` one behind the other."""
        lengths = np.asarray(lengths, dtype=np.int64)
        return cls(values, np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, which: int | slice | np.ndarray) -> np.ndarray | Ragged:
        start, length = self.starts[which], self.lengths[which]
        return Ragged(self.values, start, length) if np.ndim(start) else self.values[start:start + length]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.values[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True))

    @property
    def ends(self) -> np.ndarray:
        """(N,) where in `values` each list ends."""
        return self.starts + self.lengths

    @property
    def offsets(self) -> np.ndarray:
        """(N + 1,) where in `flat` each list begins, and the last one ends."""
        return np.append(0, np.cumsum(self.lengths))

    @property
    def rows(self) -> np.ndarray:
        """The number of the list that each entry of `flat` is of."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @cached_property
    def _is_flat(self) -> bool:
        return np.array_equal(self.starts[1:], self.ends[:-1])

    @property
    def flat(self) -> np.ndarray:
        """All lists one behind the other: a view where they stand so, else a copy."""
        if not len(self):
            return self.values[:0]
        return self.values[self.starts[0]:self.ends[-1]] if self._is_flat else self.values[ranges(self.starts,
                                                                                                  self.lengths)]

    def blocks(self, size: int = 2**18) -> Iterator[np.ndarray]:
        """`flat` in pieces of some lists each, so that it is never held as a whole."""
        for first in range(0, len(self), size):
            yield self[first:first + size].flat

    def holds(self, wanted: np.ndarray) -> np.ndarray:
        """(N,) bool, whether each list holds the value that is wanted of it."""
        rows = self.rows
        return np.bincount(rows[self.flat == np.asarray(wanted)[rows]], minlength=len(self)) > 0


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start + 1, ... (count numbers) for each pair, one behind the other."""
    return np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
