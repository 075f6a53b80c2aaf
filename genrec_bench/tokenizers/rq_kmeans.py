"""Residual k-means on features of the item texts, after OneRec (arXiv 2502.18965) and APAO 5.1.2."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.contracts import Interactions, SemanticIds
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import tokenizers
from genrec_bench.core.seeds import stream_seed
from genrec_bench.core.settings import setting
from genrec_bench.tokenizers.base import Tokenizer, describe, positions_in_groups

# Letters and marks of scripts without spaces between words, for a class of a regular expression: Thai to Khmer,
# kana, Han. Korean has spaces.
_UNSPACED = ("\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u109d\u1780-\u17d3"
             "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
             "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff")
MOST_SINGLE = 0.9  # share of words in one text only from which on a note is printed
_WORD = re.compile(f"([{_UNSPACED}]+)|[^\\W{_UNSPACED}]+")


@tokenizers.register("rq_kmeans")
@dataclass(frozen=True)
class RQKMeans(Tokenizer):
    """k-means on the features, then on what each level leaves over; optionally a last level that counts collisions.

    Features are scaled to unit length (an item without text is the zero vector); residuals are not scaled. A level
    with fewer distinct residuals than `codebook_size` gets one code for each of them. `deduplicate` appends one
    level at a fixed depth: the item's position, in item order, among the items with the same codes.
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
    seed: int = setting(0, "seed of the tokenizer's own stream, so that all run seeds share the same IDs", low=0)

    def fit(self, interactions: Interactions) -> SemanticIds:
        """Codes of all items. Raises: UserError where the dataset has no item texts."""
        texts = interactions.item_texts
        if texts is None or not any(text.strip() for text in texts):
            raise UserError(f"dataset {interactions.name!r} has no item texts, which tokenizer 'rq_kmeans' clusters. "
                            "Use tokenizer 'given' with an index file, add texts to the dataset, or run the "
                            "baselines alone: --objectives none.")
        encoded = self._encode(texts) if self.features == "sentence_transformer" else None
        with _one_thread():
            features, about = self._tfidf(texts) if encoded is None else (encoded, {})
            vectors = _unit_length(features, texts)
            codes, sizes, errors = self._quantise(vectors)
        before = describe(codes, tuple(sizes))
        if self.deduplicate:
            positions = positions_in_groups(codes)
            codes = np.column_stack([codes, positions])
            sizes.append(int(positions.max()) + 1)
        table = describe(codes, tuple(sizes))
        table["reconstruction_error"] = errors
        table["collisions_before_deduplication"] = {
            k: before[k] for k in ("distinct_semantic_ids", "colliding_items", "largest_group")}
        table |= {**about, "feature_dimensions": vectors.shape[1]}
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
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        try:
            counts = TfidfVectorizer(sublinear_tf=True, tokenizer=words_of, token_pattern=None).fit_transform(texts)
        except ValueError:
            raise UserError("tokenizer 'rq_kmeans': the item texts hold no words.") from None
        single = int((np.bincount(counts.indices) == 1).sum())
        about = {"words": counts.shape[1], "words_in_one_text": single}
        if single > MOST_SINGLE * counts.shape[1]:
            print(f"note: tokenizer rq_kmeans: {single} of {counts.shape[1]} words occur in one text only and tell "
                  "nothing of what items have in common; semantic IDs from such texts are close to random.",
                  file=sys.stderr, flush=True)
        rank = min(self.dimensions, *counts.shape)
        if rank == min(counts.shape):
            return counts.toarray(), about
        svd = TruncatedSVD(rank, algorithm="randomized", n_iter=10, random_state=self._random_state("features"))
        return svd.fit_transform(counts), about

    def _encode(self, texts: tuple[str, ...]) -> np.ndarray:
        if not self.model:
            raise UserError("tokenizer rq_kmeans.features = 'sentence_transformer' needs rq_kmeans.model: the folder "
                            "or hub name of a text encoder.")
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise UserError("tokenizer rq_kmeans.features = 'sentence_transformer' needs the extra 'text'. Install "
                            "it: pip install 'genrec-bench[text]'") from None
        try:
            encoder = SentenceTransformer(self.model, device="cpu", trust_remote_code=False)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(f"rq_kmeans.model: cannot load the text encoder {self.model!r} ({reason}).") from None
        return encoder.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)

    def _quantise(self, vectors: np.ndarray) -> tuple[np.ndarray, list[int], list[float]]:
        """(I, levels) codes, the size of each codebook, and the relative norm of what is left after each level."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        total = np.linalg.norm(vectors)
        residual, codes, sizes, errors = vectors, [], [], []
        for level in range(self.levels):
            # Rounded, because what is left of an item alone in its cluster is zero but for rounding.
            distinct = len(np.unique(np.round(residual, 9), axis=0))
            size = min(self.codebook_size, distinct)
            kmeans = KMeans(size, init="k-means++", n_init=self.restarts, max_iter=300, algorithm="lloyd",
                            random_state=self._random_state(level))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                labels = kmeans.fit_predict(residual)
            centres = np.zeros((size, vectors.shape[1]))
            np.add.at(centres, labels, residual)
            centres /= np.maximum(np.bincount(labels, minlength=size), 1)[:, None]
            residual = residual - centres[labels]
            codes.append(labels)
            sizes.append(size)
            errors.append(float(np.linalg.norm(residual) / total))
        return np.stack(codes, axis=1).astype(np.int64), sizes, errors

    def _random_state(self, part: int | str) -> int:
        return stream_seed(self.seed, "tokenizer", part) % 2**32


def words_of(text: str) -> list[str]:
    """The words of a text; of scripts without spaces the pairs of neighbouring characters, or a character alone."""
    words: list[str] = []
    for found in _WORD.finditer(text):
        word = found[0]
        words += [word[n:n + 2] for n in range(max(1, len(word) - 1))] if found[1] else [word]
    return words


def _one_thread() -> Any:
    """A context in which k-means and the SVD run in one thread.

    k-means adds the partial sums of its threads in the order they finish, which moves the last bits. The limit
    reaches only libraries that are loaded, hence the imports before it.
    """
    try:
        import sklearn.cluster  # noqa: F401
        import sklearn.decomposition  # noqa: F401
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise UserError("tokenizer 'rq_kmeans' needs scikit-learn. Install it: pip install scikit-learn") from None
    return threadpool_limits(1)


def _unit_length(vectors: np.ndarray, texts: tuple[str, ...]) -> np.ndarray:
    """(I, D) float64 features scaled to length 1; zero where an item has no text."""
    vectors = np.array(vectors, dtype=np.float64)
    vectors[[not text.strip() for text in texts]] = 0.0
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Below this length a vector is rounding noise of the SVD, and scaling it up would make noise a direction.
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), 0.0)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
