"""Backbones that are nothing but tables of logits, and plain Python that scores every prefix with them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from genrec_bench.contracts import EOS, PAD

Prefix = tuple[int, ...]
LEVELS, TOKENS = 3, 5
VOCAB = 2 + LEVELS * TOKENS


class Table:
    """A backbone of float64 logits per (user, prefix); user = first token of the history."""

    def __init__(self, row: Callable[[int, Prefix], list[float]]) -> None:
        self.row, self.known = row, {}

    def logits(self, user: int, prefix: Prefix) -> list[float]:
        if (user, prefix) not in self.known:
            self.known[user, prefix] = self.row(user, prefix)
        return self.known[user, prefix]

    def token_logits(self, histories: Tensor, candidates: Tensor) -> Tensor:
        rows = [[[self.logits(int(history[0]), tuple(codes[:t])) for t in range(len(codes))] for codes in user]
                for history, user in zip(histories, candidates.tolist(), strict=True)]
        return torch.tensor(rows, dtype=torch.float64)


def random_table(seed: int, spread: float = 1.0, impossible: float = 0.0) -> Table:
    """Normal logits for any prefix; a share of them is -inf."""

    def row(user: int, prefix: Prefix) -> list[float]:
        random = np.random.default_rng([seed, user, *prefix])
        values = spread * random.normal(size=VOCAB)
        return np.where(random.random(VOCAB) < impossible, -math.inf, values).tolist()

    return Table(row)


def whole_table(seed: int) -> Table:
    """Logits 0, 1 and 2, but 64 for a token that no item has: log-probabilities over the whole vocabulary are whole
    numbers in float64, so that sums that tie on paper tie exactly."""

    def row(user: int, prefix: Prefix) -> list[float]:
        values = np.random.default_rng([seed, user, *prefix]).integers(0, 3, VOCAB).astype(float)
        values[1] = 64.0
        return values.tolist()

    return Table(row)


def ragged_codes(seed: int, rows: int = 40) -> np.ndarray:
    """Random IDs of unequal length with collisions and single-child chains; each level has its own tokens."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, TOKENS, size=(rows, LEVELS))
    codes[0] = 2, 3, 4
    codes[: rows // 4, 1:] = codes[0, 1:]
    codes[-3:] = codes[0]
    return ending(codes + 2 + TOKENS * np.arange(LEVELS), codes < 2)


def ending(codes: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Codes cut behind their first token that `ends`: where equal tokens do, no row is the beginning of another."""
    goes_on = np.cumsum(ends, axis=1) - ends == 0
    return np.where(goes_on, codes, PAD)


def with_eos(codes: np.ndarray) -> np.ndarray:
    """Codes with EOS behind each row's last token, PAD behind it."""
    rows = [[*(t for t in row if t != PAD), EOS] for row in codes.tolist()]
    return np.array([row + [PAD] * (codes.shape[1] + 1 - len(row)) for row in rows])


def histories(users: int) -> Tensor:
    return torch.arange(2, 2 + users)[:, None]


def prefixes(codes: np.ndarray, length: int) -> list[Prefix]:
    """Distinct prefixes of this many tokens in the trie's order, PAD where the ID has ended."""
    return sorted({tuple(row) for row in codes[:, :length].tolist()})


def prefix_scores(table: Table, user: int, codes: np.ndarray, normaliser: str) -> dict[Prefix, float]:
    """Summed log-probability of every prefix, by walking down to each on its own."""
    valid: dict[Prefix, set[int]] = {}
    for row in codes.tolist():
        for t, token in enumerate(row):
            if token != PAD:
                valid.setdefault(tuple(row[:t]), set()).add(token)
    found = {(): 0.0}
    for length in range(1, codes.shape[1] + 1):
        for prefix in prefixes(codes, length):
            before = found[prefix[:-1]]
            found[prefix] = before
            if prefix[-1] != PAD:
                logits = table.logits(user, prefix[:-1])
                over = logits if normaliser == "flat" else [logits[t] for t in valid[prefix[:-1]]]
                total = sum(math.exp(z) for z in over)
                step = logits[prefix[-1]] - math.log(total) if total else -math.inf
                found[prefix] = before + step if before > -math.inf else -math.inf
    return found


def place(scores: dict[Prefix, float], prefix: Prefix) -> int:
    """1 + the number of prefixes of the same length with a greater score; differences of rounding do not count."""
    return 1 + sum(s > scores[prefix] + 1e-9 for p, s in scores.items() if len(p) == len(prefix))
