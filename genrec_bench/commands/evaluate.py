"""`evaluate`: score files of anybody's rankings, or a run's checkpoint, with the suite's own evaluator and tests."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec_bench.commands import common
from genrec_bench.commands.ranking_files import check_file, read_rankings
from genrec_bench.contracts import Rankings, Split
from genrec_bench.core import settings
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical
from genrec_bench.core.registry import datasets
from genrec_bench.datasets.base import Dataset
from genrec_bench.evaluate import rankings_from_pairs, score
from genrec_bench.experiments.config import SplitConfig
from genrec_bench.results.records import RecordStore, RunRecord
from genrec_bench.splits.leave_one_out import leave_one_out

if TYPE_CHECKING:
    from genrec_bench.reporting.comparison import Rendered
    from genrec_bench.reporting.pairs import Method

MAX_K = 255


@dataclass(frozen=True)
class Scored:
    """A file of rankings on the test rows: its places, how many test users it lacks, and its metrics."""

    path: Path
    rankings: Rankings
    missing: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Opponents:
    """Stored records of one dataset that files of rankings stand against, under a label of their own."""

    label: str
    store: RecordStore
    records: tuple[RunRecord, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to score, on which dataset, against what, and how to print it."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--rankings", type=Path, nargs="+", metavar="FILE",
                      help="CSV (or .parquet) with the columns user_id,item_id,score: the dataset's own ids, higher is "
                           "better, history given, test target asked for; users that are missing count as misses. "
                           "Several files: one method with several seeds")
    what.add_argument("--checkpoint", type=Path, metavar="DIR", help="checkpoint folder of a run of this suite")
    parser.add_argument("--compare", action="store_true",
                        help="test the rankings against the stored baselines and plain cross-entropy on the same test "
                             "targets, as `compare` does, and describe every other stored method")
    parser.add_argument("--label", metavar="NAME", help="what the method is called (default: the first file's name)")
    parser.add_argument("--against", type=Path, metavar="DIR",
                        help="stored runs for --compare (default: results/reference)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    common.add_device(parser)
    common.add_data(parser)
    common.add_set(parser, "change one setting of the dataset, such as folder.drop_repeats=true")
    common.add_results(parser)


def run(args: argparse.Namespace) -> int:
    """Print the metrics, and the verdicts. Raises: UserError naming file, line and user for whatever is wrong."""
    result = _checkpoint(args) if args.checkpoint is not None else _files(args)
    if args.json:
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        _print(result)
    return 0


def _files(args: argparse.Namespace) -> dict[str, Any]:
    """What is printed of files of rankings. Whatever is wrong is said before anything is written."""
    names = args.datasets or []
    if len(names) != 1:
        raise UserError(f"evaluate --rankings scores one dataset; --datasets names "
                        f"{', '.join(names) or 'none'}. Give --datasets NAME.")
    (spec,) = common.dataset_specs(args, names)  # a wrong name is reported before anything is read
    dataset = datasets.build(spec)
    _check_files(args.rankings)
    opponents = _opponents(args, dataset) if args.compare else None
    if args.against and not args.compare:
        raise UserError("--against names stored runs to compare with; give --compare as well.")
    split = load_split(dataset, common.data_dir(args))
    files = [evaluate_file(path, split) for path in args.rankings]
    result: dict[str, Any] = {"dataset": dataset.title, "users": len(split.test)}
    if len(files) == 1:
        result |= {"missing_users": files[0].missing, "metrics": files[0].metrics}
    else:
        result["files"] = [{"file": str(f.path), "missing_users": f.missing, "metrics": f.metrics} for f in files]
        result["metrics"] = {key: fmean(f.metrics[key] for f in files) for key in files[0].metrics}
    if opponents is not None:
        told = compare_files(files, split, opponents, common.reports_dir(args))
        result["comparison"] = {"summary": " ".join(told.summary), "sentences": list(told.sentences),
                                "report": str(told.path)}
    return result


def _check_files(paths: Sequence[Path]) -> None:
    for number, path in enumerate(paths):
        check_file(path)
        if path.resolve() in (p.resolve() for p in paths[:number]):
            raise UserError(f"--rankings names {path} twice; every file counts as another seed.")


def load_split(dataset: Dataset, data_dir: Path | None) -> Split:
    """The dataset under the suite's split rule; its test rows are what a ranking is scored on."""
    return leave_one_out(dataset.load(data_dir), SplitConfig())


def evaluate_file(path: Path, split: Split) -> Scored:
    """Item-level metrics of one file; equal scores of a user are worth the expected value over their orders."""
    rows = read_rankings(path, split.interactions)
    test = split.test
    row_of_user = np.full(split.interactions.num_users, -1, dtype=np.int64)
    row_of_user[test.users] = np.arange(len(test))
    at = row_of_user[rows.users]
    tested = at >= 0
    missing = len(test) - len(np.unique(at[tested]))
    if missing:
        print(f"{path}: {missing} of {len(test)} test users are not in the file and count as misses", file=sys.stderr)
    if not tested.all():
        print(f"{path}: {len(np.unique(rows.users[~tested]))} users without a test row are left out", file=sys.stderr)
    rankings = rankings_from_pairs(at[tested], rows.items[tested], rows.scores[tested], test.targets, max_k=MAX_K)
    return Scored(path, rankings, missing, score(rankings, id_level=False))


