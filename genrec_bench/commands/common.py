"""Options that verbs share, read in one way."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrec_bench.core.errors import UserError
from genrec_bench.core.seeds import check_seeds
from genrec_bench.core.walk import cores
from genrec_bench.datasets.base import dataset_specs as specs_of
from genrec_bench.experiments.file_forms import GRIDS
from genrec_bench.experiments.grid import Selection
from genrec_bench.experiments.overrides import parse_overrides
from genrec_bench.experiments.queue import DEFAULT_PROFILE, profile_of
from genrec_bench.running.folders import LOCAL, check_devices, data_folder, open_workspace, reports_folder
from genrec_bench.running.scheduler import Means
from genrec_bench.running.workspace import Workspace


def add_results(parser: argparse.ArgumentParser, *, stored: bool = False) -> None:
    """`--results` and `--reports`. stored: the command compares with stored runs."""
    parser.add_argument("--results", type=Path, default=LOCAL, metavar="DIR",
                        help="folder of records (default: results/local)" + stored * (
                            "; a stored run that is not there is taken from results/reference"))
    parser.add_argument("--reports", type=Path, default=None, metavar="DIR",
                        help="folder of rendered reports (default: reports/ inside --results)")


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data-dir` and `--datasets`."""
    parser.add_argument("--data-dir", type=Path, default=None, metavar="DIR",
                        help="folder of downloaded data (default: the environment variable GENREC_BENCH_DATA)")
    parser.add_argument("--datasets", type=dataset_list, action=_Longer, default=None, metavar="A,B",
                        help="dataset names (see `list datasets`) or folders of your own; may be repeated, as for a "
                             "folder whose name holds a comma")


def add_set(parser: argparse.ArgumentParser, text: str) -> None:
    """`--set`, with what it is good for here."""
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides", help=text)


def dataset_specs(args: argparse.Namespace, names: Sequence[str]) -> list[dict[str, Any]]:
    """The datasets named, with what `--set` changes of them. Raises: UserError for a name or part that is not there."""
    return specs_of(names, parse_overrides(args.overrides))


def comma_list(text: str) -> list[str]:
    """`a,b` as a list without blanks or repeats, in the order given. Raises: UserError for an empty one."""
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise UserError(f"a list of names is empty: {text!r}. Leave the option out to take all.")
    return parts


def dataset_list(text: str) -> list[str]:
    """`a,b` as a list, or the one folder that has this name with its commas. Raises: UserError for an empty one."""
    return [text] if Path(text).expanduser().is_dir() else comma_list(text)


