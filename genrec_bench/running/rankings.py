"""Files of rankings by other systems: scored on the suite's test rows, and tested against stored runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from genrec_bench.contracts import Rankings, Split
from genrec_bench.core import registry
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical
from genrec_bench.datasets.base import Dataset
from genrec_bench.evaluate import misses, rankings_from_pairs, score
from genrec_bench.reporting.comparison import Rendered, render_comparison
from genrec_bench.reporting.load import Group
from genrec_bench.reporting.pairs import OUTSIDE, beside, outside
from genrec_bench.results.records import RecordStores, RunRecord
from genrec_bench.running.ranking_files import check_file, read_rankings

MAX_K = 255


@dataclass(frozen=True)
class Scored:
    """A file of rankings on the test rows: its ranks, how many test users it lacks, and its metrics."""

    path: Path
    rankings: Rankings
    missing: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Opponents:
    """Stored records of one dataset that files of rankings are compared with, under a label of their own."""

    label: str
    store: RecordStores
    records: tuple[RunRecord, ...]


@dataclass(frozen=True)
class Evaluation:
    """Files of rankings on one dataset, scored. users: test users. compared: the verdicts, None where not asked."""

    dataset: str
    users: int
    files: tuple[Scored, ...]
    compared: Rendered | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The mean over the files."""
        return {key: fmean(f.metrics[key] for f in self.files) for key in self.files[0].metrics}


def evaluate_files(paths: Sequence[Path], dataset: Dataset, data_dir: Path | None, reports: Path, *,
                   against: RecordStores | None = None, label: str | None = None) -> Evaluation:
    """Score files of rankings, each a seed of one method, and test them against stored runs.

    against: those; None = score only. label: what the method is called; None = the first file's name.
    Raises: UserError naming file, line and user for whatever is wrong, before anything is written.
    """
    check_files(paths)
    opponents = None if against is None else opponents_of(dataset, against, label or _name(paths[0]))
    split = load_split(dataset, data_dir)
    files = tuple(evaluate_file(path, split) for path in paths)
    compared = None if opponents is None else compare_files(files, split, opponents, reports)
    return Evaluation(dataset.title, len(split.test), files, compared)


def _name(path: Path) -> str:
    """What a file is called without its endings; a pipe has no name of its own."""
    return Path(path.name.removesuffix(".gz")).stem if path.is_file() else "rankings"


def check_files(paths: Sequence[Path]) -> None:
    for number, path in enumerate(paths):
        check_file(path)
        if path.resolve() in (p.resolve() for p in paths[:number]):
            raise UserError(f"--rankings names {path} twice; every file counts as one seed: give it once.")


def load_split(dataset: Dataset, data_dir: Path | None) -> Split:
    """The dataset under the suite's split rule; its test rows are what a ranking is scored on."""
    return registry.splits.build({"name": dataset.default_split}).split(dataset.load(data_dir))


def evaluate_file(path: Path, split: Split) -> Scored:
    """Item-level metrics of one file; equal scores of a user are worth the expected value over their orders.

    Raises: UserError for a split with several test rows a user, which a file of lists by user cannot tell apart.
    """
    test = split.test
    if test.groups is not None:
        raise UserError(f"{path}: dataset {split.interactions.name} has several test rows a user, and a file of "
                        "rankings one list a user. Files can be scored on data with one test row a user alone.")
    rows = read_rankings(path, split.interactions)
    row_of_user = np.full(split.interactions.num_users, -1, dtype=np.int64)
    row_of_user[test.users] = np.arange(len(test))
    at = row_of_user[rows.users]
    tested = at >= 0
    missing = len(test) - len(np.unique(at[tested]))
    if missing:
        print(f"{path}: {missing} of {len(test)} test users are not in the file and count as misses", file=sys.stderr)
    if not tested.all():
        print(f"{path}: {len(np.unique(rows.users[~tested]))} users without a test row are left out", file=sys.stderr)
    at, items, scores = at[tested], rows.items[tested], rows.scores[tested]
    rankings = rankings_from_pairs(at, items, scores, test.targets, max_k=MAX_K)
    fresh = ~np.array([item in test.seen[row] for row, item in zip(at, items, strict=True)], dtype=bool)
    unseen = misses(rankings_from_pairs(at[fresh], items[fresh], scores[fresh], test.targets, max_k=MAX_K), test.seen,
                    test.targets)
    metrics = {f"{part}{key}": value for part, ranked in (("", rankings), ("unseen_", unseen))
               for key, value in score(ranked, id_level=False).items()}
    return Scored(path, rankings, missing, metrics)


