"""Vectors of item texts: words, TF-IDF, a truncated SVD, a sentence encoder. sklearn and the encoder load when used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.core.errors import UserError

# Letters and marks of scripts without spaces between words, for a class of a regular expression: Thai to Khmer,
# kana, Han. Korean has spaces.
_UNSPACED = ("\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u109d\u1780-\u17d3"
             "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
             "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff")
_WORD = re.compile(f"([{_UNSPACED}]+)|[^\\W{_UNSPACED}]+")
_BLOCK = 1 << 20  # bytes of a file that are read at a time


def words_of(text: str) -> list[str]:
    """The words of a text; of scripts without spaces the pairs of neighbouring characters, or a character alone."""
    words: list[str] = []
    for found in _WORD.finditer(text):
        word = found[0]
        words += [word[n:n + 2] for n in range(max(1, len(word) - 1))] if found[1] else [word]
    return words


def tfidf(texts: Sequence[str], who: str, **options: Any) -> Any:
    """(I, V) sparse float64 TF-IDF of the words of lower-cased texts, rows of length 1, or 0 where a text has no word.

    who: whom an error names. options: those of scikit-learn's TfidfVectorizer. Raises: UserError where no text has a
    word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer(tokenizer=words_of, token_pattern=None, **options).fit_transform(texts)
    except ValueError:
        raise UserError(f"{who}: the item texts hold no words.") from None


def reduced(counts: Any, width: int, random_state: int) -> np.ndarray:
    """(I, width) float64 truncated SVD of a sparse table; the table itself where it is no wider or longer than that."""
    from sklearn.decomposition import TruncatedSVD

    rank = min(width, *counts.shape)
    if rank == min(counts.shape):
        return counts.toarray()
    return TruncatedSVD(rank, algorithm="randomized", n_iter=10, random_state=random_state).fit_transform(counts)


def encoded(texts: Sequence[str], model: str, features: str, setting: str) -> np.ndarray:
    """(I, D) vectors of a sentence encoder on the CPU; code that comes with it is never run.

    features: setting and value that ask for it, setting: the one that names it, as messages name them.
    Raises: UserError where `model`, a folder or a hub name, is empty or does not load, or the extra is missing.
    """
    if not model:
        raise UserError(f"{features} needs {setting}: the folder or hub name of a text encoder.")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise UserError(f"{features} needs the extra 'text'. Install it: pip install 'genrec-bench[text]'") from None
    try:
        encoder = SentenceTransformer(model, device="cpu", trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{setting}: cannot load the text encoder {model!r} ({reason}).") from None
    return encoder.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)


def unit_length(vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """(I, D) float64 vectors scaled to length 1; zero where an item has no text."""
    vectors = np.array(vectors, dtype=np.float64)
    vectors[[not text.strip() for text in texts]] = 0.0
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Below this length a vector is rounding noise of the SVD, and scaling it up would make noise a direction.
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), 0.0)


def one_thread(who: str) -> Any:
    """A context in which k-means, the SVD and products run in one thread.

    k-means adds the partial sums of its threads in the order they finish, which moves the last bits. The limit
    reaches only libraries that are loaded, hence the imports before it. Raises: UserError without scikit-learn.
    """
    try:
        import sklearn.cluster  # noqa: F401
        import sklearn.decomposition  # noqa: F401
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise UserError(f"{who} needs scikit-learn. Install it: pip install scikit-learn") from None
    return threadpool_limits(1)


def folder_digest(folder: Path) -> str:
    """sha256 (hex) over names and contents of all files below a folder, wherever it lies."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        own = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                own.update(block)
        total.update(f"{path.relative_to(folder).as_posix()}\n{own.hexdigest()}\n".encode())
    return total.hexdigest()
