"""`data list | check | fetch`: what data there is, whether it is sound, and where to get it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from genrec_bench.commands import common
from genrec_bench.contracts import Interactions
from genrec_bench.core.errors import UserError
from genrec_bench.core.registry import datasets
from genrec_bench.datasets.base import Dataset
from genrec_bench.experiments.config import SplitConfig
from genrec_bench.splits.leave_one_out import leave_one_out, summary
from genrec_bench.splits.order import order_facts, order_sentences, same_but_for_blanks

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


def _instances(args: argparse.Namespace) -> list[Dataset]:
    """The datasets asked for, or all that need no path of the user's own."""
    names = args.datasets
    if names is None:
        names = [name for name in datasets.names() if not datasets.get(name).needs_path]
    return [datasets.build(spec) for spec in common.dataset_specs(args, names)]


def _labels(chosen: list[Dataset]) -> list[str]:
    """What to call each: two folders of one base name are told apart by their paths."""
    labels = [d.title for d in chosen]
    return [d.location(None) if labels.count(label) > 1 and d.needs_path else label
            for d, label in zip(chosen, labels, strict=True)]


def _list(args: argparse.Namespace, data_dir: Path | None) -> int:
    chosen = _instances(args)
    rows = [[label, "no" if d.missing_files(data_dir) else "yes", d.preferred_tokenizer(), d.location(data_dir)]
            for label, d in zip(_labels(chosen), chosen, strict=True)]
    if args.datasets is None:
        rows.append(["folder", "-", "given, else " + datasets.get("folder").default_tokenizer,
                     "a folder of your own: --datasets ./PATH"])
    _table(["dataset", "present", "tokenizer", "looked for in"], rows)
    return 0


def _check(args: argparse.Namespace, data_dir: Path | None) -> int:
    chosen = _instances(args)
    if args.datasets is None:
        chosen = [d for d in chosen if not d.missing_files(data_dir)]
        if not chosen:
            raise UserError("no dataset is present. `data fetch` says where to get them.")
    counts: dict[str, dict[str, int | None]] = {}
    told: list[str] = []
    for label, dataset in zip(_labels(chosen), chosen, strict=True):
        print(f"checking {label} ({dataset.location(data_dir)})", file=sys.stderr)
        interactions = dataset.load(data_dir)
        split = leave_one_out(interactions, SplitConfig())
        counts[label] = summary(split, _distinct(interactions))
        told += [f"{label}: {line}" for line in (*order_sentences(order_facts(split)), *_blanks(interactions))]
    if args.json:
        print(*told, sep="\n", file=sys.stderr)
        print(json.dumps(counts, indent=1))
    else:
        rows = [[label, *("-" if row[c] is None else f"{row[c]:,}" for c in COUNTS)] for label, row in counts.items()]
        _table(["dataset", *(c.replace("_", " ") for c in COUNTS)], rows)
        print("", *told, sep="\n")
    return 0


def _blanks(interactions: Interactions) -> list[str]:
    """A sentence for each kind of id of which some differ only by blanks."""
    kinds = {"users": interactions.user_ids, "items": interactions.item_ids}
    found = {kind: same_but_for_blanks(ids) for kind, ids in kinds.items()}
    return [f"{kind.capitalize()} {pairs[0][0]!r} and {pairs[0][1]!r} differ only by blanks and are two "
            f"({len(pairs)} such {kind})." for kind, pairs in found.items() if pairs]


def _distinct(interactions: Interactions) -> int | None:
    codes = interactions.given_codes
    return None if codes is None else len(np.unique(codes, axis=0))


def _fetch(args: argparse.Namespace, data_dir: Path | None) -> int:
    print("Nothing is downloaded: every dataset has terms of its own. Get the files and put them here:")
    chosen = _instances(args)
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
