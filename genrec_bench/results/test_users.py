"""What is known of a split's test rows: one small file a split, beside the records that were made on it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy import sparse

from genrec_bench.contracts import Split, digest
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import DAMAGED, write_arrays
from genrec_bench.results.records import RecordStore
from genrec_bench.splits.order import transitions

SCHEMA = 2
REMEDY = "Delete it; a run on this split writes it again."
# How a target can be reached from what its user had, exclusive and in this order (after arXiv 2603.19809).
REACHES = ("follows the last item in training", "follows an earlier item", "two steps from the last item",
           "only in reverse", "shares title words with the last item", "none of these")


@dataclass(frozen=True)
class UserFacts:
    """Facts about the test rows of a split, (N,) int64 each, in split order, which is the order of the ranks.

    user: whose row it is. history_length: items of history that a method reads, at most the split's `max_history`.
    target_count, user_count: interactions of the row's target and of its user in the training sequences, 0 where
    training has none. reach: position in REACHES. same_day: 1 = the target has the day of the newest item before it,
    0 = another, -1 = not known. fingerprint: the split's. made_of: digest of the texts and days that they come from.
    """

    fingerprint: str
    user: np.ndarray
    history_length: np.ndarray
    target_count: np.ndarray
    user_count: np.ndarray
    reach: np.ndarray
    same_day: np.ndarray
    made_of: str | None = None

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.history_length)


ARRAYS = tuple(field.name for field in fields(UserFacts) if field.name not in ("fingerprint", "made_of"))


def facts_of(split: Split) -> UserFacts:
    """The facts of a split's test rows."""
    sequences, test = split.train_sequences, split.test
    popularity = np.bincount(sequences.flat, minlength=split.num_items)
    same_day = np.full(len(test), -1) if test.same_day is None else test.same_day.astype(np.int64)
    return UserFacts(split.fingerprint, test.users, test.lengths, popularity[test.targets],
                     sequences.lengths[test.users],
                     reaches(split), same_day, _sources(split))


def reaches(split: Split) -> np.ndarray:
    """(N,) how each test target can be reached: positions in REACHES. Without texts nothing shares words."""
    test, follows = split.test, transitions(split)
    last, target = test.newest, test.targets
    before, rows = test.seen.flat, test.seen.rows
    earlier = np.bincount(rows, weights=follows[before, target[rows]] > 0, minlength=len(test)) > 0
    words = _words(split)
    found = [follows[last, target] > 0, earlier, _meet(follows[last], follows.T.tocsr()[target]),
             follows[target, last] > 0, np.zeros(len(test), dtype=bool) if words is None else
             _meet(words[last], words[target])]
    return np.argmax([*found, np.ones(len(test), dtype=bool)], axis=0)


def _meet(one: sparse.csr_array, other: sparse.csr_array) -> np.ndarray:
    """(N,) bool, whether two rows have a column in common."""
    return one.multiply(other).sum(axis=1) > 0


def _words(split: Split) -> sparse.csr_array | None:
    """(I, words) the words of each title, the frequent ones of English left out; None without texts."""
    if split.interactions.item_texts is None:
        return None
    from sklearn.feature_extraction.text import CountVectorizer  # a second to import, needed once a split

    titles = [text.partition("\n")[0] for text in split.interactions.item_texts]
    try:
        return sparse.csr_array(CountVectorizer(stop_words="english", binary=True).fit_transform(titles))
    except ValueError:  # no title has a word
        return None


def path_of(store: RecordStore, dataset: str, fingerprint: str) -> Path:
    """Where the facts of a split are or will be written: named by the first 16 digits of its fingerprint."""
    return store.root / dataset / f"{fingerprint[:16]}.users.npz"


def stored_path(store: RecordStore, dataset: str, fingerprint: str) -> Path | None:
    """The file that holds the facts of a split, or None: where it is written, else in whatever folder of records."""
    path = path_of(store, dataset, fingerprint)
    if path.exists():
        return path
    return next((other for folder in store.folders() if (other := folder / path.name).exists()), None)


def find_users(store: RecordStore, dataset: str, fingerprint: str) -> UserFacts | None:
    """The facts of a split, or None. dataset, fingerprint: as a record states them.

    Raises: UserError for a file that is damaged or another split's.
    """
    path = stored_path(store, dataset, fingerprint)
    if path is None:
        return None
    facts = read_users(path)
    if facts.fingerprint != fingerprint:
        raise UserError(f"{path} holds the users of another split, {facts.fingerprint}. {REMEDY}")
    return facts


def keep_users(store: RecordStore, dataset: str, split: Split) -> None:
    """Write the facts of a split where they are missing; a file that is there stays, if it was made of the same.

    Without scikit-learn, which reads titles, they are left to the next command where it is installed.
    """
    path = path_of(store, dataset, split.fingerprint)
    if not path.exists() or _made_of(path) != _sources(split):
        try:
            write_users(path, facts_of(split))
        except ModuleNotFoundError as error:
            print(f"no facts about the test rows of {dataset}: {error}. Running again where it is installed writes "
                  "them.", file=sys.stderr)


def _sources(split: Split) -> str:
    """A digest of what the facts are made of beside the split's rows: texts and days."""
    days = np.empty(0) if split.test.same_day is None else split.test.same_day
    return digest(*split.interactions.item_texts or (), days)


def _made_of(path: Path) -> str | None:
    try:
        with np.load(path) as file:
            return json.loads(str(file["about"][()])).get("made_of")
    except DAMAGED:
        return None


def write_users(path: Path, facts: UserFacts) -> None:
    """One npz file, atomically; equal splits give equal bytes."""
    about = {"schema": SCHEMA, "split_fingerprint": facts.fingerprint, "rows": facts.num_rows,
             **({"made_of": facts.made_of} if facts.made_of else {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, about=np.array(json.dumps(about, sort_keys=True)),
                 **{name: getattr(facts, name).astype(np.int32) for name in ARRAYS})


def read_users(path: Path) -> UserFacts:
    """Read what `write_users` wrote. Raises: UserError for a file that is not that, or of another schema."""
    try:
        with np.load(path) as file:
            about = json.loads(str(file["about"][()]))
            arrays = {name: file[name] for name in file.files if name != "about"}
        if about["schema"] != SCHEMA:
            raise ValueError(f"its schema is {about['schema']}, this version reads {SCHEMA}")
        for name in ARRAYS:
            if arrays[name].shape != (about["rows"],) or not np.issubdtype(arrays[name].dtype, np.integer):
                raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, expected ({about['rows']},)")
        return UserFacts(about["split_fingerprint"], *(arrays[name].astype(np.int64) for name in ARRAYS),
                         about.get("made_of"))
    except DAMAGED as error:
        raise UserError(f"{path} is not a file of users ({str(error) or type(error).__name__}). {REMEDY}") from None
