"""From records to what a report shows: suites, their rows, runs that differ in the seed only, tables that compare."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec_bench.errors import UserError, unknown
from genrec_bench.identity import canonical
from genrec_bench.records import RunRecord

SUITES = Path(__file__).resolve().parents[1] / "suites"
BASELINES = Path(__file__).resolve().parents[2] / "baselines" / "configs"


@dataclass(frozen=True)
class Row:
    """One method of a suite: a baseline, or a backbone trained with objectives.

    objectives: specs `{"name": ...}`. paper_row: the paper's (backbone, method) or None. seeded: False where
    nothing is random, so that one run says it all.
    """

    baseline: str | None = None
    label: str | None = None
    backbone: str | None = None
    objectives: tuple[Mapping[str, Any], ...] = ()
    paper_row: tuple[str, str] | None = None
    seeded: bool = True

    @property
    def key(self) -> str:
        """A short name of the method: the baseline's, or backbone and objectives joined by "+"."""
        return self.baseline or "+".join([self.backbone or "", *(o["name"] for o in self.objectives)])


@dataclass(frozen=True)
class Suite:
    """A declared grid of methods. includes: names of the suites that a collective suite stands for."""

    name: str
    title: str
    paper: str | None
    rows: tuple[Row, ...]
    includes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation over seeds; sd is None for one seed, mean for none."""

    mean: float | None
    sd: float | None
    n: int


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation (n - 1) of one value a seed."""
    if not values:
        return Summary(None, None, 0)
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Group:
    """Runs that are equal in everything but the seed, in order of seeds. label: unique within its block."""

    row: Row
    label: str
    records: tuple[RunRecord, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds there are, in order."""
        return tuple(r.seed for r in self.records)

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings, from the first record; only the seed differs in the others."""
        return self.records[0].config

    def metric(self, key: str) -> Summary:
        """One metric over seeds; n counts the seeds that have it."""
        return summarise(self.metric_values(key))

    def metric_values(self, key: str) -> list[float]:
        """One metric, a value a seed."""
        return [r.metrics[key] for r in self.records if key in r.metrics]

    def timing(self, key: str) -> Summary:
        """One timing (seconds, bytes, users/s) over seeds."""
        return summarise([r.timings[key] for r in self.records if r.timings.get(key) is not None])

    def training(self, key: str) -> Summary:
        """One number about training (epochs, parameters) over seeds."""
        return summarise([r.training[key] for r in self.records if r.training.get(key) is not None])


@dataclass(frozen=True)
class Block:
    """Groups that may be compared: same data, split, evaluation and profile. name: unique within a report."""

    name: str
    dataset: str
    profile: str
    groups: tuple[Group, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that some seeded method has."""
        return tuple(sorted({s for g in self.groups if g.row.seeded for s in g.seeds}))

    def missing(self, group: Group) -> tuple[int, ...]:
        """Seeds that others have and this group has not; none where nothing is random."""
        return tuple(s for s in self.seeds if s not in group.seeds) if group.row.seeded else ()

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of one of its runs; dataset, split and evaluation are those of all."""
        return self.groups[0].config


def suite_names(folder: Path = SUITES) -> list[str]:
    """Names of all suite files, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load_suite(name: str, folder: Path = SUITES) -> Suite:
    """The suite of a name. Raises: UserError with the nearest match, or naming a damaged file."""
    if name not in suite_names(folder):
        raise unknown("suite", name, suite_names(folder))
    path = folder / f"{name}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        head = data["suite"]
        return Suite(head["name"], head.get("title", head["name"]), head.get("paper"),
                     tuple(_row(r) for r in data.get("row", ())), tuple(head.get("includes", ())))
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a suite file ({error}).") from None


def _row(data: Mapping[str, Any]) -> Row:
    paper_row = data.get("paper_row")
    pair = (paper_row["backbone"], paper_row["method"]) if paper_row else None
    if "baseline" in data:
        baseline = _spec(data["baseline"])["name"]
        return Row(baseline=baseline, label=data.get("label"), paper_row=pair,
                   seeded=data.get("seeded", _seeded(baseline)))
    objective = data["objective"]
    specs = objective if isinstance(objective, list) else [objective]
    return Row(label=data["label"], backbone=_spec(data["backbone"])["name"],
               objectives=tuple(_spec(o) for o in specs), paper_row=pair, seeded=data.get("seeded", True))


def _spec(value: Any) -> Mapping[str, Any]:
    return {"name": value} if isinstance(value, str) else value


def _seeded(baseline: str) -> bool:
    """What the baseline's frozen settings say; True where they are not at hand."""
    path = BASELINES / f"{baseline}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")).get("seeded", True) if path.exists() else True


