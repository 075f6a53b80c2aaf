"""Folders and devices that a command is given, checked before anything is read or written."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from genrec_bench.core.devices import before_cuda
from genrec_bench.core.errors import UserError
from genrec_bench.results.records import RecordStore, RecordStores
from genrec_bench.running.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
LOCAL = ROOT / "results" / "local"


def as_typed(folder: Path) -> str:
    """A folder as a command names it."""
    return str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else str(folder)


def stored_runs(results: Path) -> RecordStores:
    """The stored runs that something new is compared with: of a folder of results and, where one is absent there, of
    the ones that come with the repository.
    """
    return RecordStores(tuple(map(RecordStore, dict.fromkeys((results, REFERENCE)))))


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
        raise UserError(f"{option} points at {folder}, but {there} cannot be written. Choose another folder or fix "
                        "its rights.")


def data_folder(given: Path | str | None) -> Path | None:
    """The folder of downloaded data: as given, else GENREC_BENCH_DATA. Raises: UserError where it does not exist."""
    value = given or os.environ.get("GENREC_BENCH_DATA") or None
    if value is None:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        origin = "--data-dir" if given else "GENREC_BENCH_DATA"
        raise UserError(f"{origin} points at {folder}, which is not a folder.")
    return folder.resolve()


def reports_folder(results: Path, reports: Path | None = None, *, writes: bool = True) -> Path:
    """Where reports go: as asked, else beside the records they are made from.

    Raises: UserError for a file, and with `writes` for a folder that cannot be written.
    """
    option, folder = ("--results", results / "reports") if reports is None else ("--reports", reports)
    (check_writable if writes else check_folder)(option, folder)
    return folder


def check_devices(names: Sequence[str]) -> None:
    """Make ready for the devices, before CUDA starts in this process.

    Raises: UserError for a device that is not there, and where CUDA cannot be deterministic (see `before_cuda`).
    """
    for name in names:
        kind, _, index = name.partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdecimal()) or (kind == "cpu" and index):
            raise UserError(f"--device takes cpu, cuda or cuda:N, got {name!r}.")
        if kind == "cuda":
            before_cuda()
            import torch

            if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
                raise UserError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices here. "
                                "Use --device cpu, or a torch build for your GPU.")


def open_workspace(results: Path | str, *, reports: Path | None = None, data_dir: Path | str | None = None,
                   device: str = "cpu", threads: int = 1, track: Sequence[str] = (), plugins: Sequence[str] = (),
                   writes: bool = True) -> Workspace:
    """Where the runs of a command read and write.

    Raises: UserError where a folder is a file, a device is not there, or with `writes` where one cannot be written.
    """
    results = Path(results)
    (check_writable if writes else check_folder)("--results", results)
    reports_folder(results, reports, writes=writes)
    check_devices([device])
    if threads < 1:
        raise UserError(f"--threads must be at least 1, got {threads}.")
    return Workspace(results, data_folder(data_dir), device, threads, tuple(track),
                     shlex.join(["python", *sys.argv]), tuple(plugins))
