"""`data list | check | fetch`: what data there is, whether it is sound, and where to get it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.commands import common
from genrec_bench.config import SplitConfig
from genrec_bench.contracts import Interactions
from genrec_bench.datasets.base import Dataset, dataset_label, dataset_spec
from genrec_bench.errors import UserError
from genrec_bench.registry import datasets
from genrec_bench.splits import leave_one_out, summary

COUNTS = ("users", "items", "interactions", "train", "valid", "test", "distinct_semantic_ids")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Subverbs `list`, `check` and `fetch` with their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|check|fetch")
    for name, text in (("list", "which datasets there are, and whether their files are here"),
                       ("check", "read datasets, check every file and print the counts of the split"),
                       ("fetch", "say where to get each dataset and where to put it")):
        action = actions.add_parser(name, help=text, description=text)
        common.add_data(action)
        common.add_results(action)
        if name == "check":
            action.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    """Do what was asked. Raises: UserError for a wrong name or bad data."""
    actions = {"list": _list, "check": _check, "fetch": _fetch}
    return actions[args.action](args, common.data_dir(args))


def _instances(names: list[str] | None) -> list[Dataset]:
    """The datasets asked for, or all that need no path of the user's own."""
    if names is None:
        names = [name for name in datasets.names() if not datasets.get(name).needs_path]
    elif not names:
        raise UserError("--datasets names no dataset. See `data list`.")
    return [datasets.build(dataset_spec(name)) for name in names]


def _labels(chosen: list[Dataset]) -> list[str]:
    """What to call each: two folders of one base name are told apart by their paths."""
    labels = [dataset_label(datasets.resolved(d)) for d in chosen]
    return [d.location(None) if labels.count(label) > 1 and d.needs_path else label
            for d, label in zip(chosen, labels, strict=True)]


def _list(args: argparse.Namespace, data_dir: Path | None) -> int:
    chosen = _instances(args.datasets)
    rows = [[label, "no" if d.missing_files(data_dir) else "yes", d.preferred_tokenizer(), d.location(data_dir)]
            for label, d in zip(_labels(chosen), chosen, strict=True)]
    if args.datasets is None:
        rows.append(["folder", "-", "given, else " + datasets.get("folder").default_tokenizer,
                     "a folder of your own: --datasets ./PATH"])
    _table(["dataset", "present", "tokenizer", "looked for in"], rows)
    return 0


def _check(args: argparse.Namespace, data_dir: Path | None) -> int:
    chosen = _instances(args.datasets)
    if args.datasets is None:
        chosen = [d for d in chosen if not d.missing_files(data_dir)]
        if not chosen:
            raise UserError("no dataset is present. `data fetch` says where to get them.")
    counts: dict[str, dict[str, int | None]] = {}
    for label, dataset in zip(_labels(chosen), chosen, strict=True):
        print(f"checking {label} ({dataset.location(data_dir)})", file=sys.stderr)
        interactions = dataset.load(data_dir)
        counts[label] = summary(leave_one_out(interactions, SplitConfig()), _distinct(interactions))
    if args.json:
        print(json.dumps(counts, indent=1))
    else:
        rows = [[label, *("-" if row[c] is None else f"{row[c]:,}" for c in COUNTS)] for label, row in counts.items()]
        _table(["dataset", *(c.replace("_", " ") for c in COUNTS)], rows)
    return 0


def _distinct(interactions: Interactions) -> int | None:
    codes = interactions.given_codes
    return None if codes is None else len(np.unique(codes, axis=0))


def _fetch(args: argparse.Namespace, data_dir: Path | None) -> int:
    print("Nothing is downloaded: every dataset has terms of its own. Get the files and put them here:")
    chosen = _instances(args.datasets)
    for label, dataset in zip(_labels(chosen), chosen, strict=True):
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
