"""The leaderboard as plain data: a line a method on some data under a profile, with its runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from genrec_bench.analysis.pruning import Estimate, pruning_rate
from genrec_bench.analysis.ranking import mean_interval
from genrec_bench.core import registry
from genrec_bench.core.lists import grouped
from genrec_bench.experiments.suite_files import load_profile, profile_names, undecided
from genrec_bench.metrics.base import expected_values
from genrec_bench.reporting.families import Test, paired
from genrec_bench.reporting.load import Block, Group
from genrec_bench.reporting.pruning import BEAM, searched
from genrec_bench.reporting.report_data import ReportData
from genrec_bench.reporting.rows import BASELINES, Row, flatten
from genrec_bench.reporting.tables import UNSEEN
from genrec_bench.reporting.verdicts import said
from genrec_bench.results import diagnoses
from genrec_bench.results.diagnoses import Diagnosis
from genrec_bench.results.frame import PASSES
from genrec_bench.results.makers import badge, makers
from genrec_bench.results.records import RecordStore, RunRecord

LEVELS = {"item": "", "id": "id_"}  # how a target is counted, and what begins the names of its metrics
HISTORIES = ("", UNSEEN)  # kept and taken out
MEASURES = ("ndcg", "recall")
K = 10
COSTS = ("parameters", "steps", *PASSES, "train_seconds", "decode_users_per_second", "peak_memory_bytes")
DIGITS = 4  # of a score
POINTS = 50  # of a training curve; of a longer one every n-th epoch is kept
UNNAMED = ("engine", "seed", "dataset", "split_fingerprint", "semantic_ids_fingerprint", "texts_fingerprint",
           "uses")


@dataclass(frozen=True, eq=False)
class _Place:
    """A block as all suites together fill it, and what they say of its rows by `_key`."""

    block: Block
    suites: Mapping[tuple[str, str], Sequence[str]]
    tests: Mapping[tuple[str, str], Test]


def board(materials: Sequence[ReportData]) -> dict[str, Any]:
    """The lines of all rows of some suites, each once, in blocks whose lines may be compared.

    A score is [mean, low, high], rounded to what is shown, with a 95% interval over seeds and users; a row with missing
    seeds has none. Its difference is from cross-entropy on its backbone, as the reports state it where the
    comparison is declared. materials: reports of folders of records. Equal records give equal data.
    """
    store = RecordStore(next(m.results for m in materials))
    known = {run_id: found for m in materials for run_id, found in m.diagnoses.items()}
    blocks = [_block(place, store, known) for place in _places(materials)]
    return {"blocks": sorted(blocks, key=lambda b: (not b["decides"], b["dataset"], b["profile"], b["name"])),
            "k": K, "beam": BEAM}


def _places(materials: Sequence[ReportData]) -> Iterator[_Place]:
    """The blocks of all suites by their data and profile."""
    same = grouped(((m, b) for m in materials for b in m.blocks),
                   lambda of: (of[1].groups[0].runs["data"].iloc[0], of[1].profile))
    for (_, profile), parts in same.items():
        groups = grouped((g for _, block in parts for g in block.groups), _key)
        suites = grouped(((g, m.suite.name) for m, block in parts for g in block.groups), lambda of: _key(of[0]),
                         lambda of: of[1])
        names = {block.name for _, block in parts}
        tests = {(_key(t.group), _key(t.against)): t for material, _ in parts for one in material.families
                 if one.profile == profile for t in one.tests if t.metric == f"ndcg@{K}" and t.block.name in names}
        yield _Place(replace(parts[0][1], groups=tuple(of[0] for of in groups.values())), suites, tests)


def _key(group: Group) -> tuple[str, str]:
    """What a row is within its block, whatever suite names it."""
    return group.runs["method"].iloc[0], group.runs["semantic_ids"].iloc[0]


def _block(place: _Place, store: RecordStore, known: Mapping[str, Diagnosis]) -> dict[str, Any]:
    block = place.block
    own = load_profile(block.profile) if block.profile in profile_names() else {}
    found = searched(block, known)
    lost = {_key(row.group): row.estimate(pruning_rate, k=BEAM, beam=BEAM) for row in found.rows
            if BEAM in found.beams} if found else {}
    lines = [{**line, "lost": _told(lost.get(key))} for family, groups in block.families().items()
             for key, line in _lines(place, groups, block.cross_entropy(family), store)]
    lines.sort(key=lambda line: (-line["scores"]["item"].get(f"ndcg@{K}", [-1.0])[0], line["label"]))
    return {"name": block.name, "dataset": block.dataset, "profile": block.profile, "title": own.get("title"),
            "decides": not undecided(block.profile), "users": block.groups[0].mean("users"), "seeds": block.seeds,
            "lines": lines}


def _lines(place: _Place, groups: Sequence[Group], reference: Group | None,
           store: RecordStore) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """The rows of a backbone, or the baselines, beside its cross-entropy; each with its key."""
    values = {_key(g): _values(g, store) for g in groups if place.block.stands(g)}
    for group in groups:
        own, scores = values.get(_key(group), {}), {level: {} for level in LEVELS}
        beside = own and reference is not None and _key(reference) in values and group is not reference
        pair = _both(group, reference, values, store) if beside else []
        for level, found in own.items():
            scores[level] = {name: _told(mean_interval(array)) for name, array in found.items()}
            if pair:
                test = place.tests.get((_key(group), _key(reference))) if level == "item" else None
                scores[level] |= _differences(*(one[level] for one in pair), test)
        yield _key(group), _line(place, group, reference, scores, store)


def _both(group: Group, reference: Group, values: Mapping[tuple[str, str], Any], store: RecordStore) -> list[Any]:
    """The values of a row and its reference, of the seeds that both have; [] without such a seed."""
    pair = paired(group, reference)
    if pair is None:
        return []
    return ([_values(g, store) for g in pair.compared] if any(pair.left) else
            [values[_key(g)] for g in (group, reference)])


def _values(group: Group, store: RecordStore) -> dict[str, dict[str, np.ndarray]]:
    """(seeds, users) of every score, by level."""
    found: dict[str, dict[str, np.ndarray]] = {level: {} for level in LEVELS}
    for history in HISTORIES:
        items = [store.read_ranks(r, unseen=history == UNSEEN)
                 for r in (group.records if group.row.seeded else group.records[:1])]
        by_id = [replace(r, ranks=r.id_ranks, ties=np.ones_like(r.ties)) for r in items]  # semantic IDs by themselves
        for (level, ranked), measure in product((("item", items), ("id", by_id)), MEASURES):
            found[level][f"{history}{measure}@{K}"] = np.stack([expected_values(measure, r, K) for r in ranked])
    return found


def _differences(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray],
                 test: Test | None) -> dict[str, Any]:
    """NDCG minus that of the reference, under both histories; where the kept one is declared, as its test has it."""
    told: dict[str, Any] = {}
    for history in HISTORIES:
        gap = ours[name := f"{history}ndcg@{K}"] - theirs[name]
        told[f"{history}difference"] = _told(mean_interval(gap)) if gap.any() else [0.0, 0.0, 0.0]
    if test is not None:
        c = test.comparison
        told |= {"difference": [_rounded(v) for v in (c.difference, *c.interval)],
                 "verdict": said(test).replace("*", "")}
    return told


def _line(place: _Place, group: Group, reference: Group | None, scores: dict[str, Any],
          store: RecordStore) -> dict[str, Any]:
    missing = () if place.block.stands(group) else place.block.missing(group)
    first, counts = group.records[0], Counter(filter(None, map(badge, group.records)))
    seconds, before = group.mean("total_seconds"), group.mean("first_stage_seconds")  # of the training it goes on from
    return {
        "id": f"{first.run_id}.{place.block.profile}", "label": group.label, "groups": _groups(group.row),
        "backbone": group.row.spelling, "seeded": group.row.seeded, "missing": missing,
        "against": None if reference is None else reference.label, "scores": scores,
        "seconds": None if seconds is None else _rounded(seconds + (before or 0.0), 1),
        "device": sorted({d.partition(" ")[0] for d in group.values("device")}),
        "cost": {name: _rounded(group.mean(name), 1) for name in COSTS if group.mean(name) is not None},
        "badges": [name if n == len(group.records) else f"{name}: {n} of {len(group.records)}"
                   for name, n in sorted(counts.items())],
        "suites": place.suites[_key(group)], "settings": _settings(first),
        "runs": [_run(record, store) for record in group.records]}


def _groups(row: Row) -> list[str]:
    """What a row can be filtered by: baselines, or the groups of its last stage's objectives beside cross-entropy."""
    if row.baseline:
        return [BASELINES.lower()]
    classes = [registry.objectives.get(name) for name in row.stages[-1]]
    named = list(dict.fromkeys(cls.group or cls.name for cls in classes))
    return [name for name in named if name != registry.objectives.get("cross_entropy").group] or named


