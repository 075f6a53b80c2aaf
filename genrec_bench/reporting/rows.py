"""The rows of a suite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from genrec_bench.core import registry
from genrec_bench.experiments import suite_files
from genrec_bench.reporting.papers import Paper, load_paper
from genrec_bench.results.records import RunRecord

PARTS = ("tokenizer", "backbone", "objective", "first_stage", "training", "decoding")
BASELINES = "Baselines"


@dataclass(frozen=True)
class Row:
    """One method of a suite: a baseline, or a backbone trained with objectives.

    stated: what the row says of the method, `{"baseline": spec}` or specs of tokenizer, backbone, objective, first
    stage, training and decoding; a setting that is not stated may have any value, but a weight is 1. paper_row: the
    paper's (backbone, method) or None, in its table `table`. seeded: False where nothing is random, so that one run
    says it all. grid: the smallest that has the row. best: dataset -> flat settings that are stated otherwise there.
    source: the row as its file has it, with the name of the suite's paper.
    """

    stated: Mapping[str, Any]
    label: str | None = None
    paper_row: tuple[str, str] | None = None
    seeded: bool = True
    table: str = "1"
    grid: str = "core"
    best: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

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

    @property
    def key(self) -> str:
        """A short name, equal for rows that state the same: the baseline's, or backbone, objectives and the rest."""
        names = [self.baseline] if self.baseline else [self.stated["backbone"]["name"],
                                                       *(o["name"] for o in self.stated["objective"])]
        told = [f"{part}." if part == "objective" else f"{part}.name" for part in ("baseline", "backbone", "objective")]
        values = {k: v for k, v in flatten(self.stated).items()
                  if not (k.endswith(".name") and k.startswith(tuple(told)))}
        return "+".join(names) + "".join(f" {k}={v}" for k, v in sorted(values.items()))


def effective(row: Row, dataset: str) -> dict[str, Any]:
    """What a row states on a dataset, flat, with the values that its paper has found best there."""
    return {**row.wanted, **row.best.get(dataset, {})}


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
    def size(self) -> int:
        """How many comparisons it declares for a profile."""
        return len(self.rows) * len(self.backbones) * len(self.datasets)

    @property
    def measure(self) -> str:
        """The metric's registered name."""
        return self.metric.partition("@")[0]

    @property
    def k(self) -> int:
        """Its list length."""
        return int(self.metric.partition("@")[2])


@dataclass(frozen=True, eq=False)
class Suite:
    """A declared grid of methods. includes: names of the suites that a collective suite stands for. page: the page
    of the reports that its records also make. declared: when its comparisons were, and what was known then.
    """

    name: str
    title: str
    paper: str | None
    rows: tuple[Row, ...]
    includes: tuple[str, ...] = ()
    families: tuple[Family, ...] = ()
    page: str | None = None
    declared: str = ""


def load_suite(name: str, folder: Path | None = None) -> Suite:
    """The suite of a name, or of a user's own file. Raises: UserError with the nearest match, or naming a damaged file.
    """
    return _loaded(name, folder, suite_files.stamp(name))


@cache
def _loaded(name: str, folder: Path | None, stamp: int) -> Suite:
    data = suite_files.load_suite(name, folder)
    head = data["suite"]
    paper = load_paper(head["paper"]) if head.get("paper") else None
    rows = tuple(replace(_row(row, paper), source={**row, "paper": head.get("paper")}) for row in data.get("row", ()))
    return Suite(head["name"], head["title"], head.get("paper"), rows, tuple(head.get("includes", ())),
                 tuple(Family(**{k: tuple(v) if isinstance(v, list) else v for k, v in family.items()})
                       for family in data.get("family", ())), head.get("page"), head.get("declared", ""))


def with_baselines(suite: Suite, records: Iterable[RunRecord]) -> Suite:
    """The suite with a row for each baseline of the records that is registered and that no suite names."""
    named = {row.baseline for row in (*suite.rows, *_rows_of_ours())}
    more = {(record.config.get("baseline") or {}).get("name") for record in records} - named
    rows = tuple(replace(_row({"baseline": name}, None), source={"baseline": name})
                 for name in registry.baselines.names() if name in more)
    return replace(suite, rows=(*suite.rows, *rows)) if rows else suite


def _rows_of_ours() -> Iterator[Row]:
    for name in suite_files.suite_names():
        yield from load_suite(name).rows


def _row(data: Mapping[str, Any], paper: Paper | None) -> Row:
    paper_row = data.get("paper_row")
    pair = (paper_row["backbone"], paper_row["method"]) if paper_row else None
    table, grid = str((paper_row or {}).get("table", 1)), data.get("grid", "core")
    if "baseline" in data:
        return Row({"baseline": {"name": data["baseline"]}}, None, pair,
                   registry.baselines.get(data["baseline"]).seeded, table, grid)
    stated = {part: data[part] for part in PARTS if part in data}
    return Row(stated, data["label"], pair, True, table, grid, _best(data, paper) if paper else {})


def _best(data: Mapping[str, Any], paper: Paper) -> dict[str, dict[str, float]]:
    """What a row's table of best settings says of its last objective, for each of the paper's datasets."""
    if not data.get("best"):
        return {}
    return {dataset: {f"{_last(data)}.{name}": value for name, value in
                      suite_files.best_values(paper.key, dataset, data).items()} for dataset in paper.datasets}


def _last(data: Mapping[str, Any]) -> str:
    """Where flat settings have a row's last objective."""
    last = len(data["objective"]) - 1
    return f"objective.{last}" if last else "objective"


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


def as_stated(record: RunRecord) -> dict[str, Any]:
    """A run's settings in the words of a suite's rows: `objective` and `first_stage`."""
    config = {name: part for name, part in record.config.items() if name not in ("objectives", "uses")}
    if "objectives" in record.config:
        config["objective"] = record.config["objectives"]
    if stage := record.first_stage:
        config["first_stage"] = {"objective": stage["objectives"], "training": stage["training"],
                                 "negatives": stage.get("negatives"), "continues": record.goes_on}
    return config


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
