"""Numbers that changed after a run was finished: `ERRATA.md` beside the records, read by people and by reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from genrec_bench.core.errors import UserError
from genrec_bench.core.files import write_atomically
from genrec_bench.results.records import RunRecord

NAME = "ERRATA.md"
HEADER = """# Errata

Finished runs whose numbers changed, oldest entry first. Each entry is headed by the name of the record that counts now;
metrics are unrounded, and `-` stands for one that was not there. `merge --correct REASON` adds entries.
"""
NONE = "-"
FIELDS = ("method", "dataset", "seed", "replaces", "genrec-bench", "users with other ranks", "reason")


@dataclass(frozen=True)
class Erratum:
    """One corrected run.

    replaces: the name of the run that stood here before; a run that counts as another now has another name. version: of
    genrec-bench, when it was corrected. users: test users whose ranks changed. changed: metric -> value before and
    now, None where there was none, of metrics that changed.
    """

    run_id: str
    method: str
    dataset: str
    seed: int
    replaces: str
    version: str
    users: int
    reason: str
    changed: Mapping[str, tuple[float | None, float | None]]

    @classmethod
    def between(cls, old: RunRecord, new: RunRecord, users: int, reason: str, version: str) -> Erratum:
        """What a new record changes."""
        values = {k: (old.metrics.get(k), new.metrics.get(k)) for k in sorted({*old.metrics, *new.metrics})}
        return cls(new.run_id, new.label, new.dataset, new.seed, old.run_id, version, users, " ".join(reason.split()),
                   {k: (was, now) for k, (was, now) in values.items() if was != now})


def errata(root: Path) -> list[Erratum]:
    """The corrected runs of a folder of records, oldest entry first; none where there is no `ERRATA.md`.

    Raises: UserError naming the entry that is damaged.
    """
    path = root / NAME
    if not path.is_file():
        return []
    _, *parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.M)
    return [_read(part, path) for part in parts]


def add_errata(root: Path, entries: Iterable[Erratum]) -> None:
    """Append entries; one that a run has as its latest already is left out."""
    latest = {entry.run_id: entry for entry in errata(root)}
    fresh = [entry for entry in entries if latest.get(entry.run_id) != entry]
    if not fresh:
        return
    path = root / NAME
    text = path.read_text(encoding="utf-8") if path.is_file() else HEADER
    root.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join([text, *map(_text, fresh)]).encode())


def _text(entry: Erratum) -> str:
    values = (entry.method, entry.dataset, entry.seed, entry.replaces, entry.version, entry.users, entry.reason)
    lines = [f"## {entry.run_id}", "", *(f"- {name}: {value}" for name, value in zip(FIELDS, values, strict=True))]
    if entry.changed:
        lines += ["", "| metric | before | now |", "|---|---|---|"]
        lines += [f"| {name} | {_cell(was)} | {_cell(now)} |" for name, (was, now) in entry.changed.items()]
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return NONE if value is None else repr(value)


def _read(part: str, path: Path) -> Erratum:
    run_id, *lines = part.splitlines()
    found = dict(line[2:].split(": ", 1) for line in lines if line.startswith("- ") and ": " in line)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    try:
        method, dataset, seed, replaces, version, users, reason = (found[name] for name in FIELDS)
        changed = {name: (_number(was), _number(now)) for name, was, now in rows}
        return Erratum(run_id.strip(), method, dataset, int(seed), replaces, version, int(users), reason, changed)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}, entry {run_id.strip()}: not an entry of errata ({error}). Expected the lines "
                        f"{', '.join(FIELDS)} and a table of metric, before, now.") from None


def _number(cell: str) -> float | None:
    return None if cell == NONE else float(cell)
