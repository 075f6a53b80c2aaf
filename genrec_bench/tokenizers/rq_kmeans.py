"""Residual k-means on features of the item texts, after OneRec (arXiv 2502.18965) and APAO 5.1.2."""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import tokenizers
from genrec_bench.core.seeds import stream_seed
from genrec_bench.core.settings import setting
from genrec_bench.core.texts import encoded, one_thread, reduced, tfidf, unit_length
from genrec_bench.tokenizers.base import Tokenizer, describe, positions_in_groups

MOST_SINGLE = 0.9  # share of words in one text only from which on a note is printed
MOST_COLLIDING = 0.5  # share of items with the codes of others from which on a note is printed
IDS_AN_ITEM = 16  # what codebooks should have room for; papers' 3 levels of 256 codes have that up to 10^6 items
MANY = 200_000  # items beyond which a fit on all of them takes minutes


@tokenizers.register("rq_kmeans")
@dataclass(frozen=True)
class RQKMeans(Tokenizer):
    """k-means on the features, then on what each level leaves over; optionally a last level that counts collisions.

    Features are scaled to unit length (an item without text is the zero vector); residuals are not scaled. A level
    with fewer distinct residuals than `codebook_size` gets one code for each of them. `deduplicate` appends one
    level at a fixed depth: the item's position, in item order, among the items with the same codes. With `fit_items`
    each level's k-means runs on a sample of items, the same for all levels; every item gets the nearest centre and
    leaves over what the mean of its cluster's items does not explain, as without a sample.
    With tfidf_svd, equal IDs on one machine whatever the thread count, because the fit runs in one thread; other
    processors may round differently, so a run is named by the IDs themselves too.
    Differs from the paper: APAO embeds texts with Llama-3.1-8B and says nothing of the settings of k-means or of
    collisions; ours are TF-IDF and a truncated SVD by default, with a level that counts collisions.
    """

    levels: int = setting(3, "levels of residual k-means (OneRec, TIGER and GRID: 3; APAO: 4)", low=1)
    codebook_size: int = setting(64, "codes a level; papers use 256 for 10,000 items and more", low=2)
    features: str = setting("tfidf_svd", "where vectors come from", choices=("tfidf_svd", "sentence_transformer"))
    dimensions: int = setting(64, "components of the truncated SVD; not used by sentence_transformer", low=1)
    model: str = setting("", "sentence_transformer only: folder or hub name of the text encoder")
    deduplicate: bool = setting(True, "append a level that makes every semantic ID unique")
    restarts: int = setting(4, "k-means runs a level, of which the best counts", low=1)
    fit_items: int = setting(0, "items that k-means runs on, drawn by `seed`, for large catalogues; 0 = all", low=0)
    seed: int = setting(0, "seed of the tokenizer's own stream, so that all run seeds share the same IDs", low=0)

    def fit(self, interactions: Interactions) -> SemanticIds:
        """Codes of all items. Raises: UserError for data without item texts, or a sample of fewer items than codes."""
        if 0 < self.fit_items < self.codebook_size:
            raise UserError(f"tokenizer rq_kmeans: fit_items = {self.fit_items} must be 0 (all items) or at least "
                            f"codebook_size = {self.codebook_size}.")
        texts = interactions.item_texts
        if texts is None or not any(text.strip() for text in texts):
            raise UserError(f"dataset {interactions.name!r} has no item texts, which tokenizer 'rq_kmeans' clusters. "
                            "Use tokenizer 'given' with an index file, add texts to the dataset, or run the "
                            "baselines alone: --objectives none.")
        given = encoded(texts, self.model, "tokenizer rq_kmeans.features = 'sentence_transformer'", "rq_kmeans.model") \
            if self.features == "sentence_transformer" else None
        with one_thread("tokenizer 'rq_kmeans'"):
            features, about = self._tfidf(texts) if given is None else (given, {})
            vectors = unit_length(features, texts)
            if len(vectors) > MANY and not self.fit_items:
                _note(f"k-means on {len(vectors)} items takes minutes; fit_items = 100000 fits it on a sample of them.")
            codes, sizes, errors = self._quantise(vectors)
        before = describe(codes, tuple(sizes))
        self._note_collisions(before)
        if self.deduplicate:
            positions = positions_in_groups(codes)
            codes = np.column_stack([codes, positions])
            sizes.append(int(positions.max()) + 1)
        table = describe(codes, tuple(sizes))
        table["reconstruction_error"] = errors
        table["collisions_before_deduplication"] = {
            k: before[k] for k in ("distinct_semantic_ids", "colliding_items", "largest_group")}
        table |= {**about, "feature_dimensions": vectors.shape[1]}
        if self.fit_items:
            table["fitted_items"] = min(self.fit_items, len(vectors))
        table["items_without_text"] = sum(not text.strip() for text in texts)
        return SemanticIds.from_codes(codes, tuple(sizes), table)

    def depends_on(self) -> str:
        """Versions of what fits and splits words, and name, size and time of a local text encoder's files."""
        names = ["numpy", "scipy", "scikit-learn"]
        if self.features == "sentence_transformer":
            names += ["torch", "transformers", "sentence-transformers"]
        parts = [f"{name}=={_version(name)}" for name in names] + ["words 2"]
        folder = Path(self.model).expanduser()
        if self.features == "sentence_transformer" and folder.is_dir():
            stats = [(str(p.relative_to(folder)), p.stat()) for p in sorted(folder.rglob("*")) if p.is_file()]
            parts += [f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats]
        return " ".join(parts)

    def _tfidf(self, texts: tuple[str, ...]) -> tuple[np.ndarray, dict[str, int]]:
        """Features of the texts, and how many words there are and occur in one text only."""
        counts = tfidf(texts, "tokenizer 'rq_kmeans'", sublinear_tf=True)
        single = int((np.bincount(counts.indices) == 1).sum())
        about = {"words": counts.shape[1], "words_in_one_text": single}
        if single > MOST_SINGLE * counts.shape[1]:
            _note(f"{single} of {counts.shape[1]} words occur in one text only and tell nothing of what items have in "
                  "common; semantic IDs from such texts are close to random.")
        return reduced(counts, self.dimensions, self._random_state("features")), about

    def _note_collisions(self, before: Mapping[str, Any]) -> None:
        """Say so where the codebooks cannot tell the items apart, and which size could."""
        items, room = before["items"], self.codebook_size**self.levels
        if before["colliding_items"] > MOST_COLLIDING * items and room < IDS_AN_ITEM * items:
            size = next(2**n for n in range(1, 64) if 2**(n * self.levels) >= IDS_AN_ITEM * items)
            _note(f"{before['colliding_items']} of {items} items have the codes of others (up to "
                  f"{before['largest_group']} the same), for {self.levels} levels of {self.codebook_size} codes make "
                  f"at most {room} IDs. codebook_size = {size} makes at least {IDS_AN_ITEM} an item.")

    def _quantise(self, vectors: np.ndarray) -> tuple[np.ndarray, list[int], list[float]]:
        """(I, levels) codes, the size of each codebook, and the relative norm of what is left after each level."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        sample = self._sample(len(vectors))
        total = np.linalg.norm(vectors)
        residual, codes, sizes, errors = vectors, [], [], []
        for level in range(self.levels):
            # Rounded, because what is left of an item alone in its cluster is zero but for rounding.
            seen = residual if sample is None else residual[sample]
            distinct = len(np.unique(np.round(seen, 9), axis=0))
            size = min(self.codebook_size, distinct)
            kmeans = KMeans(size, init="k-means++", n_init=self.restarts, max_iter=300, algorithm="lloyd",
                            random_state=self._random_state(level))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                labels = kmeans.fit_predict(seen) if sample is None else kmeans.fit(seen).predict(residual)
            centres = np.zeros((size, vectors.shape[1]))
            np.add.at(centres, labels, residual)
            centres /= np.maximum(np.bincount(labels, minlength=size), 1)[:, None]
            residual = residual - centres[labels]
            codes.append(labels)
            sizes.append(size)
            errors.append(float(np.linalg.norm(residual) / total))
        return np.stack(codes, axis=1).astype(np.int64), sizes, errors

    def _sample(self, items: int) -> np.ndarray | None:
        """Numbers of the items that k-means runs on, None = all."""
        if not 0 < self.fit_items < items:
            return None
        random = np.random.default_rng(self._random_state("items"))
        return np.sort(random.choice(items, self.fit_items, replace=False))

    def _random_state(self, part: int | str) -> int:
        return stream_seed(self.seed, "tokenizer", part) % 2**32


def _note(text: str) -> None:
    print(f"note: tokenizer rq_kmeans: {text}", file=sys.stderr, flush=True)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
