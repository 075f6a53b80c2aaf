"""What the parts of `benchmarks.gpu` share: where they write what they found, and made-up data that need no file."""

from __future__ import annotations

import json
import math
import random
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrec_bench.core.files import dump_json
from genrec_bench.experiments import grid
from genrec_bench.experiments.grid import Overrides, Selection
from genrec_bench.running.workspace import Prepared, Workspace

BACKBONES = {"tiger": "TIGER + APAO-Pointwise", "llama": "Llama + cross-entropy"}  # one of them with a run state
TINY = {"width": 16, "num_layers": 1, "num_heads": 2, "head_width": 8, "feed_forward_width": 32}


@dataclass
class Part:
    """One part under way: what it may use, and what it has found, which is on disk after every line.

    module: where its function is, which has its name. devices: the first is what all parts but `runs` work on. scratch:
    a folder that is deleted in the end. until: the time at which it is broken off. words: the command, for records.
    spoilt: the next part must have another process.
    """

    name: str
    module: str
    devices: tuple[str, ...]
    out: Path
    scratch: Path
    data_dir: Path | None
    runs: Path | None
    jobs: int
    tiny: bool
    until: float
    words: str
    spoilt: bool = False
    found: dict[str, Any] = field(default_factory=lambda: {"state": "died", "rows": [], "notes": []})

    @property
    def device(self) -> str:
        return self.devices[0]

    @property
    def file(self) -> Path:
        """Where it writes what it found."""
        return self.scratch / f"{self.name}.json"

    def row(self, what: str, value: float, unit: str = "", limit: float | None = None) -> None:
        """A number; one that is not at most `limit` is a failure. `unit` says what is counted or compared."""
        ok = limit is None or value <= limit
        plain = float(value) if math.isfinite(value) else str(value)
        self.found["rows"].append({"what": what, "value": plain, "unit": unit, "limit": limit, "ok": bool(ok)})
        bound = "" if limit is None else f" (at most {limit:g})"
        print(f"{self.name}: {what}: {value:.4g} {unit}{bound}{'' if ok else '  FAILED'}", file=sys.stderr, flush=True)
        self.write()

    def note(self, text: str) -> None:
        """A line that is no number, such as what was left out and why."""
        self.found["notes"].append(text)
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)
        self.write()

    @contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """A piece whose failure is written down with its traceback, and costs the next ones nothing."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever it is
            self.found["notes"].append(f"{what} failed:\n{traceback.format_exc()}")
            self.row(f"{what}: {type(error).__name__}, see the traceback", 1, "failures", limit=0)

    def write(self, state: str | None = None) -> None:
        """To disk, with how it ended where it has."""
        self.found["state"] = state or self.found["state"]
        fresh = self.file.with_suffix(".new")  # not synced to disk, which would take longer than what it tells of
        fresh.write_text(dump_json(self.found), encoding="utf-8")
        fresh.replace(self.file)

    def read(self) -> dict[str, Any]:
        """What was written, by another process perhaps."""
        return json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else self.found

    def seconds_left(self) -> float:
        return self.until - time.time()

    def prepared(self, label: str, results: str, changes: Overrides | None = None) -> tuple[Prepared, Workspace]:
        """A row of the suite `apao` on the made-up data, ready to run for 2 epochs; results: a name below `scratch`.

        With the paper's sizes, or tiny ones.
        """
        settings: Overrides = {"training": {"epochs": 2, "patience": 2}}
        if self.tiny:
            settings |= {next(name for name in BACKBONES if label.lower().startswith(name)): dict(TINY)}
        for name, values in (changes or {}).items():
            settings[name] = {**settings.get(name, {}), **values}
        selection = Selection("apao", "smoke" if self.tiny else "paper", (str(made_up(self.scratch, self.tiny)),),
                              None, (), (0,), settings, None, (label,))
        workspace = Workspace(self.scratch / results, device=self.device, command=self.words)
        return workspace.prepare(grid.expand(selection)[-1]), workspace


def made_up(folder: Path, tiny: bool) -> Path:
    """A dataset of the size of the papers' smaller ones, or a tiny one, written once: items with IDs of three codes.

    The next item is one of three, mostly the same, so that there is something to learn.
    """
    path = folder / "made-up"
    if (path / "Made.index.json").exists():
        return path
    path.mkdir(exist_ok=True)
    users, items, codes = (40, 64, 4) if tiny else (2000, 3000, 16)
    draw, sequences = random.Random(0).random, {}
    for user in range(users):
        sequence = [int(draw() * items)]
        for _ in range(4 + int(draw() * (6 if tiny else 16))):
            step = 1 if draw() < 0.7 else 7 if draw() < 0.7 else int(draw() * items)
            sequence.append((sequence[-1] + step) % items)
        sequences[str(user)] = sequence
    index = {str(i): [f"<a_{i // codes ** 2}>", f"<b_{i // codes % codes}>", f"<c_{i % codes}>"] for i in range(items)}
    for name, data in (("inter", sequences), ("index", index)):
        (path / f"Made.{name}.json").write_text(json.dumps(data), encoding="utf-8")
    return path
