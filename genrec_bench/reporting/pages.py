"""The files of reports, first in memory, so that they can be written, or compared with those that are there."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from genrec_bench.core.ending import begin_child
from genrec_bench.core.files import write_atomically
from genrec_bench.reporting.figures.base import Picture, Plate
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.material import Material
from genrec_bench.reporting.tables import csv_text

OWNED = ("tables/*.csv", "figures/*.png", "figures/*.svg")  # what a report's folder holds besides report.md
FEW = 4  # figures that are drawn faster here than in processes of their own


@dataclass
class Pages:
    """Files by their path below the folder of reports. whole: folders that hold nothing but these files, by patterns.

    A folder that is whole loses what an earlier report left there.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    whole: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, path: str, content: str) -> None:
        """Add a text file, as UTF-8."""
        self.files[path] = content.encode()

    def table(self, path: str, header: Sequence[str], rows: Iterable[Sequence]) -> None:
        """Add a CSV file."""
        self.text(path, csv_text(header, rows))

    def write(self, reports: Path) -> None:
        """Write all files, each atomically; then remove what an earlier report left in whole folders."""
        for name, content in self.files.items():
            path = reports / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        for path in self._left(reports):
            (reports / path).unlink()

    def differences(self, reports: Path) -> list[str]:
        """What `write` would change, a line a file: missing, different or left from an earlier report; sorted."""
        lines = []
        for name, content in self.files.items():
            path = reports / name
            if not path.is_file():
                lines.append(f"{name} is missing")
            elif path.read_bytes() != content:
                lines.append(f"{name} is different{_first_difference(path.read_bytes(), content)}")
        return sorted([*lines, *(f"{name} is of no record" for name in self._left(reports))])

    def _left(self, reports: Path) -> list[str]:
        found = {str(path.relative_to(reports)) for folder, patterns in self.whole.items() for pattern in patterns
                 for path in (reports / folder).glob(pattern)}
        return sorted(found - set(self.files))


def _first_difference(there: bytes, here: bytes) -> str:
    """Where two text files part, or "" for pictures."""
    try:
        pairs = zip(there.decode().splitlines(), here.decode().splitlines(), strict=False)
        line = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), None)
    except UnicodeDecodeError:
        return ""
    return "" if line is None else f" from line {line} on"


def slug(name: str) -> str:
    """A block's name as part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


Drawn = list[tuple[Plate, Block | None, Picture]]
_waiting: list[Callable[[], Picture | None]] = []  # what the processes that draw were started for


@contextmanager
def drawing(wanted: Sequence[tuple[Material, Sequence[Plate]]], jobs: int = 1) -> Iterator[Callable[[Material], Drawn]]:
    """Draw the figures of some reports; gives a function that waits for those of one and returns them in order.

    Where they are many and forking is safe, `jobs` processes draw while the caller goes on.
    """
    tasks = [(material, plate, block) for material, plates in wanted for plate in plates
             for block in plate.subjects(material)]
    calls = [lambda m=m, p=p, b=b: p.draw(m, b) for m, p, b in tasks]
    safe = sys.platform == "linux" and "torch" not in sys.modules  # whose threads do not outlive a fork
    with _results(calls, jobs if safe and len(calls) >= FEW else 1) as results:
        def of(material: Material) -> Drawn:
            found = [(p, b, result()) for (m, p, b), result in zip(tasks, results, strict=True) if m is material]
            return [(plate, block, picture) for plate, block, picture in found if picture is not None]
        yield of


@contextmanager
def _results(calls: Sequence[Callable[[], Picture | None]], jobs: int) -> Iterator[list[Callable[[], Picture | None]]]:
    """Functions that return what the calls do: the calls themselves, or the results of other processes."""
    if jobs == 1:
        yield list(calls)
        return
    _waiting[:] = calls
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("fork"), initializer=_begin, initargs=(os.getpid(),))
    try:
        yield [pool.submit(_call, number).result for number in range(len(calls))]
    finally:
        pool.shutdown(cancel_futures=True)
        _waiting.clear()


def _begin(parent: int) -> None:
    gc.disable()
    begin_child(parent)


def _call(number: int) -> Picture | None:
    return _waiting[number]()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place(pages: Pages, folder: str, plate: Plate, block: Block | None, picture: Picture) -> str:
    """Add a figure's files and return its Markdown: the picture with its caption, or why there is none."""
    if picture.files is None:
        return f"{'' if block is None else f'{block.name}: '}{picture.text}."
    stem = "figures/" + slug(plate.name if block is None else f"{plate.name} {block.name}")
    for kind, content in picture.files.items():
        pages.files[f"{folder}/{stem}.{kind}"] = content
    title = plate.title if block is None else f"{block.name}: {plate.title}"
    return f"![{title}]({stem}.png)\n\n{picture.text} ([SVG]({stem}.svg))."
