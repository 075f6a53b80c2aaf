"""The ledger: where papers, pseudo-code and released code disagree, what was chosen here, and what the choice costs."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec_bench.core import settings
from genrec_bench.core.errors import UserError
from genrec_bench.core.files import canonical, write_atomically
from genrec_bench.experiments.identity import method
from genrec_bench.reporting.families import UNTESTED
from genrec_bench.reporting.load import Block, Group, arrange, run_table
from genrec_bench.reporting.matching import data_of, planned
from genrec_bench.reporting.rendering import render
from genrec_bench.reporting.rows import load_suite
from genrec_bench.reporting.tables import METRIC, listed, mean_sd, number, pipe, seeds_cell, title_of
from genrec_bench.results.records import RunRecord

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "ledger"
PARTS = ("first_stage", "training", "decoding", "negatives")
REQUIRED: Any = dataclasses.MISSING

@dataclass(frozen=True)
class Source:
    """`[[source]]`: a paper or a code repository."""

    what: str = settings.setting(REQUIRED, "what it is")
    where: str = settings.setting(REQUIRED, "where it stands")
    commit: str | None = settings.setting(None, "the commit that was read, of code")


@dataclass(frozen=True)
class Reading:
    """One value of a setting, and whose reading it is."""

    value: Any = settings.setting(REQUIRED, "the setting's value")
    reading: str = settings.setting(REQUIRED, "who reads it so, or what it means")
    row: str | None = settings.setting(None, "the suite's row with this value; None = that of the effect, with `--set`")


@dataclass(frozen=True)
class Effect:
    """How the effect of a choice is measured: rows of a suite that differ in it."""

    suite: str = settings.setting(REQUIRED, "which suite")
    row: str = settings.setting(REQUIRED, "label of the row that readings without a row of their own vary")


@dataclass(frozen=True)
class Entry:
    """`[[entry]]`: one choice. A source that says nothing about it is left out."""

    key: str = settings.setting(REQUIRED, "short name, unique in its file")
    what: str = settings.setting(REQUIRED, "the question, in one sentence")
    why: str = settings.setting(REQUIRED, "why the default is the default, or what is done here without a setting")
    paper: str | None = settings.setting(None, "what the paper says")
    pseudo_code: str | None = settings.setting(None, "what its pseudo-code says")
    code: str | None = settings.setting(None, "what the released code does")
    setting: str | None = settings.setting(None, "<section or component>.<setting> here; None = no choice is offered")
    readings: tuple[Reading, ...] = settings.setting((), "the setting's values")
    default: Any = settings.setting(None, "the default among them")
    effect: Effect | None = settings.setting(None, "how the effect is measured")


@dataclass(frozen=True)
class Method:
    """A file of the ledger."""

    title: str = settings.setting(REQUIRED, "name of the method")
    source: tuple[Source, ...] = settings.setting(REQUIRED, "what was read")
    entry: tuple[Entry, ...] = settings.setting(REQUIRED, "its choices")


def load_ledger(folder: Path = FOLDER) -> tuple[Method, ...]:
    """All files of the ledger, sorted by name. Raises: UserError naming the file and what is wrong in it."""
    return tuple(_method(path) for path in sorted(folder.glob("*.toml")))


def _method(path: Path) -> Method:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML ({error}). Fix it or remove it.") from None
    method = settings.build(Method, data, str(path))
    keys = [entry.key for entry in method.entry]
    for entry in method.entry:
        where = f"{path}, entry {entry.key}"
        values = [canonical(reading.value) for reading in entry.readings]
        if keys.count(entry.key) > 1 or len(set(values)) < len(values):
            raise UserError(f"{where}: the key and each value of its readings must stand once.")
        if bool(values) != (entry.setting is not None) or (values and canonical(entry.default) not in values):
            raise UserError(f"{where}: a setting needs readings with the default among them, and readings a setting.")
        if entry.effect is not None and not values:
            raise UserError(f"{where}: an effect is measured between readings, and there is none.")
    return method


def render_ledger(records: Sequence[RunRecord], out: Path, *, folder: Path = FOLDER,
                  suites: Path | None = None) -> Path:
    """Write the ledger as Markdown and return its path.

    A pure function of the ledger's files, the suites they name and the records: equal input gives equal bytes. An
    effect is shown for the data and profiles for which two readings or more have been run; profile smoke never counts.
    Raises: UserError for a damaged ledger or suite file.
    """
    methods, records = load_ledger(folder), [r for r in records if not r.is_trial]
    names = sorted({e.effect.suite for m in methods for e in m.entry if e.effect})
    blocks = {name: [b for b in arrange(load_suite(name, suites), records) if b.profile not in UNTESTED]
              for name in names}
    found = {(m.title, e.key): _measured(e, blocks, records) for m in methods for e in m.entry}
    rows = [[m.title, e.what, f"`{e.setting}`" if e.setting else "none", _text(e.default) if e.setting else "",
             "" if e.effect is None else "measured" if found[m.title, e.key] else "not measured"]
            for m in methods for e in m.entry]
    page = render("ledger", methods=methods, measured=found, value=_text, readings=_readings, effect=_effect,
                  table=pipe(["Method", "Question", "Setting", "Default", "Effect"], rows, numeric_from=5))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, f"{page}\n".encode())
    return out


Measured = list[tuple[Block, list[tuple[Reading, Group]]]]


def _measured(entry: Entry, blocks: Mapping[str, list[Block]], records: Sequence[RunRecord]) -> Measured:
    """The blocks in which two readings or more have been run, with the runs of each, in the order of readings."""
    result = []
    for block in blocks[entry.effect.suite] if entry.effect else ():
        found = [(reading, group) for reading in entry.readings for group in _runs(entry, reading, block, records)]
        if len({canonical(reading.value) for reading, _ in found}) > 1:
            result.append((block, found))
    return result


def _runs(entry: Entry, reading: Reading, block: Block, records: Sequence[RunRecord]) -> Iterator[Group]:
    """The runs of the row that has a reading's value, or those of the entry's row with that value set."""
    groups = [group for group in block.groups if group.row.label == (reading.row or entry.effect.row)]
    if reading.row or canonical(reading.value) == canonical(entry.default):
        yield from groups
        return
    part, _, key = entry.setting.partition(".")
    for group in groups[:1]:
        same = [r for r in records if r.profile == block.profile and data_of(r) == data_of(group.records[0])]
        runs = [r for r in same if (config := planned(group.row, r.profile, r, {part: {key: reading.value}}))
                and r.method == method(config)]
        if runs:
            yield Group(group.row, group.label, run_table(runs))


def _specs(group: Group) -> dict[str, Mapping[str, Any]]:
    """What a generative run was trained and decoded with, by section or objective."""
    sections = {part: group.config.get(part) for part in PARTS}
    specs = {part: spec for part, spec in sections.items() if spec is not None}
    return specs | {spec["name"]: spec for spec in group.config.get("objective", ())}


def _differences(group: Group, other: Group, setting: str) -> str:
    """What a run has otherwise than another one, `setting` apart."""
    own, theirs = _specs(group), _specs(other)
    parts = [f"{'with' if part in own else 'without'} {part}" for part in sorted(own.keys() ^ theirs.keys())]
    for part in sorted(own.keys() & theirs.keys()):
        for key in sorted(own[part].keys() & theirs[part].keys()):
            if f"{part}.{key}" != setting and canonical(own[part][key]) != canonical(theirs[part][key]):
                parts.append(f"{part}.{key}" + ("" if isinstance(own[part][key], (dict, list)) else
                                                f" = {own[part][key]}"))
    return ", ".join(parts)


def _readings(entry: Entry) -> str:
    """The values of a setting, and how runs with each are made."""
    return listed(entry.readings, {"Value": lambda r: _text(r.value), "Reading": lambda r: r.reading,
                                   **({"Measured by": lambda r: _how(entry, r)} if entry.effect else {})}, 3)


def _effect(entry: Entry, block: Block, found: Sequence[tuple[Reading, Group]]) -> str:
    """Score and cost of every reading that has been run on a block."""
    base = next((g for r, g in found if canonical(r.value) == canonical(entry.default)), found[0][1])
    return listed(found, {
        "Value": lambda of: _text(of[0].value), "Row": lambda of: of[1].label,
        "Differs also in": lambda of: _differences(of[1], base, entry.setting),
        "n": lambda of: seeds_cell(block, of[1]), title_of(METRIC): lambda of: mean_sd(of[1].summary(METRIC)),
        "Training (s)": lambda of: number(of[1].mean("train_seconds"), 1)}, 3)


def _how(entry: Entry, reading: Reading) -> str:
    row = f"{reading.row or entry.effect.row} ({entry.effect.suite})"
    if reading.row or canonical(reading.value) == canonical(entry.default):
        return row
    value = reading.value if isinstance(reading.value, str) else json.dumps(reading.value)
    return f"{row}, `--set {entry.setting}={value}`"


def _text(value: Any) -> str:
    return f"`{json.dumps(value)}`"
