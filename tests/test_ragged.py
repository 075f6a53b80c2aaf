"""Lists as views into one array, against lists made one by one."""

from __future__ import annotations

import numpy as np

from genrec_bench.contracts import digest
from genrec_bench.core.ragged import Ragged


def test_lists_of_different_lengths_equal_a_loop() -> None:
    random = np.random.default_rng(0)
    values, starts, lengths = random.integers(0, 9, 50), random.integers(0, 40, 12), random.integers(0, 9, 12)
    lists, plain = Ragged(values, starts, lengths), [values[a:a + n] for a, n in zip(starts, lengths, strict=True)]
    for which in (slice(3, 9), lengths > 3, np.array([5, 5, 0]), slice(0, 0)):
        picked = [plain[n] for n in np.arange(12)[which]]
        held = lists[which]
        assert list(map(list, held)) == list(map(list, picked)) == [list(held[n]) for n in range(len(held))]
        flat = [value for one in picked for value in one]
        assert held.flat.tolist() == flat == [v for block in held.blocks(2) for v in block]
        assert held.rows.tolist() == [n for n, one in enumerate(picked) for _ in one]
        assert held.offsets.tolist() == [sum(map(len, picked[:n])) for n in range(len(picked) + 1)]
        assert held.holds(np.full(len(held), 4)).tolist() == [4 in one for one in picked]
        assert digest(held) == digest(np.array(flat, dtype=np.int64))
        assert list(map(list, Ragged.of(tuple(picked)))) == list(map(list, picked))
    assert len(lists[lengths > 99]) == 0 and Ragged.of(()).flat.dtype == np.int64
