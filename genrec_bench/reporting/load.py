"""From records to what a report shows: runs that differ in the seed only, tables that compare."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from genrec_bench.core.files import canonical
from genrec_bench.experiments import suite_files
from genrec_bench.reporting.rows import Row, Suite, flatten, row_of
from genrec_bench.results import diagnoses
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.results.records import RecordStore, RunRecord

_Placed = tuple[int, dict[str, Any], RunRecord]  # a row's number, its settings that the run has otherwise, the run
MOST_SHOWN = 3  # settings in the brackets of a label


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
    n, mean = len(values), statistics.fmean(values)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None
    return Summary(mean, sd, n)


@dataclass(frozen=True)
class Group:
    """Runs that are equal in everything but the seed, in order of seeds. label: unique within its block.

    changed: the runs' values of settings that the row states otherwise.
    """

    row: Row
    label: str
    records: tuple[RunRecord, ...]
    changed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The label without the backbone that it stands under."""
        return self.label.removeprefix(f"{self.row.spelling} + ")

    @cached_property
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

    def first_stages(self, *keys: str) -> list[float]:
        """What one number about training was in the first stage, a value a seed; empty where there was none."""
        return [value for r in self.records if (value := _at(r.training, "first_stage", *keys)) is not None]

    def all_stages(self, *keys: str) -> list[float]:
        """One number about training summed over the stages, a value a seed; only seeds of which all is known."""
        stages = [[_at(r.training, *keys), *([_at(r.training, "first_stage", *keys)] if "first_stage" in r.config
                                             else [])] for r in self.records]
        return [sum(values) for values in stages if None not in values]

    def train_seconds(self) -> list[float]:
        """Seconds of training, of all stages, a value a seed."""
        return [r.timings["train_seconds"] + r.timings.get("first_stage_seconds", 0.0) for r in self.records
                if r.timings.get("train_seconds") is not None]


def _at(data: Any, *keys: str) -> Any:
    """A number in nested tables, or None."""
    for key in keys:
        data = (data or {}).get(key)
    return data


@dataclass(frozen=True)
class Block:
    """Groups that may be compared: same data, split, evaluation and profile. name: unique within a report.

    Baselines stand first, then the backbones one after the other, each in the order of the suite.
    Runs of a method that is not seeded may have been made by another profile, which changes nothing about them.
    expected: the seeds that a whole row has, see `expected_seeds`; () = every seed that some row has. left_out: runs
    with other seeds, in words.
    """

    name: str
    dataset: str
    profile: str
    groups: tuple[Group, ...]
    expected: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that a whole row has."""
        return self.expected or tuple(sorted({s for g in self.groups if g.row.seeded for s in g.seeds}))

    def missing(self, group: Group) -> tuple[int, ...]:
        """Seeds that a whole row has and this group has not; none where nothing is random."""
        return tuple(s for s in self.seeds if s not in group.seeds) if group.row.seeded else ()

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of one of its runs; dataset, split and evaluation are those of all."""
        return self.groups[0].config

    def families(self) -> dict[str, list[Group]]:
        """The groups under their headings, baselines and each backbone, in order."""
        found: dict[str | None, list[Group]] = {}
        for group in self.groups:
            found.setdefault(group.row.backbone, []).append(group)
        return {min((g.row.spelling for g in same), key=lambda s: s == backbone): same
                for backbone, same in found.items()}

    def cross_entropy(self, family: str) -> Group | None:
        """The row that a backbone's objectives are measured by: cross-entropy alone, in one stage."""
        return self._plainest(family, (("cross_entropy",),))

    def control(self, family: str) -> Group | None:
        """The row that a backbone's two-stage rows are measured by: cross-entropy after cross-entropy."""
        return self._plainest(family, (("cross_entropy",), ("cross_entropy",)))

    def _plainest(self, family: str, stages: tuple[tuple[str, ...], ...]) -> Group | None:
        """The first row with these objectives; of its variants the one without another setting in its label."""
        same = [g for g in self.families()[family] if g.row.stages == stages]
        return min(same, key=lambda g: (g.row is not same[0].row, g.label != g.row.label), default=None)


