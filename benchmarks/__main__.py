"""`python -m benchmarks`: measure, write results.csv and results.md; `python -m benchmarks scale` is `scale.py`.

Every place, a number of threads with an allocator, has a process of its own: pools of threads disturb each other, and
the allocator is set before a process starts. OMP_WAIT_POLICY=PASSIVE: a waiting thread gives its core away instead of
spinning.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import scale, tables
from benchmarks.harness import Case, Row, Unequal, measure
from benchmarks.machine import KEEPS, describe, is_quiet, precisions
from genrec_bench.cli import Parser
from genrec_bench.commands import common
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.running.folders import LOCAL, check_folder

HERE = Path(__file__).resolve().parent
BENCHMARKS = ("decoding", "exact", "training", "reports")
ALLOCATORS = {"keeps": KEEPS, "default": dict.fromkeys(KEEPS)}
PLACES = ((1, "keeps"), (2, "keeps"), (1, "default"))


def options(words: list[str]) -> argparse.Namespace:
    """Read the command line. Raises: UserError."""
    parser = Parser(prog="python -m benchmarks", description="Benchmarks of speed.", allow_abbrev=False)
    parser.add_argument("--only", type=common.comma_list, default=list(BENCHMARKS), metavar="A,B",
                        help=f"some of {', '.join(BENCHMARKS)}")
    parser.add_argument("--data-dir", type=Path, default=None, metavar="DIR",
                        help="folder of downloaded data (default: the environment variable GENREC_BENCH_DATA)")
    parser.add_argument("--results", type=Path, default=LOCAL, metavar="DIR",
                        help="folder of records, for the trained network and the reports (default: results/local)")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], metavar="FILE",
                        help="best.safetensors of a trained network for `exact`; may be repeated")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where the tables go")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="times every arm is timed (default: 3)")
    parser.add_argument("--users", type=int, default=0, metavar="N", help="at most so many users an arm, for a try")
    parser.add_argument("--threads", type=int, default=0, choices=(0, 1, 2), metavar="N",
                        help="only 1 (processor time) or only 2 (wall time)")
    parser.add_argument("--allocator", default="keeps", choices=ALLOCATORS, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    for name in args.only:
        if name not in BENCHMARKS:
            raise unknown("benchmark", name, BENCHMARKS, "--only")
    for option, least in (("repeats", 1), ("users", 0)):
        if getattr(args, option) < least:
            raise UserError(f"--{option} must be at least {least}, got {getattr(args, option)}.")
    for path in args.checkpoint:
        if not path.is_file():
            raise UserError(f"--checkpoint: no file {path}.")
    check_folder("--out", args.out)
    args.data_dir = common.data_dir(args)
    return args


def main(words: list[str]) -> int:
    """Exit code 0 done, 1 where two arms disagree, 2 for a mistake of the user's, 130 for Ctrl-C."""
    try:
        if words[:1] == ["scale"]:
            return scale.main(words[1:])
        args = options(words)
        return work(args) if args.worker else direct(args, words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Unequal as error:
        print(f"error: the arms do not agree, so nothing is timed. {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted.", file=sys.stderr)
        return 130


def direct(args: argparse.Namespace, words: list[str]) -> int:
    """One process for each place, then the tables. The tables of what was not run stay."""
    about = describe()
    if not is_quiet(about["load"]):
        print(f"warning: the load average is {about['load']}: the machine is not quiet, so that the figures are not to "
              "be relied on.", file=sys.stderr)
    if "bfloat16" not in precisions():
        print("bfloat16 is left out: this processor has no instructions for it.", file=sys.stderr)
    path = args.out / "results.csv"
    old, new = tables.read(path), []
    with tempfile.TemporaryDirectory() as folder:
        for threads, allocator in PLACES:
            if args.threads not in (0, threads):
                continue
            part = Path(folder) / f"{threads}-{allocator}.csv"
            command = [sys.executable, "-m", "benchmarks", *words, "--threads", str(threads), "--allocator", allocator,
                       "--worker", str(part)]
            code = run_worker(command, {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads),
                                        **ALLOCATORS[allocator]})
            if code:
                return code
            new += [tables.Line(line.row, about) for line in tables.read(part)]
    lines = tables.merged(old, new)
    args.out.mkdir(parents=True, exist_ok=True)
    tables.write(path, lines)
    page = args.out / "results.md"
    page.write_text(tables.render(lines), encoding="utf-8")
    print(f"tables: {path}, {page}")
    return 0


def run_worker(command: list[str], variables: dict[str, str | None]) -> int:
    """The exit code of a process of its own; None = without that variable."""
    wanted = {**os.environ, **variables}
    return subprocess.run(command, env={name: text for name, text in wanted.items() if text is not None}).returncode


def work(args: argparse.Namespace) -> int:
    """Measure in one place and leave the rows in a file."""
    import torch

    from benchmarks.corpora import Setting

    torch.set_num_threads(args.threads)
    setting = Setting(args.data_dir, args.results, tuple(args.checkpoint), args.users, precisions())
    rows: list[Row] = []
    for name in args.only:
        for case in importlib.import_module(f"benchmarks.{name}").cases(setting):
            if args.allocator == "default":  # speeds alone: goals are for both sides at their best
                case = replace(case, equal=lambda *_: None, goal=None, after=None, products=None,
                               threads=(1,) if case.plainly else ())
            if args.threads in case.threads:
                rows += [replace(row, allocator=args.allocator) for row in measured(case, args.threads, args.repeats)]
    tables.write(args.worker, [tables.Line(row, dict.fromkeys(tables.ABOUT, "")) for row in rows])
    return 0


def measured(case: Case, threads: int, repeats: int) -> list[Row]:
    """All rows of a case, told as they come."""
    from benchmarks.work import profiled

    began = time.perf_counter()
    clock = time.process_time if threads == 1 else time.perf_counter
    rows = measure(case, clock, repeats=repeats, threads=threads)
    if case.products is not None and threads == 1:
        rows += profiled(case, rows[0].value, clock)
    for row in rows:
        print(f"{case.benchmark}, {case.name}: {row.quantity} {tables.number(row.value)} {row.unit} {row.verdict}",
              file=sys.stderr)
    print(f"({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