def opponents_of(dataset: Dataset, store: RecordStores, label: str) -> Opponents:
    """The stored records of the data, and the label of the files' method. Raises: UserError."""
    title, stored = dataset.title, store.read_results()
    records = tuple(r for r in stored if r.dataset == title and (r.config["dataset"]["name"] == "folder")
                    == dataset.needs_path)
    if not records:
        others = ", ".join(sorted({r.dataset for r in stored})) or "no data at all"
        raise UserError(f"no stored run of {title} in {store}; there are runs of {others}. Run a suite on {title} "
                        "first, or name another folder with --results.")
    label = " ".join(label.split())
    if label in {r.label for r in records}:
        raise UserError(f"a stored method on {title} is called {label!r} too. Give another --label.")
    return Opponents(label, store, records)


def compare_files(files: Sequence[Scored], split: Split, opponents: Opponents, reports: Path) -> Rendered:
    """Test files of rankings against stored runs. Raises: UserError where none ranks the same test targets."""
    same = same_targets(opponents.records, split)
    if not same:
        raise UserError(f"none of the {len(opponents.records)} stored runs of {split.interactions.name} in "
                        f"{opponents.store} ranks these test targets among all items: their data or test users are "
                        "others. Name another folder with --results.")

    def ranks(record: RunRecord) -> Rankings:
        if OUTSIDE in record.config:
            return files[record.seed - 1].rankings
        whole, rows = opponents.store.read_ranks(record), same[record.run_id]
        return Rankings(whole.ranks[rows], whole.ties[rows], whole.id_ranks[rows])

    taken, left = beside([record for record in opponents.records if record.run_id in same])
    notes = _notes(files, opponents, split)
    if apart := len(opponents.records) - len(same):
        notes.append(f"{apart} stored runs of these data are left out: they have other test rows.")
    notes += _left_out(left)
    return render_comparison(outside(opponents.label, len(files), taken), taken, ranks,
                             reports / "evaluate" / (_folder_name(opponents.label) or "rankings"), notes=notes)


def same_targets(records: Sequence[RunRecord], split: Split) -> dict[str, np.ndarray]:
    """Of the runs that rank the users' targets of `split`, by name, which of their test rows these are, in its order.

    Of a user with several test rows it is the last one. How much of a history they read and which rows they were
    trained on may differ. A run's split is made again and has to be the one it names.
    """
    found: dict[str, tuple[str, np.ndarray] | None] = {}
    for record in records:
        key = canonical(record.config["split"])
        if key not in found:
            other = registry.splits.build(record.config["split"]).split(split.interactions)
            last = np.flatnonzero(np.append(np.diff(other.test.users) != 0, True))
            same = all(np.array_equal(getattr(other.test, part)[last], getattr(split.test, part))
                       for part in ("users", "targets"))
            found[key] = (other.fingerprint, last) if same else None
    kept = [(r, found[canonical(r.config["split"])]) for r in records]
    return {r.run_id: of[1] for r, of in kept if of is not None and r.identity.get("split_fingerprint") == of[0]}


def _notes(files: Sequence[Scored], opponents: Opponents, split: Split) -> list[str]:
    """What a reader has to know about rankings that come from elsewhere."""
    total = len(split.test)
    told = "; ".join(f"{n}. {f.path.name}" + (f" ({f.missing} of {total} test users missing, which count as misses)"
                                              if f.missing else "") for n, f in enumerate(files, 1))
    notes = [f"{opponents.label} was not run here. Its files, in the order given: {told}. What made them is not known, "
             "nor which interactions it was trained on; the stored runs were trained on the rows of their split. A "
             "difference may be one of training data.",
             "The stored runs compared here rank the same users' same test targets among all items: a user's history "
             "is not taken out of their lists. The files' lists are taken as they are."]
    notes.append("Files and stored seeds have no randomness in common. They are paired by user, and matched in order: "
                 "the first file with the first seed, and so on; a single run of one side stands against each of the "
                 "other. Difference and test are of means over runs and do not depend on the order; the interval and "
                 "the paired t do." if len(files) > 1 else
                 "The one file stands against each stored seed. It says nothing of how its method varies from seed to "
                 "seed; give several files for that.")
    return notes


def _left_out(left: Sequence[Group]) -> list[str]:
    """A note for each kind of stored runs that rank the same targets and are not compared."""
    kinds: dict[str, list[str]] = {}
    for method in left:
        where, profile = method.runs[["where", "profile"]].iloc[0]
        kinds.setdefault(f"{where}, profile {profile}", []).append(method.label)
    return [f"Left out though their test targets are the same: {', '.join(labels)} ({kind}). The files are put beside "
            "the runs of one split and profile, those of most methods: a method that is stored with several would be "
            "tested several times." for kind, labels in sorted(kinds.items())]


def _folder_name(label: str) -> str:
    """A label as part of a path."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-")