def arrange(suite: Suite, records: Sequence[RunRecord]) -> list[Block]:
    """The suite's records as comparable blocks, sorted by dataset and profile; rows in the suite's order.

    Nothing that differs in more than the seed is put into one group, nothing of another split or evaluation into one
    block. A method that is not seeded stands in the blocks of every profile with its data: its runs are named and
    stored without the profile.
    """
    placed = [(found, r) for r in {r.run_id: r for r in records}.values() if (found := row_of(r.config, suite.rows))]
    seeded = {(canonical(_shared(r)), r.profile) for (number, _), r in placed if suite.rows[number].seeded}
    expected = expected_seeds(records)
    single: dict[str, str] = {}  # data of unseeded methods only -> the first profile by name
    for (number, _), record in placed:
        if not suite.rows[number].seeded:
            data = canonical(_shared(record))
            single[data] = min(single.get(data, record.profile), record.profile)
    blocks: dict[tuple[str, str], list[_Placed]] = {}
    for (number, changed), record in placed:
        data = canonical(_shared(record))
        homes = [(data, record.profile)]
        if not suite.rows[number].seeded:
            homes = [key for key in seeded if key[0] == data] or [(data, single[data])]
        for home in homes:
            blocks.setdefault(home, []).append((number, changed, record))
    ordered = sorted(blocks.items(), key=lambda kv: (dataset_title(kv[1][0][2]), kv[0][1], kv[0][0]))
    names = _block_names([f"{dataset_title(runs[0][2])}, profile {profile}" for (_, profile), runs in ordered],
                         [_shared(runs[0][2]) for _, runs in ordered])
    return [_block(name, profile, suite, runs, expected.get((data, profile), ()))
            for name, ((data, profile), runs) in zip(names, ordered, strict=True)]


def expected_seeds(records: Iterable[RunRecord]) -> dict[tuple[str, str], tuple[int, ...]]:
    """Which seeds a row has to have, by data and profile, whatever suite it belongs to.

    Those of the profile's file that any seeded run has, and those that half of the methods have: so no suite calls a
    row whole which another calls incomplete, and a row with more seeds makes no other incomplete. Of a profile without
    a file, and where no seed is such a one, every seed there is.
    """
    found: dict[tuple[str, str], dict[int, set[str]]] = {}
    for record in records:
        if is_seeded(record):
            seeds = found.setdefault((canonical(_shared(record)), record.profile), {})
            seeds.setdefault(record.seed, set()).add(canonical(_own(record)))
    known = {p: set(suite_files.load_profile(p)["seeds"]) for p in suite_files.profile_names()}
    expected = {}
    for (data, profile), seeds in found.items():
        methods = len(set().union(*seeds.values()))
        common = [s for s, having in seeds.items() if s in known.get(profile, seeds) or 2 * len(having) >= methods]
        expected[data, profile] = tuple(sorted(common or seeds))
    return expected


def is_seeded(record: RunRecord) -> bool:
    """Whether another seed would give a run other numbers."""
    name = (record.config.get("baseline") or {}).get("name")
    return name not in suite_files.baseline_names() or suite_files.load_baseline(name)["seeded"]


def _block_names(titles: list[str], shared: list[dict[str, Any]]) -> list[str]:
    """Titles made unique by settings, and by the data's fingerprints only where settings do not tell blocks apart."""
    settings = [{k: v for k, v in s.items() if k not in ("data", "histories")} for s in shared]
    enough = len({canonical([t, s]) for t, s in zip(titles, settings, strict=True)}) == len(titles)
    return _unique(titles, settings if enough else shared)


def _block(name: str, profile: str, suite: Suite, placed: Sequence[_Placed], expected: tuple[int, ...]) -> Block:
    extra = [r for number, _, r in placed if suite.rows[number].seeded and r.seed not in expected]
    placed = [one for one in placed if one[2] not in extra]
    groups: dict[tuple[int, str], list[RunRecord]] = {}
    changes: dict[tuple[int, str], dict[str, Any]] = {}
    for number, changed, record in placed:
        key = number, canonical(_own(record))
        groups.setdefault(key, []).append(record)
        changes[key] = changed
    backbones = list(dict.fromkeys([None, *(suite.rows[number].backbone for number, _ in sorted(groups))]))
    keys = sorted(groups, key=lambda key: (backbones.index(suite.rows[key[0]].backbone), key[0],
                                           len(key[1]), key[1]))  # the variant with fewest settings first
    sets = [sorted(groups[key], key=lambda r: (r.seed, r.run_id)) for key in keys]
    rows = [suite.rows[number] for number, _ in keys]
    labels = _unique([row.label or runs[0].label for row, runs in zip(rows, sets, strict=True)],
                     [_own(runs[0]) for runs in sets], [changes[key] for key in keys])
    return Block(name, dataset_title(sets[0][0]), profile,
                 tuple(Group(row, label, tuple(runs), changes[key])
                       for row, label, runs, key in zip(rows, labels, sets, keys, strict=True)), expected,
                 tuple(sorted(f"seed {r.seed} of {r.label}" for r in extra)))


