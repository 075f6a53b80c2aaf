"""`data list | check | fetch | convert`: what data there is, whether it is sound, where to get it, and its format."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from genrec_bench.commands import common
from genrec_bench.contracts import MIN_INTERACTIONS
from genrec_bench.core.registry import datasets
from genrec_bench.datasets.base import Dataset
from genrec_bench.datasets.convert import convert
from genrec_bench.datasets.foreign import FORMATS
from genrec_bench.experiments.overrides import parse_overrides
from genrec_bench.running.data_check import check_data, chosen_datasets, labelled, present_datasets

COUNTS = ("users", "items", "interactions", "train", "valid", "test", "distinct_semantic_ids")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Subverbs `list`, `check`, `fetch` and `convert` with their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|check|fetch|convert")
    for name, text in (("list", "which datasets there are, and whether their files are here"),
                       ("check", "read datasets, check every file and print the counts of the split"),
                       ("fetch", "say where to get each dataset and where to put it")):
        action = actions.add_parser(name, help=text, description=text)
        common.add_data(action)
        common.add_set(action, "change one setting of a dataset, such as folder.drop_repeats=true")
        common.add_results(action)
        if name == "check":
            action.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    _add_convert(actions)


def _add_convert(actions: Any) -> None:
    """The subverb that reads other formats."""
    text = "write data in another format as a folder that --datasets reads"
    action = actions.add_parser("convert", help=text, description=text, allow_abbrev=False)
    action.add_argument("source", type=Path, metavar="FROM",
                        help="file of interactions (.gz too), or a folder with one and maybe an index and texts")
    action.add_argument("to", type=Path, metavar="TO", help="new or empty folder")
    action.add_argument("--format", default=None, metavar="NAME",
                        help=f"{', '.join(FORMATS)} (default: told by the content): a line a user, `user item item "
                             '...`, a line an interaction `user item`, or {"user": ["item", ...]}; oldest first')
    action.add_argument("--index", type=Path, default=None, metavar="FILE",
                        help='JSON, item -> codes: "<s_a_1><s_b_7>", ["<a_1>", "<b_7>"] or [1, 7]')
    action.add_argument("--texts", type=Path, default=None, metavar="FILE",
                        help='JSON, item -> text or {"title": "...", ...}')
    action.add_argument("--min-interactions", type=int, default=None, metavar="N",
                        help="leave out users and items with fewer, until none is left (default: only users with fewer "
                             f"than {MIN_INTERACTIONS}, which leave-one-out needs)")


def run(args: argparse.Namespace) -> int:
    """Do what was asked. Raises: UserError for a wrong name or bad data."""
    if args.action == "convert":
        return _convert(args)
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


def _convert(args: argparse.Namespace) -> int:
    done = convert(args.source, args.to, format=args.format, min_interactions=args.min_interactions, index=args.index,
                   texts=args.texts)
    print(f"read as {done.format}: {', '.join(map(str, done.sources))}")
    print(f"written to {done.folder}: {', '.join(done.files)}")
    print(f"{done.users:,} users, {done.items:,} items, {done.interactions:,} interactions; left out: "
          f"{done.dropped_users:,} users, {done.dropped_items:,} items, {done.dropped_interactions:,} interactions")
    if done.empty_texts:
        print(f"{done.empty_texts:,} items have no text")
    path = str(done.folder) if "/" in str(done.folder) else f"./{done.folder}"
    print(f"next: python benchmark.py data check --datasets {shlex.quote(path)}")
    return 0


def _table(header: list[str], rows: list[list[Any]]) -> None:
    """Columns as wide as their longest cell, two spaces apart."""
    cells = [header, *rows]
    widths = [max(len(str(row[n])) for row in cells) for n in range(len(header))]
    for row in cells:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