def records_of_row(records: Iterable[RunRecord], row: Row) -> list[RunRecord]:
    """The records that belong to a row of a suite.

    A baseline matches by name, a generative row by its backbone's and objectives' names. Words and switches that
    the row states for an objective must be equal too (they tell variants apart); numbers need not (they tune).
    """
    return [r for r in records if _matches(r.config, row)]


def _matches(config: Mapping[str, Any], row: Row) -> bool:
    baseline = config.get("baseline")
    if row.baseline is not None or baseline is not None:
        return baseline is not None and baseline["name"] == row.baseline
    objectives = config.get("objective", ())
    if config.get("backbone", {}).get("name") != row.backbone or len(objectives) != len(row.objectives):
        return False
    return all(spec.get(key) == value for spec, wanted in zip(objectives, row.objectives, strict=True)
               for key, value in wanted.items() if isinstance(value, (str, bool)))


def arrange(suite: Suite, records: Sequence[RunRecord]) -> list[Block]:
    """The suite's records as comparable blocks, sorted by dataset and profile; rows in the suite's order.

    Nothing that differs in more than the seed is put into one group, nothing of another profile, split or
    evaluation into one block.
    """
    blocks: dict[str, dict[tuple[int, str], list[RunRecord]]] = {}
    for number, row in enumerate(suite.rows):
        for record in records_of_row(records, row):
            group = blocks.setdefault(_block_key(record), {}).setdefault((number, _group_key(record)), [])
            if all(record.run_id != other.run_id for other in group):
                group.append(record)
    ordered = sorted(blocks.items(), key=lambda kv: (dataset_title(_first(kv[1])), _first(kv[1]).profile, kv[0]))
    names = _unique([f"{dataset_title(_first(groups))}, profile {_first(groups).profile}" for _, groups in ordered],
                    [_shared(_first(groups)) for _, groups in ordered])
    return [_block(name, suite, groups) for name, (_, groups) in zip(names, ordered, strict=True)]


def _block(name: str, suite: Suite, groups: Mapping[tuple[int, str], list[RunRecord]]) -> Block:
    keys = sorted(groups)
    sets = [sorted(groups[key], key=lambda r: (r.seed, r.run_id)) for key in keys]
    rows = [suite.rows[number] for number, _ in keys]
    labels = _unique([row.label or runs[0].label for row, runs in zip(rows, sets, strict=True)],
                     [_own(runs[0]) for runs in sets])
    return Block(name, dataset_title(sets[0][0]), sets[0][0].profile,
                 tuple(Group(row, label, tuple(runs)) for row, label, runs in zip(rows, labels, sets, strict=True)))


def dataset_title(record: RunRecord) -> str:
    """The dataset's registered name; for a folder of the user's own its label, marked so that it is no other's."""
    spec = record.config["dataset"]
    name = spec.get("label") or Path(spec.get("path") or "").name
    return f"{name} (folder)" if record.dataset == "folder" and name else record.dataset


def _first(groups: Mapping[Any, list[RunRecord]]) -> RunRecord:
    return next(iter(groups.values()))[0]


def _shared(record: RunRecord) -> dict[str, Any]:
    """What every run of a block has in common."""
    identity = record.identity
    return {"profile": record.profile, "dataset": identity.get("dataset", record.config["dataset"]),
            "split": record.config.get("split", {}), "evaluation": record.config.get("evaluation", {}),
            "data": identity.get("split_fingerprint", ""), "engine": identity.get("engine", "")}


def _own(record: RunRecord) -> dict[str, Any]:
    """What tells a run from the others of its block, the seed apart."""
    source = record.identity if "seed" in record.identity else record.config
    return {k: v for k, v in source.items() if k not in ("seed", "label", "profile")}


def _block_key(record: RunRecord) -> str:
    return canonical(_shared(record))


def _group_key(record: RunRecord) -> str:
    return canonical([record.profile, _own(record)])


def _unique(names: list[str], contents: list[Mapping[str, Any]]) -> list[str]:
    """Names with what differs in brackets, where several have the same name."""
    flat = [flatten(c) for c in contents]
    result = list(names)
    for name in {n for n in names if names.count(n) > 1}:
        same = [i for i, n in enumerate(names) if n == name]
        keys = sorted({k for i in same for k in flat[i] if len({str(flat[j].get(k)) for j in same}) > 1})
        for i in same:
            result[i] = f"{name} ({', '.join(f'{k}={_short(flat[i].get(k))}' for k in keys)})"
    return result


def _short(value: Any) -> str:
    text = str(value)
    return text[:8] if len(text) > 24 else text


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
