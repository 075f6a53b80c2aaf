"""The files of reports, first in memory, so that they can be written, or compared with those that are there."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from genrec_bench.core.ending import children, start_child
from genrec_bench.core.files import write_atomically
from genrec_bench.core.walk import Board, Told, walk
from genrec_bench.reporting.figures.base import Picture, Plate
from genrec_bench.reporting.figures.charts import Chart
from genrec_bench.reporting.load import Block
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.tables import csv_text

OWNED = ("tables/*", "figures/*")  # what a report's folder holds besides report.md
PICTURE = "picture"  # the file that says that a figure is drawn
SUMS = ".sha256"  # end of the file that says of which data a figure is drawn, and what its files are
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
        """Write the files that are not there as they are, each atomically; then remove what an earlier report left in
        whole folders."""
        for name, content in self.files.items():
            path = reports / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != content:
                write_atomically(path, content)
        for path in self._left(reports):
            (reports / path).unlink(missing_ok=True)  # another command may be writing the same report

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
                 for path in (reports / folder).glob(pattern)
                 if not path.name.startswith(".")}  # what another command is just writing
        return sorted(found - set(self.files))


def _first_difference(there: bytes, here: bytes) -> str:
    """Where two text files part, or "" for pictures."""
    try:
        pairs = zip(there.decode().splitlines(), here.decode().splitlines(), strict=False)
        line = next((n for n, (a, b) in enumerate(pairs, 1) if a != b), None)
    except UnicodeDecodeError:
        return ""
    return "" if line is None else f" from line {line} on"


Drawn = list[tuple[Plate, Block | None, Picture]]


@dataclass(frozen=True)
class _Figure:
    """A figure as a task of the walk: whoever comes first draws it and leaves it in a folder. See `core.walk.Task`.

    earlier: where pictures of an earlier report may lie, or None.
    """

    material: ReportData
    plate: Plate
    block: Block | None
    folder: Path
    earlier: Path | None = None
    uses: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.folder.name

    def done(self) -> bool:
        return (self.folder / PICTURE).exists()

    def needs(self) -> None:
        return None

    def draw(self) -> Picture | None:
        """The picture, or None where the block has nothing that it is about."""
        chart = self.plate.draw(self.material, self.block)
        if chart is None or isinstance(chart, str):
            return chart and Picture(chart, None, self.plate.heading)
        stem = self.plate.stem(self.material, self.block)
        files = self.earlier and _as_drawn(self.earlier / stem, chart.digest())
        return Picture(chart.note, files or _summed(stem, chart), chart.title, stem)

    def run(self, tell: Told) -> None:
        picture = self.draw()
        for end, content in ((picture and picture.files) or {}).items():
            (self.folder / f"drawn{end}").write_bytes(content)
        about = picture and [picture.text, picture.files and list(picture.files), picture.title, picture.stem]
        write_atomically(self.folder / PICTURE, json.dumps(about).encode())

    def read(self) -> Picture | None:
        """What `run` left."""
        about = json.loads((self.folder / PICTURE).read_bytes())
        if about is None:
            return None
        text, ends, title, stem = about
        return Picture(text, ends and {end: (self.folder / f"drawn{end}").read_bytes() for end in ends}, title, stem)


def _summed(stem: str, chart: Chart) -> dict[str, bytes]:
    """A chart's files, and what they are, as `sha256sum` writes it, after a line for the data that they show."""
    files = chart.files()
    lines = [f"{chart.digest()}  data"]
    lines += [f"{hashlib.sha256(content).hexdigest()}  {stem}{end}" for end, content in files.items()]
    return {**files, SUMS: ("\n".join(lines) + "\n").encode()}


def _as_drawn(stem: Path, digest: str) -> dict[str, bytes] | None:
    """The files of an earlier report that show the same data and are as they were drawn; None without them."""
    try:
        sums = Path(f"{stem}{SUMS}").read_bytes()
        first, *lines = (line.split("  ", 1) for line in sums.decode().splitlines())
        files = {name.removeprefix(stem.name): (stem.parent / name).read_bytes() for _, name in lines}
        whole = all(hashlib.sha256(files[name.removeprefix(stem.name)]).hexdigest() == of for of, name in lines)
    except (OSError, ValueError):
        return None
    return {**files, SUMS: sums} if whole and first == [digest, "data"] else None


@contextmanager
def drawing(wanted: Sequence[tuple[ReportData, Sequence[Plate]]], jobs: int = 1,
            reports: Path | None = None) -> Iterator[Callable[[ReportData], Drawn]]:
    """Draw the figures of some reports; gives a function that returns those of one in order.

    reports: where earlier reports may lie, whose pictures are taken where they show the same data.

    Where they are many and forking is safe, other processes draw while the caller goes on, until it asks for the first
    and draws too: `jobs` with it. What another could not draw is drawn here, where its error is raised.
    """
    with tempfile.TemporaryDirectory(prefix="genrec-bench-") as folder, children() as processes:
        tasks = [_Figure(material, plate, block, Path(folder, str(number)),
                         reports and reports / material.suite.name / "figures") for number, (material, plate, block) in
                 enumerate((m, p, b) for m, plates in wanted for p in plates for b in p.subjects(m))]
        safe = sys.platform == "linux" and "torch" not in sys.modules  # whose threads do not outlive a fork
        board = Board(Path(tempfile.mkdtemp(dir=folder)))
        if safe and len(tasks) >= FEW:
            processes |= {number: start_child("fork", _draw, tasks, board) for number in range(jobs - 1)}

        def of(material: ReportData) -> Drawn:
            own = [task for task in tasks if task.material is material]
            if processes:
                walk(own, board)
            found = [(task, task.read() if task.done() else task.draw()) for task in own]
            return [(task.plate, task.block, picture) for task, picture in found if picture is not None]
        yield of


def _draw(tasks: Sequence[_Figure], board: Board) -> None:
    """The life of a process that draws."""
    gc.disable()
    walk(tasks, board)


def place(pages: Pages, folder: str, plate: Plate, block: Block | None, picture: Picture) -> str:
    """Add a figure's files and return its Markdown: the picture with its caption, or why there is none."""
    if picture.files is None:
        return f"*{picture.title}{'' if block is None else f', {block.name}'}: not drawn; {picture.text}.*"
    stem = f"figures/{picture.stem}"
    for end, content in picture.files.items():
        pages.files[f"{folder}/{stem}{end}"] = content
    return (f"![{picture.title}]({stem}.svg)\n\n**{picture.title}.** {picture.text} ([PDF]({stem}.pdf), at column "
            f"width [SVG]({stem}-column.svg) and [PDF]({stem}-column.pdf), [numbers]({stem}.csv)).")
