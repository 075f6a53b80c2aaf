"""What an item tokenizer is, what every one of them reports, and the cache of fitted semantic IDs."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genrec_bench.contracts import PREFIX_REMEDY, Interactions, SemanticIds, digest, prefix_pair
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical, write_atomically


@dataclass(frozen=True)
class Tokenizer:
    """Makes one semantic ID an item. `version` is raised when the same settings give other IDs."""

    version: ClassVar[int] = 1

    def fit(self, interactions: Interactions) -> SemanticIds:
        """Semantic IDs of all items, with a `table` from `describe`. Raises: UserError for data it cannot use."""
        raise NotImplementedError

    def depends_on(self) -> str:
        """What the IDs depend on besides settings and data, such as library versions; part of the cache's key."""
        return ""


def describe(codes: np.ndarray, codebook_sizes: tuple[int, ...]) -> dict[str, Any]:
    """What can be said about the codes of any tokenizer, as plain data for the record.

    codes: (I, T) counted from 0 at each level, -1 where a shorter ID has no code. utilisation: share of each
    level's codes that some item uses; prefixes: distinct prefixes of length 1..T; colliding_items: items that share
    their ID with another; largest_group: most items on one ID.
    """
    _, counts = np.unique(codes, axis=0, return_counts=True)
    levels = codes.shape[1]
    used = [np.unique(codes[codes[:, level] >= 0, level]).size for level in range(levels)]
    prefixes = [len(np.unique(codes[codes[:, level] >= 0, :level + 1], axis=0)) for level in range(levels)]
    return {
        "levels": levels,
        "codebook_sizes": [int(size) for size in codebook_sizes],
        "items": len(codes),
        "distinct_semantic_ids": len(counts),
        "colliding_items": int(counts[counts > 1].sum()),
        "largest_group": int(counts.max(initial=0)),
        "utilisation": [u / size if size else 0.0 for u, size in zip(used, codebook_sizes, strict=True)],
        "prefixes": prefixes,
    }


def positions_in_groups(codes: np.ndarray) -> np.ndarray:
    """(I,) position of each item among the items with equal codes, counted from 0 in item order."""
    _, group = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    ordered = group.ravel()[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ordered) > 0]))
    sizes = np.diff(np.append(starts, len(ordered)))
    positions = np.empty(len(codes), dtype=np.int64)
    positions[order] = np.arange(len(ordered)) - np.repeat(starts, sizes)
    return positions


def fit_cached(tokenizer: Tokenizer, interactions: Interactions, cache_dir: Path | None) -> SemanticIds:
    """Fit a tokenizer, or read what an equal fit on equal item data left in `cache_dir`.

    The file is named by the settings, the item texts and the given codes, so that nothing has to be invalidated;
    a damaged file is fitted again and replaced. cache_dir=None: always fit.
    Raises: UserError from `fit`, or naming two items where the ID of one is the beginning of the other's.
    """
    path = cache_dir and cache_dir / f"{tokenizer.name}-{_cache_key(tokenizer, interactions)[:16]}.npz"
    cached = path and _read(path, interactions.num_items)
    ids = cached or tokenizer.fit(interactions)
    pair = prefix_pair(ids.tokens)
    if pair is not None:
        a, b = (interactions.item_ids[row] for row in pair)
        raise UserError(f"dataset {interactions.name!r}, tokenizer {tokenizer.name!r}: the semantic ID of item {a!r} "
                        f"is the beginning of that of item {b!r}. {PREFIX_REMEDY}")
    if path and not cached:
        cache_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _pack(ids))
    return ids


def _cache_key(tokenizer: Tokenizer, interactions: Interactions) -> str:
    texts, codes = interactions.item_texts, interactions.given_codes
    return digest(canonical(registry.identity(tokenizer)), tokenizer.depends_on(), str(interactions.num_items),
                  "no texts" if texts is None else "texts", *(texts or ()),
                  "no codes" if codes is None else np.asarray(codes))


def _pack(ids: SemanticIds) -> bytes:
    buffer = io.BytesIO()
    table = np.frombuffer(json.dumps(dict(ids.table), sort_keys=True, allow_nan=False).encode(), dtype=np.uint8)
    np.savez_compressed(buffer, tokens=ids.tokens, codebook_sizes=np.array(ids.codebook_sizes, dtype=np.int64),
                        table=table)
    return buffer.getvalue()


def _read(path: Path, num_items: int) -> SemanticIds | None:
    """The cached IDs, or None where there is no whole file of them."""
    try:
        with np.load(path) as file:
            ids = SemanticIds(file["tokens"].astype(np.int64), tuple(int(s) for s in file["codebook_sizes"]),
                              json.loads(file["table"].tobytes().decode()))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return ids if ids.tokens.shape == (num_items, len(ids.codebook_sizes)) else None