class _Longer(argparse.Action):
    """An option that may be repeated; each of its names counts once."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        setattr(namespace, self.dest, list(dict.fromkeys([*(getattr(namespace, self.dest) or ()), *values])))


def data_dir(args: argparse.Namespace) -> Path | None:
    """The data folder from `--data-dir` or GENREC_BENCH_DATA. Raises: UserError where it does not exist."""
    return data_folder(args.data_dir)


def reports_dir(args: argparse.Namespace, *, writes: bool = True) -> Path:
    """Where reports go. Raises: UserError, see `reports_folder`."""
    return reports_folder(args.results, args.reports, writes=writes)


def add_selection(parser: argparse.ArgumentParser, *, seeds: bool = True) -> None:
    """Which runs: suite, profile, datasets, rows, single settings, and seeds where the user chooses them."""
    parser.add_argument("--suite", required=True, metavar="NAME",
                        help="suite to run (see `list suites`), or a file of your own, FILE.toml")
    parser.add_argument("--profile", default=None, metavar="NAME",
                        help=f"smoke, {DEFAULT_PROFILE} (default; a queue has its own), standard or paper")
    add_data(parser)
    parser.add_argument("--objectives", type=comma_list, default=None, metavar="A,B",
                        help="generative rows with these objectives, all or none. What --objectives, --row and "
                             "--baselines name is all that runs: --baselines A runs that one alone, with --objectives "
                             "B both; a kind that is not named runs only where the other is not named either, or none")
    parser.add_argument("--row", action="append", default=None, metavar="LABEL", dest="rows",
                        help="this generative row, by its label in the suite; may be repeated")
    parser.add_argument("--baselines", type=comma_list, default=None, metavar="A,B",
                        help="these baseline rows, all or none; also a registered baseline that no suite names")
    parser.set_defaults(seeds=None)
    if seeds:
        parser.add_argument("--seeds", type=comma_list, default=None, metavar="0,1,2",
                            help="seeds (default: as the profile says)")
    parser.add_argument("--grid", choices=GRIDS, default=None,
                        help="which rows of the suite: core, backbones or full (default: as the profile says)")
    add_set(parser, "change one setting of a section, component or baseline, such as training.epochs=5")


def selection(args: argparse.Namespace) -> Selection:
    """The selection that the options of `add_selection` describe. Raises: UserError."""
    return Selection(args.suite, profile_of(args.suite, args.profile), _tuple(args.datasets),
                     _tuple(args.objectives, none="none"), _tuple(args.baselines, none="none"), seeds(args.seeds),
                     parse_overrides(args.overrides), args.grid, None if args.rows is None else tuple(args.rows))


def _tuple(values: list[str] | None, none: str = "") -> tuple[str, ...] | None:
    """The names as a tuple; the single word `none` means no row at all."""
    return () if values == [none] else None if values is None else tuple(values)


def seeds(values: list[str] | None) -> tuple[int, ...] | None:
    """The numbers after `--seeds`, None where it was not given. Raises: UserError."""
    return None if values is None else check_seeds(values, "--seeds")


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device` and `--threads`."""
    parser.add_argument("--device", default="cpu", metavar="NAME",
                        help="cpu (default), cuda or cuda:N; where runs are made also several, such as cuda:0,cuda:1")
    parser.add_argument("--threads", type=int, default=1, metavar="N",
                        help="CPU threads of a run (default: 1); numbers are equal only at equal N")


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """`--jobs` and `--minutes`, beside the options of `add_device`."""
    parser.add_argument("--jobs", type=int, default=None, metavar="N",
                        help="runs at a time (default: the cores at hand divided by --threads; one on each GPU)")
    parser.add_argument("--minutes", type=float, default=None, metavar="N",
                        help="begin nothing that cannot be kept before N minutes are over, and stop runs at the end of "
                             "an epoch; the same command goes on, with diagnoses and RecBole's runs from their start "
                             "(default: no limit)")


def devices(args: argparse.Namespace) -> tuple[str, ...]:
    """The devices asked for. Raises: UserError where one is not there, and for more than one where one is used."""
    names = tuple(comma_list(args.device))
    if len(names) > 1 and ("cpu" in names or not hasattr(args, "jobs")):
        raise UserError(f"--device takes {'one device here' if 'cpu' not in names else 'cpu or GPUs, not both'}, got "
                        f"{args.device!r}.")
    check_devices(names)
    return names


def threads(args: argparse.Namespace) -> int:
    """CPU threads of a run, as asked. Raises: UserError."""
    if args.threads < 1:
        raise UserError(f"--threads must be at least 1, got {args.threads}.")
    return args.threads


def means(args: argparse.Namespace) -> Means:
    """What the command works with: runs at a time as asked, else as many as the cores carry, or one on each GPU.

    Raises: UserError.
    """
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {args.jobs}.")
    if args.minutes is not None and not 0 < args.minutes < math.inf:
        raise UserError(f"--minutes must be above 0, got {args.minutes:g}.")
    names = devices(args)
    jobs = args.jobs or (max(1, cores() // threads(args)) if names == ("cpu",) else len(names))
    return Means(jobs, names, args.minutes)


def workspace(args: argparse.Namespace, *, writes: bool = True) -> Workspace:
    """Where the runs of this command read and write. Raises: UserError, see `open_workspace`."""
    return open_workspace(args.results, reports=args.reports, data_dir=args.data_dir, device=devices(args)[0],
                          threads=args.threads, track=getattr(args, "track", ()),
                          plugins=getattr(args, "plugins", ()), writes=writes)