def _opponents(args: argparse.Namespace, dataset: Dataset) -> Opponents:
    """The stored records of the data, and the label. Raises: UserError."""
    folder = args.against or common.REFERENCE
    if not folder.is_dir():
        raise UserError(f"no folder of stored runs at {folder}. Give another with --against.")
    common.check_folder("--results", args.results)
    common.reports_dir(args)
    store = RecordStore(folder)
    title, stored = dataset.title, store.read_all()
    records = tuple(r for r in stored if r.dataset == title and (r.config["dataset"]["name"] == "folder")
                    == dataset.needs_path)
    if not records:
        others = ", ".join(sorted({r.dataset for r in stored})) or "no data at all"
        raise UserError(f"no stored run of {title} below {folder}; there are runs of {others}. Run a suite on {title} "
                        "first, or give another folder with --against.")
    label = " ".join((args.label or args.rankings[0].stem).split())
    if label in {r.label for r in records}:
        raise UserError(f"a stored method on {title} is called {label!r} too. Give another --label.")
    return Opponents(label, store, records)


def compare_files(files: Sequence[Scored], split: Split, opponents: Opponents, reports: Path) -> Rendered:
    """Test files of rankings against stored runs. Raises: UserError where none ranks the same test targets."""
    from genrec_bench.reporting.comparison import render_comparison
    from genrec_bench.reporting.pages import slug
    from genrec_bench.reporting.pairs import OUTSIDE, beside, outside

    same = same_targets(opponents.records, split)
    if not same:
        raise UserError(f"none of the {len(opponents.records)} stored runs of {split.interactions.name} below "
                        f"{opponents.store.root} ranks these test targets among all items: their data or test users "
                        "are others, or they leave a user's history out. Give another folder with --against.")

    def ranks(record: RunRecord) -> Rankings:
        return files[record.seed - 1].rankings if OUTSIDE in record.config else opponents.store.read_ranks(record)

    taken, left = beside(same)
    notes = _notes(files, opponents, split)
    if apart := len(opponents.records) - len(same):
        notes.append(f"{apart} stored runs of these data are left out: other test rows, or lists without the history.")
    notes += _left_out(left)
    return render_comparison(outside(opponents.label, len(files), taken), taken, ranks,
                             reports / "evaluate" / (slug(opponents.label) or "rankings"), notes=notes)


def same_targets(records: Sequence[RunRecord], split: Split) -> list[RunRecord]:
    """The runs whose test rows have the users and targets of `split`, in its order, and whose lists hold all items.

    How much of a history they read and which rows they were trained on may differ. A run's split is made again and has
    to be the one it names.
    """
    found: dict[str, str | None] = {}
    for record in records:
        key = canonical(record.config["split"])
        if key not in found:
            other = leave_one_out(split.interactions, settings.build(SplitConfig, record.config["split"], "split"))
            same = all(np.array_equal(getattr(other.test, part), getattr(split.test, part))
                       for part in ("users", "targets"))
            found[key] = other.fingerprint if same else None
    return [r for r in records if not r.config["evaluation"]["exclude_history"]
            and r.split_fingerprint == found[canonical(r.config["split"])]
            and found[canonical(r.config["split"])] is not None]


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


def _left_out(left: Sequence[Method]) -> list[str]:
    """A note for each kind of stored runs that rank the same targets and are not compared."""
    kinds: dict[str, list[str]] = {}
    for method in left:
        kinds.setdefault(f"{method.where}, profile {method.first.profile}", []).append(method.label)
    return [f"Left out though their test targets are the same: {', '.join(labels)} ({kind}). The files are put beside "
            "the runs of one split and profile, those of most rows of the suites: a method that is stored with several "
            "would be tested several times." for kind, labels in sorted(kinds.items())]


def _checkpoint(args: argparse.Namespace) -> dict[str, Any]:
    if args.compare:
        raise UserError("evaluate --compare takes files of rankings: give --rankings. What the run of a checkpoint has "
                        "ranked is in its record.")
    if args.datasets or args.overrides:
        raise UserError("evaluate --checkpoint knows its dataset; leave --datasets and --set out.")
    if not args.checkpoint.is_dir():
        raise UserError(f"--checkpoint points at {args.checkpoint}, which is not a folder.")
    # The runner brings in torch, which scoring a file does not need.
    from genrec_bench.running.runner import evaluate_checkpoint

    return evaluate_checkpoint(args.checkpoint, common.data_dir(args), common.device(args), common.threads(args))


def _print(result: dict[str, Any]) -> None:
    """Metrics as rows, list lengths as columns; then the verdicts."""
    missing = f", {result['missing_users']} of them missing" if result.get("missing_users") else ""
    files = f", mean of {len(result['files'])} files" if "files" in result else ""
    print(f"{result['dataset']}: {result['users']} test users{missing}{files}")
    keys = [key.rpartition("@") for key in result["metrics"]]
    names = list(dict.fromkeys(name for name, _, _ in keys))
    ks = sorted({int(k) for _, _, k in keys})
    width = max(len(name) for name in names)
    print(" ".join(["metric".ljust(width), *(f"{'@' + str(k):>8}" for k in ks)]))
    for name in names:
        values = (result["metrics"].get(f"{name}@{k}") for k in ks)
        print(" ".join([name.ljust(width), *(f"{value:8.4f}" if value is not None else " " * 8 for value in values)]))
    if "comparison" in result:
        print("\n".join(["", result["comparison"]["summary"], f"report: {result['comparison']['report']}"]))
