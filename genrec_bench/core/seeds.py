"""Named seed streams: two runs that share a seed share every stream they both draw from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from numbers import Integral
from typing import Any

from genrec_bench.core.errors import UserError

MAX_SEED = 2**63 - 1  # tables hold seeds as 64-bit integers; the streams below would take any number
TUNING_SEED = 27_182_818  # of the trials of `tune`, and of nothing else: a result is of a seed that chose nothing


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one named stream of one run, e.g. `stream_seed(0, "batches", epoch)`.

    Streams in use: "init" (weights), "batches" (order), "dropout", "negatives", "tokenizer", "validation users".
    Depends on nothing but its arguments, so that two objectives at one seed start from the same weights
    and see the same batches.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def check_seeds(values: Iterable[Any], where: str) -> tuple[int, ...]:
    """Seeds as whole numbers, from numbers or their decimal digits.

    where: the beginning of an error, such as "--seeds". Raises: UserError for anything but 0..MAX_SEED, and for the
    seed of trials.
    """
    values = tuple(values)
    wrong = [v for v in values if not _is_seed(v)]
    if wrong or not values:
        got = ", ".join(str(v)[:40] for v in wrong) or "nothing"
        raise UserError(f"{where} takes whole numbers from 0 to {MAX_SEED}, such as 0,1,2; got {got}.")
    seeds = tuple(int(v) for v in values)
    if TUNING_SEED in seeds:
        raise UserError(f"{where}: {TUNING_SEED} is the seed of the trials of `tune`, which no result may have. Take "
                        "another one.")
    return seeds


def _is_seed(value: Any) -> bool:
    if isinstance(value, str):  # digits are counted first: Python refuses to read numbers of thousands of them
        return value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_SEED)) and int(value) <= MAX_SEED
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= value <= MAX_SEED