def _settings(record: RunRecord) -> list[str]:
    """What differs from the defaults, `training.epochs = 4`, from the parts that name the run."""
    flat = flatten({name: part for name, part in record.identity.items() if name not in UNNAMED})
    return [f"{key} = {str(value).lower() if isinstance(value, bool) else value}" for key, value in flat.items()
            if key.rpartition(".")[2] != "version"]


def _run(record: RunRecord, store: RecordStore) -> dict[str, Any]:
    path, provenance = store.path(record), record.provenance
    files = [path, path.with_name(f"{path.stem}.ranks.npz"), diagnoses.path_of(store, record)]
    scores = {level: {name: _rounded(record.metrics.get(f"{UNSEEN * name.startswith(UNSEEN)}{begin}"
                                                        f"{name.removeprefix(UNSEEN)}"))
                      for name in (f"{h}{m}@{K}" for h in HISTORIES for m in MEASURES)}
              for level, begin in LEVELS.items()}
    return {"id": record.run_id, "seed": record.seed, "scores": scores, "curve": _curve(record),
            "best": record.training.get("best_epoch"), "epochs": record.training.get("epochs"),
            "makers": sorted(makers(record)),
            "uses": sorted(record.identity.get("uses", {}).values()), "command": provenance.get("command"),
            "seconds": _rounded(record.timings.get("total_seconds"), 1),
            "machine": [provenance.get(name) for name in ("device", "cpu", "threads")],
            "code": [provenance.get(name) for name in ("genrec_bench", "torch", "commit", "dirty")],
            "files": [str(p.relative_to(store.root)) for p in files if p.exists()]}


def _curve(record: RunRecord) -> list[list[float | None]]:
    """[epoch, loss, validation NDCG@10] of at most about POINTS epochs, the best and the last among them."""
    curve = record.training.get("curve") or []
    step, kept = max(1, math.ceil(len(curve) / POINTS)), {record.training.get("best_epoch"), len(curve)}
    return [[e["epoch"], _rounded(e.get("loss")), _rounded(e.get("valid_ndcg@10"))] for e in curve
            if e["epoch"] % step == 0 or e["epoch"] in kept]


def _told(e: Estimate | None) -> list[float | None] | None:
    return None if e is None or not e.n else [_rounded(v) for v in (e.value, e.low, e.high)]


def _rounded(value: float | None, digits: int = DIGITS) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
