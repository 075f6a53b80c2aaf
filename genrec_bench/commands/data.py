"""`data list | check | fetch`: what data there is, whether it is sound, and where to get it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from genrec_bench.commands import common
from genrec_bench.core.registry import datasets
from genrec_bench.datasets.base import Dataset
from genrec_bench.experiments.grid import parse_overrides
from genrec_bench.running.data_check import check_data, chosen_datasets, labelled, present_datasets

COUNTS = ("users", "items", "interactions", "train", "valid", "test", "distinct_semantic_ids")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Subverbs `list`, `check` and `fetch` with their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|check|fetch")
    for name, text in (("list", "which datasets there are, and whether their files are here"),
                       ("check", "read datasets, check every file and print the counts of the split"),
                       ("fetch", "say where to get each dataset and where to put it")):
        action = actions.add_parser(name, help=text, description=text)
        common.add_data(action)
        common.add_set(action, "change one setting of a dataset, such as folder.drop_repeats=true")
        common.add_results(action)
        if name == "check":
            action.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    """Do what was asked. Raises: UserError for a wrong name or bad data."""
    actions = {"list": _list, "check": _check, "fetch": _fetch}
    return actions[args.action](args, common.data_dir(args))


def _chosen(args: argparse.Namespace) -> list[Dataset]:
    """The datasets asked for, or all that need no folder of the user's."""
    return chosen_datasets(args.datasets, parse_overrides(args.overrides))


def _list(args: argparse.Namespace, data_dir: Path | None) -> int:
    rows = [[label, "no" if d.missing_files(data_dir) else "yes", d.preferred_tokenizer(), d.location(data_dir)]
            for label, d in labelled(_chosen(args))]
    if args.datasets is None:
        rows.append(["folder", "-", "given, else " + datasets.get("folder").default_tokenizer,
                     "a folder of your own: --datasets ./PATH"])
    _table(["dataset", "present", "tokenizer", "looked for in"], rows)
    return 0


def _check(args: argparse.Namespace, data_dir: Path | None) -> int:
    chosen = _chosen(args)
    if args.datasets is None:
        chosen = present_datasets(chosen, data_dir)
    counts: dict[str, dict[str, int | None]] = {}
    notes: list[str] = []
    for label, dataset in labelled(chosen):
        print(f"checking {label} ({dataset.location(data_dir)})", file=sys.stderr)
        found = check_data(dataset, data_dir)
        counts[label] = found["counts"]
        notes += [f"{label}: {note}" for note in found["notes"]]
    if args.json:
        print(*notes, sep="\n", file=sys.stderr)
        print(json.dumps(counts, indent=1))
    else:
        rows = [[label, *("-" if row[c] is None else f"{row[c]:,}" for c in COUNTS)] for label, row in counts.items()]
        _table(["dataset", *(c.replace("_", " ") for c in COUNTS)], rows)
        print("", *notes, sep="\n")
    return 0


def _fetch(args: argparse.Namespace, data_dir: Path | None) -> int:
    print("Nothing is downloaded: every dataset has terms of its own. Get the files and put them here:")
    for label, dataset in labelled(_chosen(args)):
        missing = dataset.missing_files(data_dir)
        print(f"\n{label}: {'present' if not missing else 'missing'}")
        print(f"  from: {dataset.how_to_get}")
        print(f"  in:   {dataset.location(data_dir)}")
        for name in missing:
            print(f"  file: {name}")
    if data_dir is None:
        print("\nDATA_DIR is the folder given by --data-dir or GENREC_BENCH_DATA; none is set.")
    return 0


def _table(header: list[str], rows: list[list[Any]]) -> None:
    """Columns as wide as their longest cell, two spaces apart."""
    cells = [header, *rows]
    widths = [max(len(str(row[n])) for row in cells) for n in range(len(header))]
    for row in cells:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
