"""The rows of a suite, and which record belongs to which of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec_bench import declared
from genrec_bench.identity import canonical

PARTS = ("tokenizer", "backbone", "objective", "first_stage", "training", "decoding")
ANY = "any"  # a stated value that stands for every number


@dataclass(frozen=True)
class Row:
    """One method of a suite: a baseline, or a backbone trained with objectives.

    stated: what the row says of the method, `{"baseline": spec}` or specs of tokenizer, backbone, objective, first
    stage, training and decoding; a setting that is not stated may have any value, but a weight is 1. paper_row: the
    paper's (backbone, method) or None, in its table `table`. seeded: False where nothing is random, so that one run
    says it all. grid: "core" or "full".
    """

    stated: Mapping[str, Any]
    label: str | None = None
    paper_row: tuple[str, str] | None = None
    seeded: bool = True
    table: str = "1"
    grid: str = "core"

    @property
    def baseline(self) -> str | None:
        """The baseline's name, or None for a generative row."""
        return self.stated["baseline"]["name"] if "baseline" in self.stated else None

    @property
    def key(self) -> str:
        """A short name, unique in its suite: the baseline's, or backbone and objectives, with what else is stated."""
        names = [self.baseline] if self.baseline else [self.stated["backbone"]["name"],
                                                       *(o["name"] for o in self.stated["objective"])]
        values = {k: v for k, v in flatten(self.stated).items() if not k.endswith(".name") or k == "tokenizer.name"}
        return "+".join(names) + "".join(f" {k}={v}" for k, v in sorted(values.items()))


@dataclass(frozen=True)
class Suite:
    """A declared grid of methods. includes: names of the suites that a collective suite stands for."""

    name: str
    title: str
    paper: str | None
    rows: tuple[Row, ...]
    includes: tuple[str, ...] = ()


def load_suite(name: str, folder: Path | None = None) -> Suite:
    """The suite of a name. Raises: UserError with the nearest match, or naming a damaged file."""
    data = declared.load_suite(name, folder)
    head = data["suite"]
    return Suite(head["name"], head["title"], head.get("paper"), tuple(_row(r) for r in data.get("row", ())),
                 tuple(head.get("includes", ())))


def _row(data: Mapping[str, Any]) -> Row:
    paper_row = data.get("paper_row")
    pair = (paper_row["backbone"], paper_row["method"]) if paper_row else None
    table, grid = str((paper_row or {}).get("table", 1)), data.get("grid", "core")
    if "baseline" in data:
        return Row({"baseline": {"name": data["baseline"]}}, None, pair,
                   declared.load_baseline(data["baseline"])["seeded"], table, grid)
    stated = {part: data[part] for part in PARTS if part in data}
    if data.get("best"):  # the paper's best values differ between datasets
        last = stated["objective"][-1]
        varied = {"weight": ANY, **({"eta": ANY} if "eta" in last else {})}
        stated["objective"] = [*stated["objective"][:-1], {**last, **varied}]
    return Row(stated, data["label"], pair, True, table, grid)


def row_of(config: Mapping[str, Any], rows: Sequence[Row]) -> tuple[int, dict[str, Any]] | None:
    """The one row that a run belongs to, by number, with the stated settings that the run has otherwise.

    Of the rows whose every stated setting the run has, the one that states most, else the first. A run that has all
    of no row (`--set` changed it) goes to the row with most settings in common among those that differ from it in
    numbers only: words and switches tell methods apart.
    """
    found = []
    for number, row in enumerate(rows):
        changed = _changed(config, row)
        if changed is not None:
            found.append((bool(changed), len(changed) - len(flatten(row.stated)), number, changed))
    if not found:
        return None
    _, _, number, changed = min(found, key=lambda f: f[:3])
    return number, changed


def _changed(config: Mapping[str, Any], row: Row) -> dict[str, Any] | None:
    """The run's values of stated settings that are other numbers than the row's; None where it is another method."""
    if (config.get("baseline") is None) != (row.baseline is None):
        return None
    if row.baseline is None and _shape(config) != _shape(row.stated):
        return None
    own, stated = (flatten(_weighted({part: c.get(part) or {} for part in row.stated})) for c in (config, row.stated))
    changed = {}
    for key, wanted in stated.items():
        value = own.get(key)
        if wanted == ANY:
            continue
        if canonical(value) != canonical(wanted):
            if isinstance(wanted, (str, bool)):
                return None
            changed[key] = value
    return changed


def _shape(config: Mapping[str, Any]) -> list[list[str]]:
    """Names of the objectives of each stage; methods of another shape are other methods."""
    stage = config.get("first_stage") or {}
    return [[o["name"] for o in specs] for specs in (config.get("objective", ()), stage.get("objective", ()))]


def _weighted(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts with what holds where nothing is given: an objective weighs 1, a first stage is gone on from."""
    weighted = {}
    for part, spec in parts.items():
        if part == "objective":
            spec = [{"weight": 1.0, **o} for o in spec]
        elif part == "first_stage" and spec:
            spec = {"continues": True, **spec, "objective": [{"weight": 1.0, **o} for o in spec["objective"]]}
        weighted[part] = spec
    return weighted


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as `{"a.b": value}`; lists of plain values stay values."""
    if isinstance(data, Mapping):
        items: Iterable[tuple[str, Any]] = data.items()
    elif isinstance(data, (list, tuple)) and any(isinstance(v, Mapping) for v in data):
        items = ((str(i) if len(data) > 1 else "", v) for i, v in enumerate(data))
    else:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(flatten(value, ".".join(part for part in (prefix, str(key)) if part)))
    return flat
