"""`evaluate`: score files of anybody's rankings, or a run's checkpoint, with the suite's own evaluator and tests."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from genrec_bench.commands import common
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import datasets
from genrec_bench.running.folders import check_folder, stored_runs
from genrec_bench.running.rankings import evaluate_files


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
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    common.add_device(parser)
    common.add_data(parser)
    common.add_set(parser, "change one setting of the dataset, such as folder.drop_repeats=true")
    common.add_results(parser, stored=True)


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
    reports = args.results / "reports"
    if args.compare:
        check_folder("--results", args.results)
        reports = common.reports_dir(args)
    found = evaluate_files(args.rankings, dataset, common.data_dir(args), reports, label=args.label,
                           against=stored_runs(args.results) if args.compare else None)
    result: dict[str, Any] = {"dataset": found.dataset, "users": found.users}
    if len(found.files) == 1:
        result |= {"missing_users": found.files[0].missing}
    else:
        result["files"] = [{"file": str(f.path), "missing_users": f.missing, "metrics": f.metrics} for f in found.files]
    result["metrics"] = found.metrics
    if found.compared is not None:
        told = found.compared
        result["comparison"] = {"summary": " ".join(told.summary), "sentences": list(told.sentences),
                                "report": str(told.path)}
    return result


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

    return evaluate_checkpoint(args.checkpoint, common.data_dir(args), common.devices(args)[0], common.threads(args))


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
