"""Options that verbs share, read in one way."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrec_bench.core.errors import UserError
from genrec_bench.core.seeds import check_seeds
from genrec_bench.datasets.base import dataset_spec
from genrec_bench.experiments.grid import Selection, parse_overrides
from genrec_bench.experiments.suite_files import GRIDS
from genrec_bench.running.runner import Workspace

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
LOCAL = ROOT / "results" / "local"


def add_results(parser: argparse.ArgumentParser) -> None:
    """`--results` and `--reports`."""
    parser.add_argument("--results", type=Path, default=LOCAL, metavar="DIR",
                        help="folder of records (default: results/local)")
    parser.add_argument("--reports", type=Path, default=None, metavar="DIR",
                        help="folder of rendered reports (default: reports/ for results/reference, "
                             "otherwise reports/ inside --results)")


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data-dir` and `--datasets`."""
    parser.add_argument("--data-dir", type=Path, default=None, metavar="DIR",
                        help="folder of downloaded data (default: the environment variable GENREC_BENCH_DATA)")
    parser.add_argument("--datasets", type=comma_list, default=None, metavar="A,B",
                        help="dataset names (see `list datasets`) or folders of your own")


def add_set(parser: argparse.ArgumentParser, text: str) -> None:
    """`--set`, with what it is good for here."""
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides", help=text)


def dataset_specs(args: argparse.Namespace, names: Sequence[str]) -> list[dict[str, Any]]:
    """The datasets named, with what `--set` changes of them. Raises: UserError for a name or part that is not there."""
    changed = parse_overrides(args.overrides)
    specs = [dataset_spec(name, changed) for name in names]
    used = {spec["name"] for spec in specs}
    for part in changed:
        if part not in used:
            raise UserError(f"--set {part}...: this command reads {', '.join(sorted(used))} and no {part}.")
    return specs


def comma_list(text: str) -> list[str]:
    """`a,b` as a list without blanks or repeats, in the order given. Raises: UserError for an empty one."""
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise UserError(f"a list of names is empty: {text!r}. Leave the option out to take all.")
    return parts


def data_dir(args: argparse.Namespace) -> Path | None:
    """The data folder from `--data-dir` or GENREC_BENCH_DATA. Raises: UserError where it does not exist."""
    value = args.data_dir or os.environ.get("GENREC_BENCH_DATA") or None
    if value is None:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        origin = "--data-dir" if args.data_dir else "GENREC_BENCH_DATA"
        raise UserError(f"{origin} points at {folder}, which is not a folder.")
    return folder.resolve()


def check_folder(option: str, folder: Path) -> None:
    """Nothing but folders on the way to a folder that will be made. Raises: UserError."""
    there = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    if there.exists() and not there.is_dir():
        raise UserError(f"{option} points at {folder}, but {there} is not a folder.")


def check_writable(option: str, folder: Path) -> None:
    """A folder that is there and may be written, or that can be made. Raises: UserError."""
    check_folder(option, folder)
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option} points at {folder}, but {there} cannot be written. Choose another folder or mend "
                        "its rights.")


def reports_dir(args: argparse.Namespace, *, writes: bool = True) -> Path:
    """Where reports go: as asked, else beside the records they are made from.

    Raises: UserError for a file, and with `writes` for a folder that cannot be written.
    """
    own = ROOT / "reports" if args.results.resolve() == REFERENCE.resolve() else args.results / "reports"
    option, folder = ("--results", own) if args.reports is None else ("--reports", args.reports)
    (check_writable if writes else check_folder)(option, folder)
    return folder


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Which runs: suite, profile, datasets, rows, seeds and single settings."""
    parser.add_argument("--suite", required=True, metavar="NAME",
                        help="suite to run (see `list suites`), or a file of your own, FILE.toml")
    parser.add_argument("--profile", default="quick", metavar="NAME", help="smoke, quick (default) or paper")
    add_data(parser)
    parser.add_argument("--objectives", type=comma_list, default=None, metavar="A,B",
                        help="only generative rows with these objectives, or none")
    parser.add_argument("--row", action="append", default=None, metavar="LABEL", dest="rows",
                        help="only this generative row, by its label in the suite; may be repeated")
    parser.add_argument("--baselines", type=comma_list, default=None, metavar="A,B",
                        help="only these baseline rows, or none")
    parser.add_argument("--seeds", type=comma_list, default=None, metavar="0,1,2",
                        help="seeds (default: as the profile says)")
    parser.add_argument("--grid", choices=GRIDS, default=None,
                        help="which rows of the suite: core, backbones or full (default: as the profile says)")
    add_set(parser, "change one setting of a section, component or baseline, such as training.epochs=5")


def selection(args: argparse.Namespace) -> Selection:
    """The selection that the options of `add_selection` describe. Raises: UserError."""
    return Selection(args.suite, args.profile, _tuple(args.datasets), _tuple(args.objectives, none="none"),
                     _tuple(args.baselines, none="none"), seeds(args.seeds), parse_overrides(args.overrides),
                     args.grid, None if args.rows is None else tuple(args.rows))


def _tuple(values: list[str] | None, none: str = "") -> tuple[str, ...] | None:
    """The names as a tuple; the single word `none` means no row at all."""
    return () if values == [none] else None if values is None else tuple(values)


def seeds(values: list[str] | None) -> tuple[int, ...] | None:
    """The numbers after `--seeds`, None where it was not given. Raises: UserError."""
    return None if values is None else check_seeds(values, "--seeds")


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device` and `--threads`."""
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, metavar="N",
                        help="CPU threads of a run (default: 1); numbers are equal only at equal N")


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """`--jobs`, beside the options of `add_device`."""
    parser.add_argument("--jobs", type=int, default=None, metavar="N",
                        help="runs at a time (default: the cores at hand divided by --threads; 1 on a GPU)")


def device(args: argparse.Namespace) -> str:
    """The device asked for. Raises: UserError where it is not there."""
    kind, _, index = args.device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()) or (kind == "cpu" and index):
        raise UserError(f"--device takes cpu, cuda or cuda:N, got {args.device!r}.")
    if kind == "cuda":
        import torch

        if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
            raise UserError(f"--device {args.device}: torch sees {torch.cuda.device_count()} CUDA devices here. "
                            "Use --device cpu, or a torch build for your GPU.")
    return args.device


def threads(args: argparse.Namespace) -> int:
    """CPU threads of a run, as asked. Raises: UserError."""
    if args.threads < 1:
        raise UserError(f"--threads must be at least 1, got {args.threads}.")
    return args.threads


def jobs(args: argparse.Namespace) -> int:
    """Runs at a time: as asked, else as many as the cores carry, one on a GPU. Raises: UserError."""
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {args.jobs}.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return args.jobs or (max(1, cores // args.threads) if args.device == "cpu" else 1)


def workspace(args: argparse.Namespace, *, writes: bool = True) -> Workspace:
    """Where the runs of this command read and write.

    Raises: UserError where a folder is a file, and with `writes` where one cannot be written.
    """
    (check_writable if writes else check_folder)("--results", args.results)
    reports_dir(args, writes=writes)
    return Workspace(args.results, data_dir(args), device(args), threads(args),
                     tuple(getattr(args, "track", ())), shlex.join(["python", *sys.argv]),
                     getattr(args, "plugins", ()))
