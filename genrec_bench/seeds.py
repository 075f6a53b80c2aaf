"""Named seed streams: two runs that share a seed share every stream they both draw from."""

from __future__ import annotations

import hashlib


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one named stream of one run, e.g. `stream_seed(0, "batches", epoch)`.

    Streams in use: "init" (weights), "batches" (order), "dropout", "negatives", "tokenizer".
    Depends on nothing but its arguments, so that two objectives at one seed start from the same weights
    and see the same batches.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
