"""`python -m benchmarks.gpu --minutes 8 --out DIR`: what is run where a machine with a card is lent for some minutes.

Every part has a share of the time that is left, and after one that raises, dies or hangs the next has a new process, so
that it costs the others nothing. What a part finds is on disk line by line; DIR/report.json and DIR/report.md are
written after each. Needed are torch, numpy, scipy, tqdm and safetensors, of which transformers brings the last two;
nothing that draws reports or runs RecBole is imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.gpu_part import Part, made_up
from genrec_bench.cli import Parser
from genrec_bench.commands import common
from genrec_bench.core.ending import exit_code, signals_as_ctrl_c, start_child
from genrec_bench.core.errors import UserError, unknown
from genrec_bench.core.files import dump_json, write_atomically
from genrec_bench.core.provenance import device_name, provenance
from genrec_bench.running.folders import check_writable

# The module of each part, which has a function of its name, and its share of the time.
PARTS = {"outputs": ("benchmarks.gpu_checks", 2), "repeat": ("benchmarks.gpu_checks", 2),
         "speed": ("benchmarks.gpu_speed", 3), "runs": ("benchmarks.gpu_runs", 5)}
PACKING_SECONDS, GRACE_SECONDS = 5.0, 5.0  # kept for packing the records; for a part to stop in
EARLY = "its time was over before its process had begun"
JOBS = 4  # side by side on a card, which one small network does not fill
OPTIONAL = {"recbole": "baselines of RecBole and ml-100k", "sklearn": "semantic IDs by rq_kmeans, words of titles in "
            "the facts about test rows", "matplotlib": "reports, drawn elsewhere from the records"}


def options(words: list[str]) -> argparse.Namespace:
    """Read the command line. Raises: UserError."""
    parser = Parser(prog="python -m benchmarks.gpu", description="What is run on a lent card.", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, required=True, metavar="N", help="all is over after so long")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where everything goes")
    parser.add_argument("--device", default=None, metavar="NAME",
                        help="cuda, cuda:N, several, or cpu for a rehearsal (default: cuda where there is one)")
    parser.add_argument("--only", type=common.comma_list, default=list(PARTS), metavar="A,B",
                        help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--runs", type=Path, default=None, metavar="FILE",
                        help="a list of runs: each line has the options of `benchmark.py run` that say which, such as "
                             "--suite, --row, --seeds (default: a few rows of apao on apao_office, profile quick)")
    parser.add_argument("--jobs", type=int, default=None, metavar="N",
                        help=f"runs side by side (default: {JOBS} on a card, 1 on the CPU)")
    parser.add_argument("--data-dir", type=Path, default=None, metavar="DIR",
                        help="folder of downloaded data (default: the environment variable GENREC_BENCH_DATA)")
    parser.add_argument("--tiny", action="store_true", help="networks and made-up data for a rehearsal in seconds")
    args = parser.parse_args(words)
    for name in args.only:
        if name not in PARTS:
            raise unknown("part", name, PARTS, "--only")
    if args.runs is not None and not args.runs.is_file():
        raise UserError(f"--runs: no file {args.runs}.")
    check_writable("--out", args.out)
    args.data_dir = common.data_dir(args)
    if args.device is None:
        import torch

        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    args.threads = 1
    args.jobs = args.jobs if args.jobs is not None or args.device == "cpu" else JOBS
    means = common.means(args)  # which checks jobs, minutes and devices, and makes ready for CUDA
    args.devices, args.jobs = tuple("cuda:0" if name == "cuda" else name for name in means.devices), args.jobs or 1
    return args


def main(words: list[str]) -> int:
    """Exit code 0 done, 1 where something failed, 2 for a mistake of the user's, 130 and 143 where it was ended."""
    end = time.time()
    try:
        with signals_as_ctrl_c():
            args = options(words)
            return direct(args, shlex.join(["python", "-m", "benchmarks.gpu", *words]), end + 60 * args.minutes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def direct(args: argparse.Namespace, words: str, end: float) -> int:
    """One part after the other, then the records; the report is on disk after each."""
    args.out.mkdir(parents=True, exist_ok=True)
    report = {"about": about(args.devices[0], words), "minutes": args.minutes, "parts": {}}
    broken_off = None
    with tempfile.TemporaryDirectory(prefix="genrec-bench-") as folder:
        scratch = Path(folder)
        made_up(scratch, args.tiny)
        left, worker = [name for name in PARTS if name in args.only], Worker()
        try:
            while left:
                now, shares = time.time(), sum(PARTS[name][1] for name in left)
                name = left.pop(0)
                until = now + max(end - PACKING_SECONDS - now, 0.0) * PARTS[name][1] / shares
                part = Part(name, PARTS[name][0], args.devices, args.out, scratch, args.data_dir, args.runs, args.jobs,
                            args.tiny, until - GRACE_SECONDS, words)
                report["parts"][name] = worker.carry_out(part)
                write(report, args.out)
        except KeyboardInterrupt as stopped:
            broken_off = exit_code(stopped)
        finally:
            worker.end()
        report["parts"]["records"] = packed(args.out)
        write(report, args.out)
    print(f"report: {args.out / 'report.md'}")
    return broken_off or int(any(failed(found) for found in report["parts"].values()))


class Worker:
    """A process that carries out one part after another; after one that did not end well the next has a new one."""

    def __init__(self) -> None:
        self.process: Any = None

    def carry_out(self, part: Part) -> dict[str, Any]:
        """What a part found; it is broken off when its time is over."""
        began, why = time.time(), ""
        if part.seconds_left() <= 0:
            return {**part.found, "state": "not begun, for no time was left", "seconds": 0.0}
        if self.process is None:
            self.pipe, theirs = Pipe()
            self.process = start_child("spawn", live, theirs)
            theirs.close()
        try:
            self.pipe.send(part)
            wait([self.pipe, self.process.sentinel], part.seconds_left())
            if not (self.pipe.poll() and self.pipe.recv()):  # it is not over, or did not end well
                why = self.end()
        except (EOFError, OSError):
            why = self.end()
        found = part.read()
        if found["state"] == "died":
            found["state"] = "broken off" if why == EARLY else "died"
            found["notes"].append(why)
        return {**found, "seconds": round(time.time() - began, 1)}

    def end(self) -> str:
        """End the process: by a signal, which it has time to answer, then by force. Returns how it ended."""
        if self.process is None:
            return ""
        self.process.terminate()
        self.process.join(GRACE_SECONDS)
        hangs = self.process.is_alive()
        self.process.kill()
        self.process.join()
        code, self.process = self.process.exitcode, None
        if hangs:
            return "it did not stop in time"
        return EARLY if code == -signal.SIGTERM else f"its process ended with code {code}"


def live(pipe: Connection) -> None:
    """A worker's life: it ends after a part that did not end well, whose CUDA context may be of no use any more."""
    while True:
        try:
            part = pipe.recv()
        except EOFError:
            return
        done = carried_out(part)
        pipe.send(done)
        if not done:
            return


def carried_out(part: Part) -> bool:
    """Whether a part ended well, so that its process may go on; how it ended is on disk."""
    try:
        getattr(importlib.import_module(part.module), part.name)(part)
        part.write("done")
        return not part.spoilt
    except (KeyboardInterrupt, SystemExit):  # SIGTERM, which the scheduler passes on as an exit
        part.found["notes"].append("broken off, for its share of the time was over; what is here was finished before")
        part.write("broken off")
    except Exception:  # noqa: BLE001  the next part has its turn
        part.found["notes"].append(f"the part failed:\n{traceback.format_exc()}")
        part.write("failed")
        traceback.print_exc()
    return False


def packed(out: Path) -> dict[str, Any]:
    """Finished runs in a folder that `benchmark.py merge --from` takes."""
    try:
        from benchmarks.gpu_runs import pack

        count = pack(out / "results", out / "records")
    except Exception:  # noqa: BLE001  they are below DIR/results in any case
        return {"state": "failed", "rows": [], "notes": [traceback.format_exc()], "seconds": 0.0}
    return {"state": "done", "rows": [], "notes": [f"{count} records in {out / 'records'}"], "seconds": 0.0}


def about(device: str, words: str) -> dict[str, Any]:
    """The machine, the versions, and which packages are not there."""
    found = {**provenance(device, 1, words), "cores": os.cpu_count(),
             "not installed": {name: what for name, what in OPTIONAL.items() if find_spec(name) is None}}
    if device != "cpu":
        import torch

        memory = torch.cuda.get_device_properties(device).total_memory
        found |= {"device": device_name(device), "cuda": torch.version.cuda, "memory_gib": round(memory / 2**30, 1)}
    return found


def failed(found: dict[str, Any]) -> bool:
    """Whether a part did, or something in it."""
    return found["state"] in ("failed", "died") or not all(row["ok"] for row in found["rows"])


def write(report: dict[str, Any], out: Path) -> None:
    """report.json, and the same for people."""
    write_atomically(out / "report.json", dump_json(report).encode())
    write_atomically(out / "report.md", page(report).encode())


def page(report: dict[str, Any]) -> str:
    """The parts, then what each found."""
    machine = report["about"]
    lines = ["# On a lent card", "", f"{machine['device']}, torch {machine['torch']}, CUDA {machine.get('cuda', '-')}, "
             f"{machine['cpu']}, {machine['cores']} cores, commit {machine.get('commit', 'unknown')[:12]}.", ""]
    lines += [f"- {name} is not installed: without it no {what}" for name, what in machine["not installed"].items()]
    lines += ["", "| Part | State | Failures | Seconds |", "|---|---|---:|---:|"]
    for name, found in report["parts"].items():
        count = sum(not row["ok"] for row in found["rows"]) + (found["state"] in ("failed", "died"))
        lines.append(f"| {name} | {found['state']} | {count} | {found['seconds']:.0f} |")
    for name, found in report["parts"].items():
        lines += ["", f"## {name}", ""]
        if found["rows"]:
            lines += ["| What | Value | At most | | |", "|---|---:|---:|---|---|"]
        for row in found["rows"]:
            value = row["value"] if isinstance(row["value"], str) else f"{row['value']:.4g}"
            limit = "" if row["limit"] is None else f"{row['limit']:g}"
            lines.append(f"| {row['what']} | {value} | {limit} | {row['unit']} | {'' if row['ok'] else 'FAILED'} |")
        for note in found["notes"]:
            lines += ["", f"```text\n{note.rstrip()}\n```" if "\n" in note else note]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