def diagnoses_of(blocks: Sequence[Block], results: Path) -> dict[str, Diagnosis]:
    """The diagnoses beside the records of some blocks below `results`, by run_id. Raises: UserError for a damaged one.
    """
    store = RecordStore(results)
    records = {r.run_id: r for b in blocks for g in b.groups for r in g.records}
    found = {run_id: diagnoses.find(store, record) for run_id, record in records.items()}
    return {run_id: diagnosis for run_id, diagnosis in found.items() if diagnosis is not None}


def dataset_title(record: RunRecord) -> str:
    """The dataset's registered name; for a folder of the user's own its label, marked so that it is no other's."""
    spec = record.config["dataset"]
    if spec["name"] != "folder":
        return spec["name"]
    name = spec.get("label") or Path(spec.get("path") or "").name
    return f"{name} (folder)" if name else "folder"


def _shared(record: RunRecord) -> dict[str, Any]:
    """What every run of a block has in common, the profile apart."""
    identity = record.identity
    return {"dataset": identity.get("dataset", record.config["dataset"]),
            "split": record.config.get("split", {}), "evaluation": record.config.get("evaluation", {}),
            "data": identity.get("split_fingerprint", ""), "histories": identity.get("history_fingerprint") or "",
            "engine": identity.get("engine", "")}


def _own(record: RunRecord) -> dict[str, Any]:
    """What tells a run from the others of its block, the seed apart."""
    source = record.identity if "seed" in record.identity else record.config
    return {k: v for k, v in source.items() if k not in ("seed", "label", "profile")}


def _unique(names: list[str], contents: list[Mapping[str, Any]],
            changes: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Names with what differs in brackets, where several have the same name or a row's own settings are changed.

    What has none of the settings in which others of its name differ keeps the plain name: a setting that was added
    later is not in the contents at its default.
    """
    flat = [{**flatten(c), **extra} for c, extra in zip(contents, changes or [{}] * len(names), strict=True)]
    result = list(names)
    for name in dict.fromkeys(names):
        same = [i for i, n in enumerate(names) if n == name]
        keys = sorted({k for i in same for k in flat[i] if len({str(flat[j].get(k)) for j in same}) > 1})
        telling = _telling(keys, [flat[i] for i in same])
        plain = [i for i in same if keys and all(flat[i].get(k) is None for k in keys)]
        for i in same:
            if plain == [i]:
                continue
            extra = sorted(changes[i]) if changes else []
            shown = list(dict.fromkeys([*extra, *telling]))[:MOST_SHOWN]
            more = len({*extra, *keys}) - len(shown)
            parts = [f"{k}={_short(flat[i].get(k))}" for k in shown] + ([f"and {more} more"] if more else [])
            result[i] = f"{name} ({', '.join(parts)})" if parts else name
    return [f"{n}, variant {result[:i].count(n) + 1}" if result.count(n) > 1 else n for i, n in enumerate(result)]


def _telling(keys: Sequence[str], flat: Sequence[Mapping[str, Any]]) -> list[str]:
    """At most MOST_SHOWN of the keys, those that tell most of the variants apart."""
    chosen: list[str] = []
    while len(chosen) < min(MOST_SHOWN, len(keys)):
        chosen.append(max((k for k in keys if k not in chosen),
                          key=lambda k: len({tuple(str(f.get(c)) for c in (*chosen, k)) for f in flat})))
    return sorted(chosen)


def _short(value: Any) -> str:
    text = str(value)
    return text[:8] if len(text) > 24 else text
