"""The rows of a suite, and which record belongs to which of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from genrec_bench.core.files import canonical
from genrec_bench.experiments import suite_files
from genrec_bench.reporting.papers import Paper, load_paper

PARTS = ("tokenizer", "backbone", "objective", "first_stage", "training", "decoding")
BASELINES = "Baselines"


@dataclass(frozen=True)
class Row:
    """One method of a suite: a baseline, or a backbone trained with objectives.

    stated: what the row says of the method, `{"baseline": spec}` or specs of tokenizer, backbone, objective, first
    stage, training and decoding; a setting that is not stated may have any value, but a weight is 1. paper_row: the
    paper's (backbone, method) or None, in its table `table`. seeded: False where nothing is random, so that one run
    says it all. grid: the smallest that has the row. best: dataset -> flat settings that are stated otherwise there.
    """

    stated: Mapping[str, Any]
    label: str | None = None
    paper_row: tuple[str, str] | None = None
    seeded: bool = True
    table: str = "1"
    grid: str = "core"
    best: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def baseline(self) -> str | None:
        """The baseline's name, or None for a generative row."""
        return self.stated["baseline"]["name"] if "baseline" in self.stated else None

    @property
    def backbone(self) -> str | None:
        """The backbone's registered name, or None for a baseline."""
        return self.stated["backbone"]["name"] if "backbone" in self.stated else None

    @property
    def spelling(self) -> str:
        """The backbone as the label spells it, or its registered name; "Baselines" for a baseline."""
        head = (self.label or "").partition(" + ")[0]
        return BASELINES if self.backbone is None else head if head.lower() == self.backbone else self.backbone

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """Names of the objectives of each stage, in order of training; () for a baseline."""
        first = (self.stated.get("first_stage") or {}).get("objective", ())
        return tuple(tuple(o["name"] for o in specs) for specs in (first, self.stated.get("objective", ())) if specs)

    @property
    def goes_on(self) -> bool:
        """Whether the last stage starts from the weights of one before it."""
        return len(self.stages) > 1 and self.stated["first_stage"].get("continues", True)

    @cached_property
    def wanted(self) -> Mapping[str, Any]:
        """What is stated, flat, with the weights of objectives."""
        return flatten(_weighted(self.stated))

    @cached_property
    def num_stated(self) -> tuple[int, int]:
        """How many words and switches are stated, names among them, and how many settings in all."""
        stated = flatten(self.stated)
        return sum(isinstance(v, (str, bool)) for v in stated.values()), len(stated)

    @property
    def key(self) -> str:
        """A short name, equal for rows that state the same: the baseline's, or backbone, objectives and the rest."""
        names = [self.baseline] if self.baseline else [self.stated["backbone"]["name"],
                                                       *(o["name"] for o in self.stated["objective"])]
        told = [f"{part}." if part == "objective" else f"{part}.name" for part in ("baseline", "backbone", "objective")]
        values = {k: v for k, v in flatten(self.stated).items()
                  if not (k.endswith(".name") and k.startswith(tuple(told)))}
        return "+".join(names) + "".join(f" {k}={v}" for k, v in sorted(values.items()))


def objective_of(row: Row) -> str:
    """What names a row's colour: the objectives of its last stage beside cross-entropy, with the form of APAO."""
    names = [f"{o['name']} {o['form']}" if o["name"] == "apao" and "form" in o else o["name"]
             for o in row.stated.get("objective", ())]
    return " ".join([n for n in names if n != "cross_entropy"] or names[:1])


@dataclass(frozen=True)
class Family:
    """Comparisons that a suite declares in advance: rows x backbones x datasets against one row, for one metric.

    rows, against: labels without their backbone; against may be a baseline's name. Holm's correction is made within
    the family.
    """

    name: str
    rows: tuple[str, ...]
    against: str
    backbones: tuple[str, ...]
    datasets: tuple[str, ...]
    metric: str = "ndcg@10"

    @property
    def measure(self) -> str:
        """The metric's registered name."""
        return self.metric.partition("@")[0]

    @property
    def k(self) -> int:
        """Its list length."""
        return int(self.metric.partition("@")[2])


@dataclass(frozen=True)
class Suite:
    """A declared grid of methods. includes: names of the suites that a collective suite stands for."""

    name: str
    title: str
    paper: str | None
    rows: tuple[Row, ...]
    includes: tuple[str, ...] = ()
    families: tuple[Family, ...] = ()


@cache
def load_suite(name: str, folder: Path | None = None) -> Suite:
    """The suite of a name. Raises: UserError with the nearest match, or naming a damaged file."""
    data = suite_files.load_suite(name, folder)
    head = data["suite"]
    paper = load_paper(head["paper"]) if head.get("paper") else None
    rows = tuple(_row(row, paper) for row in data.get("row", ()))
    return Suite(head["name"], head["title"], head.get("paper"), rows, tuple(head.get("includes", ())),
                 tuple(Family(**{k: tuple(v) if isinstance(v, list) else v for k, v in family.items()})
                       for family in data.get("family", ())))


def _row(data: Mapping[str, Any], paper: Paper | None) -> Row:
    paper_row = data.get("paper_row")
    pair = (paper_row["backbone"], paper_row["method"]) if paper_row else None
    table, grid = str((paper_row or {}).get("table", 1)), data.get("grid", "core")
    if "baseline" in data:
        return Row({"baseline": {"name": data["baseline"]}}, None, pair,
                   suite_files.load_baseline(data["baseline"])["seeded"], table, grid)
    stated = {part: data[part] for part in PARTS if part in data}
    return Row(stated, data["label"], pair, True, table, grid, _best(data, paper) if paper else {})


def _best(data: Mapping[str, Any], paper: Paper) -> dict[str, dict[str, float]]:
    """What a row's table of best settings says of its last objective, for each of the paper's datasets."""
    if not data.get("best"):
        return {}
    last = len(data["objective"]) - 1
    place = f"objective.{last}." if last else "objective."
    found = {dataset: suite_files.best_values(paper.key, data["best"], dataset, data["best_row"])
             for dataset in paper.datasets}
    return {dataset: {place + ("weight" if k == "beta" else k): v for k, v in values.items()}
            for dataset, values in found.items()}


def row_of(config: Mapping[str, Any], rows: Sequence[Row]) -> tuple[int, dict[str, Any]] | None:
    """The one row that a run belongs to, by number, with the stated settings that the run has otherwise.

    Of the rows whose every stated setting the run has, the one that states most words, then most settings, else the
    first. A run that has all of no row (`--set` changed it) goes to the row with most in common among those that
    differ from it in numbers only: words and switches tell methods apart.
    """
    found, shape = [], _shape(config)
    own = flatten(_weighted({part: config.get(part) or {} for part in ("baseline", *PARTS)}))
    for number, row in enumerate(rows):
        if (config.get("baseline") is None) != (row.baseline is None) or _shape(row.stated) != shape:
            continue
        changed = _changed(own, {**row.wanted, **row.best.get(config["dataset"]["name"], {})})
        if changed is not None:
            words, stated = row.num_stated
            found.append((bool(changed), -words, len(changed) - stated, number, changed))
    if not found:
        return None
    *_, number, changed = min(found, key=lambda f: f[:4])
    return number, changed


def _changed(own: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any] | None:
    """The run's values of stated settings that are other numbers; None where it is another method."""
    changed = {}
    for key, wanted in stated.items():
        value = own.get(key)
        if value != wanted and isinstance(wanted, (str, bool)):
            return None
        if value != wanted and canonical(value) != canonical(wanted):  # a list may stand for a tuple
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
