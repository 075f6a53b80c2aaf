"""`python -m benchmarks scale --items 10000,100000,1000000`: what each stage costs as the catalogue grows.

Each stage has a child process of its own on one thread. What was measured goes to scale.csv, a line a stage and size,
and from there to a table with the goals (scale.md) and a figure of time and memory against size (scale.svg).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.scale_stages import GOAL_ITEMS, GOAL_MIB, GOALS, STAGES, measured, write_folder
from benchmarks.tables import ABOUT, cells_of, number
from genrec_bench.cli import Parser
from genrec_bench.commands.common import comma_list
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.files import write_atomically
from genrec_bench.running.folders import check_folder

HERE = Path(__file__).resolve().parent
COLUMNS = ("items", "stage", "seconds", "mib_more", "mib", *ABOUT)
TITLE = f"""# How costs grow

Made by `python -m benchmarks scale` on made-up data: N items, N / 2 users, 10 N interactions, IDs of four levels \
([scale_stages.py](scale_stages.py)). Each stage has a process of its own on one thread: its processor seconds, and in \
brackets the MiB that the process held at most, what the stage begins with included. Goals are for {GOAL_ITEMS:,} \
items, within {GOAL_MIB:,} MiB; what misses one is in bold.

![CPU seconds and MiB against the number of items](scale.svg)
"""
Line = dict[str, Any]


def run(words: Sequence[str]) -> bool:
    """Measure, or be the child that does so; whether every stage was measured. Raises: UserError."""
    parser = Parser(prog="python -m benchmarks scale", description="Costs as the catalogue grows.", allow_abbrev=False)
    parser.add_argument("--items", type=comma_list, default=["10000", "100000"], metavar="N,N", help="catalogues")
    parser.add_argument("--only", default="", metavar="NAME", help=f"one stage: {'; '.join(STAGES)}")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where table and figure go")
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.only and args.only not in STAGES:
        raise unknown("stage", args.only, STAGES, "--only")
    if args.folder:
        print(json.dumps(measured(args.only, args.folder)))
        return True
    if not all(size.isdecimal() and int(size) >= 100 for size in args.items):
        raise UserError(f"--items: whole numbers from 100, got {', '.join(args.items)}.")
    check_folder("--out", args.out)
    about, new, failed = describe(), [], 0
    print(f"{'items':>10}  {'stage':<32}{'CPU s':>10}{'MiB more':>10}{'MiB':>10}")
    for items in map(int, args.items):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), items)
            for stage in [args.only] if args.only else STAGES:
                found = _measured_apart(stage, folder)
                cells = "".join(f"{found[k]:>10,.{2 * (k == 'seconds')}f}" for k in COLUMNS[2:5] if k in found)
                print(f"{items:>10,}  {stage:<32}{cells or found['failed']}", flush=True)
                if cells:
                    new.append({"items": items, "stage": stage, **found, **about})
                failed += not cells
    args.out.mkdir(parents=True, exist_ok=True)
    lines = merged(read(args.out / "scale.csv"), new)
    for name, content in pages(lines).items():
        write_atomically(args.out / name, content)
    return not failed


def _measured_apart(stage: str, folder: str) -> dict[str, Any]:
    """What a child process measures, or "failed" with its last words."""
    words = [sys.executable, "-m", "benchmarks.scale", "--only", stage, "--folder", folder]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        return {"failed": f"  failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def read(path: Path) -> list[Line]:
    """The lines of scale.csv, none where there is no such file. Raises: UserError for another table."""
    return [{**line, "items": int(line["items"]), **{k: float(line[k]) for k in COLUMNS[2:5]}}
            for line in cells_of(path, COLUMNS)]


def merged(old: list[Line], new: list[Line]) -> list[Line]:
    """The new lines, and the old ones of stages and sizes that were not measured; in the order of sizes and stages."""
    lines, order = {(line["items"], line["stage"]): line for line in [*old, *new]}, list(STAGES)
    return sorted((line for line in lines.values() if line["stage"] in order),
                  key=lambda line: (line["items"], order.index(line["stage"])))


def pages(lines: list[Line]) -> dict[str, bytes]:
    """Name of a file -> its content: the lines, the table and, where there is a line to draw, the figure."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()} for line in lines)
    found = {"scale.csv": buffer.getvalue().encode(), "scale.md": _table(lines).encode()}
    return found | ({"scale.svg": _figure(lines)} if lines else {})


def _table(lines: list[Line]) -> str:
    """A line a stage, a column a size, and the goal."""
    known = {(line["stage"], line["items"]): line for line in lines}
    sizes = sorted({line["items"] for line in lines})
    rows = [["stage", *(f"{size:,} items" for size in sizes), "goal"], ["---", *["---:"] * (len(sizes) + 1)]]
    for stage in dict.fromkeys(line["stage"] for line in lines):
        cells = [_cell(known.get((stage, size))) for size in sizes]
        rows.append([stage, *cells, f"{GOALS[stage]} s" if stage in GOALS else ""])
    places = dict.fromkeys(tuple(line[k] for k in ABOUT) for line in lines)
    machines = "\n".join(f"{machine}; {versions}; commit {commit}; load average before the start {load}."
                         for commit, load, versions, machine in places)
    return f"{TITLE}\n{machines}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(line: Line | None) -> str:
    if line is None:
        return ""
    text = f"{number(line['seconds'])} s ({line['mib']:,.0f})"
    missed = line["items"] == GOAL_ITEMS and (line["seconds"] > GOALS.get(line["stage"], float("inf"))
                                              or line["mib"] > GOAL_MIB)
    return f"**{text}**" if missed else text


def _figure(lines: list[Line]) -> bytes:
    """Time and memory against the number of items, a curve a stage."""
    from genrec_bench.reporting.figures.charts import Axis, Chart, point
    from genrec_bench.reporting.figures.style import styles

    axes = {"seconds": Axis("CPU seconds", log=True), "mib": Axis("MiB held at most", log=True)}
    variants = styles()["variants"]
    names = {stage: re.split(", | on | for ", stage)[0] for stage in STAGES}  # four columns of the legend
    looks = dict(zip(names.values(), zip(cycle(variants["colors"]), cycle(variants["markers"]),
                                 cycle(map(tuple, variants["dashes"])), strict=False), strict=False))
    points = [point("", quantity, names[line["stage"]], "curve", line["items"], line[quantity])
              for line in lines for quantity in axes]
    sizes = Axis("items", ticks={size: f"{size:,}" for size in sorted({line["items"] for line in lines})})
    return Chart("How costs grow with the catalogue", "", points, axes, looks, at=sizes).images(("svg",))["svg"]


def main(words: Sequence[str]) -> int:
    """The exit code: 0, 1 where a stage failed, or 2 after a mistake in the command."""
    try:
        return 0 if run(words) else 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
